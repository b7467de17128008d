//! One subscriber of the load generator: 24 bytes about what it has seen, whatever carries it.

use super::marker::{Marker, Scan};

/// One subscriber, from the first packet to the end of its stream.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) phase: Phase,
    scan: Scan,
    record: Record,
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    Connecting,
    Asking,
    Open,
    Closed,
}

/// What one event was to one subscriber.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Seen {
    /// New; this many before it are missing so far.
    New { missing: u32 },
    /// New, but after a later one.
    Late,
    /// Had been seen before.
    Twice,
}

/// Which events a subscriber has had: all below `next`, but for the gaps in the 64 before it.
#[derive(Clone, Copy, Debug)]
struct Record {
    next: u32,
    /// Bit 0 is the event before `next`. Two halves, so that the alignment of a `u64` costs nothing.
    window: [u32; 2],
}

// ===== impl Subscriber =====

impl Subscriber {
    /// It is held to the events from `next` on.
    pub(crate) fn new(phase: Phase, next: u32) -> Self {
        Self { phase, scan: Scan::default(), record: Record::new(next) }
    }

    /// Takes in a part of the stream. Events are reported in their order.
    pub(crate) fn hear(&mut self, marker: &Marker, body: &[u8], mut event: impl FnMut(u32, Seen)) {
        let record = &mut self.record;
        self.scan.read(marker, body, |sequence| event(sequence, record.note(sequence)));
    }

    /// How many of the events below `published` never came, those counted as gaps aside.
    pub(crate) fn behind(&self, published: u32) -> u32 {
        published.saturating_sub(self.record.next)
    }

    /// Whether it is open and has not had the last of the events below `published`.
    pub(crate) fn is_behind(&self, published: u32) -> bool {
        self.phase == Phase::Open && self.behind(published) > 0
    }

    /// It is not held to what is published before `next`.
    pub(crate) fn begin_at(&mut self, next: u32) {
        self.record = Record::new(next);
    }
}

// ===== impl Record =====

impl Record {
    fn new(next: u32) -> Self {
        Self { next, window: [u32::MAX; 2] }
    }

    fn note(&mut self, sequence: u32) -> Seen {
        let window = u64::from(self.window[0]) | u64::from(self.window[1]) << 32;
        let (window, seen) = match sequence.checked_sub(self.next) {
            Some(missing) => {
                self.next = sequence.wrapping_add(1);
                let moved = missing.checked_add(1).and_then(|by| window.checked_shl(by));
                (moved.unwrap_or(0) | 1, Seen::New { missing })
            }
            None => {
                let bit = 1_u64.checked_shl(self.next - 1 - sequence).unwrap_or(0);
                let new = bit != 0 && window & bit == 0;
                (window | bit, if new { Seen::Late } else { Seen::Twice })
            }
        };
        self.window = [window as u32, (window >> 32) as u32];
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_late_events_and_repeats_are_told_apart() {
        let mut record = Record::new(3);
        assert_eq!(record.note(3), Seen::New { missing: 0 });
        assert_eq!(record.note(6), Seen::New { missing: 2 });
        assert_eq!(record.note(5), Seen::Late);
        assert_eq!(record.note(5), Seen::Twice);
        assert_eq!(record.note(6), Seen::Twice);
        assert_eq!(record.note(2), Seen::Twice, "from before it joined");
        assert_eq!(record.note(4), Seen::Late);
        assert_eq!(record.note(200), Seen::New { missing: 193 });
        assert_eq!(record.note(7), Seen::Twice, "too far back to tell");
        assert_eq!(record.note(199), Seen::Late);
    }
}
