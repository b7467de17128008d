// Random schedules, and what has to hold after each.

import { Browser } from './browser.mjs';
import { Page } from './page.mjs';
import { ANSWERS, Server } from './server.mjs';
import { World } from './world.mjs';

const TABS = 4, CRASH = 'crash';
const FEEDS = ['alice', 'bob', 'public'];
const HEALED_MS = 300_000; // until everything has to be well again
const OUTAGE_MS = 600_000;
const REQUESTS_OF_AN_OUTAGE = 60; // of one stream: pauses of up to a minute, and two with a ticket for each that is refused
const REQUESTS_OF_A_CALM = 6; // of one tab: where streams end by their tickets, and where these become another user's
const MESSAGES_OF_AN_OUTAGE = 1000;
const FAULTS = [undefined, 'offline', 'refuses', 'loses', 'throws', 'hangs', ...Object.keys(ANSWERS).filter(name => name !== 'gone')];

// Steps that any schedule may take: [weight, name, parameters].
const STEPS = [
  [20, 'publish', random => [pick(random, ['alice', 'alice', 'bob', 'public']), 1 + Math.floor(random() * 3)]],
  [2, 'publishMuch', () => []],
  [8, 'open', random => [tab(random), { isHidden: random() < 0.2, hidden: random() < 0.2, hasPosition: random() < 0.3, share: random() < 0.1 ? false : undefined }]],
  [3, 'close', random => [tab(random), random() < 0.5 ? CRASH : '']],
  [6, 'block', random => [tab(random), duration(random, 120_000)]],
  [4, 'hide', random => [tab(random)]],
  [4, 'show', random => [tab(random)]],
  [2, 'leave', random => [tab(random)]],
  [3, 'return', random => [tab(random)]],
  [2, 'freeze', random => [tab(random)]],
  [4, 'reopen', random => [tab(random)]],
  [6, 'cut', random => [random() < 0.5]],
  [4, 'silence', () => []],
  [3, 'restart', random => [random() < 0.5]],
  [2, 'reread', random => [pick(random, FEEDS)]],
  [2, 'network', random => [pick(random, ['good', 'refuses', 'loses']), duration(random, 90_000)]],
  [2, 'offline', random => [duration(random, 90_000)]],
  [3, 'answer', random => [pick(random, Object.keys(ANSWERS)), duration(random, 60_000)]],
  [2, 'tickets', random => [pick(random, ['throws', 'hangs']), duration(random, 60_000)]],
  [4, 'login', random => [pick(random, ['alice', 'alice', 'bob', undefined])]],
  [4, 'expire', () => []],
];

// What may make a client unsure of what it has, and say `connected` again.
const UNREST = ['publishMuch', 'leave', 'freeze', 'reopen', 'restart', 'reread', 'login'];

const pick = (random, list) => list[Math.floor(random() * list.length)];
const tab = random => Math.floor(random() * TABS);
// From 1 ms, each order of magnitude as often as any.
const duration = (random, most) => Math.round(most ** random());

// The steps of a seed: [pause before it, name, ...parameters]. Most steps follow at once, or after some seconds.
export function stepsOf(seed) {
  const world = new World(seed), random = () => world.random();
  const isCalm = random() < 0.4;
  const weights = STEPS.map(([weight, name]) => (random() < 0.3 || (isCalm && UNREST.includes(name)) ? 0 : weight * random())); // each schedule favours some
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const steps = [0, 1, 2].slice(0, 2 + Math.round(random())).map(place => [0, 'open', place, {}]);
  for (let left = 5 + random() * 35; left > 0; left--) {
    let at = random() * total, i = 0;
    while (i < STEPS.length - 1 && (at -= weights[i]) > 0) i++;
    steps.push([duration(random, 60_000), STEPS[i][1], ...STEPS[i][2](random)]);
  }
  return steps;
}

// Runs steps in the world of a seed; what went wrong, as texts. Variants differ in what is by chance in that world.
export async function run(module, { seed, steps = stepsOf(seed), variant = 0 }) {
  const setting = makeSetting(seed, variant);
  const { world, server, browser, violations, ...rest } = setting;
  world.trace(JSON.stringify({ ...rest, stripsComments: server.stripsComments }));
  const run = new Run(setting, module);
  // What is a need is known roughly: of the seeds that are fixed.
  run.isCalm = seed < 1_000_000 && steps.every(([, name, ...parameters]) => !UNREST.includes(name) && !parameters.includes(CRASH));
  for (const [pause, name, ...parameters] of steps) {
    await setting.world.run(pause);
    setting.world.trace('STEP', name, ...parameters);
    run[name](...parameters);
  }
  await run.check();
  return [...new Set(setting.violations)];
}

function makeSetting(seed, variant) {
  const setting = new World(seed ^ 0x5e771), world = new World(seed * 1000 + variant);
  const server = new Server(world), browser = new Browser(world, server);
  server.stripsComments = setting.chance(0.2);
  return {
    world, server, browser,
    violations: [],
    answers: new Set(), // their statuses
    ticketKind: setting.pick(['none', 'jwt', 'jwt', 'jwt', 'text']),
    ticketCalls: 0,
    user: 'alice',
    spread: setting.pick([undefined, 0, 10_000]),
    silence: setting.chance(0.1) ? 25_000 : undefined,
    keys: setting.chance(0.2) ? ['posts:*', 'feeds:*'] : undefined,
    has: { locks: !setting.chance(0.05), channel: !setting.chance(0.05) },
    isFaulty: setting.chance(0.1),
  };
}

const isAway = ({ isBlocked, isFrozen, document }) => isBlocked || isFrozen || document.hidden;

class Run {
  pages = []; // by place
  #keys = 0;
  #tabs = 0;
  #healed = 0;

  constructor(setting, module) {
    const { world, server, browser, violations } = setting;
    Object.assign(this, { setting, world, server, browser, violations, module });
  }

  // ---- steps ----

  publish(feed, size) {
    if (this.setting.ticketKind === 'none') feed = 'public';
    const kind = this.world.pick(['posts', 'others']), keys = Array.from({ length: size }, () => `${kind}:${feed}:${this.#keys++}`);
    for (const page of this.#open()) page.published(feed, keys);
    this.server.publish(feed, keys);
  }
  publishMuch() {
    for (let i = 0; i < 4; i++) this.publish('alice', 400);
  }
  reread(feed) {
    for (const page of this.#open()) page.published(feed);
    this.server.reread(feed);
  }
  restart(isKind) {
    this.server.restart(isKind);
  }
  open(place, options) {
    this.pages[place] ??= new Page(this.setting, this.module, options, ++this.#tabs);
  }
  close(place, how) {
    this.pages[place]?.tab.close(how === CRASH);
    this.pages[place] = undefined;
  }
  block(place, ms) {
    const tab = this.pages[place]?.tab;
    if (!tab) return;
    tab.isBlocked = true;
    this.#later(ms, () => { tab.isBlocked = false; });
  }
  freeze(place) {
    this.pages[place]?.tab.freeze();
  }
  hide(place) {
    this.pages[place]?.tab.show(false);
  }
  show(place) {
    this.pages[place]?.tab.show(true);
  }
  leave(place) {
    this.pages[place]?.tab.leave(text => this.violations.push(text));
  }
  return(place) {
    this.pages[place]?.tab.return();
  }
  reopen(place) {
    this.pages[place]?.reopen();
  }
  cut(isInOrder) {
    for (const connection of this.#connections()) connection.cut(isInOrder);
  }
  silence() {
    for (const connection of this.#connections()) connection.silence();
  }
  network(state, ms) {
    this.server.network = state;
    if (state === 'refuses') this.cut(false);
    if (state === 'loses') this.silence();
    this.#later(ms, () => { this.server.network = 'good'; });
  }
  offline(ms) {
    this.browser.isOnline = false;
    this.silence();
    this.#later(ms, () => this.#online());
  }
  answer(name, ms) {
    this.setting.answers.add(ANSWERS[name][0]);
    this.server.answer = name;
    this.#later(ms, () => { this.server.answer = undefined; });
  }
  tickets(fault, ms) {
    this.setting.ticketFault = fault;
    this.#later(ms, () => { this.setting.ticketFault = undefined; });
  }
  login(user) {
    this.setting.user = user;
  }
  expire() {
    this.server.expired = this.world.now;
    this.cut(true);
  }

  #open() {
    return this.pages.filter(Boolean);
  }
  #connections() {
    return this.#open().flatMap(({ tab }) => [...tab.connections]);
  }
  // Unless everything was made well before.
  #later(ms, run) {
    const healed = this.#healed;
    this.world.after(ms, () => healed === this.#healed && run());
  }
  #online() {
    if (this.browser.isOnline) return;
    this.browser.isOnline = true;
    for (const { tab } of this.#open()) tab.task('page', () => tab.window.dispatchEvent(new Event('online')));
  }

  // ---- what has to hold ----

  async check() {
    const { world, setting, violations } = this;
    await this.#takeOver();
    await this.#heal('after the steps');
    await this.#outage(world.pick(FAULTS.filter(name => name !== 'unauthorized' || setting.ticketKind !== 'none')));
    await this.#heal('after an outage');
    for (const { tab } of this.#open()) tab.show(true);
    for (const feed of FEEDS) this.publish(feed, 1);
    await this.#expectWell('after a last publish', page => this.#lacks(page, true) ?? this.#lacksStream(page));
    const isSure = ({ connects, tab }) => connects <= 1 || tab.isRobbed || tab.isOpenedLate || this.browser.isStolenByNew;
    if (this.isCalm && !this.server.gaps && !this.#open().every(isSure)) violations.push('connected without need');
    for (const page of this.#open()) for (const error of page.errors()) violations.push(`an error in a page: ${error.stack}`);
  }
  #makeWell() {
    const { server, setting } = this;
    this.#healed++;
    server.network = 'good';
    server.answer = setting.ticketFault = undefined;
    setting.user ??= 'alice';
    this.#online();
  }
  // Some tabs stay blocked: those that are looked at go on without them.
  async #takeOver() {
    const { world } = this;
    this.#makeWell();
    for (const { tab } of this.#open()) {
      tab.isOpenedLate ||= !tab.wasOpen;
      tab.isBlocked = tab.isBlocked || world.chance(0.2);
    }
    await world.run(60_000);
    for (const feed of FEEDS) this.publish(feed, 1);
    this.open(Math.floor(world.random() * TABS), {});
    for (const { tab } of this.#open()) if (world.chance(0.5)) tab.show(true);
    await this.#expectWell('while others are blocked', page => (isAway(page.tab) ? undefined : this.#lacks(page)));
  }
  async #heal(when) {
    this.world.trace('HEAL');
    this.#makeWell();
    for (const { tab } of this.#open()) {
      tab.return();
      tab.isBlocked = false;
    }
    await this.world.run(10_000); // what blocked tabs still had to do
    await this.#expectWell(when, page => this.#lacks(page) ?? this.#lacksStream(page));
  }
  // In time nothing is missing to any page.
  async #expectWell(when, missing) {
    const find = () => this.#open().filter(page => !page.isFinal).map(missing).find(Boolean);
    for (const end = this.world.now + HEALED_MS; this.world.now < end && find(); ) await this.world.run(5000);
    const found = find();
    if (found) this.violations.push(`${when} ${found}`);
  }
  // Each tab is open and has learnt of everything. A tab that came while two held the stream may be behind, and learns
  // so from the next event.
  #lacks(page, isLast) {
    if (page.state !== 'open') return `a tab is ${page.state} (${page.why})`;
    if (page.tab.document.hidden && !page.options.hidden) return;
    if (page.lost().length) return 'keys are lost';
    if (isLast && page.id !== this.server.id(page.feed)) return 'a tab is not at the last id';
  }
  // There is one for all tabs of a user.
  #lacksStream({ feed }) {
    const pages = this.#groups()[feed], expected = this.#streamsOf(pages);
    const { length } = [...this.server.streams].filter(stream => stream.name === feed);
    if (length !== expected) return `${length} streams are open for ${pages.length} tabs, not ${expected}`;
  }
  // A long one, in which everything but the fault is well: the server is left in peace, and so are the tabs.
  async #outage(fault) {
    const { server, setting, browser, world, violations } = this;
    world.trace('OUTAGE', fault);
    if (fault === 'offline') this.offline(OUTAGE_MS);
    else if (fault === 'refuses' || fault === 'loses') this.network(fault, OUTAGE_MS);
    else if (fault === 'throws' || fault === 'hangs') this.tickets(fault, OUTAGE_MS), this.expire();
    else if (fault) this.answer(fault, OUTAGE_MS), this.cut(true);
    const before = { steals: browser.steals, messages: browser.messages, requests: server.requests + setting.ticketCalls };
    await world.run(OUTAGE_MS - 1);
    const streams = Object.values(this.#groups()).reduce((sum, pages) => sum + this.#streamsOf(pages), 0);
    const requests = server.requests + setting.ticketCalls - before.requests;
    if (requests > (fault ? streams * REQUESTS_OF_AN_OUTAGE : this.#open().length * REQUESTS_OF_A_CALM)) violations.push(`many requests in an outage (${fault})`);
    if (browser.messages - before.messages > MESSAGES_OF_AN_OUTAGE) violations.push(`many messages in an outage (${fault})`);
    if (browser.steals > before.steals) violations.push(`a steal although every tab answers (${fault})`);
    const isNoticed = fault && (setting.ticketKind === 'jwt' || !['throws', 'hangs'].includes(fault));
    if (isNoticed && this.#open().some(({ state }) => state === 'open')) violations.push(`a tab seems open in an outage (${fault})`);
    if (fault !== 'offline' || setting.ticketKind === 'jwt') return; // an old ticket takes longer
    await world.run(5000);
    if (this.#open().some(({ state }) => state === 'connecting')) violations.push('the end of being offline is not noticed');
  }
  // The open tabs by user.
  #groups() {
    return Object.groupBy(this.#open().filter(page => !page.isFinal), ({ feed }) => feed);
  }
  #streamsOf(pages) {
    const { locks, channel } = this.setting.has, sharing = pages.filter(({ options }) => options.share !== false).length;
    return locks && channel ? pages.length - sharing + Math.min(sharing, 1) : pages.length;
  }
}
