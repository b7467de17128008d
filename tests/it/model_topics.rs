//! No event of a topic is lost unnoticed, over real sockets: in whatever order clients publish, connect, disconnect, stall
//! and replace each other, events are evicted, topics closed and the server killed, each client receives every event in
//! order, but for bulk ones, or a `connected`, behind which comes all that is kept. The second kind of channel of
//! [`model`](super::model).

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU32, Ordering};

use nudged::wire::{Event, Parser};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::client::post;
use crate::support::{Client, Server, Stream, Transport};

/// An operation.
#[derive(Clone, Debug)]
enum Op {
    /// A publish, accepted before the next operation; bulk or not.
    Publish(bool),
    /// Publishes of large events of both classes, which fill the sockets of clients that do not read, and evict all
    /// earlier events.
    Burst,
    /// A client connects or reconnects.
    Connect(usize, From),
    /// The same, and takes the place of all others.
    Replace(usize),
    /// A client reconnects during a publish.
    Race(usize, bool),
    /// A client disconnects, with or without a reset, possibly with unread events.
    Leave(usize, bool),
    /// A client reads this number of events, or all there are. It reads nothing in between.
    Read(usize, Option<u8>),
    /// A backend closes the topic.
    Close,
    /// The server is killed, and another one started.
    Kill,
}

/// Where a client starts that has no id.
#[derive(Clone, Copy, Debug)]
enum From {
    Default,
    All,
    Now,
    /// Since 1970, and since a time that has not come yet.
    Long,
    Future,
}

/// One run of the topic: its events, numbered from 1.
struct Run {
    epoch: String,
    /// Each with whether it is bulk, its name and its data.
    events: Vec<(bool, String, String)>,
    /// The last event that was evicted and not bulk, while the oldest one that was kept was this.
    lost_at: HashMap<u64, u64>,
    closed: bool,
}

struct Model {
    runs: HashMap<String, Run>,
    /// The epoch of the run that goes on.
    current: Option<String>,
    published: u64,
}

/// A browser's `EventSource`, checked at every event.
struct Browser {
    connection: Option<Client>,
    parser: Parser,
    epoch: String,
    /// Its last event, or the position where it began.
    position: u64,
    /// What was lost before its last `connected`.
    excused: u64,
    /// Another client took its place, when this was the newest event.
    replaced_at: Option<u64>,
    /// It has to end by itself.
    ended: bool,
}

/// What a stream has next.
enum Next {
    Event(Event),
    End,
    Reset,
}

const BROWSERS: usize = 4;
/// Events that are kept of each class.
const KEPT: usize = 4;
/// For each transport. A case over HTTP/2 takes as long as two or three over HTTP/1.
const CASES: u32 = 20;
const CASES_OVER_HTTP2: u32 = 6;

#[rustfmt::skip]
const SETTINGS: &[&str] = &[
    "--topic-events", "4", "--topic-bytes", "100000000", "--topics-bytes-total", "1000000000", "--workers", "2",
    "--publish-bytes", "2000000", "--topic-event-bytes", "1048576",
    // The model has no time, and a busy machine takes its.
    "--stall-timeout", "1h",
];

/// An event of a burst is about as large as the socket buffers of a client that does not read.
const LARGE: usize = 480_000;

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let browser = || 0..BROWSERS;
    let start = prop_oneof![
        4 => Just(From::Default), 1 => Just(From::All), 1 => Just(From::Now), 1 => Just(From::Long), 1 => Just(From::Future)
    ];
    let op = prop_oneof![
        9 => any::<bool>().prop_map(Op::Publish),
        1 => Just(Op::Burst),
        5 => (browser(), start).prop_map(|(n, start)| Op::Connect(n, start)),
        1 => browser().prop_map(Op::Replace),
        2 => (browser(), any::<bool>()).prop_map(|(n, bulk)| Op::Race(n, bulk)),
        3 => (browser(), any::<bool>()).prop_map(|(n, reset)| Op::Leave(n, reset)),
        5 => (browser(), prop::option::of(0..4_u8)).prop_map(|(n, count)| Op::Read(n, count)),
        1 => Just(Op::Close),
        1 => prop::bool::weighted(0.2).prop_map(|kill| if kill { Op::Kill } else { Op::Burst }),
    ];
    prop::collection::vec(op, 1..40)
}

#[test]
fn no_event_of_a_topic_is_lost_unnoticed() {
    for transport in Transport::all() {
        let server = std::cell::RefCell::new(Server::start_on(transport, SETTINGS));
        let cases = AtomicU32::new(0);
        let over_http2 = matches!(transport, Transport::H2 | Transport::H2c);
        let many = if over_http2 { CASES_OVER_HTTP2 } else { CASES };
        let config = Config { cases: many, max_shrink_iters: 200, ..Config::default() };
        let config = Config { failure_persistence: None, ..config };
        let case = |ops: Vec<Op>| {
            // Each case has its own topic.
            let path =
                format!("/api/acme/topics/case-{}/events", cases.fetch_add(1, Ordering::Relaxed));
            play(&mut server.borrow_mut(), transport, &path, &ops);
            Ok(())
        };
        TestRunner::new(config)
            .run(&ops(), case)
            .unwrap_or_else(|why| panic!("{transport:?}: {why}"));
    }
}

fn play(server: &mut Server, transport: Transport, path: &str, ops: &[Op]) {
    let mut model = Model { runs: HashMap::new(), current: None, published: 0 };
    let mut browsers: Vec<_> = (0..BROWSERS).map(|_| Browser::new()).collect();
    for op in ops {
        match op {
            Op::Publish(bulk) => model.publish(server, path, *bulk, 10),
            Op::Burst => {
                for n in 0..=2 * KEPT {
                    model.publish(server, path, n % 2 == 1, LARGE);
                }
            }
            Op::Connect(n, start) => browsers[*n].connect(server, path, &mut model, *start, false),
            Op::Replace(n) => {
                browsers[*n].leave(false);
                browsers[*n].connect(server, path, &mut model, From::Default, true);
                let here = browsers[*n].epoch.clone();
                let head = model.runs[&here].head();
                let others = browsers.iter_mut().enumerate().filter(|(other, _)| other != n);
                let others = others.filter(|(_, other)| other.epoch == here && !other.ended);
                for (_, other) in others.filter(|(_, other)| other.connection.is_some()) {
                    other.replaced_at.get_or_insert(head);
                }
            }
            Op::Race(n, bulk) => browsers[*n].race(server, path, &mut model, *bulk),
            Op::Leave(n, reset) => browsers[*n].leave(*reset),
            Op::Read(n, count) => {
                browsers[*n].read(&model, count.map_or(usize::MAX, usize::from));
            }
            Op::Close => model.close(server, path),
            Op::Kill => {
                *server = Server::start_on(transport, SETTINGS);
                model.current = None;
                browsers.iter_mut().for_each(|browser| browser.leave(false));
            }
        }
    }
    // All read to the end, those whose streams have ended come back, and read what there is for them.
    for browser in &mut browsers {
        browser.read(&model, usize::MAX);
        browser.connect(server, path, &mut model, From::Default, false);
        browser.read(&model, usize::MAX);
    }
}

// ===== impl Run =====

impl Run {
    fn new(epoch: &str) -> Self {
        Self { epoch: epoch.to_owned(), events: Vec::new(), lost_at: HashMap::new(), closed: false }
    }

    fn head(&self) -> u64 {
        self.events.len() as u64
    }

    fn append(&mut self, bulk: bool, name: &str, data: String) {
        self.events.push((bulk, name.to_owned(), data));
        self.lost_at.insert(self.restart(), self.lost());
    }

    fn is_bulk(&self, seq: u64) -> bool {
        self.events[usize::try_from(seq - 1).expect("few")].0
    }

    /// The last event that is gone and was not bulk.
    fn lost(&self) -> u64 {
        let others = (1..=self.head()).rev().filter(|seq| !self.is_bulk(*seq));
        others.skip(KEPT).max().unwrap_or(0)
    }

    /// The events that are kept.
    fn kept(&self) -> Vec<u64> {
        let newest = |bulk: bool| {
            let class = (1..=self.head()).rev().filter(move |seq| self.is_bulk(*seq) == bulk);
            class.take(KEPT)
        };
        let mut kept: Vec<_> = newest(true).chain(newest(false)).collect();
        kept.sort_unstable();
        kept
    }

    /// The position before the oldest event that is kept.
    fn restart(&self) -> u64 {
        self.kept().first().map_or_else(|| self.head(), |first| first - 1)
    }

    fn covers(&self, position: u64) -> bool {
        (self.lost()..=self.head()).contains(&position)
    }
}

// ===== impl Model =====

impl Model {
    fn publish(&mut self, server: &Server, path: &str, bulk: bool, size: usize) {
        let (body, data) = self.next(bulk, size);
        let answer = server.post(path, "application/json", &body);
        assert_eq!(answer.status(), 202, "{answer:?}");
        self.record(&answer.body, bulk, data);
    }

    /// The body of a publish, and its data.
    fn next(&mut self, bulk: bool, size: usize) -> (String, String) {
        self.published += 1;
        let data = format!("{{\"n\":{},\"x\":\"{}\"}}", self.published, "x".repeat(size));
        (format!("{{\"event\":\"output\",\"data\":{data},\"bulk\":{bulk}}}"), data)
    }

    fn record(&mut self, answer: &str, bulk: bool, data: String) {
        let answer: serde_json::Value = serde_json::from_str(answer).expect("JSON");
        let (epoch, seq) = parts(answer["id"].as_str().expect("an id"));
        let run = self.meet(epoch, false);
        run.append(bulk, "output", data);
        assert_eq!(run.head(), seq, "events are numbered without gaps");
    }

    /// The topic is in this run: in that which goes on, unless it is forgotten, as one may be that had neither events nor
    /// streams.
    fn meet(&mut self, epoch: &str, forgotten: bool) -> &mut Run {
        if self.current.as_deref() != Some(epoch) {
            let empty = |known: &String| self.runs[known].events.is_empty();
            assert!(self.current.as_ref().is_none_or(|known| empty(known) || forgotten));
            assert!(!self.runs.contains_key(epoch), "the epoch was used before");
            self.runs.insert(epoch.to_owned(), Run::new(epoch));
            self.current = Some(epoch.to_owned());
        }
        self.runs.get_mut(epoch).expect("inserted")
    }

    fn close(&mut self, server: &Server, path: &str) {
        let body = r#"{"reason":"done"}"#;
        let answer = server.request(&format!(
            "DELETE {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(answer.status(), 202, "{answer:?}");
        if let Some(epoch) = self.current.take() {
            let run = self.runs.get_mut(&epoch).expect("it goes on");
            run.append(false, "closed", body.to_owned());
            run.closed = true;
        }
    }
}

/// The epoch and the number of an id.
fn parts(id: &str) -> (&str, u64) {
    let (epoch, seq) = id.rsplit_once('-').expect("an id");
    (epoch, seq.parse().expect("a number"))
}

// ===== impl Browser =====

impl Browser {
    fn new() -> Self {
        Self {
            connection: None,
            parser: Parser::default(),
            epoch: String::new(),
            position: 0,
            excused: 0,
            replaced_at: None,
            ended: false,
        }
    }

    fn connect(
        &mut self,
        server: &Server,
        path: &str,
        model: &mut Model,
        start: From,
        exclusive: bool,
    ) {
        if self.connection.is_some() {
            return;
        }
        let last = self.parser.last_event_id().to_owned();
        let greeting = self.open(server, path, start, exclusive);
        let (epoch, seq) = parts(&greeting.id);
        let run = model.meet(epoch, false);
        let expected = expected(run, &last, start);
        assert_eq!((greeting.name.as_str(), seq), expected, "{start:?} after {last:?}");
        self.begin(run, seq);
    }

    /// Sends a publish before the request of the stream, and reads its response after the greeting: the server may
    /// process them in either order, and both greetings are right.
    fn race(&mut self, server: &Server, path: &str, model: &mut Model, bulk: bool) {
        if self.connection.is_some() {
            return;
        }
        let last = self.parser.last_event_id().to_owned();
        let (body, data) = model.next(bulk, 10);
        let mut publisher = server.connect();
        publisher.send(&post(path, "application/json", &body));
        let greeting = self.open(server, path, From::Default, false);
        let answer = publisher.read_answer();
        assert_eq!(answer.status(), 202);
        let (epoch, seq) = parts(&greeting.id);
        let run = model.meet(epoch, false);
        let before = expected(run, &last, From::Default);
        let lost = run.lost();
        model.record(&answer.body, bulk, data);
        let run = &model.runs[epoch];
        let after = expected(run, &last, From::Default);
        let got = (greeting.name.as_str(), seq);
        assert!(got == before || got == after, "{got:?}, not {before:?} or {after:?}");
        self.begin(run, seq);
        if got != after {
            self.excused = lost;
        }
    }

    fn open(&mut self, server: &Server, path: &str, start: From, exclusive: bool) -> Event {
        let last = self.parser.last_event_id().to_owned();
        let header =
            if last.is_empty() { String::new() } else { format!("last-event-id: {last}\r\n") };
        let since = match start {
            From::Default => "",
            From::All => "since=all&",
            From::Now => "since=now&",
            From::Long => "since=0&",
            From::Future => "since=99999999999999&",
        };
        let exclusive = if exclusive { "exclusive" } else { "" };
        let path = format!("{path}?{since}{exclusive}");
        let Stream { client, .. } = Stream::open(server.connect(), &path, &header);
        // An incomplete event of the last connection is discarded.
        self.parser = Parser::resume(last);
        self.connection = Some(client);
        (self.replaced_at, self.ended) = (None, false);
        match self.next() {
            Next::Event(event) => event,
            Next::End | Next::Reset => panic!("no greeting"),
        }
    }

    fn begin(&mut self, run: &Run, seq: u64) {
        self.epoch.clone_from(&run.epoch);
        self.position = seq;
        self.excused = run.lost();
    }

    fn leave(&mut self, reset: bool) {
        if let Some(connection) = self.connection.take()
            && reset
        {
            connection.reset();
        }
    }

    /// Reads events, up to the newest one or the end of the stream.
    fn read(&mut self, model: &Model, count: usize) {
        for _ in 0..count {
            let Some(run) = model.runs.get(&self.epoch) else { return };
            let ends = run.closed || self.replaced_at.is_some();
            if self.connection.is_none() || self.position == run.head() && !ends {
                return;
            }
            match self.next() {
                Next::Event(event) => self.receive(&event, run),
                Next::End => {
                    assert!(self.ended, "it ended without a reason");
                    self.connection = None;
                }
                // A client that does not read cannot be sent the reason.
                Next::Reset => {
                    assert!(self.ended || self.replaced_at.is_some(), "it was reset");
                    self.connection = None;
                }
            }
        }
    }

    /// Checks the promise for an event.
    fn receive(&mut self, event: &Event, run: &Run) {
        assert!(!self.ended, "an event after `closed`: {event:?}");
        let replaced = event.name == "closed" && event.data == r#"{"reason":"replaced"}"#;
        if replaced {
            assert!(self.replaced_at.is_some(), "nothing took its place");
            self.ended = true;
            return;
        }
        let (epoch, seq) = parts(&event.id);
        assert_eq!(epoch, self.epoch, "an event of another run");
        let last = self.replaced_at.unwrap_or_else(|| run.head());
        assert!(seq <= last, "{seq} of {last}: not published, or after it was replaced");
        if event.name == "connected" {
            let lost = run.lost_at.get(&seq).copied();
            let lost = lost.expect("the position before the oldest event at some time");
            assert!(lost > self.position, "`connected` without a loss");
            self.excused = lost;
        } else {
            assert!(seq > self.position, "{seq} again, after {}", self.position);
            let (_, name, data) = &run.events[usize::try_from(seq - 1).expect("few")];
            assert!(event.name == *name && event.data == *data, "event {seq} is damaged");
            let from = self.position.max(self.excused);
            let lost = (from + 1..seq).find(|lost| !run.is_bulk(*lost));
            assert_eq!(lost, None, "lost unnoticed before {seq}");
            self.ended = event.name == "closed";
        }
        self.position = seq;
    }

    /// What comes next. Events are read chunk by chunk, so that a client can stop reading between any two.
    fn next(&mut self) -> Next {
        loop {
            let Ok(chunk) = self.chunk() else { return Next::Reset };
            if chunk.is_empty() {
                return Next::End;
            }
            let mut event = None;
            self.parser.push(&chunk, |e| event = Some(e)).expect("not too large");
            if let Some(event) = event {
                return Next::Event(event);
            }
        }
    }

    /// The next chunk; an empty one is the end.
    fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let client = self.connection.as_mut().expect("connected");
        let line = client.try_read_until(b"\r\n");
        let line =
            line.inspect_err(|why| assert_ne!(why.kind(), ErrorKind::TimedOut, "silence"))?;
        let size = std::str::from_utf8(&line[..line.len() - 2]).expect("ASCII");
        let size = usize::from_str_radix(size, 16).expect("a size");
        let mut chunk = client.try_read_exact(size + 2)?;
        chunk.truncate(size);
        Ok(chunk)
    }
}

/// The greeting of a client with this last id, and its position.
fn expected(run: &Run, last: &str, start: From) -> (&'static str, u64) {
    if !last.is_empty() {
        let (epoch, seq) = parts(last);
        let covered = epoch == run.epoch && run.covers(seq);
        return if covered { ("resumed", seq) } else { ("connected", run.restart()) };
    }
    match start {
        From::Default | From::All | From::Long => ("connected", run.restart()),
        From::Now | From::Future => ("connected", run.head()),
    }
}
