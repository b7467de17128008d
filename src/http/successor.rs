//! What is published and commanded here after another process has taken over the hub: it is sent to that one, the
//! successor, and its answer becomes the response. Knows no socket.

#[cfg(all(test, not(nudged_loom)))]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

use super::reject::Reject;
use super::timer::Timer;
use crate::hub::{CannotPerform, Hub, Performed};
use crate::ids::EventId;
use crate::sync::Mutex;
use crate::time::{Clock, Time};

/// The operations that the successor performs for this process.
#[derive(Debug)]
pub(crate) struct Operations {
    sender: Box<dyn OperationSender>,
    clock: Clock,
    /// For those that have been sent and not been answered yet. Closed once there can be no answer.
    slots: Arc<Semaphore>,
    pending: Mutex<Pending>,
}

/// How operations reach the successor.
pub(crate) trait OperationSender: fmt::Debug + Send + Sync {
    /// Sends an operation under this number, whole or not at all. It is called by threads that serve connections, and
    /// does not wait.
    ///
    /// # Errors
    /// It was not sent, for this reason.
    fn send(&self, number: u64, operation: &Operation) -> Result<(), String>;
}

/// What the successor is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// What these lines say, as those of a record of the log.
    Lines(Bytes),
    /// All clients of all orgs re-read everything.
    RereadAll,
}

/// An operation that was performed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// The id of its last event, if that has one.
    pub(crate) id: Option<EventId>,
    /// The streams that its commands were for.
    pub(crate) streams: usize,
}

/// Why an operation is not known to be performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// It was not sent, or the successor has refused it: nothing was done.
    NotDone,
    /// It was sent, and there was no answer.
    Unanswered,
}

/// Why an operation that a predecessor has passed on is not performed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotPassedOn {
    /// Nothing was done, for this reason.
    Refused(String),
    /// It was passed on to the next process, which has not answered: it may be performed.
    Unanswered,
}

#[derive(Debug, Default)]
struct Pending {
    /// The next operation's number.
    next: u64,
    sent: HashMap<u64, Sent>,
    /// There is no successor any more.
    has_ended: bool,
}

/// An operation that has been sent. A request that waits for it no longer leaves it here until it is answered.
#[derive(Debug)]
struct Sent {
    reply: oneshot::Sender<Option<Done>>,
    _slot: OwnedSemaphorePermit,
}

/// Operations that are sent and not answered, at most; others wait for their turn.
const IN_FLIGHT_MAX: usize = 256;

/// How long an operation may take, with the wait for its turn.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Between two looks for an answer, where a thread waits for it.
const ANSWER_CHECK: Duration = Duration::from_millis(1);

// ===== impl Operations =====

impl Operations {
    pub(crate) fn new(sender: impl OperationSender + 'static, clock: Clock) -> Self {
        let slots = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        Self { sender: Box::new(sender), clock, slots, pending: Mutex::default() }
    }

    /// Has the successor perform an operation, and waits for its answer. `hub` is that of a worker, whose pauses do not
    /// count.
    ///
    /// # Errors
    /// [`Failed`].
    pub(crate) async fn perform(&self, operation: Operation, hub: &Hub) -> Result<Done, Failed> {
        let mut time = Timer::new(hub.clone(), self.clock).sleep(ANSWER_MAX);
        let slot = time.limit(self.slots.clone().acquire_owned()).await;
        let slot = slot.and_then(Result::ok).ok_or(Failed::NotDone)?;
        let answer = self.send(&operation, slot)?;
        drop(operation);
        match time.limit(answer).await {
            Some(Ok(Some(done))) => Ok(done),
            Some(Ok(None)) => Err(Failed::NotDone),
            Some(Err(_)) | None => Err(Failed::Unanswered),
        }
    }

    /// The same for one that a predecessor has passed on. It blocks, on a thread that serves no connection.
    ///
    /// # Errors
    /// [`Failed`].
    pub(crate) fn forward(&self, operation: &Operation) -> Result<Done, Failed> {
        let until = self.clock.elapsed() + ANSWER_MAX;
        let waits = || {
            thread::sleep(ANSWER_CHECK);
            self.clock.elapsed() < until
        };
        let slot = loop {
            match self.slots.clone().try_acquire_owned() {
                Ok(slot) => break slot,
                Err(TryAcquireError::NoPermits) if waits() => {}
                Err(_) => return Err(Failed::NotDone),
            }
        };
        let mut answer = self.send(operation, slot)?;
        loop {
            match answer.try_recv() {
                Ok(Some(done)) => return Ok(done),
                Ok(None) => return Err(Failed::NotDone),
                Err(TryRecvError::Empty) if waits() => {}
                Err(_) => return Err(Failed::Unanswered),
            }
        }
    }

    /// An operation was performed, or, with `None`, refused: nothing was done.
    pub(crate) fn answer(&self, number: u64, done: Option<Done>) {
        let sent = self.pending.lock().sent.remove(&number);
        if let Some(Sent { reply, _slot }) = sent {
            // Its request may have ended.
            _ = reply.send(done);
        }
    }

    /// The successor has ended, or cannot be reached: what was sent may have been performed, and nothing more is sent.
    pub(crate) fn end(&self) {
        self.slots.close();
        let unanswered = {
            let mut pending = self.pending.lock();
            pending.has_ended = true;
            std::mem::take(&mut pending.sent)
        };
        // Their requests are woken without a lock.
        drop(unanswered);
    }

    fn send(
        &self,
        operation: &Operation,
        slot: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Option<Done>>, Failed> {
        let (reply, answer) = oneshot::channel();
        // The answer may come before `send` returns.
        let number = self.pending.lock().add(Sent { reply, _slot: slot }).ok_or(Failed::NotDone)?;
        match self.sender.send(number, operation) {
            Ok(()) => Ok(answer),
            Err(why) => {
                tracing::warn!(%why, "an operation could not be sent to the successor");
                let unsent = self.pending.lock().sent.remove(&number);
                drop(unsent);
                Err(Failed::NotDone)
            }
        }
    }
}

// ===== impl Operation =====

impl Operation {
    /// Performs it, in the successor. What it has streams do is spread over `window`. A rate limit is that of the process
    /// that it came to, which has counted it.
    ///
    /// # Errors
    /// [`CannotPerform`]; nothing was done.
    pub(crate) fn perform(
        &self,
        hub: &Hub,
        now: Time,
        window: Duration,
    ) -> Result<Done, CannotPerform> {
        match self {
            Self::Lines(lines) => hub.perform(lines, now, window).map(Done::from),
            Self::RereadAll => hub.perform_reread_all(now, window).map(Done::from),
        }
    }
}

// ===== impl Done =====

impl From<Performed> for Done {
    fn from(Performed { id, streams }: Performed) -> Self {
        Self { id, streams }
    }
}

// ===== impl Pending =====

impl Pending {
    /// Its number; `None` if nothing is sent any more.
    fn add(&mut self, sent: Sent) -> Option<u64> {
        if self.has_ended {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.sent.insert(number, sent);
        Some(number)
    }
}

// ===== impl Failed =====

impl From<Failed> for Reject {
    fn from(why: Failed) -> Self {
        match why {
            Failed::NotDone => Self::Draining,
            Failed::Unanswered => Self::Unanswered,
        }
    }
}

// ===== impl NotPassedOn =====

impl From<Failed> for NotPassedOn {
    fn from(why: Failed) -> Self {
        match why {
            Failed::NotDone => {
                Self::Refused("the process that has taken over did not take it".into())
            }
            Failed::Unanswered => Self::Unanswered,
        }
    }
}

impl fmt::Display for NotPassedOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => f.write_str(why),
            Self::Unanswered => f.write_str("the process that has taken over has not answered"),
        }
    }
}
