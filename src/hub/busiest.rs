//! The orgs and topics that have most streams, or are published to most: a scan over all channels, in parts. No lock is
//! held for longer than it takes to list a partition, or to read one channel.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use super::Hub;
use super::batch::VISITS_PER_TURN;
use super::channel::{Channel, State};
use super::feed::{Feeds, View};
use super::largest::Largest;
use crate::ids::{OrgName, TopicName};
use crate::time::Time;

/// What scans remember: when each partition was visited last, so that what was counted since is a rate.
#[derive(Debug, Default)]
pub(crate) struct Visits(Vec<Option<Time>>);

/// A scan that is under way. If it is dropped, the rates of the partition that it was in are unknown in the next one.
#[derive(Debug)]
pub(crate) struct Scan<'v> {
    hub: Hub,
    visits: &'v mut Visits,
    /// The next partition.
    partition: usize,
    /// Channels of the partition before it that have not been visited.
    channels: vec::IntoIter<Arc<Channel>>,
    /// When these were listed, and when they were before.
    listed: Time,
    before: Option<Time>,
    orgs: Ranking,
    topics: Ranking,
}

/// What a scan has found.
#[derive(Debug)]
pub(crate) struct Busiest {
    pub(crate) orgs: Ranks,
    pub(crate) topics: Ranks,
}

/// How many there are, and the first by each order.
#[derive(Debug)]
pub(crate) struct Ranks {
    pub(crate) total: usize,
    pub(crate) by_streams: Vec<Busy>,
    pub(crate) by_publishes: Vec<Busy>,
}

/// What an org has, or a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    pub(crate) org: OrgName,
    /// `None` for an org.
    pub(crate) topic: Option<TopicName>,
    pub(crate) numbers: Numbers,
}

/// The numbers of an org or a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Streams of members, or of a topic.
    pub(crate) streams: usize,
    /// Public streams.
    pub(crate) public: usize,
    pub(crate) publishes: Rate,
    /// Bytes that a topic has allocated for its events.
    pub(crate) bytes: usize,
}

/// Thousandths of publishes a second; 0 if it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rate(u64);

#[derive(Debug)]
struct Ranking {
    total: usize,
    by_streams: Largest<Ranked>,
    by_publishes: Largest<Ranked>,
}

/// By its place, and where that is shared, by its name, from A to Z.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    place: Place,
    name: Reverse<(OrgName, Option<TopicName>)>,
    rest: Unordered,
}

/// The number that orders, and the one that does where that is the same.
type Place = (u64, u64);

/// What has no part in an order.
#[derive(Debug)]
struct Unordered(Numbers);

/// How many are found by each order.
pub(crate) const BUSIEST: usize = 20;

/// What was counted over a longer time than this says little of now.
const RATE_MAX: Duration = Duration::from_secs(60);

// ===== impl Visits =====

impl Visits {
    /// Begins a scan over the channels of this hub, which is the same for each.
    pub(crate) fn scan(&mut self, hub: &Hub) -> Scan<'_> {
        Scan {
            hub: hub.clone(),
            visits: self,
            partition: 0,
            channels: Vec::new().into_iter(),
            listed: Time(0),
            before: None,
            orgs: Ranking::new(),
            topics: Ranking::new(),
        }
    }

    fn of(&mut self, partition: usize) -> &mut Option<Time> {
        if self.0.len() <= partition {
            self.0.resize(partition + 1, None);
        }
        &mut self.0[partition]
    }
}

// ===== impl Scan =====

impl Scan<'_> {
    /// Goes on with some of the channels. Returns whether there may be more.
    pub(crate) fn step(&mut self, now: Time) -> bool {
        for _ in 0..VISITS_PER_TURN {
            match self.channels.next() {
                Some(channel) => self.visit(&channel),
                None => return self.list(now),
            }
        }
        true
    }

    /// What was found.
    pub(crate) fn finish(self) -> Busiest {
        Busiest { orgs: self.orgs.finish(), topics: self.topics.finish() }
    }

    /// Lists the channels of the next partition. Returns whether there is one.
    fn list(&mut self, now: Time) -> bool {
        if let Some(visited) = self.partition.checked_sub(1) {
            *self.visits.of(visited) = Some(self.listed);
        }
        let Some(channels) = self.hub.shared.all_channels_of(self.partition) else { return false };
        // Unknown, unless all of them are visited.
        self.before = self.visits.of(self.partition).take();
        self.listed = now;
        self.channels = channels.into_iter();
        self.partition += 1;
        true
    }

    fn visit(&mut self, channel: &Channel) {
        let Some((counted, mut numbers)) = channel.state.lock().take_numbers() else { return };
        let over = self.before.map(|before| self.listed.since(before));
        numbers.publishes = over.map_or(Rate(0), |over| Rate::of(counted, over));
        match channel.topic {
            None => self.orgs.offer(channel, numbers),
            Some(_) => self.topics.offer(channel, numbers),
        }
    }
}

// ===== impl Ranking =====

impl Ranking {
    fn new() -> Self {
        let [by_streams, by_publishes] = [(); 2].map(|()| Largest::new(BUSIEST));
        Self { total: 0, by_streams, by_publishes }
    }

    fn offer(&mut self, channel: &Channel, numbers: Numbers) {
        self.total += 1;
        let streams = (numbers.streams + numbers.public) as u64;
        let publishes = numbers.publishes.0;
        for (largest, place) in [
            (&mut self.by_streams, (streams, publishes)),
            (&mut self.by_publishes, (publishes, streams)),
        ] {
            largest.offer(
                |least| place >= least.place,
                || {
                    let name = Reverse((channel.org.clone(), channel.topic.clone()));
                    Ranked { place, name, rest: Unordered(numbers) }
                },
            );
        }
    }

    fn finish(self) -> Ranks {
        let rows = |largest: Largest<Ranked>| {
            let rows = largest.into_sorted().into_iter();
            rows.map(|Ranked { name: Reverse((org, topic)), rest: Unordered(numbers), .. }| Busy {
                org,
                topic,
                numbers,
            })
            .collect()
        };
        Ranks {
            total: self.total,
            by_streams: rows(self.by_streams),
            by_publishes: rows(self.by_publishes),
        }
    }
}

// ===== impl Rate =====

impl Rate {
    fn of(count: u32, over: Duration) -> Self {
        let millis = u64::try_from(over.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 || over > RATE_MAX {
            return Self(0);
        }
        Self(u64::from(count) * 1_000_000 / millis)
    }

    pub(crate) fn per_second(self) -> f64 {
        self.0 as f64 / 1_000.0
    }
}

// ===== impl State =====

impl State {
    /// Its numbers but for the rate, and how many publishes were counted since they were taken last. `None` if it has
    /// left its registry.
    fn take_numbers(&mut self) -> Option<(u32, Numbers)> {
        if self.removed {
            return None;
        }
        let (streams, bytes) = match &self.feeds {
            Feeds::Org(_) => (self.seats_of(View::Member), 0),
            Feeds::Topic(topic) => (self.seats_of(View::Topic), topic.feed.history.bytes()),
        };
        let public = self.seats_of(View::Public);
        let numbers = Numbers { streams, public, publishes: Rate(0), bytes };
        Some((self.take_publishes(), numbers))
    }
}

// ===== impl Unordered =====

impl PartialEq for Unordered {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Unordered {}

impl PartialOrd for Unordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Unordered {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}
