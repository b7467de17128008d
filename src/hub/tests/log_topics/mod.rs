//! Topics in a log that servers share: what their streams get on any of these, and what ends them there.

mod claims;
mod cuts;
mod ends;
mod filled;
mod keepalives;
mod resume;
mod twin;

use std::time::Duration;

use bytes::Bytes;

use crate::config::HubConfig;
use crate::hub::record::Lines;
use crate::hub::tests::turns::{carry_out, sweep_all, take_events};
use crate::hub::{CommandPasses, Hub, Start, SubscribeError, Subscription};
use crate::ids::{EventId, Mark, Topic};
use crate::metrics::{CloseReason, read};
use crate::time::Time;
use crate::wire::{Event, Greeting, Payload};

/// Servers that share a log, without a network between them.
struct Cluster {
    nodes: Vec<Node>,
    log: Vec<Record>,
    /// So many records have been appended, also such as the log has forgotten.
    appended: u64,
}

/// One server.
struct Node {
    hub: Hub,
    passes: CommandPasses,
    now: Time,
}

#[derive(Clone)]
struct Record {
    mark: Mark,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Lines(Bytes),
    Barrier,
}

/// A client of a topic, which takes its events like a task that hyper serves.
struct Client {
    stream: Subscription,
    greeting: Greeting,
    /// The last id that it has received.
    id: EventId,
}

/// Over which streams re-read.
const WINDOW: Duration = Duration::from_secs(1);

fn topic(name: &str) -> Topic {
    Topic { org: "acme".parse().expect("a name"), name: name.parse().expect("a name") }
}

/// Small enough for the tests, large enough for all that they keep.
fn config() -> HubConfig {
    HubConfig { topic_event_bytes_max: 400, ..HubConfig::default() }
}

// ===== impl Cluster =====

impl Cluster {
    /// Two servers that follow the log from its first record on.
    fn new() -> Self {
        Self::with(&config())
    }

    fn with(config: &HubConfig) -> Self {
        let nodes = (0..2).map(|_| Node::new(config.clone(), 1 << 20)).collect();
        Self { nodes, log: Vec::new(), appended: 0 }
    }

    /// Keeps so many events of each class.
    fn keeping(topic_events: usize) -> Self {
        Self::with(&HubConfig { topic_events, ..config() })
    }

    /// Another server, which has followed the log from its first record on.
    fn join(&mut self, config: HubConfig) -> usize {
        self.nodes.push(Node::new(config, 1 << 20));
        self.follow();
        self.nodes.len() - 1
    }

    /// Appends a record with these lines, which no server has applied yet.
    fn append(&mut self, write: impl FnOnce(&mut Lines)) -> Mark {
        let mut lines = Lines::new();
        write(&mut lines);
        self.push(Kind::Lines(lines.into_bytes()))
    }

    fn push(&mut self, kind: Kind) -> Mark {
        self.appended += 1;
        let mark = Mark { tag: 0xabc0_0000 + self.appended, position: self.log.len() as u64 + 1 };
        self.log.push(Record { mark, kind });
        mark
    }

    /// Every server applies what the log has.
    fn follow(&mut self) {
        for node in 0..self.nodes.len() {
            while self.apply(node) {}
        }
    }

    /// A server applies the next record, if there is one. If the log has forgotten what it has applied, it follows the
    /// last barrier.
    fn apply(&mut self, node: usize) -> bool {
        let Self { nodes, log, .. } = self;
        let hub = &nodes[node].hub;
        let applied = hub.applied().unwrap_or_default();
        let at = |position: u64| log.get(usize::try_from(position).expect("few").wrapping_sub(1));
        let is_known =
            applied.position == 0 || at(applied.position).is_some_and(|at| at.mark.is(applied));
        let next = if is_known {
            at(applied.position + 1)
        } else {
            log.iter().rfind(|record| matches!(record.kind, Kind::Barrier))
        };
        let Some(Record { mark, kind }) = next else { return false };
        match kind {
            Kind::Lines(lines) => _ = hub.apply(*mark, lines, nodes[node].now),
            Kind::Barrier => _ = hub.cut(*mark, nodes[node].now),
        }
        true
    }

    /// Publishes events, whose names are the words, in one record to a topic; every server applies it. Those that begin
    /// with `b` are bulk.
    fn publish(&mut self, to: &str, words: &str) -> Mark {
        let mark = self.append(|lines| events(lines, to, words));
        self.follow();
        mark
    }

    fn close(&mut self, name: &str, reason: &str) -> Mark {
        let mark = self.append(|lines| _ = lines.close(&topic(name), reason));
        self.follow();
        mark
    }

    fn open(&self, node: usize, name: &str, start: Start) -> Client {
        self.nodes[node].open(name, start)
    }
}

fn events(lines: &mut Lines, to: &str, words: &str) {
    for word in words.split_whitespace() {
        lines.message(&topic(to), word, Payload::Text(""), word.starts_with('b'));
    }
}

// ===== impl Node =====

impl Node {
    fn new(config: HubConfig, tail_bytes: usize) -> Self {
        let hub = Hub::with_log(config, 2, tail_bytes, WINDOW);
        hub.begin_log(1);
        Self { hub, passes: CommandPasses::default(), now: Time(1_000) }
    }

    fn open(&self, name: &str, start: Start) -> Client {
        let opened = self.hub.subscribe_topic(&topic(name), start, false, self.now);
        self.begin(opened, start.last_id())
    }

    /// Takes a seat, and begins only later.
    fn claim(&self, name: &str, number: u64) -> Result<Client, SubscribeError> {
        let claimed = self.hub.claim_topic(&topic(name), Start::All, number, self.now);
        claimed.map(|claimed| self.begin(Ok(claimed), None))
    }

    fn begin(
        &self,
        opened: Result<(Subscription, Greeting), SubscribeError>,
        last: Option<EventId>,
    ) -> Client {
        let (stream, greeting) = opened.expect("open");
        let (greeting, id) = stream.begin(greeting, last);
        Client { stream, greeting, id }
    }

    /// The drivers do their work, as time passes.
    fn wait(&mut self, ms: u64) {
        self.now = self.now.after(Duration::from_millis(ms));
        for shard in 0..2 {
            let hub = self.hub.on_shard(shard);
            if shard == 0 {
                carry_out(&hub, &mut self.passes, self.now);
            }
            sweep_all(&hub);
            hub.driver().tidy(self.now.tick(), self.now);
        }
    }

    fn ended(&self, reason: CloseReason) -> u64 {
        self.hub.counters().map(|c| read(&c.closed[2][reason as usize])).sum()
    }
}

// ===== impl Client =====

impl Client {
    fn take_events(&mut self) -> (Vec<Event>, bool) {
        let Self { stream, id, .. } = self;
        take_events(stream, |frame| {
            if frame.payload().starts_with(b"id: ") {
                *id = frame.id();
            }
        })
    }

    /// The names of the events that there are for it, and whether its stream has ended.
    fn take(&mut self) -> (String, bool) {
        let (events, ended) = self.take_events();
        let names: Vec<_> = events.iter().map(|event| &*event.name).collect();
        (names.join(" "), ended)
    }

    fn names(&mut self) -> String {
        let (names, ended) = self.take();
        assert!(!ended, "{names}");
        names
    }

    /// The connection is lost, and the client comes back.
    fn hop(self, to: &Node) -> Self {
        let Self { stream, id, .. } = self;
        let name = stream.topic().expect("of a topic").to_string();
        drop(stream);
        to.open(&name, Start::After(id))
    }
}
