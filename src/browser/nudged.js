// nudged-client 0.1.0: one stream for all tabs of a page. See nudged.d.ts.

const DAY_MS = 86_400_000, TICKET_MS = 10_000, ANSWER_MS = 2000, SILENCE_MS = 45_000;
const RETRY_MS = 3000, RETRY_MS_MIN = 100, RETRY_MS_MAX = 60_000, PAUSE_MS_MAX = 600_000;
const OPTIONS = {
  connected: Function, invalidate: Function, status: Function, event: Function, ticket: Function,
  user: String, since: String, keys: Array, share: Boolean, hidden: Boolean, spread: Number, silence: Number,
};
const KEYS_MAX = 1000, EVENT_MAX = 1 << 20;
const IDS_MAX = 100; // that a tab remembers
const warned = new Set();

const checked = options => {
  const right = {};
  for (const [name, value] of Object.entries(options)) {
    const type = OPTIONS[name];
    if (type && Object(value) instanceof type && (type !== Number || value >= 0 && value <= DAY_MS)) right[name] = value;
    else if (value != null && !warned.has(name)) {
      warned.add(name);
      console.warn(`nudged ignores ${name}. There are, in ms up to a day:`, OPTIONS);
    }
  }
  return right;
};
const parse = text => {
  try {
    return JSON.parse(text) || {};
  } catch {
    return {};
  }
};
// A ticket's user: its claims without times, or if it is no JWT, all of it.
const claimsOf = ticket => {
  try {
    const all = JSON.parse(atob(ticket.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')));
    for (const name of ['exp', 'nbf', 'iat', 'until', 'jti']) delete all[name];
    return JSON.stringify(all);
  } catch {
    return ticket;
  }
};
const isHeader = text => /^[!-~]+$/.test(text);
const delay = (ms, tries) =>
  Math.max(ms, Math.min(Math.max(ms, RETRY_MS_MIN) * 2 ** tries, RETRY_MS_MAX)) * (0.75 + Math.random() / 2);

export function nudged(url, options = {}) {
  if (typeof document === 'undefined') return { id: '', close() {} };
  options = checked(options);
  const { ticket, user, since = '', event, keys = [], share = true, hidden, spread = 2000, silence } = options;
  const target = new URL(url, document.baseURI);
  for (const key of keys) target.searchParams.append('keys', key);
  const { href } = target;

  let id = since, delivered = id, ids = [id], token = '', claims = '';
  let run, attempt, wake, channel, isHolder, isOpen, silenceTimer, isRefused, hasComments, pauseMin, tries = 0, retry = RETRY_MS;
  let silenceMs = silence || SILENCE_MS;

  // ---- the page ----

  let isFirst = !since, isAll, allTimer, timer, stale = new Set(), last = [];

  const call = (name, ...args) => {
    try {
      options?.[name]?.(...args);
    } catch (error) {
      setTimeout(() => { throw error; }); // to be reported
    }
  };
  const status = (state, why) => {
    if (state !== last[0] || why !== last[1]) call('status', ...(last = [state, why]));
  };
  const deliver = () => {
    timer = 0;
    if (!options || document.hidden && !hidden) return;
    const keys = [...stale], first = isFirst;
    stale.clear();
    if (!allTimer) delivered = id;
    if (isAll) {
      isAll = isFirst = false;
      call('connected', first);
    } else if (keys.length) call('invalidate', keys);
  };
  // These keys are stale; null: everything.
  const invalidate = keys => {
    for (const key of keys || []) stale.add(key);
    if (!keys || stale.size > KEYS_MAX) {
      stale.clear();
      if (isFirst) isAll = true;
      else allTimer ||= setTimeout(() => {
        isAll = true;
        allTimer = 0;
        deliver();
      }, Math.random() * spread);
    }
    timer ||= setTimeout(deliver);
  };
  const move = to => {
    if (to !== id) ids = [...ids.slice(1 - IDS_MAX), id = to];
  };

  // ---- the tabs ----

  // ? asks the holder for a sign, - is one without a stream, ! one with it, k are stale keys, null for all.
  const post = (kind, before, keys) => channel?.postMessage([kind, id, before, keys, silenceMs]);
  const beat = () => post(isOpen ? '!' : '-');
  const receive = ({ data: [kind, at, before, keys, period] }) => {
    if (kind === '?') return isHolder && beat();
    if (isHolder) return; // its own stream counts
    silenceMs = silence || period || SILENCE_MS;
    clearTimeout(silenceTimer);
    silenceTimer = setTimeout(ask, silenceMs);
    if (kind === 'k' && (!keys || before === id)) move(at), invalidate(keys);
    else if (kind !== '-' && !ids.includes(at)) move(at), invalidate(); // there is a gap
    status(kind === '-' ? 'connecting' : 'open');
  };
  // A visible tab without an answer takes over, since the holder may be frozen.
  const ask = () => {
    post('?');
    clearTimeout(silenceTimer);
    silenceTimer = setTimeout(() => document.hidden || start(true), ANSWER_MS * (1 + Math.random() / 2));
  };

  // ---- the stream ----

  const pause = ms => new Promise(done => {
    wake = done;
    setTimeout(done, Math.min(ms, PAUSE_MS_MAX));
  });
  const renew = async signal => {
    for (let tries = 0; ticket && !token && !signal.aborted; tries++) {
      try {
        const got = await Promise.race([ticket(), new Promise((_, late) => setTimeout(late, TICKET_MS))]);
        if (signal.aborted) return;
        if (got === null) return end('no ticket');
        const text = got.trim();
        if (!isHeader(text)) throw text;
        token = text;
        const before = claims;
        claims = claimsOf(token);
        if (before && before !== claims) {
          // Nothing counts that the first user received.
          ids = [id = delivered = ''];
          stale.clear();
          start();
        }
      } catch {
        if (signal.aborted) return;
        status('connecting', 'ticket');
        await pause(delay(RETRY_MS, tries));
      }
    }
  };
  const relay = (at, keys) => {
    const before = id;
    move(at);
    invalidate(keys);
    post('k', before, keys);
  };
  const dispatch = (name, data, at) => {
    const { keepalive, keys } = /^(connected|resumed|invalidate)$/.test(name) ? parse(data) : {};
    isOpen = true;
    if (keepalive >= 1) silenceMs = silence || Math.min(keepalive * 1500, DAY_MS);
    if (name === 'connected') relay(at, null);
    else if (name === 'invalidate') relay(at, Array.isArray(keys) ? keys : null);
    else relay(at, []);
    status('open');
    call('event', name, data, id);
    if (name === 'closed') end('closed');
  };
  // WHATWG HTML, 9.2.6.
  const read = async (body, alive) => {
    const reader = body.getReader(), decoder = new TextDecoder();
    let rest = '', name = '', data = '', at = id, isAfterCr;
    for (let part; !(part = await reader.read()).done; alive(), beat(), await globalThis.scheduler?.postTask(() => {})) {
      const text = decoder.decode(part.value, { stream: true });
      if (!text) continue;
      const lines = text.slice(isAfterCr && text[0] === '\n' ? 1 : 0).split(/\r\n|\r|\n/);
      isAfterCr = text.endsWith('\r');
      lines[0] = rest + lines[0];
      rest = lines.pop();
      for (const line of lines) {
        const [, field, value = ''] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
        if (!line) {
          if (data) dispatch(name || 'message', data.slice(0, -1), at), tries = 0;
          else if (at !== id) relay(at, []);
          name = data = '';
        } else if (!field) hasComments = true;
        else if (field === 'event') name = value;
        else if (field === 'data') data += value + '\n';
        else if (field === 'id' && !value.includes('\0')) at = value;
        else if (field === 'retry' && /^\d+$/.test(value)) retry = +value;
      }
      if (rest.length + data.length > EVENT_MAX) return;
    }
  };
  // Returns why it ended.
  const connect = async () => {
    const own = attempt = new AbortController(), { signal } = own;
    let guard, why;
    hasComments = false;
    pauseMin = 0;
    const alive = () => {
      clearTimeout(guard);
      guard = setTimeout(() => {
        why = 'silent';
        // Some proxies remove comments.
        if (isOpen && !hasComments) target.searchParams.set('ping', 'event');
        own.abort();
      }, silenceMs);
    };
    try {
      alive();
      const headers = { accept: 'text/event-stream' };
      if (token) headers.authorization = `Bearer ${token}`;
      if (isHeader(id)) headers['last-event-id'] = id;
      const credentials = user === undefined ? 'same-origin' : 'include';
      const { status: code, headers: fields, body } = await fetch(target, { headers, signal, credentials, cache: 'no-store' });
      const later = fields.get('retry-after');
      // By the server's date, since clocks may be wrong.
      pauseMin = later * 1000 || Date.parse(later) - Date.parse(fields.get('date')) || 0;
      if (code === 401 && ticket) token = '';
      else if ([401, 403, 404, 410].includes(code)) end(code);
      if (code !== 200 || !/^text\/event-stream\b/i.test(fields.get('content-type'))) return code;
      isRefused = false;
      await read(body, alive);
    } catch {} finally {
      clearTimeout(guard);
      own.abort();
    }
    return why;
  };
  const hold = async signal => {
    isHolder = true;
    clearTimeout(silenceTimer);
    status('connecting');
    beat();
    for (;;) {
      await renew(signal);
      if (signal.aborted) return;
      const why = await connect();
      if (signal.aborted) return;
      isOpen = false;
      status('connecting', why);
      beat();
      if (why === 401 && !isRefused) isRefused = true; // it may have been old
      else await pause(Math.max(delay(retry, tries++), pauseMin * (1 + Math.random() / 2)));
    }
  };
  const stop = () => {
    run?.abort();
    attempt?.abort();
    clearTimeout(silenceTimer);
    channel?.close();
    run = channel = isHolder = isOpen = undefined;
  };
  const start = async steal => {
    stop();
    const { signal } = run = new AbortController();
    status('connecting');
    await renew(signal);
    if (signal.aborted) return;
    if (!share || event || !navigator.locks) return hold(signal);
    const name = JSON.stringify(['nudged 1', href, user, claims]);
    try {
      channel = new BroadcastChannel(name);
      channel.onmessage = receive;
      ask();
      await navigator.locks.request(name, steal ? { steal } : { signal }, () => signal.aborted || new Promise(release => {
        signal.addEventListener('abort', release);
        hold(signal);
      }));
    } catch {
      if (signal.aborted) return;
      if (isHolder) start(); // it was stolen
      else hold(signal); // a sandbox has no locks
    }
  };
  const again = () => run || start();
  const look = () => {
    deliver();
    if (channel && !isHolder) ask();
  };
  const listeners = [
    [window, 'pagehide', stop], [window, 'pageshow', again], [document, 'freeze', stop], [document, 'resume', again],
    [document, 'visibilitychange', look], [window, 'online', () => wake?.()],
  ];
  const end = why => {
    stop();
    for (const [of, name, f] of listeners) of.removeEventListener(name, f);
    status('closed', why);
    options = undefined; // nothing is called any more
  };
  for (const [of, name, f] of listeners) of.addEventListener(name, f);
  queueMicrotask(() => last[0] || start()); // callbacks follow the return
  return {
    get id() { return delivered; },
    close() {
      if (last[0] !== 'closed') end();
    },
  };
}
