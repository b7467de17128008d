// Pages with the client, in one process: node pages.mjs SERVER BACKEND PAGES HIDDEN HIDDEN-OPTION SPREAD
//
// Each has a document, a window and a stream of its own, and re-reads with a GET on a connection of its own to the
// backend. Commands are lines of standard input, each answered by a line of JSON.
import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import { connect } from 'node:net';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { createInterface } from 'node:readline';

import { nudged } from '../../src/browser/nudged.js';

const [server, backend, pages, hiddenPages, hidden, spread] = process.argv.slice(2).map(JSON.parse);
const OPENING = 100; // streams that are opened at once
const LOOK = 200; // milliseconds for which a page is looked at
const wait = ms => new Promise(done => setTimeout(done, ms));

// The client reads the globals `document` and `window`: those of the page in whose course it runs.
const current = new AsyncLocalStorage();
for (const name of ['document', 'window']) {
  Object.defineProperty(globalThis, name, { get: () => current.getStore()?.[name] });
}

// Requests for streams since the last mark, and when each stream was opened, in milliseconds.
let attempts = 0, openings = [], mark = performance.now();
const request = globalThis.fetch;
globalThis.fetch = (...given) => {
  attempts++;
  return request(...given);
};

const faults = [];
const fault = text => faults.length < 8 && faults.push(text);
process.on('uncaughtException', error => fault(String(error.stack)));
process.on('unhandledRejection', error => fault(String(error?.stack)));

class Page {
  constructor(isHidden) {
    this.document = Object.assign(new EventTarget(), { hidden: isHidden, baseURI: server });
    this.window = new EventTarget();
    this.isOpen = false;
    this.due = 0; // responses
    this.hasMoved = false;
  }

  async open() {
    this.socket = connect({ host: '127.0.0.1', port: backend, noDelay: true });
    this.socket.on('data', text => { this.due -= `${text}`.split('HTTP/1.1 200 ').length - 1; });
    this.socket.on('error', error => fault(String(error)));
    await once(this.socket, 'connect');
    await new Promise(opened => {
      const status = state => {
        this.isOpen = state === 'open';
        if (!this.isOpen) return;
        openings.push(performance.now() - mark);
        opened();
      };
      const [connected, invalidate] = ['connected', 'invalidate'].map(why => () => this.read(why));
      const event = () => { this.hasMoved = true; };
      const options = { connected, invalidate, status, event, hidden, spread, share: false };
      current.run(this, () => nudged(`${server}/api/herd/events`, options));
    });
  }

  read(why) {
    this.due++;
    this.socket.write(`GET /posts?${why} HTTP/1.1\r\nhost: localhost\r\n\r\n`);
  }

  turn(isHidden) {
    this.document.hidden = isHidden;
    current.run(this, () => this.document.dispatchEvent(new Event('visibilitychange')));
  }
}

// Until what the pages have been called for has been answered: the client calls them by a timer.
async function settle() {
  await wait(20);
  for (let tries = 0; all.some(page => page.due); tries++) {
    if (tries === 1000) return fault('the backend does not answer');
    await wait(10);
  }
}

// Every hidden page is looked at once, at a random moment.
async function look(ms) {
  await Promise.all(all.slice(0, hiddenPages).map(async page => {
    await wait(Math.random() * ms);
    page.turn(false);
    await wait(LOOK);
    page.turn(true);
  }));
}

const all = Array.from({ length: pages }, (_, number) => new Page(number < hiddenPages));
for (let from = 0; from < pages; from += OPENING) {
  await Promise.all(all.slice(from, from + OPENING).map(page => page.open()));
}
const delay = monitorEventLoopDelay({ resolution: 5 });
delay.enable();
const answer = value => console.log(JSON.stringify(value));
answer({ node: process.version });
for await (const line of createInterface({ input: process.stdin })) {
  const [command, argument] = line.split(' ');
  if (command === 'mark') {
    attempts = 0, openings = [], mark = performance.now();
    for (const page of all) page.hasMoved = false;
    delay.reset();
    answer({});
  } else if (command === 'count') {
    const count = is => all.filter(is).length;
    answer({ open: count(page => page.isOpen), moved: count(page => page.hasMoved) });
  } else if (command === 'settle') {
    await settle();
    answer({});
  } else if (command === 'look') {
    await look(Number(argument));
    await settle();
    answer({});
  } else {
    answer({ attempts, openings, delay: delay.max / 1e6, faults });
  }
}
process.exit();
