//! The servers that are configured otherwise.

use std::collections::VecDeque;

/// The last servers of which was noted that they are configured otherwise.
#[derive(Debug, Default)]
pub(super) struct Peers(VecDeque<String>);

// ===== impl Peers =====

impl Peers {
    const MAX: usize = 256;

    /// Whether nothing was noted about a server yet. It is now.
    pub(super) fn is_news(&mut self, node: &str) -> bool {
        if self.0.iter().any(|known| known == node) {
            return false;
        }
        if self.0.len() == Self::MAX {
            self.0.pop_front();
        }
        self.0.push_back(node.into());
        true
    }
}
