// What the client sees of a nudged server, and of the network before it.

const HISTORY = 12; // events
const KEEPALIVE_MS = 20_000;
const DEAD_AFTER_MS = 60_000; // of a peer that does not acknowledge
const TICKET_MS = 60_000, STREAM_MS = 600_000; // `exp` and `until`

export class Server {
  network = 'good'; // or 'refuses', or 'loses'
  answer; // instead of a stream: see ANSWERS
  stripsComments = false;
  streams = new Set();
  requests = 0;
  gaps = 0; // of which clients were notified
  epoch = 0;
  expired = -1; // tickets until then are refused
  #feeds = new Map(); // by name: { sequence, events }

  constructor(world) {
    this.world = world;
  }

  feed(name) {
    if (!this.#feeds.has(name)) this.#feeds.set(name, { sequence: 0, events: [] });
    return this.#feeds.get(name);
  }
  id(name, sequence = this.feed(name).sequence) {
    return `${name}${this.epoch}-${sequence}`;
  }
  publish(name, keys) {
    const feed = this.feed(name), id = this.id(name, ++feed.sequence);
    feed.events.push({ sequence: feed.sequence, keys });
    if (feed.events.length > HISTORY) feed.events.shift();
    for (const stream of this.#of(name)) stream.event('invalidate', { keys }, id, keys);
  }
  // Everything may be stale: `connected` in mid-stream, and no earlier id is resumed.
  reread(name) {
    const feed = this.feed(name);
    feed.sequence++;
    feed.events = [];
    for (const stream of this.#of(name)) stream.event('connected', { keepalive: KEEPALIVE_MS / 1000 }, this.id(name));
  }
  // Of a ticket.
  times() {
    return { iat: this.world.now, exp: this.world.now + TICKET_MS, until: this.world.now + STREAM_MS };
  }
  // Another process, which knows nothing of the first. A kind one has said when to come back.
  restart(isKind) {
    for (const { connection } of this.streams) {
      if (isKind) connection.write(`retry: ${100 + Math.floor(this.world.random() * 4000)}\n`);
      connection.cut(isKind);
    }
    this.epoch++;
    this.#feeds.clear();
  }

  #of(name) {
    return [...this.streams].filter(stream => stream.name === name);
  }

  receive(connection) {
    const { world } = this, { headers, url } = connection;
    this.requests++;
    const answer = this.answer && ANSWERS[this.answer];
    if (answer) return connection.respond(...answer);
    let name = 'public', until = Infinity;
    const token = headers.authorization?.slice('Bearer '.length);
    if (token) {
      const claims = JSON.parse(atob(token.split('.')[1] ?? token));
      if (claims.exp < world.now || claims.iat <= this.expired) return connection.respond(401);
      ({ sub: name, until = Infinity } = claims);
    }
    connection.respond(200, { 'content-type': 'text/event-stream' });
    new Stream(this, connection, name, until, headers['last-event-id'] ?? '');
  }
}

// What comes in place of a stream, from nudged or from a proxy.
export const ANSWERS = {
  unauthorized: [401],
  error: [500],
  limit: [503, { 'retry-after': '7' }],
  proxy: [502, { 'content-type': 'text/html' }, '<html>'],
  page: [200, { 'content-type': 'text/html' }, '<html>'],
  full: [200, { 'content-type': 'text/event-stream' }, 'retry: 2000\n'],
  gone: [404],
};

class Stream {
  constructor(server, connection, name, until, id) {
    Object.assign(this, { server, connection, name });
    const { searchParams } = new URL(connection.url);
    this.wishes = searchParams.getAll('keys');
    this.isPinged = searchParams.get('ping') === 'event' || this.wishes.length > 0;
    server.streams.add(this);
    connection.stream = this;
    const feed = server.feed(name), prefix = server.id(name, '');
    const sequence = id.startsWith(prefix) ? Number(id.slice(prefix.length)) : -1;
    const isCovered = sequence <= feed.sequence && sequence >= feed.sequence - feed.events.length;
    if (!isCovered && id) server.gaps++;
    connection.write(`retry: ${1000 + Math.floor(server.world.random() * 4000)}\n`);
    this.event(isCovered ? 'resumed' : 'connected', { keepalive: KEEPALIVE_MS / 1000 }, isCovered ? id : server.id(name));
    if (isCovered) {
      for (const { sequence: at, keys } of feed.events) if (at > sequence) this.event('invalidate', { keys }, server.id(name, at), keys);
    }
    this.#keepAlive();
    if (until < Infinity) server.world.after(until - server.world.now, () => server.streams.has(this) && connection.cut(true));
  }
  event(name, data, id, keys) {
    if (keys && this.wishes.length && !keys.some(key => this.wishes.some(wish => key.startsWith(wish.replace('*', ''))))) return;
    this.connection.write(`id: ${id}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
  }
  #keepAlive() {
    const { server, connection } = this;
    server.world.after(KEEPALIVE_MS * (0.75 + server.world.random() / 4), () => {
      if (!server.streams.has(this)) return;
      if (this.wishes.length) this.event('ping', {}, server.id(this.name));
      else if (this.isPinged) connection.write('event: ping\ndata: {}\n\n');
      else if (!server.stripsComments) connection.write(': keepalive\n');
      this.#keepAlive();
    });
  }
}

const ENCODER = new TextEncoder();

// One request of a tab, and its response.
export class Connection {
  #line = {};
  #response = Promise.withResolvers();
  #chunks = [];
  #reading; // a read that waits
  #state = ''; // 'ended' or 'failed'
  #isCut = false;
  #isSilent = false; // its packets are lost, both ways

  static open(tab, url, { headers = {}, signal }) {
    const connection = new Connection();
    const { world, browser: { server, isOnline } } = tab;
    Object.assign(connection, { tab, world, server, url, headers });
    tab.trace('fetch', headers['last-event-id'] ?? '');
    if (signal?.aborted) return Promise.reject(signal.reason);
    signal?.addEventListener('abort', () => connection.#abort(signal.reason));
    tab.connections.add(connection);
    const network = isOnline ? server.network : 'refuses';
    if (network === 'loses') connection.#isSilent = true;
    world.after(world.latency(), () => {
      if (network === 'refuses') connection.cut(false);
      else if (!connection.#isSilent && !connection.#isCut && tab.connections.has(connection)) server.receive(connection);
    });
    return connection.#response.promise;
  }

  // ---- for the server ----

  respond(status, headers = {}, text) {
    const { world, tab } = this;
    world.inOrder(this.#line, world.latency(), () => this.#isSilent || tab.task('network', () => this.#response.resolve({
      status,
      ok: status === 200,
      headers: { get: name => headers[name] ?? null },
      body: { getReader: () => ({ read: () => this.#read() }) },
    })));
    if (text === undefined && status === 200) return;
    if (text) this.write(text);
    this.cut(true);
  }
  write(text) {
    const bytes = ENCODER.encode(text), middle = this.world.chance(0.2) ? Math.floor(this.world.random() * bytes.length) : 0;
    for (const part of middle ? [bytes.subarray(0, middle), bytes.subarray(middle)] : [bytes]) {
      this.world.inOrder(this.#line, this.world.latency(), () => this.#arrive(() => this.#chunks.push(part)));
    }
  }

  // ---- for the network ----

  // Ends in order, after what was written, or is reset with what has arrived so far.
  cut(isInOrder) {
    this.#isCut = true;
    this.server.streams.delete(this.stream);
    const end = () => {
      this.#arrive(() => {
        this.#state = isInOrder ? 'ended' : 'failed';
        this.#response.reject(new TypeError('network error')); // if there was none
        this.tab.connections.delete(this);
      });
      if (!isInOrder) this.#isSilent = true;
    };
    if (isInOrder) this.world.inOrder(this.#line, this.world.latency(), end);
    else this.world.after(this.world.latency(), end);
  }
  silence() {
    this.#isSilent = true;
    this.world.after(DEAD_AFTER_MS, () => this.server.streams.delete(this.stream));
  }

  // ---- for the tab ----

  close() {
    this.tab.connections.delete(this);
    if (!this.#isSilent) this.world.after(this.world.latency(), () => this.server.streams.delete(this.stream));
  }
  #abort(reason) {
    this.tab.trace('aborts');
    if (!this.tab.connections.has(this)) return;
    this.close();
    this.#state = 'failed';
    this.#response.reject(reason);
    this.#reading?.reject(reason);
  }
  #arrive(change) {
    if (this.#isSilent) return;
    this.tab.task('network', () => {
      if (this.#state) return;
      change();
      this.#settle();
    });
  }
  #read() {
    this.#reading = Promise.withResolvers();
    const { promise } = this.#reading;
    this.#settle();
    return promise;
  }
  #settle() {
    if (!this.#reading) return;
    if (this.#chunks.length) this.#reading.resolve({ done: false, value: this.#chunks.shift() });
    else if (this.#state === 'ended') this.#reading.resolve({ done: true });
    else if (this.#state === 'failed') this.#reading.reject(new TypeError('network error'));
    else return;
    this.#reading = undefined;
  }
}
