//! nudged tells browsers that what they hold is stale. A backend publishes invalidations for an organisation; every
//! browser of that organisation receives them over Server-Sent Events (SSE) and reads again. This page is the
//! architecture; the README and the [`guide`] are for users.
//!
//! # Layout
//!
//! In reading order. Imports go one way: a layer knows only those before it.
//!
//! * [`ids`], [`time`], [`config`], [`metrics`]: names and ids, clocks, limits with their defaults, counters.
//! * [`wire`]: the SSE text format, written, and parsed as a browser parses it.
//! * [`hub`]: the state. Channels of orgs, the feeds of their views, histories and coalescing windows; channels of topics
//!   and their backlogs; seats in slabs, timer wheels, and the commands to open streams.
//! * [`stream`]: how events leave the hub. [`EventStream`](stream::EventStream), the body that holds a seat, and the
//!   driver, the one task of a shard that sleeps. Beside them [`Heartbeat`](stream::Heartbeat), for streams of others.
//! * `state`: what of a hub outlives its process, as records of CBOR, and the file in which it outlives a restart.
//! * `admission`: limits of connections and streams, counted by guards that move with them; which connection is closed
//!   to make room for another.
//! * `backplane`: several servers as one. A follower reads the log that they share, and applies it to the hub; publishes
//!   are appended to it. Knows the hub and brokers, no HTTP. The brokers, NATS JetStream and Redis, are two
//!   implementations of `backplane::broker`.
//! * `http`: what a request means. Hosts and origins, routes, authorisation, publishing, responses, `/metrics`. Knows
//!   no socket. It also has the client of pages, `src/browser`, whose files it serves as they are.
//! * [`outbox`]: rows that transactions of an application write are published once these have been committed. Knows the
//!   hub, the log, what a valid publish is, and PostgreSQL; no request and no socket of a client.
//! * [`server`]: sockets and threads. `server::reactor` holds the connections that no task serves, `server::tls` has
//!   their handshakes, sessions and records, `server::reload` reads keys and certificates again, `server::upgrade` hands
//!   everything to a successor.
//! * [`client`]: a client, for `nudged publish`, `reread` and `listen`; `bench`: the load generator.
//!
//! The binary adds `cli`: flags and environment become a [`Config`](config::Config).
//!
//! # Features
//!
//! Without default features the crate is its core: [`ids`], [`time`], [`config`], [`metrics`], [`wire`], [`hub`] and
//! [`stream`], with twelve dependencies and no C compiler.
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `server` | yes | [`server`], with `admission` and `http`: sockets, worker threads, limits, publish keys |
//! | `tls` | yes | TLS, in the server and the client; needs a C compiler |
//! | `nats` | yes | a log in NATS JetStream, for several servers; implies `server` and `tls` |
//! | `redis` | no | the same in a Redis stream; implies `server` and `tls` |
//! | `postgres` | no | publishes on COMMIT, from a table in PostgreSQL; implies `server` and `tls` |
//! | `jwt` | yes | tokens and JWK sets in the server; implies `server` and `client` |
//! | `client` | yes | [`client`]; implies `tls` |
//! | `cli` | yes | the binary, with the commands and flags of the features that are on; implies `server` |
//! | `bench` | no | the load generator, `nudged bench`; implies `client` |
//! | `full` | no | all of them |
//!
//! # Data flow
//!
//! ```text
//!  publish ──► Hub ──► Channel (one per org)
//!                        └─ Feed (one per view): History: events encoded once, with ids
//!                             └─ Seats: a slab per shard; a seat is a cursor into the history
//!                                │ marked dirty, the shard's driver woken once
//!  worker thread (one per core: its own listeners, runtime, shard of the hub)
//!     accept ─► Reactor: TLS handshake, waits for the first request (beyond a limit: hyper)
//!                ├─ GET of a stream ─► EventStream::open (takes a seat) ─► streams from the same slot
//!                └─ anything else, HTTP/2 ─► hyper ─► Service
//!                                                ├─ a stream, HTTP/1: handed off to the Reactor, with its socket
//!                                                ├─ a stream, HTTP/2: hyper polls the EventStream as a body
//!                                                └─ any other response
//!     Driver: reactor (new connections, readiness) · coalescing windows · sweeps · wheels
//! ```
//!
//! *An event is delivered.* [`Hub::publish`](hub::Hub::publish) encodes it once, appends it to the channel's history
//! and puts the channel into the inbox of every shard that has seats of it. Each view, the members' and the public one,
//! is a feed with ids, a history and seats of its own; the public one begins with the first public stream. The driver
//! sweeps the seats of a feed in memory order, some in each turn, and has a share of the worker's time: as long as the
//! other tasks have just run, within bounds. A streaming connection of the reactor gets what lies between its cursor
//! and the head in one `write` or `writev`; for a stream that hyper polls, the driver wakes the task, which takes its
//! frames from the same cursor. Events that are published during a sweep wait for the next one, so batches grow with
//! load.
//!
//! *A topic is a second kind of channel*, beside those of the orgs: events with names and payloads, for those that
//! come late too. It has one feed, whose log is a backlog in place of a history: the newest events of each of two
//! classes, whose numbers have holes. A stream begins with what is kept, is a cursor like any other, and is swept like
//! any other; nothing is coalesced. [`Hub::publish_message`](hub::Hub::publish_message) creates a topic,
//! [`Hub::close_topic`](hub::Hub::close_topic) ends it and its streams. The topics have a registry, a budget of memory
//! and a list of idle ones of their own, so that they push no invalidation out.
//!
//! *An exclusive stream of a topic opens*: under the channel's lock every other stream of the topic is made to end, and
//! receives nothing that is published from there on. The drivers visit these as in a sweep; the last seat that is freed
//! wakes the newcomer, which waits for it with its greeting, a second at most.
//!
//! *A stream opens.* A connection does its TLS handshake, if it has one, and waits for its request in the reactor, without
//! a task or a timer. rustls gets one record at a time, because what it has read cannot be had back. In cleartext the
//! request has most often come with its connection, so it is read before the socket is watched, which saves two waits.
//! If the request opens a stream, the connection streams from its slot, and hyper is never involved, which saves two
//! thirds of what a connect costs beyond its system calls. `http::request_head` parses such a request as hyper does, and
//! leaves every other request, malformed ones too, to hyper. The response head, the greeting and the missed events are
//! one write.
//!
//! *A balancer names its client* in a header before TLS or HTTP ([`Config::proxy_protocol_from`](config::Config)). The
//! connection waits for it in the reactor as for its request: its bytes are peeked at, and read once all are there, so that
//! nothing of what follows is. Until then the connection counts for no address, and counts as idle, so that it is closed
//! before others are refused. The peer that the header names is counted then; beyond its limit, a task waits for the place.
//!
//! *A stream resumes* at the id that its client sends, if the history covers it. [`Hub::position`](hub::Hub::position)
//! is the id of now, for a page whose data its backend reads after it; the channel is remembered for it as after a
//! stream.
//!
//! *A stream is filtered* by the keys that its request names. It has 64 bits, beside the slab of seats, and so has every
//! event that is published meanwhile, beside the history: those of its keys and their prefixes. Without a common bit a
//! sweep only moves the cursor. An event of which nothing is known passes, and so does `connected`: a
//! [`Filter`](hub::Filter) saves writes, and loses nothing.
//!
//! *A stream leaves hyper* if its connection has carried another request before, or if its request came in pieces. The
//! service puts the stream into the `HandoffSlot` and its future stays pending. The connection, which polled the
//! service, takes the stream out, waits until earlier responses are written, takes the socket and its TLS session out of
//! hyper, and gives all of it to the reactor as one `Handoff`.
//!
//! *A TLS session ends before its stream* (TLS 1.3; [`TlsSessions`](config::TlsSessions)). What a stream needs of it is
//! little: two keys, two counters and two secrets, from which key updates derive the next keys. So the session's keys
//! are extracted, the session is dropped, and a record layer of ours (`server::tls::record_layer`, RFC 8446, section 5)
//! seals what is written in memory of the thread, and opens what the client sends: data is discarded, a key update is
//! answered before the next event, anything else ends the stream. `server::tls::sealed` has the socket. An upgrade
//! passes on the keys, and what is on its way in both directions. `server::tls` lists its files in the order in which a
//! connection meets them.
//!
//! *A stream stays with hyper* over HTTP/2, where one connection carries many. hyper shows a body neither that the
//! client's flow-control window is shut nor why the connection ended. So the request, and the bytes of its events as
//! they are written, report to the stream's seat through a `StreamMonitor`. Of an ordinary response the end is withheld
//! until its bytes are written, so that the request can be reset if its client does not receive it.
//!
//! *An HTTP/2 connection polls its requests itself*, in one task: a task for each would cost as much memory as h2's
//! record of its stream. It takes turns with them: so many frames, then hyper, which writes them; few bytes of input at
//! a time while these can only be requests. Without that a hundred streams would fill h2's queues at once, and h2 keeps
//! the memory that its queues have ever needed. Once requests end while more is to be read, a turn reads much: h2
//! recognises a flood of resets by those that it reads together. The bytes of several turns leave in one write.
//!
//! *A client sends no more*, and may still read. A request that is complete is answered: hyper does so over HTTP/1;
//! from h2, which would drop it, the end of the input is withheld until then. A client that requested a stream has
//! gone.
//!
//! *A stream ends* when its [`EventStream`](stream::EventStream) is dropped: by the reactor on end of file, reset,
//! time-out, stall or drain, by hyper when its connection ends, by a task that is aborted or panics. Dropping it frees
//! the seat. There is nothing else to free: no timer, no listener, no queue.
//!
//! *A request is checked* in this order: what RFC 9112 forbids (`http::conformance`), its host (`http::hosts`), its
//! route, whether its address serves that and has room (`http::service::admit`), its credentials (`http::auth`), of
//! which the first that grants it counts. A page of another origin changes something only with a credential of its own,
//! not with one that its browser adds.
//!
//! *Keys and certificates change.* One task, `server::reload`, reads their files again when they change, and everything
//! when a [`Reloader`](server::Reloader) asks for it. Requests and handshakes use what there is when they begin; open
//! streams are not checked again. Published keys have no task: the request that needs them, or a probe of readiness,
//! has them fetched.
//!
//! *A backend commands open streams*: [`Hub::end_members`](hub::Hub::end_members) ends those of an org's members,
//! [`Hub::reread`](hub::Hub::reread) has all of an org's clients re-read everything. Each driver makes a pass over the
//! seats at the pace that spreads them evenly over a window. A reread begins a new epoch of ids at once; a stream that
//! has still to re-read gets events under ids that no history covers, which are encoded once too, while the window
//! lasts.
//!
//! *Several servers share a log* ([`BackplaneConfig`](config::BackplaneConfig); the [guide](guide::cluster) has what
//! operators see). Without one, nothing of this exists. With one, a publish takes another way to the hub:
//!
//! ```text
//!  publish ──► http: checked, as ever ──► backplane::runner ──append──► broker: the log, positions 1, 2, 3 …
//!      ◄─── 202, once its own record has come back ───┐                   │ read by every server, whole
//!                                                     └── follower ◄──────┘
//!                                                           │ a record: Mark {tag, position}, lines of JSON
//!                          Hub::apply ──► Tail: the last records, indexed by stream ──► fills a channel that is created
//!                                    └──► Channel, if there is one: window, History, seats, as above
//! ```
//!
//! A record has a *tag*, drawn at random for the attempt that stored it. Tag and position are its [`Mark`](ids::Mark); an
//! event has the id `<tag ^ hash of its stream>-<position>` of the last record in it. Equal marks mean equal logs up to
//! there, so a server resumes a stream from its own copy of the log, the `Tail` in memory, without a request to the
//! broker. A record that the broker lost, and whose position another one has, no longer matches.
//!
//! *The follower* (`backplane::follower`, without I/O) is given what was read and returns actions: a record at the next
//! position is applied, one that is known is skipped, for anything else the log is opened again. An opened log has to
//! hold the last applied record, with its tag. If it does not, or if the broker may have lost records, the server
//! appends a *barrier*, on which every server *cuts*: what was before is unknown, and every stream gets `connected`,
//! spread over the window of commands. Each server appends a *beat* after 5 s without a record of its own, and opens
//! the log again if it does not come back within 2 s. `backplane::runner` is the thread that does all this; the
//! broker's client library is never trusted to recover.
//!
//! *A broker says what its history is*: the identity of an opened log. As long as that is the one of the last barrier,
//! what was acknowledged is still there. For NATS it is a run of a server, or, where its disk or its copies are trusted,
//! the stream; for Redis a run of the server, and what it has copied as a replica, so that each start and each failover is
//! another history. Positions are the stream's sequence in NATS, and the second part of the ids in Redis (`XADD … 0-*`),
//! which leave no hole either.
//!
//! *A row of the outbox is published* ([guide](guide::outbox)) by one thread, in one transaction for each batch: `DELETE …
//! RETURNING` takes rows that no other server has locked, each is checked as a line of a publish is, they are appended to
//! the log as any publish, and COMMIT follows once all have come back. Without a log they are published to the hub, by the
//! only server that holds the advisory lock of the table. Whatever fails before the COMMIT leaves the rows where they were.
//! A row has no position, and of keys no order is promised, so there is no cursor, and no gap in a sequence to wait for.
//! The events of a topic keep the order of their rows: one server at a time takes rows of topics, and appends them one
//! record after the other.
//!
//! *An idle client's id moves with the log*: a keepalive carries the mark that was applied last, if its stream is at the
//! head; while a window holds keys, the one before these. A record counts as applied only once every channel has it, so
//! the mark is never ahead of what was sent.
//!
//! *The server stops.* `/readyz` answers 503 at once. After the drain delay the server stops accepting and calls
//! [`Hub::drain`](hub::Hub::drain). Each driver then sweeps all seats of its shard once, at the pace that spreads their
//! ends evenly over the drain window; a stream gets what it has missed, a last `retry:` and the end of its body. What
//! makes no progress then, a stream, a response or half a request, ends after the drain grace. A driver ends with its
//! shard's last stream, a worker with its last connection or at the hard limit. Listening sockets of a service manager
//! ([`server::systemd`]) accept connects meanwhile, for the next server.
//!
//! *The server is replaced* ([`Upgrader`](server::Upgrader), SIGUSR2, [guide](guide::upgrades)). It starts the file that is
//! at its path now, with a socket pair between both processes, over which go the messages of
//! `server::upgrade::message`. The new process takes the listening sockets, so that no connect is refused, reads its
//! settings, follows the log, and says that it is ready. Then each driver, at the top of a turn, blocks its worker's
//! thread: no task runs, nothing is written, no publish is half done. The hub becomes records in a file in memory; so do
//! the streams of each worker, whose sockets follow as descriptors. What a stream is, is little: a cursor, a filter,
//! deadlines, the rest of an event that was cut. The structs of these records are the format; what fills them takes the
//! live ones apart field by field, so that the compiler asks what becomes of a new field.
//!
//! *The new process is live* once it has every seat, the old one has said that it writes nothing more, and it has said so
//! itself. Until then the old one owns everything. If anything fails, or takes more than a second, the old one shuts the
//! socket first and then reads what is left in it: the message is there, and the new process has won, or it can no longer
//! be sent, and the old one goes on while the new one ends without a write. Afterwards the old one has what cannot move:
//! streams over HTTP/2 and in TLS sessions, which it drains, and requests in flight, whose publishes it sends over.
//! Connections that wait for a request, or become free, follow one by one.
//!
//! *A new process is a child of process 1* before the service manager gets its number. Between both stands a third one, which
//! starts it and is ended then: systemd decides once whether a main process is its own child, and when it stops a service,
//! it waits for the drain of such a one only.
//!
//! *A restart* keeps histories and topics with [`Config::state`](config::Config::state). The records are written after the
//! last publish of a drain is answered, whole or not at all, and the file is removed by the next start before its first
//! event. Never is it from before a crash: ids that were sent since it was written would seem to be covered by it.
//!
//! # Invariants
//!
//! * **A stream has one writer**, in one process. A new process writes after it has said that it is live, and the old one
//!   goes on only if it has made sure that this was never said, and cannot be any more.
//! * **Only dropping an `EventStream` frees a seat**, and no seat is taken before that guard exists.
//! * **A subscriber is a cursor.** Nothing is queued for it. One that does not read costs its seat and the rest of at
//!   most one event that was cut, whose memory all subscribers share; behind TLS also the rest of one record in each
//!   direction, 16 KiB.
//! * **Nothing is lost silently.** A cursor that falls out of the history, and a `Last-Event-ID` that the history does
//!   not cover, get `connected`: re-read everything. So does an id of the other view. On a topic, what is kept follows
//!   `connected`, and only the loss of an event that its publisher called bulk is silent.
//! * **With a log nothing is delivered before it is stored, and nothing is accepted before it has come back**: a `202`
//!   means that its record was read from the log, and applied here.
//! * **A row of the outbox is deleted in the transaction in which it was published**, so it is published at least once, and
//!   only what is committed is visible at all.
//! * **An id proves itself.** A server resumes from a mark only if its own copy of the log has that very record; no epoch is
//!   agreed, no clock compared, and no broker's durability trusted. In doubt all re-read.
//! * **One event of an organisation for each record**, at most, and in their order: a client that has the event with mark
//!   `p` has everything up to `p`.
//! * **The hub knows no HTTP, no socket, no runtime and no clock**; `now` is passed in.
//! * **Only `stream` and `server::reactor` write events**, and `stream` knows no socket.
//! * **Only the driver sleeps** while there is a stream; clippy forbids tokio's timers elsewhere. Exceptions are what
//!   has no stream (handshakes, request heads, idle connections, responses that are not read), hyper's pings, one
//!   timer per HTTP/2 connection, the one task of a [`Pulse`](stream::Pulse), and the threads that follow a log and drain an
//!   outbox.
//! * **The time in which the process does not run counts against no client.** A driver notices a pause by a late tick;
//!   stalls, and the timers of connections (`http::Timer`), count from its end, if it was long by their measure, and
//!   before such a timer ends the runtime has looked at its sockets.
//! * **No lock is held across a write, a wake or the drop of a waker.**
//! * **A nonce is used once.** A record of TLS is sealed once, and what a full socket cuts of it is kept as ciphertext. One
//!   owner has the sequence numbers; an upgrade gives them to the process that writes from then on.
//! * **A delivery allocates nothing**, in cleartext and behind TLS 1.3; a publish allocates the same for any number of
//!   subscribers.
//! * **An event counts while its memory is in use**: in its history, and in whatever a slow client has not received
//!   yet.
//! * **Everything that a client can make grow has a bound**: connections and streams, in total and of an address,
//!   streams of an org, publish rates, histories, channels, topics and what they keep. No stream is ended to make room
//!   for another, but by an exclusive one; a connection is, if it is idle, or beyond a limit and has proven nothing.
//! * **Nothing is read without a bound**, in total, in a minute or at once: a connection's task gives way after two
//!   reads, and a turn of the reactor reads a part of what clients send on their streams. What counts is what arrives at
//!   the socket.
//! * **No `unsafe`** in the crate.
//!
//! # As a library
//!
//! An application with an HTTP server and a runtime of its own mounts the hub without the workers: it makes a
//! [`Hub`](hub::Hub), spawns [`stream::drive`], and responds with
//! [`EventStream::into_response`](stream::EventStream::into_response). `benches/peers/hyper.rs` is a whole server in
//! plain hyper.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use nudged::config::HubConfig;
//! use nudged::hub::{Hub, Keys, View};
//! use nudged::stream::{Clock, EventStream, drive};
//!
//! let (hub, clock) = (Hub::new(HubConfig::default()), Clock::start());
//! tokio::spawn(drive(hub.clone(), clock));
//!
//! let org = "acme".parse().expect("a valid name");
//! let stream = EventStream::open(&hub, &org, View::Member, None, clock.now()).expect("not closing");
//! let response = stream.into_response(); // http::Response<EventStream>
//! assert_eq!(response.headers()["content-type"], "text/event-stream");
//!
//! let keys = Keys::new(["posts"], hub.config()).expect("within the limits");
//! assert!(hub.publish(&org, &keys, clock.now()).id.is_some());
//! # }
//! ```
//!
//! One that has a log of its own, whose positions count its records, follows it in several processes as `backplane` does: it
//! makes the hub with `Hub::with_log`, reports the oldest position with `Hub::begin_log`, and calls `Hub::apply` for each
//! record in order, or `Hub::cut` where it cannot prove that none is missing (feature `server`).
//!
//! [`Heartbeat`](stream::Heartbeat) needs no hub: it keeps event streams of any other origin open, such as those of an
//! MCP server, with comments between their events. One [`Pulse`](stream::Pulse), a wheel and a task, serves all of a
//! runtime.
#![forbid(unsafe_code)]
// Some code has its only user in a feature that may be off.
#![cfg_attr(
    not(all(
        feature = "server",
        feature = "tls",
        feature = "jwt",
        feature = "nats",
        feature = "redis"
    )),
    allow(dead_code, unused_imports)
)]

pub mod ids;

pub mod time;

pub mod config;

pub mod metrics;

#[cfg(feature = "server")]
mod admission;

pub mod wire;

pub mod hub;

pub mod stream;

#[cfg(feature = "server")]
mod state;

#[cfg(feature = "server")]
mod backplane;

#[cfg(feature = "server")]
mod http;

#[cfg(feature = "postgres")]
pub mod outbox;

#[cfg(feature = "server")]
pub mod server;

#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "bench")]
pub mod bench;

pub mod guide;

mod sync;

#[cfg(all(any(test, fuzzing), not(nudged_loom)))]
pub mod fuzzing;
