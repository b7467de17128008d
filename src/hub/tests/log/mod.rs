//! A hub that follows a log which several servers share.

mod coherence;
mod cuts;
mod fill;
mod keepalive;
mod records;
mod resume;

use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use crate::config::{HubConfig, PublicOrgs, PublicPolicy};
use crate::hub::tests::turns::turn;
use crate::hub::{CommandPasses, Hub, Subscription, View};
use crate::ids::{EventId, Mark, OrgName, StreamHash};
use crate::time::Time;
use crate::wire::Greeting;

/// Over which streams re-read.
const WINDOW: u64 = 1_000;

/// One of the servers.
struct Node {
    hub: Hub,
    passes: CommandPasses,
    now: Time,
}

/// The log.
#[derive(Default)]
struct Log {
    records: Vec<(Mark, String)>,
}

/// What a stream has received: names and keys of events, and ids.
#[derive(Debug, PartialEq, Eq)]
struct Received {
    text: String,
    id: Option<EventId>,
}

fn config() -> HubConfig {
    HubConfig {
        coalesce: Duration::ZERO,
        public: PublicPolicy { orgs: PublicOrgs::All, keys: ["open*"].iter().collect() },
        ..HubConfig::default()
    }
}

fn org(name: &str) -> OrgName {
    name.parse().expect("a name")
}

fn keys(org: &str, keys: &[&str]) -> String {
    format!("{}\n", serde_json::json!({"org": org, "keys": keys}))
}

fn reread(org: &str) -> String {
    format!("{}\n", serde_json::json!({"org": org, "reread": true}))
}

impl Log {
    /// Appends a record. Tags differ.
    fn append(&mut self, lines: &str) -> Mark {
        let position = self.records.len() as u64 + 1;
        let mark = Mark { tag: 0xabc0_0000 + position, position };
        self.records.push((mark, lines.to_owned()));
        mark
    }
}

impl Node {
    fn new(config: HubConfig) -> Self {
        Self::with_tail(config, 1 << 20)
    }

    fn with_tail(config: HubConfig, bytes: usize) -> Self {
        let hub = Hub::with_log(config, 1, bytes, Duration::from_millis(WINDOW));
        hub.begin_log(1);
        Self { hub, passes: CommandPasses::default(), now: Time(1_000) }
    }

    /// Follows the log as far as it goes.
    fn follow(&self, log: &Log) {
        let applied = self.hub.applied().map_or(0, |mark| mark.position);
        for (mark, lines) in &log.records[usize::try_from(applied).expect("few")..] {
            self.apply(*mark, lines);
        }
    }

    fn apply(&self, mark: Mark, lines: &str) {
        self.hub.apply(mark, &Bytes::copy_from_slice(lines.as_bytes()), self.now);
    }

    fn open(
        &self,
        name: &str,
        view: View,
        id: Option<EventId>,
    ) -> (Subscription, Greeting, EventId) {
        let (stream, greeting) =
            self.hub.subscribe(&org(name), view, id, self.now).expect("not closing");
        let (greeting, id) = stream.begin(greeting, id);
        (stream, greeting, id)
    }

    fn member(&self, id: Option<EventId>) -> (Subscription, Greeting, EventId) {
        self.open("acme", View::Member, id)
    }

    /// Time passes, and the driver does its work.
    fn wait(&mut self, ms: u64) {
        self.now = self.now.after(Duration::from_millis(ms));
        turn(&self.hub, &mut self.passes, self.now);
    }
}

/// All that a stream has to receive now.
fn take(stream: &mut Subscription) -> Vec<Received> {
    let mut all = Vec::new();
    while let Poll::Ready(Some(frame)) = stream.poll_next(Waker::noop()) {
        all.push(received(&frame.payload()));
    }
    all
}

/// The keepalive that would be written now.
fn ping(stream: &Subscription) -> Received {
    received(&stream.keepalive_frame().payload())
}

fn texts(received: &[Received]) -> Vec<&str> {
    received.iter().map(|one| one.text.as_str()).collect()
}

fn received(payload: &[u8]) -> Received {
    let text = std::str::from_utf8(payload).expect("UTF-8");
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let id = field("id: ").map(|id| id.parse().expect("an id"));
    let data: serde_json::Value = field("data: ")
        .map_or(serde_json::Value::Null, |data| serde_json::from_str(data).expect("JSON"));
    let keys: Vec<_> =
        data["keys"].as_array().into_iter().flatten().filter_map(|key| key.as_str()).collect();
    let name = field("event: ").unwrap_or("comment");
    let text = if name == "invalidate" { keys.join(" ") } else { name.to_owned() };
    Received { text, id }
}
