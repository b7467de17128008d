//! A hub whose drivers' turns, clients and time are the test's.

use std::collections::BTreeMap;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::WINDOW;
use crate::config::HubConfig;
use crate::hub::tests::turns::sweep_all;
use crate::hub::{Batch, CommandPasses, Hub, Keys, SEATS_PER_TURN, Subscription, View};
use crate::ids::{EventId, OrgName};
use crate::time::Time;
use crate::wire::{Greeting, Parser};

/// A hub with the passes of its drivers.
pub(super) struct World {
    pub(super) hub: Hub,
    pub(super) passes: Vec<CommandPasses>,
    pub(super) now: u64,
}

/// A stream, and what its client has.
pub(super) struct Client {
    pub(super) stream: Subscription,
    pub(super) last: EventId,
    pub(super) events: Vec<String>,
    pub(super) ended: bool,
}

// ===== impl World =====

impl World {
    pub(super) fn new(shards: usize) -> Self {
        let config = HubConfig { coalesce: Duration::ZERO, ..HubConfig::default() };
        let passes = (0..shards).map(|_| CommandPasses::default()).collect();
        Self { hub: Hub::with_shards(config, shards), passes, now: 1_000 }
    }

    pub(super) fn open(
        &self,
        org: &str,
        view: View,
        id: Option<EventId>,
        shard: usize,
    ) -> (Client, Greeting) {
        let hub = self.hub.on_shard(shard);
        let (stream, greeting) = hub.subscribe(&name(org), view, id, Time(self.now)).expect("open");
        let (greeting, last) = stream.begin(greeting, id);
        let mut client = Client { stream, last, events: Vec::new(), ended: false };
        client.take();
        (client, greeting)
    }

    pub(super) fn member(&self, org: &str) -> Client {
        self.open(org, View::Member, None, 0).0
    }

    pub(super) fn publish(&self, org: &str, key: &str) {
        let keys = Keys::new([key], self.hub.config()).expect("a key");
        self.hub.publish(&name(org), &keys, Time(self.now));
        for shard in 0..self.passes.len() {
            sweep_all(&self.hub.on_shard(shard));
        }
    }

    pub(super) fn reread(&self, org: &str) -> usize {
        self.hub.reread(&name(org), Time(self.now), WINDOW)
    }

    pub(super) fn end(&self, org: &str) -> usize {
        self.hub.end_members(&name(org), Time(self.now), WINDOW)
    }

    /// Either command.
    pub(super) fn command(&self, org: &str, ends: bool) -> usize {
        if ends { self.end(org) } else { self.reread(org) }
    }

    /// One turn of every driver. Returns how many streams were reached.
    pub(super) fn turn(&mut self) -> usize {
        let mut reached = 0;
        for (shard, passes) in self.passes.iter_mut().enumerate() {
            let (driver, mut batch) = (self.hub.on_shard(shard).driver(), Batch::default());
            passes.turn(&driver, Time(self.now), &mut batch, |batch| {
                assert!(batch.seats() <= SEATS_PER_TURN);
                reached += batch.seats();
                batch.wake();
                batch.clear();
            });
        }
        reached
    }

    /// All turns that are due until so many milliseconds from now. Returns how many streams were reached at each time.
    pub(super) fn run(&mut self, ms: u64) -> BTreeMap<u64, usize> {
        let (end, mut reached) = (self.now + ms, BTreeMap::new());
        loop {
            let count = self.turn();
            if count > 0 {
                *reached.entry(self.now).or_default() += count;
            }
            let drivers = (0..self.passes.len()).map(|n| self.hub.on_shard(n).driver());
            let next = drivers.zip(&self.passes).filter_map(|(d, passes)| passes.next(&d)).min();
            match next {
                Some(next) if next.0 <= end => self.now = self.now.max(next.0),
                _ => {
                    self.now = end;
                    return reached;
                }
            }
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        let drivers = (0..self.passes.len()).map(|n| self.hub.on_shard(n).driver());
        drivers.zip(&self.passes).all(|(driver, passes)| passes.next(&driver).is_none())
    }
}

// ===== impl Client =====

impl Client {
    /// Takes what there is, as a browser does.
    pub(super) fn take(&mut self) {
        while self.take_one() {}
    }

    /// Takes one frame, if there is one.
    pub(super) fn take_one(&mut self) -> bool {
        let frame = match self.stream.poll_next(Waker::noop()) {
            Poll::Pending => return false,
            Poll::Ready(None) => {
                self.ended = true;
                return false;
            }
            Poll::Ready(Some(frame)) => frame,
        };
        let mut parser = Parser::default();
        let take = |event: crate::wire::Event| {
            let key = event.data.trim_matches(|c| "{}[]\"".contains(c));
            let what = key.strip_prefix("keys\":[\"").unwrap_or("");
            self.events.push(if event.name == "connected" {
                "connected".into()
            } else {
                what.into()
            });
            self.last = event.id.parse().expect("an id");
        };
        parser.push(&frame.payload(), take).expect("small");
        true
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.take();
        self.ended
    }

    pub(super) fn has_reread(&mut self) -> bool {
        self.take();
        self.events.iter().any(|event| event == "connected")
    }
}

pub(super) fn name(org: &str) -> OrgName {
    org.parse().expect("a name")
}

pub(super) fn count<'a>(
    clients: impl IntoIterator<Item = &'a mut Client>,
    is: fn(&mut Client) -> bool,
) -> usize {
    clients.into_iter().filter_map(|client| is(client).then_some(())).count()
}
