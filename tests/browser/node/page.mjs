// What the client uses of a browser, made for tests in Node: a page, a clock that they move, and a network that they
// answer for. Import it before the client.

// ---- the page ----

class Page extends EventTarget {
  hidden = false;
  baseURI = 'http://app.test/';
}
globalThis.document = new Page();
globalThis.window = new EventTarget();
export const browser = {}; // the test's `navigator`, without locks until it gets some
Object.defineProperty(globalThis, 'navigator', { value: browser, configurable: true });

export function show(isVisible) {
  document.hidden = !isVisible;
  document.dispatchEvent(new Event('visibilitychange'));
}

// What a browser would report on its console.
export const problems = [], warnings = [];
console.warn = (...parts) => { warnings.push(parts); };
process.on('uncaughtException', error => { problems.push(error.message); });
process.on('unhandledRejection', error => { problems.push(`rejected: ${error?.message}`); });

// ---- the clock ----

let now = 0, lastTimer = 0;
const timers = new Map();
globalThis.setTimeout = (act, ms = 0) => {
  // A longer time than 31 bits counts as none in browsers.
  timers.set(++lastTimer, { at: now + (ms > 0 && ms < 2 ** 31 ? ms : 0), act });
  return lastTimer;
};
globalThis.clearTimeout = timer => { timers.delete(timer); };
globalThis.Math.random = () => 0.5; // ±25 % of a time is that time

const settle = () => new Promise(done => setImmediate(done));
export const time = () => now;
// The times after which something will happen.
export const waits = () => [...timers.values()].map(({ at }) => at - now).sort((a, b) => a - b);

// Lets so many milliseconds pass.
export async function pass(ms) {
  const end = now + ms;
  for (;;) {
    await settle();
    const [timer, due] = [...timers].reduce((a, b) => (b[1].at < a[1].at ? b : a), [0, { at: Infinity }]);
    if (due.at > end) break;
    now = Math.max(now, due.at);
    timers.delete(timer);
    try {
      due.act();
    } catch (error) {
      problems.push(error.message);
    }
  }
  now = end;
}

// ---- the network ----

export const requests = [];
// Returns the response to a request, or throws.
export const network = { answer: () => stream([]) };

globalThis.fetch = async (url, { headers, signal, credentials }) => {
  const request = { at: now, url: String(url), headers: Object.fromEntries(new Headers(headers)), credentials, signal };
  requests.push(request);
  const answered = network.answer(request);
  const aborted = new Promise((_, fail) => {
    signal.addEventListener('abort', () => fail(new DOMException('aborted', 'AbortError')));
  });
  const response = await Promise.race([answered, aborted]);
  if (!response.body) return response;
  return new Response(response.body.pipeThrough(new TransformStream(), { signal }), response);
};

const encoder = new TextEncoder();
export const bytes = piece => (typeof piece === 'string' ? encoder.encode(piece) : piece);

// A stream of these pieces that stays open, or ends behind them.
export function stream(pieces, { ends = false, status = 200, headers = {} } = {}) {
  const body = new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(bytes(piece));
      if (ends) controller.close();
    },
  });
  return new Response(body, { status, headers: { 'content-type': 'text/event-stream', ...headers } });
}
export const refusal = (status, headers = {}) => () => new Response(status === 204 ? null : '<html>', { status, headers });
export const connected = (id = 'e-0') => `id: ${id}\nevent: connected\ndata: {"keepalive":20}\n\n`;

// ---- the client ----

// A client that records what it calls.
export function open(nudged, options = {}, url = '/api/acme/events') {
  const calls = [];
  const record = name => (...values) => { calls.push([name, ...values]); };
  const client = nudged(url, {
    connected: record('connected'), invalidate: record('invalidate'),
    status: (state, why) => { calls.push(why === undefined ? [state] : [state, why]); },
    ...options,
  });
  return { client, calls };
}
