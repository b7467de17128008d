//! What a follower does with what a log has, one promise a test.

mod barriers;
mod beats;
mod opening;
mod reading;

use bytes::Bytes;

use super::*;
use crate::backplane::broker::{Kind, Record, VERSION};
use crate::backplane::payload::{Barrier, Beat};

const IDENTITY: &str = "first";

/// A follower, its log and its clock.
struct Case {
    follower: Follower,
    log: Vec<Entry>,
    oldest: u64,
    identity: String,
    now: Time,
    done: Vec<Action>,
}

fn lines(position: u64, tag: u64) -> Entry {
    entry(position, tag, Kind::Lines, Bytes::from_static(b"lines"))
}

fn entry(position: u64, tag: u64, kind: Kind, payload: Bytes) -> Entry {
    Entry { position, tag, version: VERSION, kind: Some(kind), payload }
}

fn beat_of(identity: &str, node: u64, limits: u64) -> Bytes {
    let (node, limits) = (hex(node), hex(limits));
    Beat { identity: identity.into(), node, nudged: "1".into(), limits }.to_bytes()
}

fn barrier(identity: &str, cause: Option<Cause>, after: u64) -> Bytes {
    Barrier { identity: identity.into(), reason: "why".into(), cause, after }.to_bytes()
}

fn mark(position: u64, tag: u64) -> Mark {
    Mark { tag, position }
}

// A mark equals no other if its tag is 0.
impl PartialEq for Action {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

// ===== impl Case =====

impl Case {
    fn new() -> Self {
        let rules = Rules { node: 1, limits: 2, tail_bytes: 1 << 20, measured: MEASURED };
        Self {
            follower: Follower::new(rules),
            log: Vec::new(),
            oldest: 1,
            identity: IDENTITY.into(),
            now: Time(1_000),
            done: Vec::new(),
        }
    }

    /// A follower that has read a log of a beat and these records from position 2 on.
    fn reading(records: u64) -> Self {
        let mut case = Self::new();
        case.append(Kind::Beat, beat_of(IDENTITY, 7, 2));
        for _ in 0..records {
            case.append(Kind::Lines, Bytes::from_static(b"lines"));
        }
        case.run();
        case.done.clear();
        case
    }

    fn append(&mut self, kind: Kind, payload: Bytes) -> u64 {
        let position = self.newest() + 1;
        self.log.push(entry(position, 1_000 + position, kind, payload));
        position
    }

    fn newest(&self) -> u64 {
        self.log.last().map_or(self.oldest - 1, |entry| entry.position)
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            oldest: self.oldest,
            newest: self.newest(),
            identity: self.identity.clone(),
            may_lose_last: true,
            payload_max: 1 << 20,
        }
    }

    /// Does what the follower wants, until it wants to wait.
    fn run(&mut self) -> &mut Self {
        for _ in 0..1_000 {
            let mut idle = false;
            match self.follower.next() {
                Next::Open => self.follower.opened(self.bounds(), self.now),
                Next::Bounds => {
                    self.follower.bounds(self.bounds(), self.now);
                    idle = self.follower.next() == Next::Bounds;
                }
                Next::Read(from) => {
                    let found = self.log.iter().filter(|e| e.position >= from.max(self.oldest));
                    let found: Vec<_> = found.take(100).cloned().collect();
                    idle = found.is_empty();
                    self.follower.read(found, self.now);
                }
            }
            while let Some(action) = self.follower.action() {
                idle = false;
                if let Action::Append(record) = &action {
                    let Record { tag, kind, payload } = record.clone();
                    let position = self.newest() + 1;
                    self.follower.appended(tag, position);
                    self.log.push(entry(position, tag, kind, payload));
                }
                self.done.push(action);
            }
            if idle {
                return self;
            }
        }
        panic!("it does not come to rest: {:?}", self.follower);
    }

    fn pass(&mut self, millis: u64) -> &mut Self {
        self.now = Time(self.now.0 + millis);
        self.follower.tick(self.now);
        self
    }

    fn reopen(&mut self) -> &mut Self {
        self.follower.closed();
        self.run()
    }

    /// The oldest records go.
    fn trim(&mut self, oldest: u64) {
        self.oldest = oldest;
        self.log.retain(|entry| entry.position >= oldest);
    }

    /// The barriers for a loss that are in the log, with what they say of those before.
    fn barriers(&self) -> Vec<(Option<Cause>, u64)> {
        let barriers = self.log.iter().filter(|entry| entry.kind == Some(Kind::Barrier));
        let barriers = barriers.filter_map(|entry| Barrier::parse(&entry.payload));
        let barriers = barriers.filter(|barrier| barrier.cause == Some(Cause::Forgot));
        barriers.map(|barrier| (barrier.cause, barrier.after)).collect()
    }

    fn cuts(&self) -> Vec<(u64, CutReason)> {
        let cut = |action: &Action| match action {
            Action::Cut(mark, reason) => Some((mark.position, *reason)),
            _ => None,
        };
        self.done.iter().filter_map(cut).collect()
    }

    fn applied(&self) -> Vec<u64> {
        let applied = |action: &Action| match action {
            Action::Apply(mark, _) => Some(mark.position),
            _ => None,
        };
        self.done.iter().filter_map(applied).collect()
    }

    fn appended(&self) -> Vec<Kind> {
        let appended = |action: &Action| match action {
            Action::Append(record) => Some(record.kind),
            _ => None,
        };
        self.done.iter().filter_map(appended).collect()
    }

    fn reopens(&self) -> Vec<Reopen> {
        let reopen = |action: &Action| match action {
            Action::Reopen(reason) => Some(*reason),
            _ => None,
        };
        self.done.iter().filter_map(reopen).collect()
    }

    /// The last records are others now, beginning with `position`.
    fn replace_from(&mut self, position: u64) {
        for entry in self.log.iter_mut().filter(|entry| entry.position >= position) {
            entry.tag += 1 << 32;
        }
    }

    fn drop_from(&mut self, position: u64) {
        self.log.retain(|entry| entry.position < position);
    }
}
