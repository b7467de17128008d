//! Steps of publishers and drivers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::twin::{TwinOrg, visible};
use super::{WINDOW, World, name};
use crate::hub::feed::Feed;
use crate::hub::{Batch, Keys, View};
use crate::ids::Epoch;
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
        let here = self.pairs.iter_mut().map(|pair| (&mut pair.client, pair.stale));
        let away = self.away.iter_mut().map(|client| (client, false));
        for (client, stale) in here.chain(away).filter(|(client, _)| client.org == org) {
            // A client from a former run of the channel cannot resume, nor can one that has not re-read.
            let is_reached = |epoch| stale || epoch == client.last.epoch;
            let feed = twin.feed(client.view).filter(|feed| is_reached(feed.epoch));
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
            let (hub, passes) = (&self.hubs[shard], &mut self.passes[shard]);
            batch.clear();
            while passes.turn(&hub.driver(), Time(self.now), &mut batch, |batch| {
                batch.wake();
                batch.clear();
            }) {}
            while self.collect(shard) {}
        }
        self.follow_passes();
        let ticked = self.tick * 1_000;
        for pair in &mut self.pairs {
            pair.ended |= pair.deadline.is_some_and(|at| at <= ticked);
        }
        for pair in self.pairs.iter().filter(|pair| pair.waits) {
            let twin = self.twins[pair.client.org].as_ref().expect("it has a subscriber");
            let feed = twin.feed(pair.client.view).expect("it has a subscriber");
            if pair.position < feed.events.len() || self.closing || pair.ended || pair.due {
                assert!(pair.bell.0.load(Ordering::Relaxed), "not woken for a pending event");
            }
        }
        if !self.closing {
            let events: usize = self.twins.iter().flatten().map(TwinOrg::bytes).sum();
            let shared = &self.hubs[0].shared;
            let overhead = shared.registry.sum(|channel| {
                channel
                    .state
                    .lock()
                    .feeds
                    .org_mut()
                    .iter()
                    .map(|feed| feed.history.overhead())
                    .sum()
            });
            assert!(overhead <= self.orgs.len() * 2 * 2_048, "{overhead} bytes");
            let bytes = shared.common.memory.bytes();
            let uncovered = shared.registry.sum(|channel| {
                channel.state.lock().feeds.org_mut().iter().map(Feed::uncovered_bytes).sum()
            });
            assert!(uncovered <= events, "{uncovered} bytes beside {events}");
            assert_eq!(bytes, (events + overhead + uncovered) as u64, "bytes of all histories");
        }
    }

    /// Takes from the hub which streams have had their turn, whose order is its own.
    fn follow_passes(&mut self) {
        for pair in &mut self.pairs {
            let (is_due, ends) = pair.ours.turn();
            assert!(pair.stale || !is_due, "nothing was requested");
            pair.due = is_due;
            assert!(pair.unwanted || !ends, "its end was not requested");
            pair.ended |= ends;
            let twin = self.twins[pair.client.org].as_ref().expect("it has a subscriber");
            let feed = twin.feed(pair.client.view).expect("it has a subscriber");
            let is_over = feed.command.is_none_or(|last| last.over_at <= self.now);
            assert!(!pair.stale || pair.due || pair.ended || !is_over, "it has had no turn");
        }
    }

    pub(super) fn reread(&mut self, org: usize, shard: usize) {
        if self.closing {
            return;
        }
        let (now, window) = (Time(self.now), Duration::from_millis(WINDOW));
        let streams = match self.orgs.get(org) {
            Some(name) => self.hubs[shard].reread(name, now, window),
            None => self.hubs[shard].reread_all(now, window),
        };
        let is_meant = |other: usize| org >= self.orgs.len() || org == other;
        let meant = self.pairs.iter_mut().filter(|pair| is_meant(pair.client.org));
        assert_eq!(streams, meant.map(|pair| pair.stale = true).count());
        for org in (0..self.orgs.len()).filter(|org| is_meant(*org)) {
            for view in [View::Member, View::Public] {
                let Some(feed) = self.twins[org].as_ref().and_then(|twin| twin.feed(view)) else {
                    continue;
                };
                self.former[org][view as usize] = feed.epoch;
                let epoch = self.epoch(org, view);
                assert!(self.epochs.insert(epoch), "the epoch was used before");
                let mut pairs = self.pairs.iter();
                let has = pairs.any(|pair| pair.client.org == org && pair.client.view == view);
                let twin = self.twins[org].as_mut().expect("it has a feed");
                twin.open(view, epoch).reread(epoch, self.now + 2 * WINDOW, has);
            }
        }
    }

    pub(super) fn end_members(&mut self, org: usize, shard: usize) {
        let window = Duration::from_millis(WINDOW);
        let ending = self.hubs[shard].end_members(&self.orgs[org], Time(self.now), window);
        let meant = self.pairs.iter_mut().filter(|pair| pair.client.org == org);
        let meant = meant.filter(|pair| pair.client.view == View::Member);
        assert_eq!(ending, meant.map(|pair| pair.unwanted = true).count());
        if let Some(last) = self.twins[org].as_mut().and_then(|twin| twin.member.command.as_mut()) {
            last.over_at = if ending > 0 { self.now + 2 * WINDOW } else { last.over_at };
        }
    }

    pub(super) fn tidy(&mut self) {
        (0..64).for_each(|part| self.hubs[0].driver().tidy(Tick(part), Time(self.now)));
        self.forget_commands();
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

    /// Learns from the hub what it has forgotten: that is for memory only.
    fn forget_commands(&mut self) {
        for (org, name) in self.orgs.iter().enumerate() {
            let Some(channel) = self.hubs[0].shared.registry.get(name) else { continue };
            let Some(twin) = &mut self.twins[org] else { continue };
            for view in [View::Member, View::Public] {
                let mut state = channel.state.lock();
                let feed = state.feeds.org_mut().get(view);
                let forgotten = feed.is_some_and(|feed| feed.commands.is_none());
                if forgotten && twin.feed(view).is_some() {
                    let epoch = Epoch(0);
                    twin.open(view, epoch).command = None;
                }
            }
        }
    }

    pub(super) fn close(&mut self) {
        self.hubs[0].close(Time(self.now));
        self.twins.iter_mut().flatten().for_each(|twin| twin.release(self.now));
        self.closing = true;
    }
}
