//! The subscribers of a run.

use std::ops::AddAssign;
use std::time::Instant;

use serde::Serialize;

use super::latency::LatencyRecorder;
use super::marker::Marker;
use super::subscriber::{Arrival, Phase, Subscriber};

/// All subscribers of a run, on any transport, and the sums of what they have received.
#[derive(Debug)]
pub(crate) struct Subscribers {
    all: Vec<Subscriber>,
    marker: Marker,
    pub(crate) latency: LatencyRecorder,
    pub(crate) tally: Tally,
    /// Why the first stream without a response failed.
    pub(crate) failure: Option<String>,
    /// Streams without a response so far.
    pub(crate) pending: usize,
    pub(crate) open: usize,
}

/// What all subscribers together have received.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tally {
    /// Events that arrived for the first time.
    pub delivered: u64,
    /// Events that a subscriber should have received and has not.
    pub missed: u64,
    /// Events that a subscriber received again.
    pub duplicates: u64,
    /// Events that arrived after a later one.
    pub reordered: u64,
    /// Streams that ended before the measurement did.
    pub disconnects: u64,
    /// Streams that could not be opened: no connection, or a status other than 200.
    pub failed: u64,
    /// The last status other than 200.
    pub failed_status: Option<u16>,
    /// Bytes read: from the sockets, or, over TLS and HTTP/2, of the response bodies.
    pub bytes: u64,
}

// ===== impl Subscribers =====

impl Subscribers {
    pub(crate) fn new(marker: Marker, latency: LatencyRecorder) -> Self {
        let tally = Tally::default();
        Self { all: Vec::new(), marker, latency, tally, failure: None, pending: 0, open: 0 }
    }

    /// Reserves memory for this many further subscribers.
    pub(crate) fn reserve(&mut self, count: usize) {
        self.all.reserve_exact(count);
    }

    /// Adds a subscriber that should receive the events from `next` on. They are numbered in order.
    pub(crate) fn add(&mut self, next: u32) {
        self.all.push(Subscriber::new(next));
        self.pending += 1;
    }

    pub(crate) fn phase(&self, number: usize) -> Phase {
        self.all[number].phase
    }

    /// Notes that the request has been sent.
    pub(crate) fn request(&mut self, number: usize) {
        self.all[number].phase = Phase::Requested;
    }

    /// Handles the head of a response. False if it is not that of a stream.
    pub(crate) fn respond(&mut self, number: usize, status: u16) -> bool {
        if status != 200 {
            self.tally.failed_status = Some(status);
            return false;
        }
        self.all[number].phase = Phase::Open;
        self.pending -= 1;
        self.open += 1;
        true
    }

    /// Handles a part of a stream.
    pub(crate) fn receive(&mut self, number: usize, body: &[u8], at: Instant) {
        let Self { all, marker, latency, tally, open, .. } = self;
        all[number].receive(marker, body, |sequence, arrival| {
            *tally += arrival;
            if arrival != Arrival::Duplicate {
                latency.record(sequence, at, *open);
            }
        });
    }

    /// Handles the end of a stream, or its failure to open; without effect if it has ended before.
    pub(crate) fn end(&mut self, number: usize, why: Option<String>) {
        match std::mem::replace(&mut self.all[number].phase, Phase::Closed) {
            Phase::Connecting | Phase::Requested => {
                self.pending -= 1;
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

    /// Counts the events below `published` that an open stream has not received as missed.
    pub(crate) fn end_series(&mut self, published: u32) {
        for subscriber in self.all.iter_mut().filter(|one| one.phase == Phase::Open) {
            self.tally.missed += u64::from(subscriber.outstanding(published));
            subscriber.expect_from(published);
        }
    }

    /// Whether an open stream has not received the last of the events below `published`.
    pub(crate) fn is_behind(&self, published: u32) -> bool {
        self.all.iter().any(|one| one.phase == Phase::Open && one.outstanding(published) > 0)
    }

    /// Ends the streams without a response.
    pub(crate) fn fail_pending(&mut self, why: &str) {
        for number in 0..self.all.len() {
            if matches!(self.all[number].phase, Phase::Connecting | Phase::Requested) {
                self.end(number, Some(why.to_owned()));
            }
        }
    }

    /// Forgets all subscribers, without counting their ends.
    pub(crate) fn clear(&mut self) {
        self.all.clear();
        (self.open, self.pending) = (0, 0);
    }
}

// ===== impl Tally =====

impl AddAssign<Arrival> for Tally {
    fn add_assign(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::New { missing } => {
                self.delivered += 1;
                self.missed += u64::from(missing);
            }
            Arrival::Reordered => {
                self.delivered += 1;
                self.missed = self.missed.saturating_sub(1);
                self.reordered += 1;
            }
            Arrival::Duplicate => self.duplicates += 1,
        }
    }
}

impl Tally {
    /// Whether every subscriber received every event exactly once and stayed connected.
    pub fn is_clean(&self) -> bool {
        (self.missed, self.duplicates, self.disconnects, self.failed) == (0, 0, 0, 0)
    }
}
