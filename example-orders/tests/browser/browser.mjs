// Headless Chromium, and what must hold on every page that a test opens: nothing is reported on the console, no script fails, the
// content security policy is kept, no request leaves the machine, and axe finds no fault where it is asked.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

/** How wide a page is looked at. */
export const WIDTHS = { phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 800 } };

/** What a person waits for at most before a page has failed. */
const LONGEST = 30_000;

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Starts the browser. Names other than the loopback address are not found, so nothing leaves the machine even if a page asks. */
export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'],
  });
}

/**
 * Opens a page in a context of its own for `visit`, and fails if the page has had a fault when that is over. `expected` is what the
 * console may report: that of a page which is not there, say.
 */
export async function visiting(browser, { width = 'desktop', colors = 'light', cookie, expected, ...options }, visit) {
  const context = await browser.newContext({
    viewport: WIDTHS[width],
    colorScheme: colors,
    reducedMotion: 'reduce',
    isMobile: width === 'phone',
    hasTouch: width === 'phone',
    locale: 'en-GB',
    timezoneId: 'UTC',
    ...options,
  });
  context.setDefaultTimeout(LONGEST);
  if (cookie) await context.addCookies([cookie]);
  const faults = watch(context, expected);
  try {
    const result = await visit(await context.newPage());
    assert.deepEqual(faults, [], 'faults of the page');
    return result;
  } catch (error) {
    // What the page itself has reported is most often why.
    if (faults.length > 0) error.message += `\nfaults of the page: ${faults.join('\n')}`;
    throw error;
  } finally {
    await context.close();
  }
}

/** Collects the faults of all pages of a context. */
function watch(context, expected) {
  const faults = [];
  // Violations of the policy and assets that are not found are reported here too.
  context.on('console', (message) => {
    if (expected?.test(message.text())) return;
    // What a page still waited for when it was left. A request that fails is reported by the browser itself.
    if (message.text().includes('htmx:error: Failed to fetch')) return;
    if (['error', 'warning', 'assert'].includes(message.type())) faults.push(`${message.type()}: ${message.text()}`);
  });
  context.on('weberror', (error) => faults.push(`script: ${error.error().message}`));
  context.on('request', (request) => {
    const to = new URL(request.url());
    const isHere = to.hostname === '127.0.0.1' || ['data:', 'blob:', 'about:'].includes(to.protocol);
    if (!isHere) faults.push(`leaves the machine: ${request.url()}`);
  });
  return faults;
}

/** Fails with what axe finds on a page, each fault with the elements that have it. */
export async function accessible(page) {
  if (!(await page.evaluate(() => 'axe' in globalThis))) await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run({ resultTypes: ['violations'] }));
  const found = violations.flatMap(({ id, help, nodes }) =>
    nodes.map((node) => `${id} (${help}): ${node.html.slice(0, 200)} ${node.any[0]?.message ?? ''}`));
  assert.deepEqual(found, [], 'what axe finds');
}

/** Fails if a page is wider than its window: a person would have to scroll it sideways. */
export async function fits(page) {
  const { wide, width } = await page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    const isWide = (element) => element.getBoundingClientRect().right > width + 1;
    const wide = document.documentElement.scrollWidth > width ? [...document.querySelectorAll('body *')].filter(isWide) : [];
    return { wide: wide.slice(0, 5).map((element) => element.outerHTML.slice(0, 120)), width };
  });
  assert.deepEqual(wide, [], `elements beyond the ${width} pixels of the window`);
}
