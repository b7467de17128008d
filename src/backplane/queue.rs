//! What waits to be appended: bounded in bytes, and made into records.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;

use super::payload::{self, Barrier, Cause};
use super::{AppendError, Appended};
use crate::backplane::broker::Kind;
use crate::hub::record::Lines;
use crate::ids::StreamHash;

/// What waits, in its order.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// The largest record of the broker, once it is known.
    payload_max: usize,
    is_closed: bool,
}

/// One append, and what waits for it.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) content: Content,
    /// Since when.
    pub(super) since: Duration,
    /// Until when.
    pub(super) until: Duration,
    /// It has been in a record, which may be stored.
    pub(super) is_attempted: bool,
    pub(super) reply: oneshot::Sender<Result<Came, AppendError>>,
}

#[derive(Debug)]
pub(super) enum Content {
    Lines(Lines),
    /// With its reason.
    Barrier(String),
}

/// The record came back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came {
    pub(super) appended: Appended,
    /// Streams that re-read because of it.
    pub(super) streams: usize,
}

/// What becomes one record.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) members: Vec<Waiting>,
    kind: Kind,
}

/// The bytes of a record of several appends.
const RECORD_MAX: usize = 256 * 1024;

/// Bytes that wait, at most.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// What waiting takes beside the bytes.
const OVERHEAD: usize = 256;

// ===== impl Queue =====

impl Queue {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, payload_max: usize::MAX, is_closed: false }
    }

    /// Lets it wait, or responds at once.
    pub(super) fn push(&mut self, waiting: Waiting) {
        let len = waiting.content.len();
        let refusal = if self.is_closed {
            AppendError::Stopping
        } else if len > self.payload_max {
            AppendError::TooLarge { max: self.payload_max }
        } else if self.bytes + len + OVERHEAD > BYTES_MAX {
            AppendError::NotAppended
        } else {
            self.bytes += len + OVERHEAD;
            self.waiting.push_back(waiting);
            return;
        };
        _ = waiting.reply.send(Err(refusal));
    }

    /// Puts back what was not stored, before what came later.
    pub(super) fn push_front(&mut self, members: Vec<Waiting>) {
        for waiting in members.into_iter().rev() {
            self.bytes += waiting.content.len() + OVERHEAD;
            self.waiting.push_front(waiting);
        }
    }

    pub(super) fn set_payload_max(&mut self, max: usize) {
        self.payload_max = max;
    }

    /// Nothing waits any more that comes later.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Since when the first waits, unless there is enough for a record.
    pub(super) fn lingers_since(&self) -> Option<Duration> {
        let first = self.waiting.front()?;
        let is_full = matches!(first.content, Content::Barrier(_)) || self.bytes >= RECORD_MAX;
        Some(if is_full { Duration::ZERO } else { first.since })
    }

    /// Takes out what becomes the next record.
    pub(super) fn take(&mut self) -> Option<Group> {
        let bound = RECORD_MAX.min(self.payload_max);
        let (mut members, mut len) = (Vec::new(), 0);
        while let Some(next) = self.waiting.front() {
            let (more, is_lines) = (next.content.len(), matches!(next.content, Content::Lines(_)));
            if more <= self.payload_max && !members.is_empty() && (!is_lines || len + more > bound)
            {
                break;
            }
            let next = self.waiting.pop_front().expect("looked at");
            self.bytes -= more + OVERHEAD;
            if more > self.payload_max {
                let max = self.payload_max;
                _ = next.reply.send(Err(AppendError::TooLarge { max }));
                continue;
            }
            len += more;
            members.push(next);
            if !is_lines {
                return Some(Group { members, kind: Kind::Barrier });
            }
        }
        (!members.is_empty()).then_some(Group { members, kind: Kind::Lines })
    }

    /// Takes out what has waited for too long.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<Waiting> {
        // In the order of their deadlines, but for those that were put back, which are the earliest.
        let mut expired = Vec::new();
        while self.waiting.front().is_some_and(|first| first.until <= now) {
            let first = self.waiting.pop_front().expect("looked at");
            self.bytes -= first.content.len() + OVERHEAD;
            expired.push(first);
        }
        expired
    }

    /// Takes out everything.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Waiting> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting).into_iter()
    }
}

// ===== impl Waiting =====

impl Waiting {
    /// Responds why it is not stored; or that it may be, if it has been in a record.
    pub(super) fn refuse(self, why: AppendError) {
        let why = if self.is_attempted { AppendError::Unavailable } else { why };
        _ = self.reply.send(Err(why));
    }
}

// ===== impl Content =====

impl Content {
    fn len(&self) -> usize {
        match self {
            Self::Lines(lines) => lines.len(),
            Self::Barrier(reason) => reason.len(),
        }
    }

    fn topics(&self) -> &[StreamHash] {
        match self {
            Self::Lines(lines) => lines.topics(),
            Self::Barrier(_) => &[],
        }
    }

    /// Whether it may be in the log once at most. To read everything again is no harm.
    pub(super) fn only_once(&self) -> bool {
        match self {
            Self::Lines(lines) => lines.only_once(),
            Self::Barrier(_) => false,
        }
    }
}

// ===== impl Group =====

impl Group {
    /// The record, for a run of the broker.
    pub(super) fn to_record(&self, identity: &str) -> (Kind, bytes::Bytes) {
        let mut all = Lines::new();
        for waiting in &self.members {
            match &waiting.content {
                Content::Lines(lines) => all.extend(lines),
                Content::Barrier(reason) => {
                    let (identity, reason) = (identity.into(), payload::bounded(reason));
                    // No other barrier makes up for it.
                    let barrier =
                        Barrier { identity, reason, cause: Some(Cause::Command), after: 0 };
                    return (self.kind, barrier.to_bytes());
                }
            }
        }
        (self.kind, all.into_bytes())
    }

    /// For each member that is a single event of a topic, how many of this topic follow in the record; 0 for others.
    pub(super) fn later(&self) -> Vec<u32> {
        let mut follow = HashMap::<StreamHash, u32>::new();
        let from_the_back = self.members.iter().rev().map(|waiting| {
            let topics = waiting.content.topics();
            let later = match topics {
                [topic] => follow.get(topic).copied().unwrap_or_default(),
                _ => 0,
            };
            topics.iter().for_each(|topic| *follow.entry(*topic).or_default() += 1);
            later
        });
        let mut later: Vec<_> = from_the_back.collect();
        later.reverse();
        later
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Topic;
    use crate::wire::Payload;

    /// A group of appends, each of events of these topics.
    fn group<'a>(appends: impl IntoIterator<Item = &'a [usize]>) -> Group {
        let members = appends.into_iter().map(|topics| {
            let mut lines = Lines::new();
            for topic in topics {
                let name = format!("t{topic}").parse().expect("a name");
                let topic = Topic { org: "acme".parse().expect("a name"), name };
                lines.message(&topic, "e", Payload::Text("x"), false);
            }
            let (since, (reply, _)) = (Duration::ZERO, oneshot::channel());
            let content = Content::Lines(lines);
            Waiting { content, since, until: since, is_attempted: false, reply }
        });
        Group { members: members.collect(), kind: Kind::Lines }
    }

    #[test]
    fn a_single_event_is_followed_by_the_later_ones_of_its_topic() {
        let appends: [&[usize]; 7] = [&[1], &[2], &[1, 2, 1], &[], &[1], &[2, 2], &[1]];
        assert_eq!(group(appends).later(), [4, 3, 0, 0, 1, 0, 0]);
    }

    /// SCENARIO: thousands of backends publish events of topics at once, and the events become one record.
    /// BUG: each was compared with all that follow, on the thread that follows the log.
    /// FIX: they are counted once, from the back.
    #[test]
    fn the_events_of_a_record_are_counted_once() {
        let one: &[usize] = &[1];
        let later = group(std::iter::repeat_n(one, 50_000)).later();
        assert!(later.iter().rev().copied().eq(0..50_000));
    }
}
