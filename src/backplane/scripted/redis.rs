//! What only Redis does: a failover while the old primary goes on, and another identity in the midst of a run.

use std::collections::HashSet;

use super::log::Log;
use super::script::Script;

/// A primary that goes on although another one has its place: clients that it is not cut off from can append to it, until
/// it becomes a replica, and drops what the other one does not have.
#[derive(Clone, Debug)]
pub(super) struct OldPrimary {
    pub(super) log: Log,
    /// The servers that it serves.
    pub(super) nodes: HashSet<usize>,
}

// ===== impl Script =====

impl Script {
    /// A replica that lacks the last records takes the log over, of which these servers do not know.
    pub(crate) fn split(&mut self, nodes: HashSet<usize>, kept: u64, run: &str) {
        let log = self.log.clone();
        self.log.truncate(kept);
        self.log.run = run.into();
        self.log.process = self.new_process();
        (0..64).filter(|node| !nodes.contains(node)).for_each(|node| self.disconnect(node));
        self.old = Some(OldPrimary { log, nodes });
    }

    /// A server finds the new primary.
    pub(crate) fn leave_old(&mut self, node: usize) {
        if self.old.as_mut().is_some_and(|old| old.nodes.remove(&node)) {
            self.disconnect(node);
        }
    }

    /// The old primary becomes a replica.
    pub(crate) fn join(&mut self) {
        let Some(OldPrimary { log, nodes }) = self.old.take() else { return };
        let entries = log.entries.into_values();
        let is_known =
            |position, tag| self.log.entries.get(&position).is_some_and(|e| e.tag == tag);
        self.lost.extend(entries.filter(|entry| !is_known(entry.position, entry.tag)));
        nodes.into_iter().for_each(|node| self.disconnect(node));
    }

    pub(crate) fn is_split(&self) -> bool {
        self.old.is_some()
    }

    /// Whether a server follows the old primary.
    pub(crate) fn is_on_old(&self, node: usize) -> bool {
        self.old.as_ref().is_some_and(|old| old.nodes.contains(&node))
    }

    /// A first replica is attached, or has been gone for long: the identity is another one, and no connection breaks.
    pub(crate) fn rename(&mut self, run: &str) {
        self.log.run = run.into();
    }

    /// The key is deleted: positions begin anew, and no connection ends.
    pub(crate) fn delete(&mut self) {
        let lost = self.log.clear();
        self.lost.extend(lost);
    }
}
