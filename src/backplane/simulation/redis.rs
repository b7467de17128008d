//! What fails with Redis only.
//!
//! A process that keeps its identity loses records only if its stream is deleted or trimmed. What its servers have read by
//! then is gone for all of them, so each sees that for itself: it asks once nothing has come for two seconds, and finds its
//! own records at positions that it has read. A stream that is replaced, and in less than that grows past what a server has
//! read without a record of any server that has read as much, looks as if it went on: that is not done here.
//!
//! Each start, each promotion and a first replica make another identity. The first server that opens the log then has all
//! clients re-read. What an old primary acknowledges later is known to those servers alone that read it there: as long as
//! one of them lives until its barrier is in the new log, all clients re-read after that too.

use super::faults::RECORDS_OF_OTHERS_MAX;
use super::node::Node;
use super::world::{World, chance};

// ===== impl World =====

impl World {
    /// What loses no record that was not lost before.
    pub(super) fn disturb_redis(&self) {
        if !self.broker.edit(|script| script.is_split()) {
            return;
        }
        if chance(30) {
            self.broker.edit(|script| script.join());
        } else {
            let node = fastrand::usize(..self.nodes.len());
            self.broker.edit(|script| script.leave_old(node));
        }
    }

    pub(super) fn lose_in_redis(&mut self, kept: u64) {
        let is_split = self.broker.edit(|script| script.is_split());
        match fastrand::u8(..5) {
            0..3 if !is_split => self.split(kept),
            0..3 => self.disturb_redis(),
            3 => {
                let run = self.new_run();
                self.broker.edit(|script| script.rename(&run));
            }
            _ => self.delete(),
        }
    }

    pub(super) fn lose_at_last_in_redis(&mut self, kept: u64) {
        match fastrand::u8(..7) {
            0 => return self.fail_over(kept),
            1 => return self.lose_last(kept),
            2 => return self.delete(),
            3 => {
                let (run, node) = (self.new_run(), fastrand::usize(..self.nodes.len()));
                self.broker.edit(|script| {
                    script.rename(&run);
                    script.disconnect(node);
                });
            }
            _ => self.split(kept),
        }
        for _ in 0..fastrand::u64(20..200) {
            self.go_on(true);
            match fastrand::u8(..100) {
                0..3 => self.disturb_redis(),
                3..5 => self.broker.edit(|script| script.trim(script.newest())),
                5..8 => self.broker.edit(|script| script.store_delayed(1)),
                _ => {}
            }
        }
    }

    /// A failover that its clients outlive, or a restart with less of the file.
    pub(super) fn lose_last(&mut self, kept: u64) {
        self.restart(|script| script.truncate(kept));
        self.regrow();
    }

    /// A replica takes over, and some servers stay with the old primary.
    fn split(&mut self, kept: u64) {
        let run = self.new_run();
        let nodes = (0..self.nodes.len()).filter(|_| chance(50)).collect();
        // What a server appends next to either of them, which is a barrier, is stored late.
        let delayed = chance(60).then(|| fastrand::usize(..self.nodes.len()));
        self.broker.edit(|script| {
            script.split(nodes, kept, &run);
            if let Some(node) = delayed {
                script.set_delayed(node, true);
            }
        });
        for number in 0..self.nodes.len() {
            let opens = self.nodes[number].as_ref().map(|node| node.opens);
            if let Some(opens) = opens.filter(|_| self.broker.edit(|s| s.is_on_old(number))) {
                self.aware.push((number, opens));
            }
        }
        self.regrow();
    }

    /// The key is deleted, or all of them. What is appended then is less than what any server has read.
    fn delete(&mut self) {
        let is_late = |node: &Node| node.head() < RECORDS_OF_OTHERS_MAX;
        if !self.nodes.iter().flatten().any(is_late) {
            self.broker.edit(|script| script.delete());
            self.regrow();
        }
    }

    fn new_run(&mut self) -> String {
        self.runs += 1;
        format!("run-{}", self.runs)
    }
}
