// Every page, on a phone and on a desktop, light and dark: axe finds no fault, nothing is wider than the window, and the page has no
// fault of its own. With PICTURES=1 each is also written to docs/pictures.

import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { WIDTHS, accessible, fits, visiting } from './browser.mjs';
import { PAGES, session } from './pages.mjs';
import { begin, browser, service } from './service.mjs';
import { trouble } from './trouble.mjs';

const pictures = fileURLToPath(new URL('../../../docs/pictures/', import.meta.url));

let made;

begin(async () => {
  made = await trouble(service);
  if (process.env.PICTURES) await mkdir(pictures, { recursive: true });
});

for (const { name, path: to, key } of PAGES) {
  for (const width of Object.keys(WIDTHS)) {
    test(`${name}, ${width}`, async () => {
      const cookie = key && await session(service.url, key);
      const expected = name === 'not-found' ? /status of 404/ : undefined;
      await visiting(browser, { width, cookie, expected }, async (page) => {
        await page.goto(service.url + (typeof to === 'string' ? to : to(made)));
        await page.locator('h1').waitFor();
        await fits(page);
        for (const colorScheme of ['light', 'dark']) {
          await page.emulateMedia({ colorScheme });
          // The button names what it changes to.
          if (key && !expected) await page.locator('#theme', { hasText: colorScheme === 'dark' ? 'Light' : 'Dark' }).waitFor();
          await accessible(page);
          const picture = path.join(pictures, `${name}-${width}-${colorScheme}.png`);
          if (process.env.PICTURES) await page.screenshot({ path: picture, fullPage: true, scale: 'css' });
        }
      });
    });
  }
}
