//! Frames that have the id of a position, and are the same for every stream there.

use crate::ids::Seq;
use crate::wire::Frame;

/// A frame with the id of a position, encoded once for all streams that need it there.
#[derive(Debug, Default)]
pub(super) struct EncodedAt(Option<(Seq, Frame)>);

// ===== impl EncodedAt =====

impl EncodedAt {
    /// The frame of this position, for which `encode` has to be the same until [`Self::clear`].
    pub(super) fn get(&mut self, position: Seq, encode: impl FnOnce() -> Frame) -> Frame {
        match &self.0 {
            Some((at, frame)) if *at == position => frame.clone(),
            _ => self.0.insert((position, encode())).1.clone(),
        }
    }

    /// Ids have changed.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Bytes of memory that the frame needs.
    #[cfg(all(any(test, fuzzing), not(nudged_loom)))]
    pub(super) fn cost(&self) -> usize {
        self.0.as_ref().map_or(0, |(_, frame)| frame.cost())
    }
}
