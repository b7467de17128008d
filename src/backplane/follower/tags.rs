//! The tags of the last records that were applied.

use std::collections::VecDeque;

use crate::ids::Mark;

/// The tags of the records up to the head, of which it has at most [`Tags::MAX`].
#[derive(Debug, Default)]
pub(super) struct Tags(VecDeque<u64>);

// ===== impl Tags =====

impl Tags {
    /// How far a replica may lag, and still be seen to repeat what was read: 256 KiB.
    const MAX: usize = 32_768;

    pub(super) fn push(&mut self, tag: u64) {
        if self.0.len() == Self::MAX {
            self.0.pop_front();
        }
        self.0.push_back(tag);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tag at a position that is not after the head, if it is known.
    pub(super) fn at(&self, position: u64, head: u64) -> Option<u64> {
        let back = usize::try_from(head - position).ok()?;
        self.0.len().checked_sub(back + 1).map(|index| self.0[index])
    }

    /// The last record with a tag: it proves what is before it.
    pub(super) fn proof(&self, head: u64) -> Option<Mark> {
        let mut positions = (0..=head).rev().zip(self.0.iter().rev());
        positions.find(|(_, tag)| **tag != 0).map(|(position, tag)| Mark { tag: *tag, position })
    }
}
