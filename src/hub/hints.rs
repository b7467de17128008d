//! What a history keeps for filtered streams, while there are any: which of its events may interest them, and their
//! keepalives.

use std::collections::VecDeque;
use std::sync::Arc;

use super::encoded_at::EncodedAt;
use super::filter::KeyBits;
use crate::ids::EventId;
use crate::wire::{self, Frame, MemoryUse};

/// What a history keeps for filtered streams.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// The bits of the newest events, one entry for each; at most as many as the history has events.
    bits: VecDeque<KeyBits>,
    /// The keepalive at the head: first the one with an id that resumes nothing, then the one with the id of the position.
    pings: [EncodedAt; 2],
}

// ===== impl Hints =====

impl Hints {
    /// An event was appended.
    pub(super) fn push(&mut self, bits: KeyBits) {
        self.bits.push_back(bits);
    }

    /// Sets the bits of the newest event.
    pub(super) fn set_newest(&mut self, bits: KeyBits) {
        match self.bits.back_mut() {
            Some(newest) => *newest = bits,
            None => self.bits.push_back(bits),
        }
    }

    /// The bits of the event that has this many newer ones after it, if they are known.
    #[inline]
    pub(super) fn get(&self, newer: u64) -> KeyBits {
        let index = usize::try_from(newer).ok().and_then(|n| self.bits.len().checked_sub(n + 1));
        index.and_then(|index| self.bits.get(index)).copied().unwrap_or(KeyBits::UNKNOWN)
    }

    /// The history has so many events left.
    pub(super) fn truncate(&mut self, events: usize) {
        self.bits.drain(..self.bits.len().saturating_sub(events));
        if self.bits.len() * 4 <= self.bits.capacity() {
            self.bits.shrink_to(self.bits.len() * 2);
        }
    }

    /// Another epoch has begun.
    pub(super) fn renew(&mut self) {
        self.pings.iter_mut().for_each(EncodedAt::clear);
    }

    /// The keepalive of a stream at the head `id`, encoded once for all streams there; `covered` if its id resumes.
    pub(super) fn ping(&mut self, id: EventId, covered: bool, memory: &Arc<MemoryUse>) -> Frame {
        self.pings[usize::from(covered)].get(id.seq, || Frame::ping_in(memory, id))
    }

    /// Bytes that it has allocated beside frames, which count themselves.
    pub(super) fn bytes(&self) -> usize {
        wire::block(size_of::<Self>()) + wire::block(self.bits.capacity() * size_of::<KeyBits>())
    }

    /// Bytes of its frames.
    #[cfg(all(any(test, fuzzing), not(nudged_loom)))]
    pub(super) fn frames(&self) -> usize {
        self.pings.iter().map(EncodedAt::cost).sum()
    }
}
