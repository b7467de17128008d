//! Compares the hub with a naive twin, over operations in virtual time: random ones here, and those of the fuzzer.

#[cfg(test)]
mod bounds;
#[cfg(all(test, feature = "server"))]
mod busiest;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod deadlines;
mod drivers;
#[cfg(test)]
mod filter_sweeps;
#[cfg(test)]
mod filters;
#[cfg(all(test, feature = "server"))]
mod log;
#[cfg(all(test, feature = "server"))]
mod log_topics;
#[cfg(test)]
mod random;
#[cfg(all(test, feature = "server"))]
mod state;
mod subscribers;
#[cfg(test)]
mod topics;
#[cfg(test)]
mod topics_twin;
#[cfg(test)]
pub(crate) mod turns;
mod twin;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::time::Duration;

use self::twin::{Limits, TwinOrg};
use super::{CommandPasses, Deadline, Hub, Subscription, Sweep, View};
use crate::config::{HubConfig, PublicOrgs, PublicPolicy};
use crate::ids::{Epoch, EventId, OrgName};
use crate::metrics::CloseReason;
use crate::time::Time;

/// `subscriber` is any number, taken modulo the number of subscribers.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// `back` counts events back from an id one beyond the head.
    Subscribe {
        org: usize,
        view: View,
        back: Option<(u64, Run)>,
        shard: usize,
        crowd: usize,
    },
    Publish {
        org: usize,
        keys: Vec<u8>,
        shard: usize,
    },
    /// Polls like the task that serves the stream, which may have a new waker.
    Poll {
        subscriber: usize,
        moved: bool,
    },
    PollAll,
    /// A backend reads where the org is. With `page`, a stream begins there later.
    Position {
        org: usize,
        page: bool,
    },
    /// Ends this many milliseconds from now.
    EndAfter {
        subscriber: usize,
        ms: u64,
    },
    Drop(usize),
    /// Loses its connection and keeps the last id that it received.
    Leave(usize),
    Return {
        subscriber: usize,
        shard: usize,
    },
    Wait(u64),
    /// One batch of one shard's driver.
    Sweep {
        shard: usize,
    },
    /// All pending work of the drivers.
    Drive,
    /// Everything has to be re-read: what an org has, or, with a number beyond the orgs, what all have.
    Reread {
        org: usize,
        shard: usize,
    },
    /// The member streams of an org have to end.
    EndMembers {
        org: usize,
        shard: usize,
    },
    Tidy,
    Close,
}

/// The run to which an id belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Run {
    This,
    Former,
    /// That of the other view.
    Other,
}

/// The state of a browser.
struct Client {
    org: usize,
    view: View,
    last: EventId,
    /// Keys that were published to it and not yet covered by an event or a `connected`.
    owed: BTreeMap<usize, Vec<String>>,
}

/// One subscriber of the hub, and of the twin.
struct Pair {
    ours: Subscription,
    client: Client,
    bell: Arc<Bell>,
    position: usize,
    waits: bool,
    /// The last delivery, in whole seconds.
    touched: u64,
    deadline: Option<u64>,
    /// Its deadline has passed, or its turn to end has come.
    ended: bool,
    /// It has to re-read, and its turn has come.
    stale: bool,
    due: bool,
    /// It has to end.
    unwanted: bool,
}

struct Bell(AtomicBool);

struct World {
    hubs: [Hub; 2],
    sweeps: [VecDeque<Sweep>; 2],
    passes: [CommandPasses; 2],
    orgs: [OrgName; 2],
    twins: [Option<TwinOrg>; 2],
    /// Every run of a view so far.
    epochs: HashSet<Epoch>,
    /// The last run of each view of each org before this one.
    former: [[Epoch; 2]; 2],
    pairs: Vec<Pair>,
    away: Vec<Client>,
    limits: Limits,
    closing: bool,
    now: u64,
    tick: u64,
}

const KEEPALIVE: u64 = 4;

/// Over which a command to streams is spread.
const WINDOW: u64 = 700;

/// Applies the steps to a hub and to its twin, and panics where they differ.
pub(crate) fn compare(coalesce: u64, history: usize, steps: impl IntoIterator<Item = Step>) {
    let mut world = World::new(coalesce, history);
    steps.into_iter().for_each(|step| world.apply(step));
    world.settle();
    drop(world.pairs);
    assert_eq!(world.hubs[0].seats(), 0);
}

fn name(key: u8) -> String {
    if key.is_multiple_of(2) { format!("even{key}") } else { format!("odd{key}") }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// ===== impl World =====

impl World {
    fn new(coalesce: u64, history: usize) -> Self {
        let limits = Limits { coalesce, history, age: 3_000, keys_max: 4 };
        let hub = Hub::with_shards(
            HubConfig {
                coalesce: Duration::from_millis(coalesce),
                keepalive: Duration::from_secs(KEEPALIVE),
                history_events: history,
                history_age: Duration::from_millis(limits.age),
                keys_max: limits.keys_max,
                public: PublicPolicy { orgs: PublicOrgs::All, keys: ["even*"].iter().collect() },
                ..HubConfig::default()
            },
            2,
        );
        Self {
            hubs: [hub.on_shard(0), hub.on_shard(1)],
            sweeps: Default::default(),
            passes: Default::default(),
            orgs: ["a", "b"].map(|org| org.parse().expect("a name")),
            twins: [None, None],
            epochs: HashSet::new(),
            former: [[Epoch(0); 2]; 2],
            pairs: Vec::new(),
            away: Vec::new(),
            limits,
            closing: false,
            now: 0,
            tick: 0,
        }
    }

    fn apply(&mut self, step: Step) {
        let (here, away) = (self.pairs.len(), self.away.len());
        match step {
            Step::Subscribe { org, view, back, shard, crowd } => {
                let id = back.and_then(|(back, run)| self.some_id(org, view, back, run));
                (0..crowd).for_each(|_| self.subscribe(org, view, id, shard));
            }
            Step::Publish { org, keys, shard } => self.publish(org, &keys, shard),
            Step::Poll { subscriber, moved } if here > 0 => {
                let subscriber = subscriber % here;
                if moved {
                    self.pairs[subscriber].bell = Arc::new(Bell(AtomicBool::new(false)));
                }
                self.poll(subscriber);
            }
            Step::PollAll => self.poll_all(),
            Step::Position { org, page } => self.position(org, page),
            Step::EndAfter { subscriber, ms } if here > 0 => {
                let pair = &mut self.pairs[subscriber % here];
                let at = self.now + ms;
                pair.ours.end_at(Deadline { at: Time(at), reason: CloseReason::Expired });
                pair.deadline = Some(pair.deadline.map_or(at, |other| other.min(at)));
            }
            Step::Drop(subscriber) if here > 0 => _ = self.leave(subscriber % here),
            Step::Leave(subscriber) if here > 0 => {
                let client = self.leave(subscriber % here);
                self.away.push(client);
            }
            Step::Return { subscriber, shard } if away > 0 => {
                let client = self.away.swap_remove(subscriber % away);
                self.reconnect(client, shard);
            }
            Step::Poll { .. }
            | Step::EndAfter { .. }
            | Step::Drop(_)
            | Step::Leave(_)
            | Step::Return { .. } => {}
            Step::Wait(ms) => self.now += ms,
            Step::Sweep { shard } => _ = self.collect(shard),
            Step::Drive => self.drive(),
            Step::Reread { org, shard } => self.reread(org, shard),
            Step::EndMembers { org, shard } => self.end_members(org, shard),
            Step::Tidy => self.tidy(),
            Step::Close => self.close(),
        }
        assert_eq!(self.hubs[0].seats(), self.pairs.len());
        let on_shards = self.hubs.each_ref().map(|hub| hub.shard().seats());
        assert_eq!(on_shards.iter().sum::<usize>(), self.pairs.len());
        if !self.closing {
            assert_eq!(self.hubs[0].channels(), self.twins.iter().flatten().count());
        }
    }

    /// Without further publishes: every client receives all pending events, after which no key may be owed.
    fn settle(&mut self) {
        self.drive();
        self.poll_all();
        while let Some(client) = self.away.pop() {
            self.reconnect(client, 0);
        }
        self.now += self.limits.coalesce + 1;
        self.drive();
        self.poll_all();
        for Pair { client, .. } in &self.pairs {
            assert!(client.owed.values().all(Vec::is_empty), "lost unnoticed: {:?}", client.owed);
        }
        assert!(!self.closing || self.pairs.is_empty());
    }
}
