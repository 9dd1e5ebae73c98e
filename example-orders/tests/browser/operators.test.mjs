// What an operator does about trouble, on the pages: a payment service that fails, a checkout that waits for a person, and messages that
// were refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { visiting } from './browser.mjs';
import { giveReason, signIn, until } from './pages.mjs';
import { begin, browser, service, start } from './service.mjs';
import { checkout, kettle, standing, stuck } from './trouble.mjs';

begin();

const row = (page, policy) => page.locator(`tr[data-policy="${policy}"]`);

test('a payment service that fails opens its breaker, and what it cannot do any more is undone', () =>
  visiting(browser, {}, async (page) => {
    await signIn(page, service.url, 'operator', '/dashboard/policies/payment');
    const faults = page.locator('form[action$="/faults"]');
    await faults.getByLabel('Share of requests that fail').fill('1');
    await giveReason(faults, 'a drill <b>', 'Change it');
    // What was done is on the page, with who and why.
    await page.getByText('faults of `payment`: 100 % fail').waitFor();
    await page.getByText('because: a drill <b>').waitFor();
    await page.getByText('by operator', { exact: true }).waitFor();

    // The list follows by itself, while checkouts fail.
    await page.goto(`${service.url}/dashboard/policies`);
    await row(page, 'payment').getByText('closed', { exact: true }).first().waitFor();
    const begun = await Promise.all(Array.from({ length: 6 }, () => checkout(service)));
    await row(page, 'payment').getByText('open', { exact: true }).first().waitFor();
    assert.ok(begun.every(({ answer }) => answer === 'pending, will retry'), JSON.stringify(begun));

    // It is well again. The breaker would find that out later, so somebody holds it closed.
    await page.goto(`${service.url}/dashboard/policies/payment`);
    await faults.getByLabel('Share of requests that fail').fill('0');
    await giveReason(faults, 'the drill is over', 'Change it');
    await page.getByText('faults of `payment`: none').waitFor();
    const mode = page.locator('form[action$="/mode"]');
    await mode.getByLabel('closed', { exact: true }).check();
    await giveReason(mode, 'it is well again', 'Change it');
    await page.locator('main .head').getByText('closed, held').waitFor();
    await page.getByRole('cell', { name: 'by hand' }).first().waitFor();

    // Two of those that wait are given up together: each has its own result.
    const [one, other] = begun;
    const chosen = [one, other].map(({ id }) => `saga=alpha/${id}`).join('&');
    await signIn(page, service.url, 'alpha-operator', `/dashboard/sagas/decide?${chosen}`);
    const watching = await page.context().newPage();
    await watching.goto(`${service.url}/dashboard/sagas/alpha/${one.id}`);
    await watching.locator('.head').getByText('running').waitFor();
    await page.getByLabel('cancel', { exact: true }).check();
    await giveReason(page.locator('main form'), 'the customer has left', 'See what it would do');
    await page.getByRole('heading', { name: 'would do' }).waitFor();
    assert.equal(await page.getByText('the undo of charge is called').count(), 2);
    assert.equal((await standing(service, one.order)).status, 'running', 'a dry run has changed something');
    await page.getByRole('button', { name: 'Do it' }).click();
    await page.getByRole('status').getByText('for 2 of 2').waitFor();

    // The page of the checkout follows until it is undone.
    await watching.getByText('alpha-operator: cancel, because the customer has left').waitFor();
    await watching.locator('.head').getByText('compensated').waitFor();
    assert.equal((await standing(service, one.order)).status, 'compensated');
  }));

test('somebody decides about a checkout that is stuck, after a look at what that would do', async () => {
  const { order, id } = await stuck(service);
  await visiting(browser, { width: 'phone' }, async (page) => {
    await signIn(page, service.url, 'operator', '/dashboard/sagas');
    // An operator of all shops has chosen none: those of all are there.
    await page.getByRole('checkbox', { name: `Choose ${id}` }).check();
    await page.getByRole('button', { name: 'Decide about the chosen ones' }).click();
    // What has passed its pivot cannot be undone, and that is not offered.
    assert.equal(await page.getByLabel('compensate', { exact: true }).isDisabled(), true);
    await page.getByText(/Not here: .* has passed its pivot/).first().waitFor();
    await page.getByLabel('retry', { exact: true }).check();
    await giveReason(page.locator('main form'), 'the carrier is open again', 'See what it would do');
    await page.getByText('operator: retry, because the carrier is open again').waitFor();
    assert.equal((await standing(service, order)).status, 'stuck', 'a dry run has changed something');
    await page.getByRole('button', { name: 'Do it' }).click();
    await page.getByRole('status').getByText('for 1 of 1').waitFor();
    await page.getByRole('link', { name: id }).click();
    await until('a completed checkout', async () => (await standing(service, order)).status === 'completed');
    await page.reload();
    await page.locator('.head').getByText('completed').first().waitFor();
    await page.getByText('operator: retry, because the carrier is open again').waitFor();
  });
});

test('messages that were refused are set aside, and are sent when somebody retries them', async () => {
  await service.break('notification', { closed: true });
  const { body: placed } = await service.api('alpha-alice').post('/orders', kettle);
  await visiting(browser, {}, async (page) => {
    await signIn(page, service.url, 'operator', '/dashboard/projections');
    const aside = page.getByRole('row', { name: /^notifications/ }).getByRole('cell').last();
    await until('a stream that is set aside', async () => Number(await aside.textContent()) > 0);
    await page.getByRole('link', { name: 'notifications' }).click();
    const parked = page.getByRole('article').filter({ hasText: placed.order_id });
    await until('that of the order', async () => { await page.reload(); return await parked.count() === 1; });
    await giveReason(parked, 'once more', 'Retry');
    // It is refused again, and the attempt is remembered.
    await parked.getByText('because: once more').waitFor();
    await service.break('notification', {});
    await giveReason(parked, 'it takes messages again', 'Retry');
    await until('the stream that goes on', async () => { await page.reload(); return await parked.count() === 0; });
  });
});

test('all streams that are set aside are retried at once', async () => {
  await service.break('notification', { closed: true });
  const orders = [];
  for (let n = 0; n < 3; n++) orders.push((await service.api('alpha-alice').post('/orders', kettle)).body.order_id);
  await visiting(browser, {}, async (page) => {
    await signIn(page, service.url, 'operator', '/dashboard/projections/notifications');
    const parked = page.getByRole('article');
    // The page follows by itself.
    for (const order of orders) await parked.filter({ hasText: order }).waitFor();
    await service.break('notification', {});
    await giveReason(page.locator('form').filter({ hasText: 'Retry all' }), 'it takes messages again', 'Retry all 3');
    await until('all of them to go on', async () => await parked.count() === 0);
    await page.getByText('retry of 3 streams in `notifications`').waitFor();
  });
});

test('a page says that it has no connection, until it has one again', async () => {
  const own = await start();
  await visiting(browser, { expected: /Failed to load resource|htmx:sse:error|ERR_/ }, async (page) => {
    await signIn(page, own.url, 'operator', '/dashboard/overview');
    await page.locator('h1').waitFor();
    await own.end();
    await page.getByText('No connection to the shop since').waitFor();
  });
});

test('a page whose service was started anew leads to where one signs in, and a form to its page', async () => {
  const first = await start();
  await visiting(browser, { expected: /Failed to load resource|htmx:sse:error|htmx:response:error|ERR_/ }, async (page) => {
    await signIn(page, first.url, 'operator', '/dashboard/overview');
    await page.getByText('All times are UTC').waitFor();
    await first.end();
    const next = await start({}, new URL(first.url).host);
    await page.waitForURL((at) => at.pathname === '/dashboard/sign-in');
    assert.equal(new URL(page.url()).searchParams.get('next'), '/dashboard/overview');
    await next.end();
  });
});

test('after an operation the focus is where it is said what came of it', () =>
  visiting(browser, {}, async (page) => {
    await signIn(page, service.url, 'operator', '/dashboard/policies/reporting');
    const mode = page.locator('form[action$="/mode"]');
    await mode.getByLabel('open', { exact: true }).check();
    await giveReason(mode, 'too slow', 'Change it');
    await page.locator('#operations:focus').waitFor();
    // What somebody holds is on the first page, and is no breaker that has opened by itself.
    await page.goto(`${service.url}/dashboard/overview`);
    await page.getByText('held open', { exact: true }).waitFor();
    await page.goto(`${service.url}/dashboard/policies/reporting`);
    await mode.getByLabel('normal', { exact: true }).check();
    await giveReason(mode, 'it is well', 'Change it');
  }));

test('a read model is paused and goes on, and the page says by whom', () =>
  visiting(browser, {}, async (page) => {
    await signIn(page, service.url, 'operator', '/dashboard/projections/customers');
    await giveReason(page.locator('form[action$="/control"]'), 'a backup', 'Pause');
    await until('the pause', async () => { await page.reload(); return await page.locator('.head').getByText('paused').count() === 1; });
    await page.getByText('paused by `operator: a backup`').waitFor();
    await giveReason(page.locator('form[action$="/control"]'), 'the backup is done', 'Resume');
    await until('the end of the pause', async () => { await page.reload(); return await page.locator('.head').getByText('up to date').count() === 1; });
    assert.deepEqual(await page.locator('#operations ~ ol .what').allTextContents(), ['resume `customers`', 'pause `customers`']);
  }));

test('every read model can be paused', () =>
  visiting(browser, {}, async (page) => {
    await signIn(page, service.url, 'operator', '/dashboard/projections');
    const { body } = await service.api('operator').get('/operator/projections');
    const names = await page.locator('tbody th a').allTextContents();
    for (const { name } of body.projections) assert.ok(names.includes(name), `${name} is not among ${names}`);
    for (const name of names) {
      await page.goto(`${service.url}/dashboard/projections/${name}`);
      const kind = await page.locator('.head .quiet').textContent();
      assert.equal(await page.getByRole('button', { name: 'Pause' }).count(), kind === 'read model' ? 1 : 0, name);
    }
  }));
