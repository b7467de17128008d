//! Steps of publishers and drivers.

use std::sync::atomic::Ordering;

use super::twin::{TwinOrg, visible};
use super::{World, name};
use crate::hub::{Batch, Keys, View};
use crate::time::{Tick, Time};

// ===== impl World =====

impl World {
    pub(super) fn publish(&mut self, org: usize, keys: &[u8], shard: usize) {
        // Closing the hub releases burst windows but leaves them in the inbox, where they may close the next window
        // early.
        if self.closing && self.limits.coalesce > 0 {
            return;
        }
        let keys: Vec<String> = keys.iter().map(|key| name(*key)).collect();
        let config = self.hubs[shard].config();
        let checked = Keys::new(keys.iter().map(String::as_str), config).expect("few");
        let published = self.hubs[shard].publish(&self.orgs[org], &checked, Time(self.now));
        let Some(twin) = &mut self.twins[org] else {
            assert!(published.id.is_none() || self.closing);
            return;
        };
        assert_eq!(published.id, Some(twin.member.id(twin.member.events.len() + 1)));
        let here = self.pairs.iter_mut().map(|pair| &mut pair.client);
        for client in here.chain(&mut self.away).filter(|client| client.org == org) {
            // A client from a former run of the channel cannot resume.
            let feed = twin.feed(client.view).filter(|feed| feed.epoch == client.last.epoch);
            let visible = visible(&keys, client.view);
            if let Some(feed) = feed.filter(|_| !visible.is_empty()) {
                client.owed.entry(feed.events.len() + 1).or_default().extend(visible);
            }
        }
        twin.publish(&keys, self.now);
    }

    /// One batch of one sweep. Returns whether there may be more.
    pub(super) fn collect(&mut self, shard: usize) -> bool {
        let (hub, sweeps) = (&self.hubs[shard], &mut self.sweeps[shard]);
        sweeps.extend(std::iter::from_fn(|| hub.driver().next_sweep()));
        if let Some(mut sweep) = sweeps.pop_front() {
            let mut batch = Batch::default();
            if sweep.collect(&mut batch) {
                sweeps.push_back(sweep);
            }
            batch.wake();
        }
        !sweeps.is_empty()
    }

    pub(super) fn drive(&mut self) {
        for hub in &self.hubs {
            while hub.driver().close_windows(Time(self.now)) {}
        }
        for twin in self.twins.iter_mut().flatten() {
            if self.now >= twin.closes {
                twin.release(self.now);
            }
        }
        self.tick = self.now / 1_000;
        for shard in 0..2 {
            let (mut due, mut batch) = (Vec::new(), Batch::default());
            self.hubs[shard].driver().tick(Tick(self.tick as u32), &mut due);
            self.hubs[shard].driver().keep_alive(&due, &mut batch);
            let mut timers = Vec::new();
            self.hubs[shard].driver().timers(Tick(self.tick as u32), &mut timers);
            self.hubs[shard].driver().fire(&timers, &mut batch);
            batch.wake();
            while self.collect(shard) {}
        }
        let ticked = self.tick * 1_000;
        for pair in &mut self.pairs {
            pair.ended |= pair.deadline.is_some_and(|at| at <= ticked);
        }
        for pair in self.pairs.iter().filter(|pair| pair.waits) {
            let twin = self.twins[pair.client.org].as_ref().expect("it has a subscriber");
            let feed = twin.feed(pair.client.view).expect("it has a subscriber");
            if pair.position < feed.events.len() || self.closing || pair.ended {
                assert!(pair.bell.0.load(Ordering::Relaxed), "not woken for a pending event");
            }
        }
        if !self.closing {
            let events: usize = self.twins.iter().flatten().map(TwinOrg::bytes).sum();
            let shared = &self.hubs[0].shared;
            let overhead = shared.registry.sum(|channel| {
                channel.state.lock().feeds.iter().map(|feed| feed.history.overhead()).sum()
            });
            assert!(overhead <= self.orgs.len() * 2 * 2_048, "{overhead} bytes");
            let bytes = shared.common.memory.bytes();
            assert_eq!(bytes, (events + overhead) as u64, "bytes of all histories");
        }
    }

    pub(super) fn tidy(&mut self) {
        (0..64).for_each(|part| self.hubs[0].driver().tidy(Tick(part), Time(self.now)));
        for (org, place) in self.twins.iter_mut().enumerate() {
            let Some(twin) = place else { continue };
            twin.expire(self.now);
            let has_subscribers = self.pairs.iter().any(|pair| pair.client.org == org);
            let is_resumable = self.now < twin.idle_since + self.limits.age;
            if !has_subscribers && !is_resumable && twin.held.is_none() {
                for view in [View::Member, View::Public] {
                    if let Some(feed) = twin.feed(view) {
                        self.former[org][view as usize] = feed.epoch;
                    }
                }
                *place = None;
            }
        }
    }

    pub(super) fn close(&mut self) {
        self.hubs[0].close(Time(self.now));
        self.twins.iter_mut().flatten().for_each(|twin| twin.release(self.now));
        self.closing = true;
    }
}
