// Texts of users are shown as texts, whatever they are: none becomes an element, a script or a link.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fits, visiting } from './browser.mjs';
import { signIn } from './pages.mjs';
import { begin, browser, service } from './service.mjs';
import { stuck } from './trouble.mjs';

const TEXTS = [
  '<script>document.title = "hit"</script>',
  '"><img src=x onerror=document.title="hit">',
  "'><svg onload=document.title='hit'>",
  '</title></textarea></style><script>document.title = "hit"</script>',
  'javascript:document.title="hit"',
  '{{document.title="hit"}} ${document.title="hit"} <%= 1 %>',
  '&lt;b&gt; &amp;amp; &#60;i&#62;',
  '\u202Eright to left\u202C and \u2066isolated\u2069, zero\u200Bwidth, \u{1F469}\u200D\u{1F373}',
  'a'.repeat(180),
  '" autofocus onfocus=document.title="hit" x="',
];

begin();

test('names of products and customers, and reasons', async () => {
  const alice = service.api('alpha-alice');
  for (const text of TEXTS) {
    const price = { minor: 100, currency: 'EUR' };
    const { body: { order_id: order } } = await alice.post('/orders', { lines: [{ product: text, quantity: 1, price }] });
    await alice.post(`/orders/${order}/cancel`, { reason: text });
    await alice.put('/customers/alice', { name: text.slice(0, 100) });
    await visiting(browser, { width: 'phone' }, async (page) => {
      await signIn(page, service.url, 'alpha-admin', `/dashboard/orders/${order}`);
      await page.getByText(text).first().waitFor();
      await clean(page, text);
      await page.getByLabel('Reason').fill('a call');
      await page.getByRole('button', { name: 'Show personal data' }).click();
      await page.goto(`${service.url}/dashboard/orders?q=${encodeURIComponent(order)}`);
      await page.getByText(text.slice(0, 100)).first().waitFor();
      await clean(page, text);
      await page.goto(`${service.url}/dashboard/orders?q=${encodeURIComponent(text.slice(0, 100))}`);
      await clean(page, text);
    });
  }
});

test('reasons of operators', async () => {
  const { id } = await stuck(service);
  await visiting(browser, { width: 'phone' }, async (page) => {
    await signIn(page, service.url, 'operator', '/dashboard/policies/stock');
    for (const text of TEXTS.map((text) => text.slice(0, 150))) {
      const form = page.locator('form[action$="/mode"]');
      await form.getByLabel('Reason').fill(text);
      await form.getByRole('button', { name: 'Change it' }).click();
      await page.getByText(`because: ${text}`).waitFor();
    }
    await clean(page);
    for (const text of TEXTS.map((text) => text.slice(0, 150))) {
      await page.goto(`${service.url}/dashboard/sagas/decide?saga=alpha/${id}`);
      await page.locator('main form').getByLabel('Reason').fill(text);
      await page.getByRole('button', { name: 'See what it would do' }).click();
      await page.getByText(`operator: retry, because ${text}`).waitFor();
      await clean(page);
    }
    await page.getByRole('button', { name: 'Do it' }).click();
    await page.getByRole('status').getByText('for 1 of 1').waitFor();
    await clean(page);
  });
});

/** No text has become anything else: no script has run, and nothing is there that the page does not have by itself. */
async function clean(page) {
  assert.doesNotMatch(await page.title(), /^hit/);
  assert.equal(await page.locator('main :is(script, img, style, iframe, object, [onerror], [onload], [onfocus], a[href^="javascript:" i])').count(), 0);
  await fits(page);
}
