//! Topics: what their streams get, what is kept, and what ends them.

mod backlog;
mod ends;
mod exclusive;
mod memory;

use crate::config::HubConfig;
use crate::hub::tests::turns::take_events;
use crate::hub::{Batch, Hub, Start, SubscribeError, Subscription, WriteOp};
use crate::ids::{EventId, Seq, Topic};
use crate::metrics::{CloseReason, read};
use crate::time::Time;
use crate::wire::{Event, Greeting, Message, Payload};

/// A hub, whose time is passed in.
struct World {
    hub: Hub,
    now: u64,
}

/// A client of a topic, which takes its events like a task that hyper serves.
struct Client {
    stream: Subscription,
    /// Where it began.
    greeting: (Greeting, EventId),
}

fn topic(name: &str) -> Topic {
    let (org, name) = name.split_once('/').unwrap_or(("acme", name));
    Topic { org: org.parse().expect("a name"), name: name.parse().expect("a name") }
}

/// A message that is an event named `name`, with this text.
fn message(name: &str, text: &str, bulk: bool) -> Message {
    Message::new(name, Payload::Text(text), bulk, usize::MAX).expect("a message")
}

// ===== impl World =====

impl World {
    fn new() -> Self {
        Self::with(HubConfig::default())
    }

    fn with(config: HubConfig) -> Self {
        Self { hub: Hub::with_shards(config, 2), now: 1_000 }
    }

    /// Keeps so many events of each class.
    fn keeping(topic_events: usize) -> Self {
        Self::with(HubConfig { topic_events, ..HubConfig::default() })
    }

    /// Publishes an event whose name is the text. Those that begin with `b` are bulk.
    fn publish(&self, to: &str, text: &str) -> EventId {
        let message = message(text, "", text.starts_with('b'));
        self.hub.publish_message(&topic(to), &message, Time(self.now))
    }

    fn try_open(&self, to: &str, start: Start, exclusive: bool) -> Result<Client, SubscribeError> {
        let opened = self.hub.subscribe_topic(&topic(to), start, exclusive, Time(self.now));
        let (stream, greeting) = opened?;
        let greeting = stream.begin(greeting, None);
        Ok(Client { stream, greeting })
    }

    fn open(&self, to: &str, start: Start) -> Client {
        self.try_open(to, start, false).expect("open")
    }

    fn close(&self, to: &str, reason: &str) -> usize {
        self.hub.close_topic(&topic(to), reason, Time(self.now))
    }

    /// All immediate work of the drivers.
    fn drive(&self) -> Batch {
        let mut all = Batch::default();
        for shard in 0..2 {
            while let Some(mut sweep) = self.hub.on_shard(shard).driver().next_sweep() {
                let mut batch = Batch::default();
                let mut more = true;
                while more {
                    more = sweep.collect(&mut batch);
                    all.writes.append(&mut batch.writes);
                    batch.wake();
                    batch.clear();
                }
            }
        }
        all
    }

    /// A sweep that has one write to do. Returns it, with the numbers of its events.
    fn deliver(&self) -> (WriteOp, Vec<Seq>) {
        let mut batch = Batch::default();
        let mut sweep = self.hub.driver().next_sweep().expect("a dirty topic");
        while sweep.collect(&mut batch) {}
        let [op] = batch.writes[..] else { panic!("{:?}", batch.writes) };
        (op, batch.events.iter().map(|(seq, _)| *seq).collect())
    }

    /// Time passes, a second at a time.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1_000;
            for shard in 0..2 {
                let driver = self.hub.on_shard(shard).driver();
                let tick = Time(self.now).tick();
                let (mut due, mut batch) = (Vec::new(), Batch::default());
                driver.tick(tick, &mut Vec::new());
                driver.timers(tick, &mut due);
                driver.fire(&due, &mut batch);
                driver.tidy(tick, Time(self.now));
                batch.wake();
            }
        }
    }

    fn ended(&self, reason: CloseReason) -> u64 {
        self.hub.counters().map(|c| read(&c.closed[2][reason as usize])).sum()
    }
}

// ===== impl Client =====

impl Client {
    /// The names of the events that there are for it, and whether its stream has ended.
    fn take(&mut self) -> (Vec<String>, bool) {
        let (events, ended) = self.take_events();
        (events.into_iter().map(|event| event.name).collect(), ended)
    }

    fn names(&mut self) -> String {
        let (names, ended) = self.take();
        assert!(!ended, "{names:?}");
        names.join(" ")
    }

    fn take_events(&mut self) -> (Vec<Event>, bool) {
        take_events(&mut self.stream, |_| ())
    }

    fn start(&self) -> (Greeting, u64) {
        (self.greeting.0, self.greeting.1.seq.0)
    }
}
