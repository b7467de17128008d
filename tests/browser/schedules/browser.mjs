// A browser as the client sees it: tabs with a main thread each, locks, channels between tabs, and fetch.
// What arrives at a tab is a task of its source. Tasks of one source run in order; of several, any may be next, which
// matters once a tab was blocked.

import { Connection } from './server.mjs';

export class Browser {
  isOnline = true;
  steals = 0;
  messages = 0;
  locks = new Map(); // by name: { held, queue }
  channels = new Map(); // by name: a set

  constructor(world, server) {
    this.world = world;
    this.server = server;
  }
}

export class Tab {
  isGone = false;
  isFrozen = false;
  isBlocked = false;
  crash; // of a tab that crashed: the tabs that its last messages did not reach
  connections = new Set();
  errors = [];
  #tasks = { timer: [], message: [], lock: [], network: [], page: [] };
  #line = {}; // to the process of the browser
  #lineBack = {};
  #counterpart; // of the event that froze it
  #freezes = 0;

  // `has` says which features there are: { locks, channel }.
  constructor(browser, has = {}) {
    this.browser = browser;
    this.world = browser.world;
    this.world.tabs.push(this);
    this.document = Object.assign(new EventTarget(), { hidden: false, baseURI: 'https://example.org/' });
    this.window = new EventTarget();
    this.isOpenedLate = browser.steals > 0 || this.world.tabs.some(tab => tab.isBlocked); // it may meet two holders
    this.#makeGlobals(has);
  }

  trace(...what) {
    this.world.trace(`tab ${this.name}:`, ...what);
  }

  // ---- the main thread ----

  task(source, run) {
    if (!this.isGone) this.#tasks[source].push(run);
  }
  isReady() {
    return !this.isBlocked && !this.isFrozen && !this.isGone && Object.values(this.#tasks).some(tasks => tasks.length);
  }
  turn() {
    const tasks = this.world.pick(Object.values(this.#tasks).filter(tasks => tasks.length));
    try {
      tasks.shift()();
    } catch (error) {
      this.errors.push(error);
    }
  }

  // ---- what happens to a tab ----

  show(isShown) {
    this.document.hidden = !isShown;
    this.task('page', () => this.#dispatch('visibilitychange'));
  }
  // Into the back/forward cache, where nothing runs; `report` is called with what a page may not hold there.
  leave(report) {
    this.#freeze('pagehide', 'pageshow', freezes => {
      const held = freezes === this.#freezes && this.isFrozen ? this.#held() : [];
      if (held.length && !held.includes('steal')) report(`a page that is left holds a ${held}`);
    });
  }
  freeze() {
    this.#freeze('freeze', 'resume', () => {});
  }
  #freeze(name, counterpart, check) {
    if (this.#counterpart) return;
    this.#counterpart = counterpart;
    this.task('page', () => {
      if (!this.#counterpart) return; // too late
      this.trace(name);
      this.#dispatch(name);
      this.isFrozen = true;
      const freezes = ++this.#freezes;
      this.world.after(1000, () => check(freezes));
    });
  }
  return() {
    const name = this.#counterpart;
    this.#counterpart = undefined;
    if (!this.isFrozen) return;
    this.isFrozen = false;
    this.task('page', () => this.#dispatch(name));
  }
  #dispatch(name, persisted = true) {
    const event = Object.assign(new Event(name), { persisted });
    (name.startsWith('page') ? this.window : this.document).dispatchEvent(event);
  }
  // If it crashes, what it had sent may be lost, to some of the others.
  close(isCrash) {
    if (isCrash) this.crash = new Set(this.world.tabs.filter(() => this.world.chance(0.3)));
    else if (!this.isBlocked && !this.isFrozen) this.#dispatch('pagehide', false);
    this.trace('closes');
    this.isGone = true;
    this.world.tabs = this.world.tabs.filter(tab => tab !== this);
    for (const connection of this.connections) connection.close();
    for (const channels of this.browser.channels.values()) for (const channel of channels) if (channel.tab === this) channels.delete(channel);
    for (const lock of this.browser.locks.values()) {
      lock.queue = lock.queue.filter(request => request.tab !== this);
      if (lock.held?.tab === this) lock.held = undefined;
      grant(lock);
    }
  }
  // What keeps a page out of the back/forward cache.
  #held() {
    const { locks, channels } = this.browser;
    const requests = [...locks.values()].flatMap(({ held, queue }) => [held, ...queue]).filter(request => request?.tab === this);
    const open = [...channels.values()].flatMap(channels => [...channels]).filter(channel => channel.tab === this);
    return [...requests.map(({ steal }) => (steal ? 'steal' : 'lock')), ...open.map(() => 'channel'), ...[...this.connections].map(() => 'connection')];
  }

  // ---- what its scripts find ----

  #makeGlobals({ locks = true, channel = true }) {
    const { world, browser } = this, tab = this;
    class BroadcastChannel {
      constructor(name) {
        this.tab = tab;
        this.name = name;
        if (!browser.channels.has(name)) browser.channels.set(name, new Set());
        browser.channels.get(name).add(this);
        this.lines = new Map();
      }
      postMessage(message) {
        if (!browser.channels.get(this.name).has(this)) throw new Error('the channel is closed');
        browser.messages++;
        tab.trace('posts', JSON.stringify(message));
        for (const other of browser.channels.get(this.name)) {
          if (other === this) continue;
          if (!this.lines.has(other)) this.lines.set(other, {});
          const data = structuredClone(message);
          world.inOrder(this.lines.get(other), world.latency(), () => {
            if (!tab.crash?.has(other.tab)) other.tab.task('message', () => browser.channels.get(this.name).has(other) && (other.tab.trace('receives', JSON.stringify(data)), other.onmessage?.({ data })));
          });
        }
      }
      close() {
        browser.channels.get(this.name).delete(this);
      }
    }
    const timers = new Map();
    let count = 0;
    this.globals = {
      document: this.document,
      window: this.window,
      navigator: { locks: locks ? { request: (...parameters) => this.#requestLock(...parameters) } : undefined },
      BroadcastChannel: channel ? BroadcastChannel : undefined,
      performance: { now: () => world.now },
      Date: { now: () => world.now, parse: Date.parse },
      Math: Object.create(Math, { random: { value: () => world.random() } }),
      console: { warn: text => this.errors.push(new Error(text)) },
      setTimeout: (run, ms = 0) => {
        const timer = ++count;
        // Those of hidden tabs run once a second.
        const due = world.now + Math.max(0, ms), at = this.document.hidden ? Math.ceil(due / 1000) * 1000 : due;
        timers.set(timer, run);
        world.after(at - world.now, () => this.task('timer', () => {
          const run = timers.get(timer);
          timers.delete(timer);
          run?.();
        }));
        return timer;
      },
      clearTimeout: timer => void timers.delete(timer),
      fetch: (url, init) => Connection.open(this, `${url}`, init),
    };
    this.globals.globalThis = this.globals;
  }

  // ---- locks ----

  #requestLock(name, { signal, steal = false }, callback) {
    const { promise, resolve, reject } = Promise.withResolvers();
    const request = { tab: this, steal, resolve, reject, callback };
    this.#toBrowser(() => {
      if (!this.browser.locks.has(name)) this.browser.locks.set(name, { queue: [] });
      const lock = this.browser.locks.get(name);
      request.lock = lock;
      if (request.isAborted) return;
      if (steal && lock.held) {
        const { tab, reject } = lock.held;
        this.browser.steals++;
        this.trace('steals from', tab.name);
        tab.isRobbed = true;
        this.browser.isStolenByNew ||= !this.wasOpen; // it has no id, and makes all tabs begin again
        tab.fromBrowser('lock', () => reject(new DOMException('stolen', 'AbortError')));
        lock.held = undefined;
      }
      if (steal) lock.queue.unshift(request);
      else lock.queue.push(request);
      grant(lock);
    });
    const abort = () => {
      request.isAborted = true;
      reject(signal.reason);
      this.#toBrowser(() => release(request));
    };
    if (signal?.aborted) abort();
    else signal?.addEventListener('abort', () => request.isCalled || abort());
    request.run = async () => {
      if (request.isAborted) return;
      request.isCalled = true;
      this.trace('has the lock');
      try {
        resolve(await callback({ name }));
      } catch (error) {
        reject(error);
      }
      this.#toBrowser(() => release(request));
    };
    return promise;
  }
  #toBrowser(run) {
    this.world.inOrder(this.#line, this.world.latency(), () => this.isGone || run());
  }
  fromBrowser(source, run) {
    this.world.inOrder(this.#lineBack, this.world.latency(), () => this.task(source, run));
  }
}

function grant(lock) {
  if (lock.held || !lock.queue.length) return;
  const request = (lock.held = lock.queue.shift());
  request.tab.fromBrowser('lock', request.run);
}
function release(request) {
  const { lock } = request;
  if (!lock) return;
  lock.queue = lock.queue.filter(other => other !== request);
  if (lock.held === request) lock.held = undefined;
  grant(lock);
}
