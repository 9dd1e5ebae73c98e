// A service with something of everything that an operator has to look at: a checkout that waits for a person, one that was undone, one
// that is completed, and messages that were refused.

import { until } from './pages.mjs';

/** What one orders. */
export const kettle = { lines: [{ product: 'kettle', quantity: 1, price: { minor: 4900, currency: 'EUR' } }] };

/** Begins a checkout of alice; gives where it stands after the wait of the API. */
export async function checkout(service, body = kettle) {
  const { body: standing } = await service.api('alpha-alice').post('/checkouts', body);
  return standing;
}

/** Where the checkout of an order stands. */
export async function standing(service, order) {
  const { body } = await service.api('alpha-operator').get(`/orders/${order}/checkout`);
  return body.standing;
}

/** A checkout that is stuck: behind its pivot the carrier refuses the parcel. */
export async function stuck(service) {
  await service.break('shipping', { closed: true });
  const { order, id } = await checkout(service);
  await until('a stuck checkout', async () => (await standing(service, order)).status === 'stuck');
  await until('its row', async () => (await service.api('alpha-operator').get('/checkouts/stuck')).body.checkouts.some((one) => one.id === id));
  await service.break('shipping', {});
  return { order, id };
}

/** All of it. */
export async function trouble(service) {
  await checkout(service);
  await service.break('stock', { closed: true });
  await checkout(service);
  await service.break('stock', {});
  await service.break('notification', { closed: true });
  const { order, id } = await stuck(service);
  const { body: { events } } = await service.api('alpha-admin').get(`/orders/${order}/history`);
  return { order, stuck: id, then: events[1].at };
}
