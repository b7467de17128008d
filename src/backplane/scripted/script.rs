//! The log of a scripted broker, and what is wrong with it.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::Semantics;
use super::log::Log;
use super::redis::OldPrimary;
use crate::backplane::broker::{Bounds, Entry, Kind, Record};

/// The log, and what is wrong with it.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(super) semantics: Semantics,
    pub(super) log: Log,
    /// What the log has forgotten.
    pub(super) lost: Vec<Entry>,
    pub(super) old: Option<OldPrimary>,
    processes: u64,
    payload_max: usize,
    /// Connections of lower numbers are broken.
    pub(super) connections: u64,
    broken_before: BTreeMap<usize, u64>,
    /// Nothing responds, and connections break.
    down: bool,
    cut_off: HashSet<usize>,
    /// These are delivered nothing.
    stalled: HashSet<usize>,
    /// Connections of lower numbers are delivered nothing, and get no error: their consumer is gone.
    orphans_before: u64,
    /// What is appended takes this way.
    pub(super) acks: Acks,
    /// What these append is still under way: it is stored later, even if their connection is lost meanwhile.
    delayed: HashSet<usize>,
    /// Each with the process that it is on its way to.
    under_way: VecDeque<(u64, Record)>,
    /// Readers see this much less than there is.
    lag: u64,
    /// The next read begins this much earlier.
    repeat: u64,
    /// The next read misses as many records, which are there.
    skip: u64,
    pub(super) opens: u64,
}

/// What becomes of appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acks {
    /// Stored and acknowledged.
    Prompt,
    /// Stored at once, and acknowledged after this time.
    Late(Duration),
    /// Stored, and never acknowledged.
    Lost,
    /// Neither stored nor acknowledged.
    Swallowed,
    /// Refused, and not stored.
    Refused,
    /// Stored, and the append panics.
    Panic,
}

/// Records of one read.
const BATCH: usize = 64;

// ===== impl Script =====

impl Script {
    pub(super) fn new(semantics: Semantics) -> Self {
        Self {
            semantics,
            log: Log::new(),
            lost: Vec::new(),
            old: None,
            processes: 1,
            payload_max: 1 << 20,
            connections: 0,
            broken_before: BTreeMap::new(),
            down: false,
            cut_off: HashSet::new(),
            stalled: HashSet::new(),
            orphans_before: 0,
            acks: Acks::Prompt,
            delayed: HashSet::new(),
            under_way: VecDeque::new(),
            lag: 0,
            repeat: 0,
            skip: 0,
            opens: 0,
        }
    }

    /// The copy of the log that a server follows.
    fn log_of(&self, node: usize) -> &Log {
        match &self.old {
            Some(old) if old.nodes.contains(&node) => &old.log,
            _ => &self.log,
        }
    }

    fn log_of_mut(&mut self, node: usize) -> &mut Log {
        match &mut self.old {
            Some(old) if old.nodes.contains(&node) => &mut old.log,
            _ => &mut self.log,
        }
    }

    pub(super) fn bounds(&self, node: usize, trusts: bool) -> Bounds {
        let log = self.log_of(node);
        let identity = match self.semantics {
            Semantics::RedisStreams => format!("redis {}", log.run),
            Semantics::JetStream if trusts => format!("stream {}", log.created),
            Semantics::JetStream => format!("server {}", log.run),
        };
        Bounds {
            oldest: log.oldest,
            newest: self.shown(log),
            identity,
            may_lose_last: self.semantics == Semantics::JetStream,
            payload_max: self.payload_max,
        }
    }

    /// The newest record that readers see.
    fn shown(&self, log: &Log) -> u64 {
        log.newest.saturating_sub(self.lag).max(log.oldest - 1)
    }

    pub(super) fn refuses(&self, node: usize) -> bool {
        self.down || self.cut_off.contains(&node)
    }

    pub(super) fn is_broken(&self, node: usize, connection: u64) -> bool {
        let before = self.broken_before.get(&node).copied().unwrap_or_default();
        self.refuses(node) || connection < before
    }

    /// Whether a connection is delivered nothing.
    pub(super) fn is_silent(&self, node: usize, connection: u64) -> bool {
        self.stalled.contains(&node) || connection < self.orphans_before
    }

    pub(super) fn read(&mut self, node: usize, from: u64) -> Vec<Entry> {
        let log = self.log_of(node);
        let newest = self.shown(log);
        let from = match self.semantics {
            // As NATS 2.9, which begins after the last record if it is asked for a later one.
            Semantics::JetStream => (from.min(newest + 1) + self.skip).saturating_sub(self.repeat),
            // Nothing comes until the log is as long, whatever it has before.
            Semantics::RedisStreams => from,
        };
        let found = log.entries.range(from.max(log.oldest)..);
        let found = found.take_while(|(position, _)| **position <= newest);
        let found: Vec<_> = found.take(BATCH).map(|(_, entry)| entry.clone()).collect();
        if !found.is_empty() {
            (self.skip, self.repeat) = (0, 0);
        }
        found
    }

    /// Whether a record of this server stays on its way.
    pub(super) fn delays(&self, node: usize) -> bool {
        self.delayed.contains(&node)
    }

    pub(super) fn delay(&mut self, node: usize, record: Record) {
        let process = self.log_of(node).process;
        self.under_way.push_back((process, record));
    }

    pub(super) fn append(&mut self, node: usize, record: Record) -> u64 {
        self.log_of_mut(node).store(record)
    }

    pub(super) fn new_process(&mut self) -> u64 {
        self.processes += 1;
        self.processes
    }

    /// A record of another publisher.
    pub(crate) fn push(&mut self, tag: u64, kind: Kind, payload: impl Into<Bytes>) -> u64 {
        self.log.store(Record { tag, kind, payload: payload.into() })
    }

    /// A record of any form, at the next position.
    pub(crate) fn push_entry(&mut self, entry: Entry) -> u64 {
        self.log.store_entry(entry)
    }

    /// The log forgets its last records, and uses their positions again.
    pub(crate) fn truncate(&mut self, newest: u64) {
        let lost = self.log.truncate(newest);
        self.lost.extend(lost);
    }

    /// The oldest records go.
    pub(crate) fn trim(&mut self, oldest: u64) {
        self.log.trim(oldest);
    }

    /// One record goes, and leaves a hole, unless it is the first.
    pub(crate) fn remove(&mut self, position: u64) {
        let Log { entries, oldest, newest, .. } = &mut self.log;
        entries.remove(&position);
        if self.semantics == Semantics::RedisStreams {
            *oldest = entries.keys().next().map_or(*newest + 1, |first| *first);
        }
    }

    /// The log is deleted, and begins anew.
    pub(crate) fn reset(&mut self) {
        self.log.clear();
        self.log.created += 1;
    }

    /// Another log, with what there was.
    pub(crate) fn recreate(&mut self) {
        self.log.created += 1;
        self.disconnect_all();
    }

    /// Another run of the broker, with what it had.
    pub(crate) fn restart(&mut self, run: &str) {
        self.log.run = run.into();
        self.log.process = self.new_process();
        self.disconnect_all();
    }

    pub(crate) fn disconnect_all(&mut self) {
        (0..64).for_each(|node| self.disconnect(node));
    }

    /// The connections of a server break.
    pub(crate) fn disconnect(&mut self, node: usize) {
        self.broken_before.insert(node, self.connections + 1);
    }

    /// No connection that is open now is delivered anything any more.
    pub(crate) fn orphan_all(&mut self) {
        self.orphans_before = self.connections + 1;
    }

    pub(crate) fn set_down(&mut self, down: bool) {
        self.down = down;
        if down {
            self.disconnect_all();
        }
    }

    pub(crate) fn set_cut_off(&mut self, node: usize, cut_off: bool) {
        if cut_off {
            self.cut_off.insert(node)
        } else {
            self.cut_off.remove(&node)
        };
        if cut_off {
            self.disconnect(node);
        }
    }

    pub(crate) fn set_stalled(&mut self, node: usize, stalled: bool) {
        if stalled {
            self.stalled.insert(node)
        } else {
            self.stalled.remove(&node)
        };
    }

    pub(crate) fn set_acks(&mut self, acks: Acks) {
        self.acks = acks;
    }

    pub(crate) fn set_delayed(&mut self, node: usize, delayed: bool) {
        if delayed {
            self.delayed.insert(node)
        } else {
            self.delayed.remove(&node)
        };
    }

    /// The first records that are under way are stored, whatever has become of their connections: with replicas of NATS
    /// whatever has become of the server too, with Redis by the process that they were sent to.
    pub(crate) fn store_delayed(&mut self, records: usize) {
        for _ in 0..records {
            let Some((process, record)) = self.under_way.pop_front() else { return };
            let is_any = self.semantics == Semantics::JetStream;
            let mut logs = [Some(&mut self.log), self.old.as_mut().map(|old| &mut old.log)];
            let mut logs = logs.iter_mut().flatten();
            if let Some(log) = logs.find(|log| is_any || log.process == process) {
                log.store(record);
            }
        }
    }

    pub(crate) fn set_lag(&mut self, lag: u64) {
        self.lag = lag;
    }

    pub(crate) fn set_payload_max(&mut self, max: usize) {
        self.payload_max = max;
    }

    pub(crate) fn repeat_once(&mut self, records: u64) {
        self.repeat = records;
    }

    pub(crate) fn skip_once(&mut self, records: u64) {
        self.skip = records;
    }

    pub(crate) fn is_skipping(&self) -> bool {
        self.skip > 0
    }

    /// Nothing is wrong any more, but with connections that are of no use.
    pub(crate) fn heal(&mut self) {
        self.join();
        (self.down, self.acks, self.lag, self.repeat, self.skip) = (false, Acks::Prompt, 0, 0, 0);
        self.cut_off.clear();
        self.stalled.clear();
        self.delayed.clear();
        self.store_delayed(usize::MAX);
    }

    pub(crate) fn oldest(&self) -> u64 {
        self.log.oldest
    }

    pub(crate) fn newest(&self) -> u64 {
        self.log.newest
    }

    pub(crate) fn opens(&self) -> u64 {
        self.opens
    }

    pub(crate) fn entry(&self, position: u64) -> Option<&Entry> {
        self.log.entries.get(&position)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.log.entries.values()
    }

    /// What it has forgotten, or is about to.
    pub(crate) fn lost(&self) -> impl Iterator<Item = &Entry> {
        let old = self.old.iter().flat_map(|old| old.log.entries.values());
        self.lost.iter().chain(old)
    }

    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.entries().filter(|entry| entry.kind == Some(kind)).count()
    }
}
