//! When a server appends a beat, and whether what it appended has come back.

use std::collections::VecDeque;
use std::time::Duration;

use super::Rules;
use crate::backplane::broker::Kind;
use crate::ids::Mark;
use crate::time::Time;

/// The records of this server that are on their way, and the last that came back.
#[derive(Debug, Default)]
pub(super) struct Beats {
    /// Those that were appended through this connection, oldest first.
    on_the_way: VecDeque<OnTheWay>,
    /// One of them has come back through this connection.
    pub(super) is_answered: bool,
    /// When a record of this server was read last.
    last_own: Option<Time>,
    /// When it appended its last beat that came back.
    last_beat: Option<Time>,
    round_trip: Duration,
    /// Bytes of the records since the last beat of any server.
    bytes: usize,
}

#[derive(Debug)]
struct OnTheWay {
    tag: u64,
    since: Time,
    /// Where it is stored, once that is known.
    position: Option<u64>,
    is_beat: bool,
}

/// After this time without a record of its own, a server appends a beat.
const SILENT: Duration = Duration::from_secs(5);

/// Every server appends a beat within this time, so that the log says which run of the broker it is from.
const PERIOD: Duration = Duration::from_secs(30);

/// After this time the log does not have what was appended, or does not deliver it.
const BACK: Duration = Duration::from_secs(2);

/// Appends that are looked after; there is one at a time, beside a beat.
const ON_THE_WAY_MAX: usize = 64;

// ===== impl Beats =====

impl Beats {
    /// What was on its way may still come, but this connection does not answer for it.
    pub(super) fn reopened(&mut self) {
        self.on_the_way.clear();
        self.is_answered = false;
    }

    pub(super) fn sent(&mut self, tag: u64, kind: Kind, now: Time) {
        self.add(tag, now, kind == Kind::Beat);
    }

    pub(super) fn appending(&mut self, tag: u64, now: Time) {
        if self.on_the_way.iter().all(|on_the_way| on_the_way.tag != tag) {
            self.add(tag, now, false);
        }
    }

    pub(super) fn appended(&mut self, tag: u64, position: u64) {
        let mut on_the_way = self.on_the_way.iter_mut();
        if let Some(found) = on_the_way.find(|on_the_way| on_the_way.tag == tag) {
            found.position = Some(position);
        }
    }

    pub(super) fn awaits(&self, tag: u64) -> bool {
        self.on_the_way.iter().any(|on_the_way| on_the_way.tag == tag)
    }

    /// A record was read.
    pub(super) fn came(&mut self, mark: Mark, kind: Option<Kind>, bytes: usize, now: Time) {
        self.bytes = if kind == Some(Kind::Beat) { 0 } else { self.bytes + bytes };
        let index = self.on_the_way.iter().position(|on_the_way| on_the_way.tag == mark.tag);
        if let Some(found) = index.and_then(|index| self.on_the_way.remove(index)) {
            self.last_own = Some(now);
            self.is_answered = true;
            self.round_trip = now.since(found.since);
            if found.is_beat {
                self.last_beat = Some(found.since);
            }
        }
    }

    pub(super) fn is_due(&self, rules: &Rules, now: Time) -> bool {
        // A server that starts finds a beat in what it reads. Each has another bound, so that one of them is the first.
        let share = rules.tail_bytes / 8;
        let bound = share + share / 256 * (rules.node % 256) as usize;
        let is_silent = self.last_own.is_none_or(|last| now >= last.after(SILENT));
        let is_period = self.last_beat.is_none_or(|last| now >= last.after(PERIOD));
        (is_silent || is_period || self.bytes > bound)
            && !self.on_the_way.iter().any(|on_the_way| on_the_way.is_beat)
    }

    /// Whether something has not come back in time, or is not where it was stored. What is stored behind records that
    /// are still being read may take as long as those.
    pub(super) fn is_overdue(&self, head: u64, progress: Time, now: Time) -> bool {
        let mut on_the_way = self.on_the_way.iter();
        on_the_way.any(|OnTheWay { since, position, .. }| {
            let from = if position.is_some() { (*since).max(progress) } else { *since };
            now >= from.after(BACK) || position.is_some_and(|position| position <= head)
        })
    }

    pub(super) fn lag(&self, now: Time) -> Duration {
        let waits = self.on_the_way.front().map(|oldest| now.since(oldest.since));
        self.round_trip.max(waits.unwrap_or_default())
    }

    fn add(&mut self, tag: u64, since: Time, is_beat: bool) {
        if self.on_the_way.len() == ON_THE_WAY_MAX {
            self.on_the_way.pop_front();
        }
        self.on_the_way.push_back(OnTheWay { tag, since, position: None, is_beat });
    }
}
