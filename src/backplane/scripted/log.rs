//! What a broker keeps.

use std::collections::BTreeMap;

use crate::backplane::broker::{Entry, Record, VERSION};

/// One copy of the log, and the run of the broker that has it.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) entries: BTreeMap<u64, Entry>,
    pub(super) oldest: u64,
    pub(super) newest: u64,
    /// The run of the broker, by which it is identified.
    pub(super) run: String,
    /// The process that has it: what is on its way to it is lost with it.
    pub(super) process: u64,
    /// How often the log was created.
    pub(super) created: u64,
}

// ===== impl Log =====

impl Log {
    pub(super) fn new() -> Self {
        let (run, process, created) = ("run-1".into(), 1, 1);
        Self { entries: BTreeMap::new(), oldest: 1, newest: 0, run, process, created }
    }

    pub(super) fn store(&mut self, record: Record) -> u64 {
        let Record { tag, kind, payload } = record;
        self.store_entry(Entry { position: 0, tag, version: VERSION, kind: Some(kind), payload })
    }

    /// A record of any form, at the next position.
    pub(super) fn store_entry(&mut self, entry: Entry) -> u64 {
        self.newest += 1;
        let position = self.newest;
        self.entries.insert(position, Entry { position, ..entry });
        position
    }

    /// It forgets its last records, and uses their positions again. Returns them.
    pub(super) fn truncate(&mut self, newest: u64) -> Vec<Entry> {
        let lost = self.entries.split_off(&(newest + 1)).into_values().collect();
        self.newest = self.newest.min(newest).max(self.oldest - 1);
        lost
    }

    /// The oldest records go.
    pub(super) fn trim(&mut self, oldest: u64) {
        self.oldest = self.oldest.max(oldest.min(self.newest + 1));
        self.entries = self.entries.split_off(&self.oldest);
    }

    /// It begins anew.
    pub(super) fn clear(&mut self) -> Vec<Entry> {
        (self.oldest, self.newest) = (1, 0);
        std::mem::take(&mut self.entries).into_values().collect()
    }
}
