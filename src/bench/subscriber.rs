//! One subscriber: 24 bytes about what it has received.

use super::marker::{Marker, Scan};

/// One subscriber, from its connect to the end of its stream.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) phase: Phase,
    scan: Scan,
    received: Received,
}

/// The state of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    Connecting,
    Requested,
    Open,
    Closed,
}

/// How an event relates to those that a subscriber has received before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Arrival {
    /// New, with a gap of this many before it.
    New { missing: u32 },
    /// New, but after a later one.
    Reordered,
    /// Received before.
    Duplicate,
}

/// The events that a subscriber has received: all below `next`, except for gaps in the 64 before it.
#[derive(Clone, Copy, Debug)]
struct Received {
    next: u32,
    /// Bit 0 is the event before `next`. Two halves, to avoid the alignment of a `u64`.
    window: [u32; 2],
}

// ===== impl Subscriber =====

impl Subscriber {
    /// It should receive the events from `next` on.
    pub(crate) fn new(next: u32) -> Self {
        Self { phase: Phase::Connecting, scan: Scan::default(), received: Received::new(next) }
    }

    /// Scans a part of the stream, and calls `event` for every event in it.
    pub(crate) fn receive(
        &mut self,
        marker: &Marker,
        body: &[u8],
        mut event: impl FnMut(u32, Arrival),
    ) {
        let received = &mut self.received;
        self.scan.read(marker, body, |sequence| event(sequence, received.insert(sequence)));
    }

    /// How many of the events below `published` have not arrived, without those counted as gaps.
    pub(crate) fn outstanding(&self, published: u32) -> u32 {
        published.saturating_sub(self.received.next)
    }

    /// Expects nothing that was published before `next`.
    pub(crate) fn expect_from(&mut self, next: u32) {
        self.received = Received::new(next);
    }
}

// ===== impl Received =====

impl Received {
    fn new(next: u32) -> Self {
        Self { next, window: [u32::MAX; 2] }
    }

    fn insert(&mut self, sequence: u32) -> Arrival {
        let window = u64::from(self.window[0]) | u64::from(self.window[1]) << 32;
        let (window, arrival) = match sequence.checked_sub(self.next) {
            Some(missing) => {
                self.next = sequence.wrapping_add(1);
                let moved = missing.checked_add(1).and_then(|by| window.checked_shl(by));
                (moved.unwrap_or(0) | 1, Arrival::New { missing })
            }
            None => {
                let bit = 1_u64.checked_shl(self.next - 1 - sequence).unwrap_or(0);
                let is_new = bit != 0 && window & bit == 0;
                (window | bit, if is_new { Arrival::Reordered } else { Arrival::Duplicate })
            }
        };
        self.window = [window as u32, (window >> 32) as u32];
        arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_reordered_events_and_duplicates_are_distinguished() {
        let mut received = Received::new(3);
        assert_eq!(received.insert(3), Arrival::New { missing: 0 });
        assert_eq!(received.insert(6), Arrival::New { missing: 2 });
        assert_eq!(received.insert(5), Arrival::Reordered);
        assert_eq!(received.insert(5), Arrival::Duplicate);
        assert_eq!(received.insert(6), Arrival::Duplicate);
        assert_eq!(received.insert(2), Arrival::Duplicate, "from before it joined");
        assert_eq!(received.insert(4), Arrival::Reordered);
        assert_eq!(received.insert(200), Arrival::New { missing: 193 });
        assert_eq!(received.insert(7), Arrival::Duplicate, "before the window");
        assert_eq!(received.insert(199), Arrival::Reordered);
    }
}
