//! What all subscribers of a run have in common, whatever their transport.

use std::ops::AddAssign;
use std::time::Instant;

use serde::Serialize;

use super::latency::LatencyRecorder;
use super::marker::Marker;
use super::subscriber::{Arrival, Phase, Subscriber};

/// The marker that all subscribers look for, and the sums of what they have received.
#[derive(Debug)]
pub(crate) struct Subscribers {
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
        Self { marker, latency, tally, failure: None, pending: 0, open: 0 }
    }

    /// Handles the head of a response. False if it is not that of a stream.
    pub(crate) fn respond(&mut self, subscriber: &mut Subscriber, status: u16) -> bool {
        if status != 200 {
            self.tally.failed_status = Some(status);
            return false;
        }
        subscriber.phase = Phase::Open;
        self.pending -= 1;
        self.open += 1;
        true
    }

    /// Handles a part of a stream.
    pub(crate) fn receive(&mut self, subscriber: &mut Subscriber, body: &[u8], at: Instant) {
        let Self { marker, latency, tally, open, .. } = self;
        subscriber.receive(marker, body, |sequence, arrival| {
            *tally += arrival;
            if arrival != Arrival::Duplicate {
                latency.record(sequence, at, *open);
            }
        });
    }

    /// Handles the end of a stream, or its failure to open.
    pub(crate) fn end(&mut self, subscriber: &mut Subscriber, why: Option<String>) {
        match std::mem::replace(&mut subscriber.phase, Phase::Closed) {
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
    pub(crate) fn end_series<'a>(
        &mut self,
        subscribers: impl Iterator<Item = &'a mut Subscriber>,
        published: u32,
    ) {
        for subscriber in subscribers.filter(|one| one.phase == Phase::Open) {
            self.tally.missed += u64::from(subscriber.outstanding(published));
            subscriber.expect_from(published);
        }
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
