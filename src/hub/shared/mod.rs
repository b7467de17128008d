//! The hub of a server that follows a log which several servers share: records are applied in their order, and ids are
//! those of records, so that a client resumes on any of these servers. Without a log nothing of this runs.
//!
//! What is created after a record was added to the tail finds it there; what was there before gets it from
//! [`Hub::apply`]. A feed knows how far it has followed the log, so that it gets nothing twice.

mod orgs;
pub(crate) mod tail;
mod topics;

use std::cmp::Ordering;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

pub use self::tail::TailUse;
use self::tail::{Chain, Extent, Tail};
use super::record::{self, Line};
use super::shard::Common;
use super::{Hub, RereadAll};
use crate::config::HubConfig;
use crate::hub::pass::Window;
use crate::ids::{EventId, Mark, OrgName, StreamHash, Topic};
use crate::sync::{Mutex, MutexGuard};
use crate::time::Time;

/// The log as a hub knows it.
#[derive(Debug)]
pub(crate) struct SharedLog {
    state: Mutex<State>,
    /// Held while a record is applied, or the log is cut; before `state`.
    applying: Mutex<()>,
    /// Over which time streams re-read, or end, if a record says so.
    window: Duration,
}

#[derive(Debug)]
struct State {
    tail: Tail,
    /// The last record that has reached every stream. `None` before the first, and while the streams are being
    /// notified that the log begins anew.
    applied: Option<Mark>,
}

/// What became of a record's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Lines that were read.
    pub lines: usize,
    /// Lines that are unusable.
    pub skipped: usize,
}

// ===== impl Hub =====

impl Hub {
    /// A hub that follows a log which several servers share, with several shards (1 to 65,536). It remembers the last
    /// records of the log within `tail_bytes` of memory. Streams that a record has re-read or end do so over
    /// `reread_window`.
    ///
    /// Everything is published by appending a record to the log, and [`Hub::apply`] brings it here. Nothing is published
    /// to the hub itself: no other server would have it, and its id would be that of a record.
    pub fn with_log(
        config: HubConfig,
        shards: usize,
        tail_bytes: usize,
        reread_window: Duration,
    ) -> Self {
        let tail = Tail::new(Mark::NONE, tail_bytes);
        let state = Mutex::new(State { tail, applied: None });
        let mut common = Common::new(config, shards);
        common.log = Some(SharedLog { state, applying: Mutex::new(()), window: reread_window });
        Self::with_common(common)
    }

    /// Begins a log whose first record to apply is at position `oldest`, 1 or more. No id of an earlier one is covered.
    ///
    /// # Panics
    /// The hub follows no log: it was not made [`with_log`](Self::with_log).
    pub fn begin_log(&self, oldest: u64) {
        let start = Mark { tag: 0, position: oldest.saturating_sub(1) };
        let before = self.shared_log().state.lock().tail.restart(start);
        drop(before);
    }

    /// Applies the next record: its position is that of [`Self::applied`] plus 1. `mark.tag` is drawn at random for each
    /// attempt to append, and is not 0. A record without lines only moves the ids on that clients have. One thread
    /// applies and [cuts](Self::cut).
    ///
    /// `lines` are NDJSON. The [guide](crate::guide::cluster#records-of-your-own) lists what a line may be; others are
    /// skipped. All keys of an org in one record become one event.
    ///
    /// # Panics
    /// The hub follows no log: it was not made [`with_log`](Self::with_log). In a debug build also if records are missing
    /// before this one; otherwise that is a cut.
    pub fn apply(&self, mark: Mark, lines: &Bytes, now: Time) -> Applied {
        let (parsed, applied) = self.parse(lines);
        let _applying = self.shared_log().applying.lock();
        self.push(mark, lines, &parsed, now);
        // Lines of one stream together, in their order.
        let mut sorted: SmallVec<[&Parsed<'_>; 32]> = parsed.iter().collect();
        sorted.sort_by(|one, other| one.cmp_stream(other));
        for group in sorted.chunk_by(|one, other| one.cmp_stream(other).is_eq()) {
            let lines = group.iter().map(|parsed| &parsed.line);
            match &group[0].line {
                Line::Topic(topic, _) => self.apply_topic(topic, mark, lines, now),
                line => {
                    let org = line.org().expect("not of a topic");
                    self.apply_org(org, lines, mark, now);
                }
            }
        }
        self.shared_log().state.lock().applied = Some(mark);
        applied
    }

    /// Adds a record to the tail: whatever is created from now on finds it there.
    fn push(&self, mark: Mark, text: &[u8], parsed: &[Parsed<'_>], now: Time) {
        let log = self.shared_log();
        // It may be part of a larger block.
        let is_kept = parsed.iter().any(|parsed| parsed.line.is_kept());
        let payload = if is_kept { Bytes::copy_from_slice(text) } else { Bytes::new() };
        let before = mark.position.saturating_sub(1);
        if log.state.lock().tail.head().position != before {
            // Never so, but then what is between is unknown.
            debug_assert!(false, "a record that does not follow the last one");
            self.cut_all(Mark { tag: 0, position: before }, now);
        }
        let kept = parsed.iter().filter(|parsed| parsed.line.is_kept());
        let kept = kept.map(|parsed| (parsed.stream, parsed.range.clone()));
        log.state.lock().tail.push(mark.tag, payload, kept, now);
    }

    /// Takes everything up to and including the record `mark` for unknown. The next one to apply is the one after it. Every
    /// client re-reads everything, evenly over the window, and no earlier id resumes. `mark.tag` is 0 if it is not known.
    /// It visits every org and topic before it returns the number of their streams.
    ///
    /// # Panics
    /// The hub follows no log: it was not made [`with_log`](Self::with_log).
    pub fn cut(&self, mark: Mark, now: Time) -> usize {
        let _applying = self.shared_log().applying.lock();
        self.cut_all(mark, now)
    }

    /// As long as this is held, nothing is applied, if the hub follows a log: what it has for its streams stays as it is.
    pub(crate) fn pause_log(&self) -> Option<MutexGuard<'_, ()>> {
        self.shared.common.log.as_ref().map(|log| log.applying.lock())
    }

    fn cut_all(&self, mark: Mark, now: Time) -> usize {
        let log = self.shared_log();
        let before = {
            let mut state = log.state.lock();
            state.applied = None;
            state.tail.restart(mark)
        };
        // It may be large, and keepalives and new streams read what was applied.
        drop(before);
        let mut all = RereadAll::since(self, log.window(now), Some((mark, now)));
        while all.step() {}
        let streams = all.streams() + self.cut_topics(mark);
        drop(all);
        log.state.lock().applied = Some(mark);
        streams
    }

    /// The last record that has been applied. `None` before the first.
    ///
    /// # Panics
    /// The hub follows no log: it was not made [`with_log`](Self::with_log).
    pub fn applied(&self) -> Option<Mark> {
        self.shared_log().applied()
    }

    /// Whether this very record is one of the last ones, which the hub remembers.
    #[cfg(test)]
    pub(crate) fn has_mark(&self, mark: Mark) -> bool {
        self.shared_log().has(mark)
    }

    /// What the hub remembers of the log.
    ///
    /// # Panics
    /// The hub follows no log: it was not made [`with_log`](Self::with_log).
    pub fn tail(&self) -> TailUse {
        self.shared_log().state.lock().tail.usage()
    }

    /// The id that a publish to the members of `org` reports for keys in the record `mark`: that of the event with the
    /// keys, or, if they were united with those of later records, an earlier one.
    pub fn member_id(org: &OrgName, mark: Mark) -> EventId {
        mark.id(StreamHash::of_members(org.as_str()), 0)
    }

    /// The id of an event of a topic in the record `mark`, which `later` ones of this topic follow in it.
    pub(crate) fn topic_id(topic: &Topic, mark: Mark, later: u32) -> EventId {
        mark.id(topic.stream(), later)
    }

    /// Reads the lines of a record.
    fn parse<'l>(&self, text: &'l [u8]) -> (Vec<Parsed<'l>>, Applied) {
        let (mut parsed, mut applied) = (Vec::new(), Applied::default());
        for range in record::lines(text) {
            applied.lines += 1;
            match Line::parse(&text[range.clone()], self.config()) {
                Some(line) => parsed.push(Parsed { stream: line.stream(), range, line }),
                None => applied.skipped += 1,
            }
        }
        (parsed, applied)
    }

    pub(super) fn shared_log(&self) -> &SharedLog {
        self.shared.common.log.as_ref().expect("the hub follows a log")
    }
}

/// A line of a record, and where it is.
struct Parsed<'l> {
    stream: StreamHash,
    range: std::ops::Range<usize>,
    line: Line<'l>,
}

impl Parsed<'_> {
    /// What brings the lines of one stream together. Streams of different names may have one hash.
    fn cmp_stream(&self, other: &Self) -> Ordering {
        let bits = self.stream.bits().cmp(&other.stream.bits());
        bits.then_with(|| self.names().cmp(&other.names()))
    }

    fn names(&self) -> (&str, &str) {
        match &self.line {
            Line::Topic(topic, _) => (topic.org.as_str(), topic.name.as_str()),
            line => (line.org().unwrap_or_default(), ""),
        }
    }
}

// ===== impl SharedLog =====

impl SharedLog {
    /// The last record that has reached every stream.
    pub(crate) fn applied(&self) -> Option<Mark> {
        self.state.lock().applied
    }

    /// Whether this very record is in the tail.
    pub(crate) fn has(&self, mark: Mark) -> bool {
        self.state.lock().tail.has(mark)
    }

    /// What there is of a stream.
    pub(super) fn chain(&self, stream: StreamHash, extent: Extent) -> Chain {
        self.state.lock().tail.chain(stream, extent)
    }

    pub(super) fn window(&self, now: Time) -> Window {
        Window::from(now, self.window)
    }
}
