//! What fails.

use std::time::Duration;

use super::node::Node;
use super::world::{Profile, World, chance, one_of};
use crate::backplane::broker::Kind;
use crate::backplane::scripted::{Acks, Script, Semantics};
use crate::time::Time;

/// Records that others append after a loss.
pub(super) const RECORDS_OF_OTHERS_MAX: u64 = 15;

// ===== impl World =====

impl World {
    /// A server dies.
    pub(super) fn kill(&mut self) {
        let number = fastrand::usize(..self.nodes.len());
        if self.is_aware(number) || chance(50) {
            return;
        }
        self.end(number);
    }

    fn end(&mut self, number: usize) {
        self.check_cuts(number);
        self.aware.retain(|(server, _)| *server != number);
        for browser in &mut self.browsers {
            if browser.stream.as_ref().is_some_and(|stream| stream.node == number) {
                browser.stream = None;
            }
        }
        for publish in self.publishes.iter_mut().filter(|publish| publish.node == Some(number)) {
            (publish.node, publish.until) = (None, self.now);
        }
        self.nodes[number] = None;
    }

    pub(super) fn is_aware(&self, number: usize) -> bool {
        self.aware.iter().any(|(server, _)| *server == number)
    }

    /// Something fails that loses no record.
    pub(super) fn disturb(&mut self) {
        let node = fastrand::usize(..self.nodes.len());
        let count = fastrand::u64(1..5);
        let flag = chance(50);
        let acks =
            [Acks::Prompt, Acks::Prompt, Acks::Prompt, Acks::Lost, Acks::Swallowed, Acks::Refused];
        let acks = acks[fastrand::usize(..acks.len())];
        let what = fastrand::u8(..14);
        if self.semantics == Semantics::RedisStreams && matches!(what, 3..=5 | 9 | 10) {
            return self.disturb_redis();
        }
        if matches!(what, 4 | 5) && self.is_looking_again() {
            return;
        }
        if what == 10 {
            // The disk is trusted, and has kept everything.
            if self.profile != Profile::Hostile {
                self.restart(|_| ());
            }
            return;
        }
        self.broker.edit(|script| match what {
            0 => script.disconnect(node),
            1 => script.set_cut_off(node, flag),
            2 => script.set_stalled(node, flag),
            3 => script.repeat_once(count),
            4 | 5 => script.skip_once(count),
            6 => script.set_acks(acks),
            7 => script.set_down(chance(30)),
            8 => script.orphan_all(),
            11 => script.set_delayed(node, flag),
            12 | 13 => script.store_delayed(count as usize),
            _ => script.set_lag(count),
        });
        if what == 9 {
            self.lags_until = self.now.after(Duration::from_millis(500));
        }
    }

    /// A record that does not come twice counts as one that is gone: nothing more may be lost on the way then.
    fn is_looking_again(&self) -> bool {
        let is_in_gap = self.nodes.iter().flatten().any(|node| node.follower.is_in_gap());
        is_in_gap || self.broker.edit(|script| script.is_skipping())
    }

    /// The log loses records that were acknowledged, and nothing hides it: nothing else happens, until it has rested.
    pub(super) fn lose_at_last(&mut self) {
        self.broker.edit(|script| script.heal());
        if chance(50) {
            self.restart(|_| ());
        }
        let steps = fastrand::u64(20..120);
        for step in 0..steps {
            self.go_on(step > steps / 2);
        }
        let newest = self.broker.edit(|script| script.newest());
        let kept = newest.saturating_sub(fastrand::u64(1..6));
        if self.semantics == Semantics::RedisStreams {
            self.lose_at_last_in_redis(kept);
        } else if chance(50) {
            self.fail_over(kept);
        } else {
            self.forget(kept);
        }
    }

    /// A step in which nothing fails.
    pub(super) fn go_on(&mut self, publishes: bool) {
        self.now = Time(self.now.0 + fastrand::u64(0..60));
        match fastrand::u8(..10) {
            0..6 => self.pump_one(),
            6 if publishes => self.publish(),
            7 => self.open(),
            _ => self.receive(),
        }
        self.look_after_publishes();
    }

    /// The log loses records.
    pub(super) fn lose(&mut self) {
        let newest = self.broker.edit(|script| script.newest());
        let kept = newest.saturating_sub(fastrand::u64(0..12));
        if self.semantics == Semantics::RedisStreams && chance(60) {
            return self.lose_in_redis(kept);
        }
        match fastrand::u8(..6) {
            0 => self.broker.edit(|script| {
                let oldest = script.oldest();
                script.trim(fastrand::u64(oldest..=newest + 1));
            }),
            1 => self.broker.edit(|script| script.remove(newest.saturating_sub(3))),
            2 => self.restart(|_| ()),
            3 => self.fail_over(kept),
            4 if chance(20) => self.restart(|script| script.reset()),
            _ if self.semantics == Semantics::RedisStreams => self.lose_last(kept),
            _ => self.forget(kept),
        }
    }

    /// Another run of the broker.
    pub(super) fn restart(&mut self, lose: impl FnOnce(&mut Script)) {
        self.runs += 1;
        let identity = format!("run-{}", self.runs);
        // What a server appends next, which is a barrier, is stored late.
        let delayed = chance(60).then(|| fastrand::usize(..self.nodes.len()));
        self.broker.edit(|script| {
            lose(script);
            script.restart(&identity);
            if let Some(node) = delayed {
                script.set_delayed(node, true);
            }
        });
    }

    /// The servers that had the last records die with the broker, which comes back without them.
    pub(super) fn fail_over(&mut self, kept: u64) {
        for number in 0..self.nodes.len() {
            let has_more = self.nodes[number].as_ref().is_some_and(|node| node.head() > kept);
            // Old primaries of Redis have clients to which another run says nothing.
            let must_live = self.semantics == Semantics::RedisStreams && self.is_aware(number);
            if has_more && !must_live && chance(90) {
                self.end(number);
            }
        }
        self.restart(|script| script.truncate(kept));
        self.regrow();
    }

    /// Others append, so that the positions of what was lost are those of other records.
    pub(super) fn regrow(&mut self) {
        // A program with a client of its own: nothing acknowledges what it appends.
        let count = if chance(70) { fastrand::u64(1..RECORDS_OF_OTHERS_MAX) } else { 0 };
        for _ in 0..count {
            let (number, tag) = (self.publishes.len(), fastrand::u64(1..));
            self.publish_keys(
                vec![(0, 0)],
                Kind::Lines,
                "{\"org\":\"acme\",\"keys\":[\"open0\"]}\n".into(),
            );
            let publish = &mut self.publishes[number];
            publish.is_over = true;
            let text = publish.text.clone();
            self.records.insert(tag, vec![number]);
            self.broker.edit(|script| script.push(tag, Kind::Lines, text));
        }
    }

    /// The same run loses its last records: a server that had them is asked, so it must not die before.
    fn forget(&mut self, kept: u64) {
        let has_more = |node: &Option<Node>| node.as_ref().is_some_and(|node| node.head() > kept);
        let server = (0..self.nodes.len()).filter(|number| has_more(&self.nodes[*number]));
        let server = one_of(server);
        if !self.aware.is_empty() || server.is_none() {
            return self.restart(|script| script.truncate(kept));
        }
        let opens = server.and_then(|server| self.nodes[server].as_ref()).map(|node| node.opens);
        self.aware.extend(server.zip(opens));
        let (orphans, stored) = (chance(50), if chance(50) { usize::MAX } else { 0 });
        self.broker.edit(|script| {
            script.truncate(kept);
            script.store_delayed(stored);
            if orphans { script.orphan_all() } else { script.disconnect_all() }
        });
        self.regrow();
    }
}
