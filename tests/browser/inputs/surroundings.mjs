// Browsers that lack something, and no browser at all.

import assert from 'node:assert/strict';
import { browser, connected, network, open, pass, requests, show, stream } from '../node/page.mjs';

const path = '../../../src/browser/nudged.js';
const url = '/api/acme/events';

export async function without_a_document_nothing_happens() {
  const { document, window } = globalThis;
  delete globalThis.document;
  delete globalThis.window;
  const touched = [];
  for (const name of ['document', 'window', 'navigator', 'fetch', 'BroadcastChannel', 'addEventListener', 'location']) {
    const real = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { configurable: true, get: () => { touched.push(name); } });
    if (!real) delete globalThis[name];
  }
  const { nudged } = await import(path);
  assert.deepEqual(touched, [], 'nothing is read at import');
  const inert = nudged(url, { connected: assert.fail, ticket: assert.fail, status: assert.fail, unknown: 1 });
  assert.equal(inert.id, '');
  inert.close();
  inert.close();
  await pass(1_000_000);
  assert.deepEqual([touched, requests], [[], []]);
  Object.assign(globalThis, { document, window });
}

export async function without_web_locks_each_tab_has_a_stream() {
  const { nudged } = await import(path);
  network.answer = () => stream([connected()]);
  const tabs = [open(nudged), open(nudged)];
  await pass(5000);
  assert.equal(requests.length, 2);
  for (const { calls } of tabs) assert.deepEqual(calls, [['connecting'], ['open'], ['connected', true]]);
}

export async function without_broadcast_channel_each_tab_has_a_stream() {
  const { nudged } = await import(path);
  const asked = [];
  browser.locks = { request: async (...parts) => { asked.push(parts); } };
  globalThis.BroadcastChannel = undefined;
  network.answer = () => stream([connected()]);
  open(nudged);
  open(nudged);
  await pass(5000);
  assert.deepEqual([requests.length, asked], [2, []]);
}

// What `locks.request` may reject with before it has called back: of a sandbox, of a page that is not active.
export async function locks_that_are_refused_leave_each_tab_its_stream() {
  const { nudged } = await import(path);
  for (const name of ['SecurityError', 'InvalidStateError', 'NotSupportedError']) {
    const before = requests.length;
    browser.locks = { request: async () => { throw new DOMException('no', name); } };
    network.answer = () => stream([connected()]);
    const { client, calls } = open(nudged);
    await pass(5000);
    assert.deepEqual(calls, [['connecting'], ['open'], ['connected', true]], name);
    assert.equal(requests.length, before + 1, name);
    client.close();
    assert.ok(requests.at(-1).signal.aborted);
  }
}

// Locks of one page, for what real ones show only under a load.
function locks() {
  const made = { held: 0, asked: [], steal: undefined };
  made.request = (name, { signal, steal }, act) => new Promise((done, fail) => {
    made.asked.push({ name, steal: !!steal });
    signal?.addEventListener('abort', () => fail(new DOMException('aborted', 'AbortError')));
    made.grant = () => {
      made.held++;
      made.steal = () => fail(new DOMException('stolen', 'AbortError'));
      Promise.resolve(act()).then(done).finally(() => { made.held--; });
    };
    if (made.isFree !== false) made.grant();
  });
  return made;
}

export async function a_tab_whose_lock_is_stolen_ends_its_request_and_waits_in_line() {
  const { nudged } = await import(path);
  browser.locks = locks();
  network.answer = () => stream([connected()]);
  open(nudged);
  await pass(0);
  browser.locks.isFree = false;
  browser.locks.steal();
  await pass(0);
  assert.ok(requests[0].signal.aborted, 'its stream is ended');
  assert.deepEqual([requests.length, browser.locks.asked.map(({ steal }) => steal)], [1, [false, false]]);
}

export async function a_lock_that_comes_after_the_end_is_returned() {
  const { nudged } = await import(path);
  browser.locks = locks();
  browser.locks.isFree = false;
  const { client } = open(nudged);
  await pass(4000);
  assert.deepEqual(browser.locks.asked.map(({ steal }) => steal), [false, true], 'a visible tab without an answer');
  client.close();
  browser.locks.grant();
  await pass(1000);
  assert.deepEqual([browser.locks.held, requests], [0, []]);
}

export async function a_lock_is_released_while_a_ticket_is_awaited() {
  // SCENARIO: the holder asks for a ticket, and is closed. BUG: it keeps the lock until the ticket comes, 10 s at most.
  // FIX: the lock ends with the run.
  const { nudged } = await import(path);
  browser.locks = locks();
  let count = 0;
  network.answer = () => new Response('', { status: 401 });
  const { client } = open(nudged, { ticket: () => (count++ ? new Promise(() => {}) : 'first') });
  await pass(0);
  assert.deepEqual([browser.locks.held, count], [1, 2]);
  client.close();
  await pass(0);
  assert.equal(browser.locks.held, 0);
}

export async function a_hidden_tab_never_takes_a_stream_over() {
  const { nudged } = await import(path);
  browser.locks = locks();
  browser.locks.isFree = false;
  show(false);
  open(nudged);
  await pass(1_000_000);
  assert.deepEqual(browser.locks.asked.map(({ steal }) => steal), [false]);
  show(true);
  await pass(3000);
  assert.deepEqual(browser.locks.asked.map(({ steal }) => steal), [false, true]);
}

export async function the_tab_with_the_stream_keeps_it_when_it_is_looked_at() {
  const { nudged } = await import(path);
  browser.locks = locks();
  network.answer = () => stream([connected()]);
  open(nudged);
  await pass(0);
  show(false);
  show(true);
  await pass(10_000);
  assert.deepEqual([requests.length, browser.locks.asked.length], [1, 1]);
}

export async function the_name_of_the_lock_has_the_url_the_keys_the_user_and_what_a_ticket_says_of_it() {
  const { nudged } = await import(path);
  browser.locks = locks();
  const part = claims => Buffer.from(JSON.stringify(claims)).toString('base64url');
  const ticket = claims => () => `e30.${part(claims)}.c2lnbmVk`;
  const cases = [
    {}, { keys: ['a'] }, { user: 'ada' }, { ticket: ticket({ sub: 'ada' }) }, { ticket: ticket({ sub: 'bob' }) }, { ticket: () => 'opaque' },
    { ticket: ticket({ sub: 'ada', exp: 1, nbf: 1, iat: 1, until: 1, jti: 'x' }) }, { silence: 20_000 },
  ];
  for (const options of cases) {
    open(nudged, options);
    await pass(0);
  }
  open(nudged, {}, `${url}?x`);
  await pass(0);
  const names = browser.locks.asked.map(({ name }) => name);
  assert.equal(names.length, 9);
  const [plain, keys, user, ada, bob, opaque, later, silent, query] = names;
  assert.equal(new Set([plain, keys, user, ada, bob, opaque, query]).size, 7);
  assert.deepEqual([later, silent], [ada, plain]);
}

export async function opaque_tickets_with_a_number_in_the_middle_are_of_different_users() {
  // SCENARIO: `v1.MTIz.signature`, a ticket of another kind, with the user's number. BUG: it was read as claims without
  // names, and so all users had one lock and one channel. FIX: what is no object counts as it is.
  const { nudged } = await import(path);
  browser.locks = locks();
  const numbers = ['MTIz', 'MTI0', 'dHJ1ZQ'];
  for (const number of numbers) open(nudged, { ticket: () => `v1.${number}.sig` });
  await pass(0);
  assert.equal(new Set(browser.locks.asked.map(({ name }) => name)).size, numbers.length);
}

export async function an_event_that_no_channel_takes_is_not_lost() {
  // SCENARIO: the keys of an event are nested deeper than a message between tabs may be. BUG: the id had moved when that
  // threw, and the next attempt resumed behind the event. FIX: the page's keys come first.
  const { nudged } = await import(path);
  browser.locks = locks();
  const deep = '['.repeat(100_000) + ']'.repeat(100_000);
  network.answer = () => stream(requests.length === 1 ? [`id: e-2\nevent: invalidate\ndata: {"keys":["a",${deep}]}\n\n`] : []);
  const { client, calls } = open(nudged, { since: 'e-1' });
  await pass(10_000);
  assert.ok(calls.some(([name, keys]) => name === 'invalidate' && keys.includes('a')));
  client.close();
}

export async function a_topic_has_a_stream_of_its_own() {
  const { nudged } = await import(path);
  browser.locks = locks();
  open(nudged, { event() {}, share: true });
  open(nudged, { share: false });
  await pass(0);
  assert.deepEqual([requests.length, browser.locks.asked], [2, []]);
}

export async function a_page_that_is_left_lets_go_and_continues_when_it_is_back() {
  const { nudged } = await import(path);
  browser.locks = locks();
  network.answer = () => stream([connected('e-3')]);
  const { client } = open(nudged);
  const pairs = [[window, 'pagehide', 'pageshow'], [document, 'freeze', 'resume']];
  await pass(0);
  for (const [target, leave, back] of pairs) {
    const before = requests.length;
    target.dispatchEvent(new Event(leave));
    await pass(0);
    assert.deepEqual([browser.locks.held, requests.at(-1).signal.aborted], [0, true], leave);
    target.dispatchEvent(new Event(back));
    target.dispatchEvent(new Event(back));
    await pass(0);
    assert.deepEqual([browser.locks.held, requests.length], [1, before + 1], back);
    assert.equal(requests.at(-1).headers['last-event-id'], 'e-3');
  }
  client.close();
  for (const [target, , back] of pairs) target.dispatchEvent(new Event(back));
  await pass(100_000);
  assert.equal(requests.length, 3, 'not after the end');
}
