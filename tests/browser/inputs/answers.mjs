// Servers that are none, or not nudged, or in trouble.

import assert from 'node:assert/strict';
import { bytes, connected, network, open, pass, refusal, requests, stream, time, waits } from '../node/page.mjs';
import { nudged } from '../../../src/browser/nudged.js';

const at = () => requests.map(request => request.at);
const keepalive = ': keepalive\n';

// A stream that the test feeds.
function fed(first = []) {
  let feed;
  const body = new ReadableStream({ start(controller) { feed = controller; } });
  for (const piece of first) feed.enqueue(bytes(piece));
  const response = new Response(body, { headers: { 'content-type': 'text/event-stream; charset=utf-8' } });
  return { response, send: piece => feed.enqueue(bytes(piece)), end: () => feed.close() };
}

// The first answer is this, all others are streams.
async function once(answer, options) {
  network.answer = request => (requests.length === 1 ? answer(request) : stream([connected()]));
  const page = open(nudged, options);
  await pass(3000);
  return page;
}

async function is_tried_again(answer, why) {
  const { calls } = await once(answer);
  assert.deepEqual(at(), [0, 3000]);
  const connecting = why === undefined ? [] : [['connecting', why]];
  assert.deepEqual(calls, [['connecting'], ...connecting, ['open'], ['connected', true]]);
  assert.ok(requests[0].signal.aborted, 'what was given up is aborted');
}

const html = { 'content-type': 'text/html' };
export const the_502_of_a_proxy_in_html_is_tried_again = () => is_tried_again(refusal(502, html), 502);
export const a_503_is_tried_again = () => is_tried_again(refusal(503), 503);
export const a_429_is_tried_again = () => is_tried_again(refusal(429), 429);
export const a_204_is_tried_again = () => is_tried_again(refusal(204), 204);
export const a_200_that_is_a_page_is_tried_again = () => is_tried_again(refusal(200, html), 200);
export const a_200_without_a_type_is_tried_again = () => is_tried_again(() => new Response(new Uint8Array(1)), 200);
export const a_200_of_a_similar_type_is_tried_again = () => is_tried_again(refusal(200, { 'content-type': 'text/event-stream2' }), 200);
export const a_network_that_fails_is_tried_again = () => is_tried_again(() => { throw new TypeError('Failed to fetch'); });
export const a_stream_that_ends_at_once_is_tried_again = () => is_tried_again(() => stream([], { ends: true }));

export async function a_403_404_or_410_is_the_end() {
  for (const code of [403, 404, 410]) {
    const before = requests.length;
    network.answer = refusal(code);
    const { calls } = open(nudged, { ticket: () => 'a' });
    await pass(1_000_000);
    assert.deepEqual([calls, requests.length - before], [[['connecting'], ['closed', code]], 1]);
    assert.ok(requests.at(-1).signal.aborted);
  }
}

export async function a_pause_grows_to_a_minute_and_never_ends() {
  network.answer = refusal(500);
  open(nudged);
  await pass(3_600_000);
  const pauses = at().map((ms, i) => ms - at()[i - 1]).slice(1);
  assert.deepEqual(pauses.slice(0, 6), [3000, 6000, 12_000, 24_000, 48_000, 60_000]);
  assert.ok(pauses.length > 60, 'once a minute for an hour');
}

export async function a_full_server_is_asked_after_its_retry_and_then_twice_as_late() {
  network.answer = () => stream(['retry: 1500\n\n'], { ends: true });
  open(nudged);
  await pass(10_500);
  assert.deepEqual(at(), [0, 1500, 4500, 10_500]);
}

export async function a_retry_of_nothing_is_bounded() {
  // SCENARIO: a server sends `retry: 0`, or 10¹². BUG: 0 × 2ⁿ is 0, and a time of more than 31 bits counts as 0: the
  // client asks without a pause. FIX: 100 ms to 10 minutes.
  network.answer = () => stream([`retry: ${requests.length === 1 ? 0 : 1e12}\n`], { ends: true });
  open(nudged);
  await pass(1_000_000);
  assert.deepEqual(at(), [0, 100, 600_100]);
}

export async function an_event_resets_the_pause() {
  network.answer = () => (requests.length < 4 ? refusal(500)() : stream([connected()], { ends: true }));
  open(nudged);
  await pass(27_000);
  assert.deepEqual(at(), [0, 3000, 9000, 21_000, 24_000, 27_000]);
}

export async function a_network_that_returns_ends_the_pause() {
  network.answer = refusal(500);
  open(nudged);
  await pass(10_000);
  assert.equal(requests.length, 3);
  window.dispatchEvent(new Event('online'));
  await pass(0);
  assert.deepEqual(at(), [0, 3000, 9000, 10_000]);
}

export async function retry_after_in_seconds_is_a_minimum() {
  network.answer = refusal(503, { 'retry-after': '60' });
  open(nudged);
  await pass(59_999);
  assert.equal(requests.length, 1);
  await pass(30_001);
  assert.equal(requests.length, 2, 'later by a random part only');
}

export async function retry_after_as_a_date_is_a_time_since_the_date_of_the_response() {
  const date = 'Sun, 06 Nov 1994 08:49:37 GMT', later = 'Sun, 06 Nov 1994 08:50:37 GMT';
  network.answer = refusal(503, { date, 'retry-after': later });
  open(nudged);
  await pass(59_999);
  assert.equal(requests.length, 1);
  await pass(30_001);
  assert.equal(requests.length, 2);
}

export async function retry_after_is_10_minutes_at_most() {
  for (const value of ['86400', 'Infinity', '1e30', 'Fri, 06 Nov 2099 08:49:37 GMT']) {
    const before = requests.length;
    network.answer = refusal(503, { 'retry-after': value, date: 'Sun, 06 Nov 1994 08:49:37 GMT' });
    const { client } = open(nudged);
    await pass(599_999);
    assert.equal(requests.length, before + 1, value);
    await pass(300_001);
    assert.equal(requests.length, before + 2, value);
    client.close();
  }
}

export async function a_retry_after_that_is_none_is_ignored() {
  for (const value of ['-5', 'soon', '', '0', 'Sun, 06 Nov 1994 08:49:37 GMT']) {
    const before = requests.length;
    network.answer = refusal(503, { 'retry-after': value });
    const { client } = open(nudged);
    await pass(3000);
    assert.equal(requests.length, before + 2, value);
    client.close();
  }
}

export async function a_clock_that_jumps_changes_nothing() {
  const year = 365 * 86_400_000, { now } = Date;
  for (const jump of [year, -year]) {
    const before = requests.length, start = time();
    const { response, send } = fed([connected()]);
    network.answer = () => (requests.length === before + 1 ? response : stream([connected()]));
    const { client, calls } = open(nudged);
    await pass(0);
    Date.now = () => now() + jump;
    for (let i = 0; i < 10; i++) {
      send(keepalive);
      await pass(20_000);
    }
    assert.equal(requests.length, before + 1, 'it is not taken for silence');
    await pass(10_000);
    assert.deepEqual(calls.at(-1), ['connecting', 'silent'], 'and silence is noticed');
    await pass(3000);
    assert.deepEqual(at().slice(before).map(ms => ms - start), [0, 213_000]);
    client.close();
  }
  Date.now = () => now() + year;
  const before = requests.length;
  network.answer = refusal(503, { 'retry-after': 'Sun, 06 Nov 1994 08:50:37 GMT', date: 'Sun, 06 Nov 1994 08:49:37 GMT' });
  open(nudged);
  await pass(59_999);
  assert.equal(requests.length, before + 1);
  await pass(40_000);
  assert.equal(requests.length, before + 2);
  Date.now = now;
}

export async function a_server_that_never_sends_headers_is_given_up() {
  network.answer = () => new Promise(() => {});
  const { calls } = open(nudged);
  await pass(44_999);
  assert.ok(!requests[0].signal.aborted);
  await pass(1);
  assert.ok(requests[0].signal.aborted);
  assert.deepEqual(calls, [['connecting'], ['connecting', 'silent']]);
  await pass(3000);
  assert.deepEqual(at(), [0, 48_000]);
}

export async function an_old_nudged_that_names_no_period_may_be_silent_for_45_s() {
  network.answer = () => stream(['id: e-0\nevent: connected\ndata: {}\n\n']);
  const { calls } = open(nudged);
  await pass(44_999);
  assert.deepEqual(calls.at(-1), ['connected', true]);
  await pass(1);
  assert.deepEqual(calls.at(-1), ['connecting', 'silent']);
}

export async function silence_is_one_and_a_half_periods_unless_the_page_says_so() {
  for (const [options, quiet] of [[{}, 30_000], [{ silence: 0 }, 30_000], [{ silence: 7000 }, 7000]]) {
    network.answer = () => stream([connected()]);
    const { client, calls } = open(nudged, options);
    await pass(quiet - 1);
    assert.deepEqual(calls.at(-1), ['connected', true]);
    await pass(1);
    assert.deepEqual(calls.at(-1), ['connecting', 'silent']);
    client.close();
  }
}

export async function a_period_beyond_reason_is_a_day() {
  network.answer = () => stream(['id: e-0\nevent: connected\ndata: {"keepalive":1e999}\n\n']);
  open(nudged);
  await pass(86_399_999);
  assert.equal(requests.length, 1);
  await pass(3001);
  assert.equal(requests.length, 2);
}

export async function a_stream_without_comments_is_opened_again_with_events_for_pings() {
  network.answer = () => stream([connected()]);
  open(nudged);
  await pass(30_000 + 3000);
  assert.deepEqual(requests.map(({ url }) => new URL(url).search), ['', '?ping=event']);
}

export async function comments_that_arrived_once_are_not_expected_for_ever() {
  network.answer = () => stream(requests.length === 1 ? [connected(), keepalive] : [connected()]);
  open(nudged);
  await pass(2 * 33_000);
  assert.deepEqual(requests.map(({ url }) => new URL(url).search), ['', '', '?ping=event']);
}

export async function a_stream_with_comments_is_opened_again_as_it_was() {
  network.answer = () => stream([connected(), keepalive]);
  open(nudged);
  await pass(30_000 + 3000);
  assert.deepEqual(requests.map(({ url }) => new URL(url).search), ['', '']);
}

export async function json_that_is_broken_makes_everything_stale() {
  const { response } = fed([connected(), 'id: e-1\nevent: invalidate\ndata: {"keys":["a"\n\n', 'id: e-2\nevent: invalidate\ndata: null\n\n',
    'id: e-3\nevent: invalidate\ndata: {"keys":"ab"}\n\n', 'id: e-4\nevent: invalidate\ndata: {"keys":5}\n\n']);
  network.answer = () => response;
  const { calls } = open(nudged, { since: 'e', spread: 10 });
  await pass(100);
  assert.deepEqual(calls, [['connecting'], ['open'], ['connected', false]]);
  assert.equal(requests.length, 1);
}

export async function an_event_beyond_the_bound_ends_the_attempt() {
  const line = `data: ${'x'.repeat(1 << 16)}\n`;
  for (const [count, isRead] of [[15, true], [17, false]]) {
    const events = [], before = requests.length;
    network.answer = () => stream([...Array(count).fill(line), '\n'], { ends: true });
    const { client } = open(nudged, { event: name => { events.push(name); } });
    await pass(0);
    assert.deepEqual([events, requests[before].signal.aborted], [isRead ? ['message'] : [], true]);
    client.close();
  }
  const { response, send } = fed();
  network.answer = () => response;
  open(nudged);
  await pass(0);
  for (let i = 0; i < 17; i++) send(':'.repeat(1 << 16));
  await pass(0);
  assert.ok(requests.at(-1).signal.aborted, 'a line without an end');
}

export async function a_topic_that_is_closed_is_the_end() {
  network.answer = () => stream([connected(), 'id: e-1\nevent: closed\ndata: {"reason":"done"}\n\nid: e-2\ndata: more\n\n']);
  const events = [];
  const { calls } = open(nudged, { event: (name, data) => { events.push([name, data]); }, connected: undefined });
  await pass(1_000_000);
  assert.deepEqual(events, [['connected', '{"keepalive":20}'], ['closed', '{"reason":"done"}']]);
  assert.deepEqual([calls, requests.length], [[['connecting'], ['open'], ['closed', 'closed']], 1]);
  assert.deepEqual(waits(), []);
}

export async function an_id_moves_without_data_too() {
  network.answer = () => (requests.length === 1 ? stream([connected(), 'id: e-9\n\n'], { ends: true }) : stream([]));
  const { client } = open(nudged);
  await pass(3000);
  assert.deepEqual([requests[1].headers['last-event-id'], client.id], ['e-9', 'e-9']);
}
