// What a backend needs of nudged: publishing, and tickets for its pages. For Node from 18 on.
//
//   import { publisher, ticket } from 'nudged-client/server'; // or a copy of this file
//
//   const nudged = publisher({ url: 'http://10.0.0.5:6835', token: process.env.NUDGED_PUBLISH_KEY });
//   await nudged.publish('acme', ['posts', `post:${id}`]); // now; throws if it is not accepted
//   nudged.enqueue('acme', ['posts', `post:${id}`]); // with the next batch; never throws, never waits
//   process.on('SIGTERM', () => server.close(() => nudged.close())); // sends what is queued
//
// Publish AFTER the COMMIT: a page that reads before it gets what is stale, and is not notified again.
//
//   const stale = new Set();
//   await db.transaction(async tx => { // Drizzle; with Prisma it is $transaction
//     await tx.update(posts).set({ text }).where(eq(posts.id, id));
//     stale.add(`post:${id}`);
//   });
//   nudged.enqueue('acme', stale); // a rollback has thrown
//
// A process that dies between the COMMIT and the publish has lost it. What must survive that, or a server that is away
// while streams are open, is a row of an outbox, written by the transaction (`nudged --outbox`).
//
// `publish` sends once more if there is no response within `timeout` ms, and after a 5xx, or a 429 that says when to come
// back: keys are idempotent, twice costs a second read. Before that it waits 300 ms, or as long as `retry-after` says; if
// that is more than 5 s, it throws at once. Any other status is final.
//
// `enqueue` collects keys for `window` ms, each once, and sends them in the same way, up to 100 in a request. If the server
// refuses those of one org, it sends the others without them. What is given up is passed to `dropped(org, keys, error)`,
// by default a warning on the console: what is refused, or fails twice; what finds `queue` keys waiting; and what is left
// when the time of `close(ms)` is over, which waits for the request under way.
// A process ends when its queue is empty; `process.exit()` loses what is queued, so await `close()` before it.

import { createHmac } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

const BATCH_KEYS = 100; // of 512 bytes, they fit into 64 KiB (--key-bytes, --publish-bytes)
const RETRY_MS = 300, RETRY_AFTER_MS_MAX = 5_000;

export class PublishError extends Error {
  name = 'PublishError';
  constructor(message, { cause, status, detail, retryAfter = 0, temporary = false } = {}) {
    super(message, { cause });
    Object.assign(this, { status, detail, retryAfter, temporary });
  }
}

export function publisher({ url, token, timeout = 2_000, window = 50, queue: queueMax = 10_000, dropped = warn }) {
  if (!/^https?:\/\/[^/?#@\s]+(\/[^?#\s]*)?$/.test(url)) {
    throw new TypeError('the url of nudged is like http://10.0.0.5:6835, without a user or a query');
  }
  const root = `${url}`.replace(/\/+$/, '');
  const queue = new Map(); // [org, key] by its JSON, so that each is there once
  const closing = new AbortController(), over = new AbortController();
  let running;

  const post = async body => {
    const bearer = (typeof token === 'function' ? token() : token)?.trim();
    // The error of fetch would have the token in it, and go to the log.
    if (bearer && !/^[!-~]+$/.test(bearer)) throw new TypeError('the token has characters that no token has');
    const headers = { 'content-type': 'application/x-ndjson', ...(bearer && { authorization: `Bearer ${bearer}` }) };
    let response, text;
    try {
      const signal = AbortSignal.timeout(timeout);
      response = await fetch(`${root}/api/events`, { method: 'POST', headers, body, signal, redirect: 'manual' });
      text = await response.text();
    } catch (cause) {
      const why = cause.cause?.message || cause.cause?.code || cause.message;
      throw new PublishError(`no response of nudged at ${root}: ${why}`, { cause, temporary: true });
    }
    const { status } = response;
    if (status === 202) return;
    const detail = detailOf(text), retryAfter = 1000 * response.headers.get('retry-after') || 0;
    const temporary = status >= 500 || (status === 429 && retryAfter > 0);
    throw new PublishError(`nudged at ${root} answered ${status}: ${detail}`, { status, detail, retryAfter, temporary });
  };

  const send = async (lines, signal) => {
    const body = lines.map(line => JSON.stringify(line)).join('\n');
    try {
      await post(body);
    } catch (error) {
      if (!error.temporary || error.retryAfter > RETRY_AFTER_MS_MAX) throw error;
      await sleep(Math.max(error.retryAfter, RETRY_MS), null, { signal }).catch(() => { throw error; });
      await post(body);
    }
  };

  const drop = (...lost) => new Promise(resolve => resolve(dropped(...lost)))
    .catch(error => console.error('nudged: the function "dropped" failed:', error));

  const take = () => {
    const lines = new Map();
    for (const [id, [org, key]] of [...queue].slice(0, BATCH_KEYS)) {
      queue.delete(id);
      if (!lines.has(org)) lines.set(org, { org, keys: [] });
      lines.get(org).keys.push(key);
    }
    return [...lines.values()];
  };

  const deliver = async lines => {
    while (lines.length) {
      try {
        over.signal.throwIfAborted();
        return await send(lines, over.signal);
      } catch (error) {
        // Nothing of the request was published. If one line is the reason, the detail begins with its number.
        const refused = /^line (\d+):/.exec(error.detail)?.[1] - 1;
        const lost = lines[refused] ? lines.splice(refused, 1) : lines.splice(0);
        for (const { org, keys } of lost) drop(org, keys, error);
      }
    }
  };

  const run = async () => {
    while (queue.size) {
      if (queue.size < BATCH_KEYS) await sleep(window, null, { signal: closing.signal }).catch(() => {});
      await deliver(take());
    }
    running = undefined;
  };

  return {
    async publish(org, keys) {
      await send([{ org, keys: listOf(org, keys) }]);
    },
    enqueue(org, keys) {
      const beyond = [];
      try {
        if (closing.signal.aborted) throw new PublishError('the publisher is closed');
        for (const key of listOf(org, keys)) {
          const id = JSON.stringify([org, key]);
          if (queue.size < queueMax || queue.has(id)) queue.set(id, [org, key]);
          else beyond.push(key);
        }
      } catch (error) {
        drop(org, keys, error);
      }
      if (beyond.length) drop(org, beyond, new PublishError(`the queue is full: ${queueMax} keys`));
      running ??= queue.size ? run() : undefined;
    },
    async close(ms = 5_000) {
      closing.abort();
      const timer = setTimeout(() => over.abort(new PublishError('the publisher was closed')), ms);
      await running;
      clearTimeout(timer);
    },
  };
}

// A token with which a page opens the streams of an org for `seconds`; these end after `streamSeconds`. Sign one only for
// a user who has logged in and belongs to the org. With the scope 'publish' it is the backend's own, and may be for '*'.
export function ticket(secret, org, { seconds = 60, streamSeconds = 12 * 3600, scope = 'subscribe', topics } = {}) {
  if (typeof secret !== 'string' || Buffer.byteLength(secret) < 32 || /\s/.test(secret)) {
    throw new TypeError('a secret has at least 32 bytes and no white space; trim what was read from a file');
  }
  const isOrg = typeof org === 'string' && /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(org);
  if (!isOrg && !(org === '*' && scope === 'publish')) {
    throw new TypeError(`an organisation is 1 to 64 of A-Z a-z 0-9 . _ -, first a letter or digit, not ${JSON.stringify(org)}`);
  }
  if (!(seconds > 0 && streamSeconds > 0)) throw new TypeError('seconds and streamSeconds are above 0');
  const now = Date.now() / 1000;
  const claims = { org, scope, exp: Math.floor(now + seconds), until: Math.floor(now + streamSeconds), topics };
  const part = value => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

function listOf(org, keys) {
  const list = typeof keys === 'string' ? [keys] : [...keys];
  if ([org, ...list].some(text => typeof text !== 'string')) throw new TypeError('an organisation and its keys are strings');
  return list;
}

function detailOf(text) {
  try {
    return JSON.parse(text).detail ?? text.slice(0, 200);
  } catch {
    return text.slice(0, 200);
  }
}

function warn(org, keys, error) {
  console.warn(`nudged: not published to ${JSON.stringify(org)}: ${JSON.stringify(keys)?.slice(0, 200)}: ${error.message}`);
}
