//! nudged tells browsers that what they hold is stale. A backend publishes invalidations for an
//! organisation; every browser of that organisation hears them over Server-Sent Events and reads
//! again. This page is the architecture; the README is for users.
//!
//! # Layout
//!
//! In reading order, each layer knowing only those before it:
//!
//! * [`ids`], [`config`], [`metrics`]: names, limits with their defaults, counters.
//! * `admission`: who may come in, counted by guards that move with their connections.
//! * [`wire`]: SSE as text: what is written, and the parser that reads it as a browser does.
//! * [`hub`]: who gets what. Channels, their histories and windows, seats in slabs, the wheel.
//! * [`stream`]: how events leave: [`EventStream`](stream::EventStream), the body that holds a seat;
//!   the parking lot; the driver, the one task of a worker that sleeps.
//! * `http`: what a request means: routes, tokens, origins, publishing, refusals, `/metrics`.
//! * [`server`]: sockets and threads.
//! * [`client`]: a client, for `nudged publish` and `nudged listen`.
//! * `bench`: the load generator, for `nudged bench`.
//!
//! The binary adds `cli`: flags and environment become a [`Config`](config::Config).
//!
//! # Features
//!
//! Without default features the crate is its core: [`ids`], [`config`], [`metrics`], [`wire`], [`hub`] and
//! [`stream`], eleven dependencies and no C compiler.
//!
//! | feature | in the default | what it adds |
//! |---|---|---|
//! | `server` | yes | [`server`], with `admission` and `http`: sockets, worker threads, limits, publish keys |
//! | `tls` | yes | TLS, in the server and the client; needs a C compiler |
//! | `jwt` | yes | tokens and JWK sets, in the server; implies `server` and `client` |
//! | `client` | yes | [`client`]; implies `tls` |
//! | `cli` | yes | the binary, with what the other features give it; implies `server` |
//! | `bench` | no | the load generator, `nudged bench`; implies `client` |
//! | `full` | no | all of them |
//!
//! # Data flow
//!
//! ```text
//!  publish ──► Hub ──► Channel (one per org) ── History: events encoded once, with ids
//!                        │
//!                        └─ Seats: a slab per shard; a seat is a cursor into the history
//!                                │ marked dirty, the shard's driver woken once
//!  worker thread (one per core: its own listeners, runtime, shard)
//!     accept ─► Reactor: waits for its request
//!        │       ├─ GET of a stream ─► EventStream::open (takes a seat) ─► parked where it is
//!        │       └─ anything else ─┐
//!        └─► TLS ──────────────────┴► hyper ─► Service
//!                                                ├─ a stream, HTTP/1: the socket leaves hyper, into the Reactor
//!                                                ├─ a stream, HTTP/2: hyper polls the EventStream as a body
//!                                                └─ ordinary answers
//!     driver: arrivals and readiness of the lot · windows · sweeps · wheel
//! ```
//!
//! *An event goes out*: [`Hub::publish`](hub::Hub::publish) encodes it once, appends it to the
//! channel's history and leaves the channel in the inbox of every shard with seats on it. The driver
//! walks the channel's slab in memory order, some seats a turn. For a parked stream it writes what
//! lies between cursor and head with one `write` or `writev`; for one that hyper polls it wakes the
//! task, which takes its frames from the same cursor. What is published while a walk goes on waits
//! for the next walk, so that batches grow with load by themselves.
//!
//! *A stream comes*: a connection in cleartext waits for its request in the lot, without a task or a timer.
//! If that opens a stream, it is parked in its place: hyper never hears of it, which takes two thirds off
//! what a connect costs beyond its bare system calls. `http::head` reads such a request as hyper would, and
//! leaves everything else, whatever is wrong with it too, to hyper. The head, the greeting and whatever was
//! missed leave in one write.
//!
//! *A stream leaves hyper* behind TLS, and after other requests of its connection: the service leaves it in
//! `HandoffSlot` and its future stays pending; the connection, seeing that nothing is left to flush, takes the
//! socket, with its TLS session if it has one, out of hyper and hands both to the lot.
//!
//! *A stream stays with hyper* over HTTP/2, where one connection carries many (and with `--park off`). hyper
//! does not tell a body that its client takes nothing, nor why its connection died. So the task of an
//! HTTP/2 stream, with the pieces of its events that are written, or the socket of an HTTP/1 one, tells the
//! stream's seat, through a `StreamMonitor`.
//!
//! *A stream goes*: its [`EventStream`](stream::EventStream) is dropped: by the lot on end of file,
//! reset, time-out or drain, by hyper when its connection ends, by a task that is aborted or panics.
//! Dropping it frees the seat. There is nothing else to free: no timer, no listener, no queue.
//!
//! *The server goes*: told to stop, it says so through `/readyz`, and after the drain delay stops
//! accepting and calls [`Hub::drain`](hub::Hub::drain). Each driver then walks the seats of its shard
//! once, some a turn, at the pace that spreads their ends over the drain window; who is reached takes
//! what there is, a last `retry:` and the end of its body. A driver ends with its shard's last stream, a
//! worker with its last connection, or at the hard limit. Sockets that a service manager holds
//! ([`server::systemd`]) go on taking connects meanwhile, for the server that comes next.
//!
//! # Invariants
//!
//! * **Only dropping an `EventStream` frees a seat**, and no seat is taken before that guard exists.
//! * **A subscriber is a cursor.** Nothing is queued for it. One that does not read costs its seat and
//!   the rest of at most one event that was cut in the middle, shared with the others.
//! * **Nothing is lost silently.** A cursor that falls out of the history, and an id that is not
//!   covered by it, get `connected`: re-read everything.
//! * **The hub knows no HTTP, no socket, no runtime and no clock**; `now` is passed in.
//! * **Only the driver sleeps** while there is a stream; clippy forbids tokio's timers elsewhere. What has
//!   no stream yet is timed as hyper times it: handshakes, heads, connections that idle. An HTTP/2
//!   connection, not its streams, has hyper's ping.
//! * **No lock is held across a write, a wake or the drop of a waker.**
//! * **Delivering on cleartext allocates nothing**; publishing allocates the same whatever the number of
//!   subscribers.
//! * **Whatever counts has a bound**: connections by permits, streams of an org by its seats, addresses
//!   by their connections, rates by forgetting who is closest to being forgiven. Who is in is never
//!   put out for who comes.
//! * **No `unsafe`** in the crate.
//!
//! # As a library
//!
//! An application with a runtime of its own mounts the hub without the workers: it makes a
//! [`Hub`](hub::Hub), spawns [`stream::drive`], and answers requests with
//! [`EventStream::into_response`](stream::EventStream::into_response).
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
#![forbid(unsafe_code)]
// What a part has for one that is not built is not dead.
#![cfg_attr(not(all(feature = "server", feature = "tls")), allow(dead_code, unused_imports))]

pub mod ids;

pub mod config;

pub mod metrics;

#[cfg(feature = "server")]
mod admission;

pub mod wire;

pub mod hub;

pub mod stream;

#[cfg(feature = "server")]
mod http;

#[cfg(feature = "server")]
pub mod server;

#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "bench")]
pub mod bench;

mod sync;

#[cfg(all(any(test, fuzzing), not(nudged_loom)))]
pub mod fuzzing;
