// All pages of the dashboard, and how one gets to them.

/** Name, path, and the key that is signed in; the path may have what is known of a service only after something was done with it. */
export const PAGES = [
  { name: 'sign-in', path: '/dashboard/sign-in' },
  { name: 'not-found', path: '/dashboard/none', key: 'alpha-admin' },
  { name: 'overview', path: '/dashboard/overview', key: 'operator' },
  { name: 'order', path: ({ order }) => `/dashboard/orders/${order}`, key: 'alpha-admin' },
  { name: 'order-past', path: ({ order, then }) => `/dashboard/orders/${order}?as_of=${encodeURIComponent(then)}`, key: 'alpha-admin' },
  { name: 'analytics', path: '/dashboard/analytics', key: 'alpha-admin' },
  { name: 'orders', path: '/dashboard/orders', key: 'alpha-admin' },
  { name: 'checkouts', path: '/dashboard/sagas', key: 'alpha-operator' },
  { name: 'checkouts-ended', path: '/dashboard/sagas?which=ended', key: 'operator' },
  { name: 'checkouts-running', path: '/dashboard/sagas?which=running', key: 'alpha-operator' },
  { name: 'checkout', path: ({ stuck }) => `/dashboard/sagas/alpha/${stuck}`, key: 'alpha-operator' },
  { name: 'decide', path: ({ stuck }) => `/dashboard/sagas/decide?saga=alpha/${stuck}`, key: 'alpha-operator' },
  { name: 'projections', path: '/dashboard/projections', key: 'operator' },
  { name: 'projection', path: '/dashboard/projections/notifications', key: 'operator' },
  { name: 'policies', path: '/dashboard/policies', key: 'operator' },
  { name: 'policy', path: '/dashboard/policies/payment', key: 'operator' },
];

/** Signs in with a key of the demonstration, as a person does; the next page is that of `next`. */
export async function signIn(page, url, key, next = '/dashboard') {
  await page.goto(`${url}/dashboard/sign-in?next=${encodeURIComponent(next)}`);
  await page.getByLabel('API key').fill(`${key}.demo`);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.waitForURL((at) => !at.pathname.endsWith('/sign-in'));
}

/** The cookie of a session of a key, for a browser that need not sign in as a person does. */
export async function session(url, key) {
  const answer = await fetch(`${url}/dashboard/sign-in`, {
    method: 'POST',
    redirect: 'manual',
    headers: { origin: url, 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({ key: `${key}.demo` }),
  });
  const [name, value] = answer.headers.get('set-cookie').split(';')[0].split('=');
  return { name, value, url: `${url}/dashboard`, httpOnly: true, sameSite: 'Strict' };
}

/** Fills a form with a reason, and sends it by its button; over when the service has answered. */
export async function giveReason(form, reason, button) {
  await form.getByLabel('Reason').fill(reason);
  const answered = form.page().waitForResponse((response) => response.request().method() === 'POST');
  await form.getByRole('button', { name: button, exact: true }).click();
  await answered;
}

/** Waits until `look` gives something; what it gives. The page is asked again and again, as by somebody who waits for something. */
export async function until(what, look, longest = 20_000) {
  const end = Date.now() + longest;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    if (Date.now() > end) throw new Error(`${what} has not come in ${longest / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
