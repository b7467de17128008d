//! What waits to be appended, and is made into records. It is bounded in bytes until it is answered.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::payload::{self, Barrier, Cause};
use super::{AppendError, Appended};
use crate::backplane::broker::Kind;
use crate::hub::record::Lines;
use crate::ids::StreamHash;
use crate::sync::{AtomicUsize, Ordering};

/// What waits, in its order.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    /// Of what waits here.
    bytes: usize,
    /// Of all that is not answered: what waits here, and what was appended and has not come back.
    unanswered: Arc<AtomicUsize>,
    /// The largest record of the broker, once it is known.
    payload_max: usize,
    /// What waits does not wait for more.
    is_urgent: bool,
    is_closed: bool,
}

/// One append, and what waits for it.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) content: Content,
    /// When it came. Others may join its record for the linger time from then on.
    pub(super) queued_at: Duration,
    /// When it is refused, if its record has not come back.
    pub(super) expires_at: Duration,
    /// It has been in a record, which may be stored.
    pub(super) is_attempted: bool,
    room: Room,
    reply: oneshot::Sender<Result<Came, AppendError>>,
}

/// Bytes of those that may be unanswered, until it is dropped.
#[derive(Debug)]
struct Room {
    unanswered: Arc<AtomicUsize>,
    bytes: usize,
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

/// What was taken out of the queue, to be dealt with once that is no longer locked.
#[derive(Debug)]
pub(super) struct Taken {
    group: Option<Group>,
    /// What no record can hold any more, since the broker has a smaller bound.
    too_large: Vec<Waiting>,
    payload_max: usize,
}

/// The bytes of a record of several appends.
const RECORD_MAX: usize = 256 * 1024;

/// Bytes that are unanswered, at most.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// What an append takes beside its bytes.
const OVERHEAD: usize = 256;

// ===== impl Queue =====

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            unanswered: Arc::default(),
            payload_max: usize::MAX,
            is_urgent: false,
            is_closed: false,
        }
    }

    /// Lets it wait. Returns where the reply comes.
    ///
    /// # Errors
    /// It cannot.
    pub(super) fn push(
        &mut self,
        content: Content,
        queued_at: Duration,
        expires_at: Duration,
    ) -> Result<oneshot::Receiver<Result<Came, AppendError>>, AppendError> {
        let len = content.len();
        if self.is_closed {
            return Err(AppendError::Stopping);
        }
        if len > self.payload_max {
            return Err(AppendError::TooLarge { max: self.payload_max });
        }
        let room = Room::take(&self.unanswered, len + OVERHEAD).ok_or(AppendError::NotAppended)?;
        let (reply, replied) = oneshot::channel();
        let is_attempted = false;
        self.bytes += len + OVERHEAD;
        self.waiting.push_back(Waiting {
            content,
            queued_at,
            expires_at,
            is_attempted,
            room,
            reply,
        });
        Ok(replied)
    }

    /// Puts back what was not stored, before what came later.
    pub(super) fn push_front(&mut self, members: Vec<Waiting>) {
        for waiting in members.into_iter().rev() {
            self.bytes += waiting.content.len() + OVERHEAD;
            self.waiting.push_front(waiting);
        }
    }

    /// What waits now is appended as soon as it can be.
    pub(super) fn hurry(&mut self) {
        self.is_urgent = !self.waiting.is_empty();
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
        Some(if is_full || self.is_urgent { Duration::ZERO } else { first.queued_at })
    }

    /// Takes out what becomes the next record.
    pub(super) fn take(&mut self) -> Taken {
        let payload_max = self.payload_max;
        let bound = RECORD_MAX.min(payload_max);
        let (mut members, mut too_large, mut len) = (Vec::new(), Vec::new(), 0);
        let mut kind = Kind::Lines;
        while let Some(next) = self.waiting.front() {
            let (more, is_lines) = (next.content.len(), matches!(next.content, Content::Lines(_)));
            if more <= payload_max && !members.is_empty() && (!is_lines || len + more > bound) {
                break;
            }
            let next = self.waiting.pop_front().expect("looked at");
            self.bytes -= more + OVERHEAD;
            if more > payload_max {
                too_large.push(next);
                continue;
            }
            len += more;
            members.push(next);
            if !is_lines {
                kind = Kind::Barrier;
                break;
            }
        }
        self.is_urgent &= !self.waiting.is_empty();
        let group = (!members.is_empty()).then_some(Group { members, kind });
        Taken { group, too_large, payload_max }
    }

    /// Takes out what has waited for too long.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<Waiting> {
        // In the order of their deadlines, but for those that were put back, which are the earliest.
        let mut expired = Vec::new();
        while self.waiting.front().is_some_and(|first| first.expires_at <= now) {
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
    /// Responds, which wakes: not under a lock.
    pub(super) fn answer(self, result: Result<Came, AppendError>) {
        let Self { content, room, reply, .. } = self;
        // What is published next finds room.
        drop((content, room));
        _ = reply.send(result);
    }

    /// Responds why it is not stored; or that it may be, if it has been in a record.
    pub(super) fn refuse(self, why: AppendError) {
        let why = if self.is_attempted { AppendError::Unavailable } else { why };
        self.answer(Err(why));
    }
}

// ===== impl Room =====

impl Room {
    /// `None` if there is not as much.
    fn take(unanswered: &Arc<AtomicUsize>, bytes: usize) -> Option<Self> {
        let before = unanswered.fetch_add(bytes, Ordering::Relaxed);
        let room = Self { unanswered: unanswered.clone(), bytes };
        (before + bytes <= BYTES_MAX).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.unanswered.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

// ===== impl Taken =====

impl Taken {
    /// What becomes a record. Responds to what none can hold.
    pub(super) fn into_group(self) -> Option<Group> {
        let Self { group, too_large, payload_max: max } = self;
        too_large.into_iter().for_each(|waiting| waiting.refuse(AppendError::TooLarge { max }));
        group
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
            let (room, reply) = (Room::take(&Arc::default(), 0), oneshot::channel().0);
            Waiting {
                content: Content::Lines(lines),
                queued_at: Duration::ZERO,
                expires_at: Duration::ZERO,
                is_attempted: false,
                room: room.expect("nothing"),
                reply,
            }
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
