// The routes, to read and to try: all of it comes from the service itself.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { visiting } from './browser.mjs';
import { begin, browser, service } from './service.mjs';

begin();

test('every route is shown, and nothing for that comes from elsewhere', () =>
  visiting(browser, {}, async (page) => {
    await page.goto(`${service.url}/docs`);
    const { body: document } = await service.api('alpha-admin').get('/openapi.json');
    const routes = Object.values(document.paths).flatMap((path) => Object.keys(path));
    await page.locator('.opblock').nth(routes.length - 1).waitFor();
    assert.equal(await page.locator('.opblock').count(), routes.length);
  }));
