//! No event is lost unnoticed, over real sockets: in whatever order clients publish, disconnect, reconnect and stall,
//! and events are evicted, each client receives every key in order, or a `connected` that makes it reread everything.
//!
//! Random operations drive a server and a model of what it has to send. The clients reconnect as a browser does: with
//! the id of the last event that they received completely.

use std::sync::atomic::{AtomicU32, Ordering};

use nudged::wire::{Event, Parser};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{Client, Server, Stream, Transport};

/// An operation.
#[derive(Clone, Debug)]
enum Op {
    /// A publish of these keys, accepted before the next operation.
    Publish(Vec<u8>),
    /// Publishes of large keys, which fill the sockets of clients that do not read, and evict all earlier events.
    Burst,
    /// A client connects or reconnects.
    Connect(usize),
    /// A client reconnects during a publish.
    Race(usize, u8),
    /// A client disconnects, with or without a reset, possibly with unread events.
    Leave(usize, bool),
    /// A client reads this number of events, or all there are. It reads nothing in between.
    Read(usize, Option<u8>),
}

/// The published events, numbered from 1. A server that coalesces publishes returns the id of the resulting event with
/// each.
struct Model {
    /// Those of the members' view and of the public one.
    epochs: [String; 2],
    events: Vec<Vec<String>>,
    /// Publishes are coalesced, so the last event may not have been sent yet.
    joins: bool,
}

/// A browser's `EventSource`, checked at every event.
struct Browser {
    public: bool,
    connection: Option<Client>,
    parser: Parser,
    /// Everything up to this event has been received or reread. `None`: never connected.
    position: Option<u64>,
}

const BROWSERS: usize = 4;
const HISTORY: u64 = 4;
/// For each transport. A case over HTTP/2 takes as long as two or three over HTTP/1.
const CASES: u32 = 20;
const CASES_OVER_HTTP2: u32 = 6;

#[rustfmt::skip]
const SETTINGS: &[&str] = &[
    "--history-events", "4", "--history-bytes", "100000000", "--workers", "2",
    "--publish-bytes", "2000000", "--key-bytes", "65536", "--public-keys", "p*",
];

/// An event of a burst is about as large as the socket buffers of a client that does not read.
const LARGE: usize = 60_000;
const LARGE_KEYS: usize = 8;

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let browser = || 0..BROWSERS;
    let op = prop_oneof![
        6 => prop::collection::vec(0..6_u8, 1..4).prop_map(Op::Publish),
        1 => Just(Op::Burst),
        4 => browser().prop_map(Op::Connect),
        2 => (browser(), 0..6_u8).prop_map(|(n, key)| Op::Race(n, key)),
        3 => (browser(), any::<bool>()).prop_map(|(n, reset)| Op::Leave(n, reset)),
        4 => (browser(), prop::option::of(0..4_u8)).prop_map(|(n, count)| Op::Read(n, count)),
    ];
    prop::collection::vec(op, 1..40)
}

#[test]
fn no_event_is_lost_unnoticed_without_coalescing() {
    check("0");
}

#[test]
fn no_event_is_lost_unnoticed_with_coalescing() {
    check("30ms");
}

fn check(window: &str) {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &[&["--coalesce", window][..], SETTINGS].concat());
        let cases = AtomicU32::new(0);
        let over_http2 = matches!(transport, Transport::H2 | Transport::H2c);
        let many = if over_http2 { CASES_OVER_HTTP2 } else { CASES };
        let config = Config { cases: many, max_shrink_iters: 200, ..Config::default() };
        let config = Config { failure_persistence: None, ..config };
        let case = |ops: Vec<Op>| {
            // Each case has its own org, and so its own history.
            let org = format!("case-{}", cases.fetch_add(1, Ordering::Relaxed));
            play(&server, &org, &ops, window != "0");
            Ok(())
        };
        TestRunner::new(config)
            .run(&ops(), case)
            .unwrap_or_else(|why| panic!("{transport:?}: {why}"));
    }
}

fn play(server: &Server, org: &str, ops: &[Op], joins: bool) {
    // A server keeps a history only for a view that had a subscriber.
    let epochs = ["events", "public/events"].map(|kind| {
        let first = server.stream_with(&format!("/api/{org}/{kind}"), "").connected();
        let (epoch, seq) = first.rsplit_once('-').expect("an id");
        assert_eq!(seq, "0");
        epoch.to_owned()
    });
    let mut model = Model { epochs, events: Vec::new(), joins };
    let mut browsers: Vec<_> = (0..BROWSERS).map(|n| Browser::new(n % 2 == 1)).collect();
    for op in ops {
        match op {
            Op::Publish(keys) => {
                let keys = keys.iter().map(|key| name(*key)).collect();
                model.publish(server, org, keys);
            }
            Op::Burst => {
                for n in 0..=HISTORY {
                    let large = |k| format!("p{n}-{k}-{}", "x".repeat(LARGE));
                    model.publish(server, org, (0..LARGE_KEYS).map(large).collect());
                }
            }
            Op::Connect(n) => browsers[*n].connect(server, org, &model),
            Op::Race(n, key) => browsers[*n].race(server, org, &mut model, *key),
            Op::Leave(n, reset) => browsers[*n].leave(*reset),
            Op::Read(n, count) => {
                browsers[*n].read(&model, count.map_or(usize::MAX, usize::from));
            }
        }
    }
    // Clients that disconnected reconnect, and all of them read to the end.
    for browser in &mut browsers {
        browser.connect(server, org, &model);
        browser.read(&model, usize::MAX);
    }
}

/// Even keys are public, odd ones are not.
fn name(key: u8) -> String {
    format!("{}{key}", if key.is_multiple_of(2) { "p" } else { "secret" })
}

// ===== impl Model =====

impl Model {
    fn head(&self, public: bool) -> u64 {
        self.shown(public).count() as u64
    }

    fn publish(&mut self, server: &Server, org: &str, keys: Vec<String>) {
        let id = server.publish(org, &keys.iter().map(String::as_str).collect::<Vec<_>>());
        self.record(&id.expect("a client can reconnect"), keys);
    }

    /// These keys are in the event with this id: the next one, or the last.
    fn record(&mut self, id: &str, keys: Vec<String>) {
        let seq = self.seq(id, false);
        if seq > self.events.len() as u64 {
            self.events.push(Vec::new());
        }
        assert_eq!(
            seq,
            self.events.len() as u64,
            "a publish was added to an event that may have been sent"
        );
        let event = self.events.last_mut().expect("new or joined");
        assert!(self.joins || event.is_empty(), "publishes are joined");
        for key in keys {
            if !event.contains(&key) {
                event.push(key);
            }
        }
    }

    /// The events that a stream of this kind shows, each with the keys that it shows of them.
    fn shown(&self, public: bool) -> impl Iterator<Item = Vec<&str>> {
        let shows = move |key: &&str| !public || key.starts_with('p');
        let keys = self
            .events
            .iter()
            .map(move |keys| keys.iter().map(String::as_str).filter(shows).collect::<Vec<_>>());
        keys.filter(|keys| !keys.is_empty())
    }

    /// The keys of an event of a stream of this kind.
    fn shows(&self, seq: u64, public: bool) -> Vec<&str> {
        self.shown(public).nth(usize::try_from(seq - 1).expect("few")).expect("it was published")
    }

    fn covers(&self, position: u64, public: bool) -> bool {
        position + HISTORY >= self.head(public)
    }

    /// Whether the history may still cover it.
    fn may_cover(&self, position: u64, public: bool) -> bool {
        position + HISTORY + u64::from(self.joins) >= self.head(public)
    }

    /// The number of an id, which has to be of the only epoch that this org has for streams of this kind.
    fn seq(&self, id: &str, public: bool) -> u64 {
        let (epoch, seq) = id.rsplit_once('-').expect("an id");
        assert_eq!(epoch, self.epochs[usize::from(public)]);
        seq.parse().expect("a number")
    }
}

// ===== impl Browser =====

impl Browser {
    fn new(public: bool) -> Self {
        Self { public, connection: None, parser: Parser::default(), position: None }
    }

    fn connect(&mut self, server: &Server, org: &str, model: &Model) {
        if self.connection.is_some() {
            return;
        }
        let covered = self.position.is_some_and(|at| model.covers(at, self.public));
        let may_be = self.position.is_some_and(|at| model.may_cover(at, self.public));
        let greeting = self.open(server, org);
        let resumed = greeting.name == "resumed";
        assert!(resumed == covered || resumed == may_be, "{greeting:?} at {:?}", self.position);
        self.receive(&greeting, model);
    }

    /// Sends a publish before the request of the stream, and reads its response after the greeting: the server may
    /// process them in either order, and both greetings are right.
    fn race(&mut self, server: &Server, org: &str, model: &mut Model, key: u8) {
        if self.connection.is_some() {
            return;
        }
        let before = self.position.is_some_and(|at| model.may_cover(at, self.public));
        let key = name(key);
        let body = format!("{{\"keys\":[\"{key}\"]}}");
        let mut publisher = server.connect();
        publisher.send(&format!(
            "POST /api/{org}/events HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ));
        let greeting = self.open(server, org);
        let answer = publisher.read_answer();
        assert_eq!(answer.status(), 202);
        let answer: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        model.record(answer["id"].as_str().expect("a client can reconnect"), vec![key]);
        let after = self.position.is_some_and(|at| model.covers(at, self.public));
        let resumed = greeting.name == "resumed";
        assert!(resumed == before || resumed == after, "{greeting:?} at {:?}", self.position);
        self.receive(&greeting, model);
    }

    fn open(&mut self, server: &Server, org: &str) -> Event {
        let last = self.parser.last_event_id().to_owned();
        let header =
            if last.is_empty() { String::new() } else { format!("last-event-id: {last}\r\n") };
        let kind = if self.public { "public/events" } else { "events" };
        let path = format!("/api/{org}/{kind}");
        let Stream { client, .. } = Stream::open(server.connect(), &path, &header);
        // An incomplete event of the last connection is discarded.
        self.parser = Parser::resume(last);
        self.connection = Some(client);
        self.next()
    }

    fn leave(&mut self, reset: bool) {
        if let Some(connection) = self.connection.take()
            && reset
        {
            connection.reset();
        }
    }

    fn read(&mut self, model: &Model, count: usize) {
        for _ in 0..count {
            let Some(position) = self.position.filter(|_| self.connection.is_some()) else {
                return;
            };
            if position == model.head(self.public) {
                return;
            }
            let event = self.next();
            assert_ne!(event.name, "resumed", "`resumed` is only a greeting");
            self.receive(&event, model);
        }
    }

    /// Checks the promise for an event.
    fn receive(&mut self, event: &Event, model: &Model) {
        let seq = model.seq(&event.id, self.public);
        assert!(seq <= model.head(self.public), "an event that was not published");
        match event.name.as_str() {
            "connected" => {
                assert!(self.position.is_none_or(|at| seq >= at), "an earlier id: {seq}");
            }
            "resumed" => assert_eq!(self.position, Some(seq)),
            "invalidate" => {
                let position = self.position.expect("greeted first");
                assert!(seq > position, "{seq} again, after {position}");
                assert_eq!(seq, position + 1, "an event is lost unnoticed");
                let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
                let shows = model.shows(seq, self.public);
                assert!(data == serde_json::json!({ "keys": shows }), "event {seq} is damaged");
            }
            other => panic!("an event of no known name: {other}"),
        }
        self.position = Some(seq);
    }

    /// The next event. Events are read chunk by chunk, so that a client can stop reading between any two.
    fn next(&mut self) -> Event {
        let client = self.connection.as_mut().expect("connected");
        loop {
            let line = client.read_until(b"\r\n");
            let size = std::str::from_utf8(&line[..line.len() - 2]).expect("ASCII");
            let size = usize::from_str_radix(size, 16).expect("a size");
            let chunk = client.read_exact(size + 2);
            let mut event = None;
            self.parser.push(&chunk[..size], |e| event = Some(e)).expect("not too large");
            if let Some(event) = event {
                return event;
            }
        }
    }
}
