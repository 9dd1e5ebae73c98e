// What the other tests rely on: a page with a fault fails the test that opens it.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { accessible, fits, launch, visiting } from './browser.mjs';

let browser, server, url;

before(async () => {
  browser = await launch();
  server = createServer((request, response) => {
    const body = new URL(request.url, 'http://x').searchParams.get('body');
    const headers = { 'content-type': 'text/html; charset=utf-8', 'content-security-policy': "script-src 'nonce-1'" };
    // The browser asks for an icon by itself.
    response.writeHead(body === null ? 204 : 200, headers);
    response.end(body === null ? '' : `<!doctype html><html lang=en><title>A page</title><main><h1>A page</h1>${body}</main>`);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${server.address().port}/?body=`;
});

after(async () => {
  await browser?.close();
  server?.closeAllConnections();
  server?.close();
});

/** Opens a page with this in its body, and looks at it in every way. */
const look = (body) => visiting(browser, { width: 'phone' }, async (page) => {
  await page.goto(url + encodeURIComponent(`${body}<meta name=viewport content="width=device-width">`));
  await accessible(page);
  await fits(page);
});

test('a page without a fault passes', () => look('<p>Text</p>'));

const FAULTS = {
  'an error on the console': ['<script nonce=1>console.error("broken")</script>', /error: broken/],
  'a script that fails': ['<script nonce=1>missing()</script>', /script: missing is not defined/],
  'a script that the policy forbids': ['<script>1</script>', /Content Security Policy/],
  'a handler that the policy forbids': ['<p onclick="x()">Text</p>', /Content Security Policy/],
  'a file that is not there': ['<script nonce=1>fetch("http://127.0.0.1:1/")</script>', /Failed to load resource/],
  'a request that leaves the machine': ['<img alt="" src="http://example.org/pixel">', /leaves the machine: http:\/\/example.org/],
  'a picture without words': ['<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" width=20 height=20>', /image-alt/],
  'a text that is too pale': ['<p style="color: #bbb; background: #fff">Text</p>', /color-contrast/],
  'an element that is too wide': ['<div style="width: 500px">Text</div>', /beyond the 390 pixels/],
};

for (const [name, [body, found]] of Object.entries(FAULTS)) {
  test(`${name} fails the test`, () => assert.rejects(look(body), found));
}
