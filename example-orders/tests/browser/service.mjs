// The service that the tests look at: a process of its own over a store that is removed with it.

import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch } from './browser.mjs';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const program = path.join(process.env.CARGO_TARGET_DIR ?? path.join(root, 'target'), 'debug/example-orders');

/** Quotas are no subject here; whatever a test asks for is answered. */
const settings = { ORDERS_LIMITS__CALLS: '1000000', ORDERS_LIMITS__BURST: '1000000' };

/** The browser and the service of a test file, between `begin` and its end. */
export let browser, service;

/** Starts both before the tests of a file, and does what else these need; ends both behind them. */
export function begin(prepare = async () => {}) {
  before(async () => {
    [browser, service] = await Promise.all([launch(), start()]);
    await prepare();
  });
  after(async () => {
    await browser?.close();
    await service?.end();
  });
}

/** Starts the service, on a free port unless it is said where. `end` stops it, and fails if it does not end well. */
export async function start(more = {}, listen = '127.0.0.1:0') {
  const folder = await mkdtemp(path.join(tmpdir(), 'orders-'));
  const { DATABASE_URL: _, ...environment } = process.env;
  const child = spawn(program, ['--db', path.join(folder, 'orders.db'), '--listen', listen], {
    env: { ...environment, ...settings, ...more },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = new Promise((resolve) => child.once('close', (code) => resolve(code)));
  let errors = '';
  child.stderr.on('data', (data) => (errors += data));
  const printed = await new Promise((resolve, reject) => {
    let text = '';
    child.stdout.on('data', (data) => {
      text += data;
      if (text.includes('/history')) resolve(text);
    });
    child.once('error', reject);
    ended.then((code) => reject(new Error(`the service ended with ${code}: ${errors}`)));
  });
  const url = /open at (http:\/\/[0-9.:]+);/.exec(printed)[1];
  const faults = Object.fromEntries([...printed.matchAll(/goes wrong with (\w+) +(\S+)/g)].map(([, name, at]) => [name, at]));

  async function end() {
    child.kill('SIGTERM');
    const code = await ended;
    await rm(folder, { recursive: true });
    if (code !== 0) throw new Error(`the service ended with ${code}: ${errors}`);
  }

  return { url, api: (key) => api(url, key), break: (service, what) => put(faults[service], what), end };
}

/** Each write has a key of its own. */
let writes = 0;

/** Calls of the API with a key of the demonstration. An answer that is no success fails the test that asked. */
function api(url, key) {
  async function call(method, to, body, headers = {}) {
    const answer = await fetch(url + to, {
      method,
      headers: { authorization: `Bearer ${key}.demo`, ...(body && { 'content-type': 'application/json' }), ...headers },
      body: body && JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${to}: ${answer.status} ${text}`);
    return { status: answer.status, headers: answer.headers, body: text && JSON.parse(text) };
  }
  return {
    get: (to) => call('GET', to),
    post: (to, body) => call('POST', to, body, { 'idempotency-key': `write-${writes++}` }),
    put: (to, body) => call('PUT', to, body, { 'idempotency-key': `write-${writes++}` }),
  };
}

/** Sets what goes wrong with a service: `{ down: true }`, or `{}` for nothing. */
async function put(at, what) {
  const answer = await fetch(at, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(what),
  });
  if (!answer.ok) throw new Error(`PUT ${at}: ${answer.status}`);
}
