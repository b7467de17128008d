// A deterministic event loop with a clock of its own. The same seed makes the same run.

export class World {
  now = 0; // ms
  tabs = [];
  #events = []; // a heap by time, and of equal times by order
  #order = 0;
  #state;

  constructor(seed) {
    this.#state = seed >>> 0;
  }

  // What happens, with TRACE=1.
  trace(...what) {
    if (process.env.TRACE) console.log((this.now / 1000).toFixed(3).padStart(9), ...what);
  }
  // From 0 up to 1 (mulberry32).
  random() {
    let t = (this.#state = (this.#state + 0x6d2b79f5) | 0);
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
  chance(p) {
    return this.random() < p;
  }
  pick(list) {
    return list[Math.floor(this.random() * list.length)];
  }
  // What a hop between two processes, or over a network, takes: mostly little.
  latency() {
    return this.chance(0.1) ? this.random() * 500 : this.random() * 5;
  }

  after(ms, run) {
    const event = { at: this.now + ms, order: this.#order++, run };
    const events = this.#events;
    let child = events.push(event) - 1;
    for (let parent; child && isBefore(event, events[(parent = (child - 1) >> 1)]); child = parent) events[child] = events[parent];
    events[child] = event;
    return event;
  }
  // As `after`, but not before the last of this line: what was sent first arrives first.
  inOrder(line, ms, run) {
    line.at = Math.max(line.at ?? 0, this.now + ms);
    this.after(line.at - this.now, run);
  }

  // Lets the world go on for a time. Tabs run their tasks whenever they can; only then does time pass.
  async run(ms) {
    const until = this.now + ms;
    for (;;) {
      const ready = this.tabs.filter(tab => tab.isReady());
      if (ready.length) {
        this.pick(ready).turn();
        await new Promise(setImmediate); // the microtasks
      } else if (this.#events.length && this.#events[0].at <= until) {
        const event = this.#pop();
        this.now = Math.max(this.now, event.at);
        event.run();
      } else {
        this.now = until;
        return;
      }
    }
  }

  #pop() {
    const events = this.#events, first = events[0], last = events.pop();
    if (!events.length) return first;
    let parent = 0;
    for (let child; (child = 2 * parent + 1) < events.length; parent = child) {
      if (child + 1 < events.length && isBefore(events[child + 1], events[child])) child++;
      if (!isBefore(events[child], last)) break;
      events[parent] = events[child];
    }
    events[parent] = last;
    return first;
  }
}

const isBefore = (a, b) => a.at < b.at || (a.at === b.at && a.order < b.order);
