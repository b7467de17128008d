//! What the hub keeps, compared with the twin: after every step, and once nothing is left.

use std::collections::HashMap;
use std::sync::Arc;

use super::{AGE, World};
use crate::hub::channel::Channel;
use crate::hub::feed::{Feeds, View};
use crate::hub::log::Log as _;
use crate::ids::{Epoch, Seq, Topic};
use crate::metrics;
use crate::time::Time;

/// What a channel beside its events' frames may cost, with the newest of these, which is always kept.
const BESIDE: usize = 5_000;

// ===== impl World =====

impl World {
    /// The channels of topics in the registry.
    pub(super) fn channels(&self) -> HashMap<Topic, Arc<Channel>> {
        let topics = &self.hubs[0].shared.topics;
        let all = (0..).map_while(|partition| topics.channels_of(partition)).flatten();
        let all = all.filter(|channel| !channel.state.lock().removed);
        all.map(|channel| (channel.topic().expect("that of a topic"), channel)).collect()
    }

    /// Takes note of what the hub keeps.
    pub(super) fn follow(&mut self) {
        let mut channels = self.channels();
        for topic in 0..self.topics.len() {
            let Some(channel) = channels.remove(&self.topics[topic]) else {
                if let Some(known) = self.current[topic].take() {
                    self.check_forgotten(known);
                    self.former[topic] = Some(known);
                }
                continue;
            };
            let (epoch, kept, _) = kept(&channel);
            self.meet(topic, epoch);
            self.logs.get_mut(&epoch).expect("it was met").keep(&kept, self.limits);
        }
        assert!(channels.is_empty(), "topics of which the twin knows nothing");
    }

    pub(super) fn check_bounds(&mut self) {
        self.follow();
        let topics = self.channels();
        let mut alive: HashMap<_, _> = topics.into_values().map(|c| (kept(&c).0, c)).collect();
        for reader in &self.readers {
            alive.insert(reader.epoch, reader.ours.channel().clone());
        }
        let expected: usize = alive
            .iter()
            .map(|(epoch, channel)| {
                let (_, kept, overhead) = kept(channel);
                kept.iter().map(|seq| self.logs[epoch].cost(*seq)).sum::<usize>() + overhead
            })
            .sum();
        let bytes = self.hubs[0].shared.common.topics.memory.bytes();
        assert_eq!(bytes, expected as u64, "bytes of all topics");
        let most = self.limits.bytes_total.saturating_add(alive.len() * BESIDE);
        assert!(expected <= most, "{expected} bytes of {most}");
        assert_eq!(self.hubs[0].seats(), self.readers.len() + self.orgs.seats());
        let on_shards = self.hubs.each_ref().map(|hub| hub.shard().seats());
        assert_eq!(on_shards.iter().sum::<usize>(), self.readers.len() + self.orgs.seats());
    }

    /// Topics without a stream are within their bound.
    pub(super) fn check_idle(&self) {
        let seated = |topic: &&Arc<Channel>| topic.state.lock().seats() == 0;
        let idle = self.channels().values().filter(seated).count();
        assert!(idle <= self.limits.idle, "{idle} idle topics of {:?}", self.limits);
    }

    /// After a look at which topics have aged: those are gone.
    pub(super) fn check_aged(&self) {
        for epoch in self.current.iter().flatten().filter(|epoch| !self.is_seated(**epoch)) {
            let log = &self.logs[epoch];
            assert!(log.head() > 0, "a topic without events and streams is kept");
            assert!(self.now < log.used.1 + AGE, "a topic is kept beyond its age");
        }
    }

    /// Everything is read, and then everything goes: nothing is left.
    pub(super) fn settle(mut self) {
        self.apply(super::Step::Drive);
        self.apply(super::Step::ReadAll);
        self.check_bounds();
        while !self.readers.is_empty() {
            self.apply(super::Step::Drop(0));
        }
        self.orgs.settle();
        self.now += AGE + 2_000;
        self.apply(super::Step::Drive);
        self.apply(super::Step::Tidy);
        let hub = &self.hubs[0];
        assert_eq!((hub.seats(), hub.topics()), (0, 0));
        let topics = &hub.shared.common.topics;
        assert_eq!(topics.memory.bytes(), 0, "bytes of no topic");
        let view = View::Topic as usize;
        let sum = |of: fn(&metrics::Counters, usize) -> u64| {
            hub.counters().map(|counters| of(counters, view)).sum::<u64>()
        };
        let opened = sum(|counters, view| metrics::read(&counters.opened[view]));
        let closed = |counters: &metrics::Counters, view: usize| {
            counters.closed[view].iter().map(metrics::read).sum::<u64>()
        };
        assert_eq!(opened, sum(closed), "streams opened and ended");
        assert_eq!(self.tick * 1_000, Time(self.now).tick().time().0);
    }
}

/// The run of a channel, the numbers of the events that it keeps, and its bytes beside their frames.
pub(super) fn kept(channel: &Channel) -> (Epoch, Vec<u64>, usize) {
    let mut state = channel.state.lock();
    let Feeds::Topic(topic) = &mut state.feeds else { panic!("that of an org") };
    let backlog = &topic.feed.history;
    let kept = backlog.numbers().map(|seq: Seq| seq.0).collect();
    (backlog.id(Seq(0)).epoch, kept, backlog.overhead())
}
