// A page in a tab: what it was promised, and what the client has it do. Violations are texts.

import { Tab } from './browser.mjs';

export class Page {
  state;
  why;
  feed; // whose tickets it shows
  isFinal = false; // was answered what ends a stream for good
  connects = 0;
  #stale = new Set(); // the keys that it has to learn of, or 'everything'
  #calls = 0;

  // `setting` is the world's: see schedule.mjs.
  constructor(setting, module, options, name) {
    Object.assign(this, { setting, options, world: setting.world });
    this.tab = new Tab(setting.browser, setting.has);
    this.tab.name = name;
    if (options.isHidden) this.tab.document.hidden = true;
    this.nudged = module(...GLOBALS.map(name => this.tab.globals[name]));
    this.feed = setting.ticketKind === 'none' ? 'public' : undefined;
    // A position is read before the data.
    const since = options.hasPosition && this.feed ? setting.server.id(this.feed) : undefined;
    if (!since) this.#stale.add('everything');
    this.tab.task('page', () => this.#open(since));
    this.tab.task('page', () => this.tab.window.dispatchEvent(new Event('pageshow')));
  }

  #open(since) {
    const { setting, options } = this;
    this.#calls = 0;
    this.isFinal = this.hasNoTicket = false;
    this.hasSince = !!since;
    this.stream = this.nudged('/api/acme/events', {
      connected: isFirst => this.#called(() => {
        this.trace('connected', isFirst);
        if (isFirst !== (!this.hasSince && this.#calls === 0)) this.violation(`connected(${isFirst}) as call ${this.#calls}`);
        this.connects++;
        this.#stale.clear();
      }),
      invalidate: keys => this.#called(() => {
        this.trace('invalidate', keys.slice(0, 3).join(' '));
        if (!keys.length || new Set(keys).size < keys.length) this.violation(`keys that are none, or repeated: ${keys.slice(0, 3)}`);
        for (const key of keys) {
          if (key.split(':')[1] !== this.feed) this.violation(`the key ${key} of another user than ${this.feed}`);
          this.#stale.delete(key);
        }
      }),
      status: (state, why) => {
        [this.state, this.why] = [state, why];
        this.trace('status', state, why ?? '');
        this.tab.wasOpen ||= state === 'open';
        if (state === 'closed' && !this.isLeaving) {
          const isRight = why === 'no ticket' ? this.hasNoTicket : setting.answers.has(why) && (why === 404 || (why === 401 && setting.ticketKind === 'none'));
          if (!isRight) this.violation(`closed for good: ${why}`);
          this.isFinal = true;
        }
        this.#mayThrow();
      },
      ticket: setting.ticketKind === 'none' ? undefined : () => this.#ticket(),
      since,
      share: options.share,
      hidden: options.hidden,
      spread: setting.spread,
      silence: setting.silence,
      keys: setting.keys,
    });
  }
  #called(check) {
    if (this.isFinal) this.violation('called although closed');
    if (this.tab.document.hidden && !this.options.hidden) this.violation('called although hidden');
    check();
    this.#calls++;
    this.#mayThrow();
  }
  #mayThrow() {
    if (this.setting.isFaulty && this.world.chance(0.1)) throw PAGE_ERROR;
  }
  // The page's component is made anew, and goes on where the last one was.
  reopen() {
    this.tab.task('page', () => {
      const since = this.stream.id;
      this.isLeaving = true;
      this.stream.close();
      this.isLeaving = false;
      if (!since) this.#stale.add('everything');
      this.#open(since);
    });
  }

  async #ticket() {
    const { setting, world } = this;
    setting.ticketCalls++;
    await new Promise(done => this.tab.globals.setTimeout(done, world.latency()));
    if (setting.ticketFault === 'throws') throw new Error('no server for tickets');
    if (setting.ticketFault === 'hangs') await new Promise(() => {});
    const user = setting.user;
    if (!user) {
      this.hasNoTicket = true;
      return null;
    }
    if (this.feed !== user) {
      this.feed = user;
      this.#stale = new Set(['everything']);
    }
    const claims = { sub: user, org: 'acme', scope: 'subscribe' };
    if (setting.ticketKind === 'text') return btoa(JSON.stringify(claims));
    return `h.${btoa(JSON.stringify({ ...claims, ...setting.server.times(), jti: world.random() }))}.s`;
  }

  // Keys, or everything, of a feed were made stale.
  published(feed, keys) {
    if (feed !== this.feed) return;
    for (const key of keys ?? ['everything']) {
      if (!setting_isWished(this.setting, key)) continue;
      this.#stale.add(key);
    }
  }
  get id() {
    return this.stream?.id;
  }
  // What it has not learnt of, although it should have.
  lost() {
    return this.isFinal ? [] : [...this.#stale];
  }
  trace(...what) {
    this.tab.trace(...what);
  }
  violation(text) {
    this.trace('VIOLATION', text);
    this.setting.violations.push(text);
  }
  errors() {
    return this.tab.errors.filter(error => error !== PAGE_ERROR);
  }
}

const PAGE_ERROR = new Error('an error of the page');
const setting_isWished = ({ keys }, key) => !keys || key === 'everything' || keys.some(wish => key.startsWith(wish.replace('*', '')));

export const GLOBALS = ['globalThis', 'document', 'window', 'navigator', 'BroadcastChannel', 'performance', 'Date', 'Math', 'console', 'setTimeout', 'clearTimeout', 'fetch'];

// The client as a function of what it finds in its page.
export const moduleOf = source => new Function(...GLOBALS, `'use strict';${source.replace(/^export /gm, '')}\nreturn nudged;`);
