//! Follows a log: decides what of the records that were read is applied, when the log is opened again, and when what was
//! before is unknown. It does no I/O and has no clock: what has happened is passed in, what is to be done is taken out.
//!
//! Three checks: positions have no gaps; a log that is opened again still has the last record that was read, with its tag;
//! what this server appends comes back. The remedy of each is to open the log again, and where that does not prove that
//! nothing is missing, to *cut*: the hub takes everything before for unknown. A *barrier* is a cut that is a record.

mod action;
mod adopted;
mod beats;
mod due;
mod gaps;
mod opening;
mod peers;
mod reading;
mod tags;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

pub(crate) use self::action::{Action, CutReason, Note, Reopen};
use self::adopted::Adopted;
use self::beats::Beats;
use self::gaps::Gaps;
pub(crate) use self::peers::Node;
use self::peers::{Nodes, Peers};
use self::tags::Tags;
use super::broker::{Bounds, Entry};
use super::payload::Cause;
use crate::ids::Mark;
use crate::time::Time;

/// One server's reading of the log.
#[derive(Debug)]
pub(crate) struct Follower {
    rules: Rules,
    state: State,
    /// The last record that was applied. After a cut it may be the one before the next, whose tag is 0: unknown.
    head: Option<Mark>,
    /// Whether a record has been applied since the start.
    has_applied: bool,
    tags: Tags,
    /// The run of the broker in which reading began.
    began_in: String,
    /// That from which the last record was read.
    read_in: String,
    adopted: Adopted,
    /// The position of the last barrier that counted since reading began, or 0.
    counted_barrier: u64,
    /// Behind this position no barrier was read: that of the last one, whether it counted or not, or the one before the
    /// first record that was read. Others may have read barriers up to there which this server has not.
    barriers_up_to: u64,
    /// A barrier that has to be appended, until one has been read that is as good.
    barrier_due: Option<Due>,
    gaps: Gaps,
    /// The head behind which nothing came when the log was last open.
    stalled_at: Option<u64>,
    loaded: bool,
    beats: Beats,
    peers: Peers,
    nodes: Nodes,
    actions: VecDeque<Action>,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    cause: Cause,
    /// Of a loss: a barrier at a later position was appended after it. One at this or an earlier position may have been
    /// there before.
    after: u64,
    /// The tag with which it was appended last.
    tag: Option<u64>,
}

/// What a follower goes by.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// This server, drawn at random at its start.
    pub(crate) node: u64,
    /// What all servers of a log must have in common.
    pub(crate) limits: u64,
    /// Bytes of the last records that are of use, when a server starts.
    pub(crate) tail_bytes: usize,
    /// Records that are read to learn how large they are: [`MEASURED`], but in tests.
    pub(crate) measured: u64,
}

#[derive(Debug)]
enum State {
    /// The log is not open.
    Closed,
    /// The log is shorter than what was read. A leader may be moving; until then it is asked again.
    Short {
        until: Time,
        bounds: Bounds,
    },
    /// How large the newest records are, decides where reading starts.
    Measuring {
        bounds: Bounds,
        from: u64,
        lost: Option<CutReason>,
        since: Time,
    },
    Reading(Reading),
}

#[derive(Debug)]
struct Reading {
    bounds: Bounds,
    /// The log has the last record that was applied.
    is_proven: bool,
    /// The barrier that is due has been appended through this connection.
    barrier_sent: bool,
    /// When a record was read last, or the log was opened.
    progress: Time,
}

/// What the follower wants of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// That the log is opened.
    Open,
    /// The bounds, after a pause.
    Bounds,
    /// Records from this position on.
    Read(u64),
}

/// Records that are read to learn how large they are.
pub(crate) const MEASURED: u64 = 1_024;

/// How long a log may be shorter than what was read.
const SHORT: Duration = Duration::from_secs(2);

/// After this time without a record of a log that has some more, it is opened again.
const STALLED: Duration = Duration::from_secs(5);

/// What a record takes beside its payload, about.
const RECORD_OVERHEAD: usize = 96;

// ===== impl Follower =====

impl Follower {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            state: State::Closed,
            head: None,
            has_applied: false,
            tags: Tags::default(),
            began_in: String::new(),
            read_in: String::new(),
            adopted: Adopted::default(),
            counted_barrier: 0,
            barriers_up_to: 0,
            barrier_due: None,
            gaps: Gaps::default(),
            stalled_at: None,
            loaded: false,
            beats: Beats::default(),
            peers: Peers::default(),
            nodes: Nodes::default(),
            actions: VecDeque::new(),
            rules,
        }
    }

    /// What it wants of its connection.
    pub(crate) fn next(&self) -> Next {
        match &self.state {
            State::Closed => Next::Open,
            State::Short { .. } => Next::Bounds,
            State::Measuring { from, .. } => Next::Read(*from),
            State::Reading(reading) => {
                let head = self.head.unwrap_or_default().position;
                let proof = self.tags.proof(head).filter(|_| !reading.is_proven);
                Next::Read(proof.map_or(head + 1, |proof| proof.position))
            }
        }
    }

    /// Takes out what is to be done next.
    pub(crate) fn action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The log is open, through a new connection.
    pub(crate) fn opened(&mut self, bounds: Bounds, now: Time) {
        self.beats.reopened();
        self.compare(bounds, now.after(SHORT), now);
        self.settle(now);
    }

    /// The connection has failed.
    pub(crate) fn closed(&mut self) {
        self.state = State::Closed;
        self.beats.is_answered = false;
    }

    /// The bounds, as they are now.
    pub(crate) fn bounds(&mut self, bounds: Bounds, now: Time) {
        if let State::Short { until, .. } = self.state {
            self.compare(bounds, until, now);
            self.settle(now);
        }
    }

    /// Records were read, in this order. No record is one: there was none for some seconds.
    pub(crate) fn read(&mut self, entries: Vec<Entry>, now: Time) {
        if let State::Measuring { bounds, from, lost, .. } = &self.state
            && let (from, lost, bounds) = (*from, *lost, bounds.clone())
            && !entries.is_empty()
        {
            self.measured(&entries, from, bounds, lost, now);
        } else {
            // What follows a decision to read from elsewhere is of no use.
            _ = entries.into_iter().try_for_each(|entry| self.take(entry, now));
        }
        self.settle(now);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Time) {
        match &self.state {
            State::Short { until, bounds } if now >= *until => {
                let bounds = bounds.clone();
                self.forgot(bounds, now);
            }
            State::Measuring { since, .. } if now >= since.after(STALLED) => {
                self.reopen(Reopen::Stalled);
            }
            _ => {}
        }
        self.settle(now);
    }

    /// A record of this server is being appended.
    pub(crate) fn appending(&mut self, tag: u64, now: Time) {
        self.beats.appending(tag, now);
    }

    /// It is stored at this position.
    pub(crate) fn appended(&mut self, tag: u64, position: u64) {
        self.beats.appended(tag, position);
    }

    /// Whether it has still to come back.
    pub(crate) fn awaits(&self, tag: u64) -> bool {
        self.beats.awaits(tag)
    }

    /// The time that the last record of this server took to come back, or that one has been waited for, if that is
    /// longer.
    pub(crate) fn lag(&self, now: Time) -> Duration {
        self.beats.lag(now)
    }

    /// Whether the log is open, and has what was read before.
    pub(crate) fn is_proven(&self) -> bool {
        matches!(&self.state, State::Reading(reading) if reading.is_proven)
    }

    /// Whether everything has been read that the log had when it was opened.
    pub(crate) fn is_current(&self) -> bool {
        let head = self.head.unwrap_or_default().position;
        matches!(&self.state, State::Reading(reading) if reading.is_proven && head >= reading.bounds.newest)
    }

    /// Whether a record of this server has come back through this connection.
    pub(crate) fn is_answered(&self) -> bool {
        self.beats.is_answered
    }

    /// Whether this server may be the only one that knows of a loss: a barrier for it is still to come back, or it is
    /// still open whether there is one.
    pub(crate) fn owes_barrier(&self) -> bool {
        let is_due = self.barrier_due.is_some_and(|due| due.cause == Cause::Forgot);
        is_due || matches!(self.state, State::Short { .. })
    }

    /// The servers whose beats were read lately, if one was read since this was last called.
    pub(crate) fn take_nodes(&mut self) -> Option<Vec<Node>> {
        self.nodes.take_news()
    }

    /// The record that was applied last.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn head(&self) -> Option<Mark> {
        self.head
    }

    /// Whether it looks again for records that did not come.
    #[cfg(test)]
    pub(crate) fn is_in_gap(&self) -> bool {
        self.gaps.is_open()
    }
}

/// The tag of an attempt: not 0.
pub(crate) fn new_tag() -> u64 {
    fastrand::u64(1..)
}

pub(crate) fn hex(bits: u64) -> String {
    format!("{bits:016x}")
}
