//! What all subscribers of a run have in common, whatever carries their streams.

use std::ops::AddAssign;
use std::time::Instant;

use serde::Serialize;

use super::latency::Ledger;
use super::marker::Marker;
use super::subscriber::{Phase, Seen, Subscriber};

/// What the subscribers look for, and what they have found together.
#[derive(Debug)]
pub(crate) struct Crowd {
    marker: Marker,
    pub(crate) ledger: Ledger,
    pub(crate) tally: Tally,
    /// Why the first stream that failed without an answer did.
    pub(crate) failure: Option<String>,
    /// Streams whose answer has not come yet.
    pub(crate) settling: usize,
    pub(crate) open: usize,
}

/// What all subscribers together have seen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Tally {
    /// Events that arrived for the first time.
    pub delivered: u64,
    /// Events that a subscriber should have got and has not.
    pub missed: u64,
    /// Events that a subscriber got again.
    pub duplicates: u64,
    /// Events that came after a later one.
    pub reordered: u64,
    /// Streams that ended before the measurement did.
    pub disconnects: u64,
    /// Streams that did not come to be: no connection, or an answer other than 200.
    pub failed: u64,
    /// The status of the last answer other than 200.
    pub failed_status: Option<u16>,
    /// Bytes read from all streams, as the sockets give them; with HTTP/2, of their bodies.
    pub bytes: u64,
}

// ===== impl Crowd =====

impl Crowd {
    pub(crate) fn new(marker: Marker, ledger: Ledger) -> Self {
        let tally = Tally::default();
        Self { marker, ledger, tally, failure: None, settling: 0, open: 0 }
    }

    /// The head of the answer has come. False if there is no stream behind it.
    pub(crate) fn answer(&mut self, subscriber: &mut Subscriber, status: u16) -> bool {
        if status != 200 {
            self.tally.failed_status = Some(status);
            return false;
        }
        subscriber.phase = Phase::Open;
        self.settling -= 1;
        self.open += 1;
        true
    }

    /// Part of a stream has come.
    pub(crate) fn hear(&mut self, subscriber: &mut Subscriber, body: &[u8], at: Instant) {
        let Self { marker, ledger, tally, open, .. } = self;
        subscriber.hear(marker, body, |sequence, seen| {
            *tally += seen;
            if seen != Seen::Twice {
                ledger.arrived(sequence, at, *open);
            }
        });
    }

    /// The stream is over, or has not come to be.
    pub(crate) fn lose(&mut self, subscriber: &mut Subscriber, why: Option<String>) {
        match std::mem::replace(&mut subscriber.phase, Phase::Closed) {
            Phase::Connecting | Phase::Asking => {
                self.settling -= 1;
                self.tally.failed += 1;
                self.failure = self.failure.take().or(why);
            }
            Phase::Open => {
                self.open -= 1;
                self.tally.disconnects += 1;
            }
            Phase::Closed => {}
        }
    }

    /// Counts the events below `published` that have not come to an open stream by now as missed.
    pub(crate) fn settle<'a>(
        &mut self,
        subscribers: impl Iterator<Item = &'a mut Subscriber>,
        published: u32,
    ) {
        for subscriber in subscribers.filter(|one| one.phase == Phase::Open) {
            self.tally.missed += u64::from(subscriber.behind(published));
            subscriber.begin_at(published);
        }
    }
}

// ===== impl Tally =====

impl AddAssign<Seen> for Tally {
    fn add_assign(&mut self, seen: Seen) {
        match seen {
            Seen::New { missing } => {
                self.delivered += 1;
                self.missed += u64::from(missing);
            }
            Seen::Late => {
                self.delivered += 1;
                self.missed = self.missed.saturating_sub(1);
                self.reordered += 1;
            }
            Seen::Twice => self.duplicates += 1,
        }
    }
}

impl Tally {
    /// Whether every subscriber got every event exactly once and stayed.
    pub fn is_clean(&self) -> bool {
        (self.missed, self.duplicates, self.disconnects, self.failed) == (0, 0, 0, 0)
    }
}
