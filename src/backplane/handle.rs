//! The handle to the log, for what publishes and for what reports.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::broker::Broker;
use super::counters::{AppendResult, Counters};
use super::follower::Node;
use super::queue::{Came, Content, Queue};
use super::runner;
use crate::config::BackplaneConfig;
use crate::hub::Hub;
use crate::hub::record::Lines;
use crate::ids::Mark;
use crate::sync::Mutex;
use crate::time::Clock;

/// A handle to the log that several servers share. Clones share it. The last one that is dropped stops it.
#[derive(Clone, Debug)]
pub(crate) struct Backplane(Arc<StopOnDrop>);

#[derive(Debug)]
struct StopOnDrop {
    shared: Arc<Shared>,
    ended: watch::Receiver<bool>,
}

/// What handles and the thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: Mutex<Queue>,
    /// Something waits to be appended, or may be appended now, or the queue is closed.
    pub(super) wake: Notify,
    pub(super) status: Mutex<Status>,
    /// The servers whose beats were read lately, in the order of these.
    pub(super) nodes: Mutex<Vec<Node>>,
    pub(super) counters: Counters,
    pub(super) clock: Clock,
    pub(super) timeout: Duration,
}

/// A record that has been appended, and has come back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) mark: Mark,
    /// If a single event of a topic was appended: how many of this topic follow in the record.
    pub(crate) later: u32,
}

/// Why it is not known that it is stored, or why it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppendError {
    /// It was appended, and has not come back in time. It may have been stored.
    Unavailable,
    /// It could not be appended in time, or too much waits. It is not stored.
    NotAppended,
    /// It has more bytes than a record.
    TooLarge { max: usize },
    /// The server stops.
    Stopping,
}

/// How it is with the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// It is open, and has what was read before.
    pub(crate) is_connected: bool,
    /// Everything that there was at the start has been applied.
    pub(crate) is_loaded: bool,
    /// Why it is not connected, or not loaded.
    pub(crate) why: Option<String>,
    /// How long the last record of this server took to come back, or has taken until now.
    pub(crate) lag: Duration,
}

// ===== impl Backplane =====

impl Backplane {
    /// How long an append takes at most.
    #[cfg(feature = "postgres")]
    pub(crate) fn timeout(&self) -> Duration {
        self.0.shared.timeout
    }

    /// Follows the log on a thread of its own. It tries again for as long as the broker is down.
    ///
    /// # Errors
    /// The thread or its runtime could not be created.
    pub(crate) fn start(
        broker: impl Broker,
        config: &BackplaneConfig,
        hub: Hub,
        clock: Clock,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(config, clock));
        let (end, ended) = watch::channel(false);
        runner::start(broker, config, hub, shared.clone(), end)?;
        Ok(Self(Arc::new(StopOnDrop { shared, ended })))
    }

    /// The same on a task of the current runtime, whose time may be paused.
    #[cfg(test)]
    pub(super) fn start_local(
        broker: impl Broker,
        config: &BackplaneConfig,
        hub: Hub,
        clock: Clock,
    ) -> Self {
        let shared = Arc::new(Shared::new(config, clock));
        let (end, ended) = watch::channel(false);
        let runner = runner::Runner::new(broker, config, hub, shared.clone());
        let finished = shared.clone();
        tokio::task::spawn_local(async move {
            runner.run().await;
            finished.finish();
            _ = end.send(true);
        });
        Self(Arc::new(StopOnDrop { shared, ended }))
    }

    /// Appends lines, and waits until they have been read from the log and applied here.
    ///
    /// # Errors
    /// [`AppendError`].
    pub(crate) async fn append(&self, lines: Lines) -> Result<Appended, AppendError> {
        Ok(self.shared().append(Content::Lines(lines), false).await?.appended)
    }

    /// The same for many lines, which do not wait for others to join their record.
    ///
    /// # Errors
    /// [`AppendError`].
    pub(crate) async fn append_at_once(&self, lines: Lines) -> Result<Appended, AppendError> {
        Ok(self.shared().append(Content::Lines(lines), true).await?.appended)
    }

    /// Has the clients of all servers re-read everything. Returns the number of streams of this one.
    ///
    /// # Errors
    /// [`AppendError`].
    pub(crate) async fn barrier(&self, reason: &str) -> Result<usize, AppendError> {
        Ok(self.shared().append(Content::Barrier(reason.into()), false).await?.streams)
    }

    pub(crate) fn state(&self) -> Status {
        self.shared().status.lock().clone()
    }

    /// The servers whose beats were read lately, this one among them, and how long ago.
    pub(crate) fn nodes(&self) -> Vec<(Node, Duration)> {
        let now = self.shared().clock.now();
        let nodes = self.shared().nodes.lock();
        nodes.iter().map(|node| (node.clone(), now.since(node.at))).collect()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared().counters
    }

    /// Accepts nothing more, and ends once what waits has come back, or has waited long enough.
    pub(crate) fn stop(&self) {
        self.0.stop();
    }

    /// Waits until its thread has ended, which it does before [`Self::stop`] only by a defect.
    pub(crate) async fn ended(&self) {
        let mut ended = self.0.ended.clone();
        _ = ended.wait_for(|ended| *ended).await;
    }

    #[cfg(all(test, not(nudged_loom)))]
    pub(super) fn is_queue_locked(&self) -> bool {
        self.shared().queue.try_lock().is_none()
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

// ===== impl StopOnDrop =====

impl StopOnDrop {
    fn stop(&self) {
        self.shared.queue.lock().close();
        self.shared.wake.notify_one();
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.stop();
    }
}

// ===== impl Shared =====

impl Shared {
    pub(super) fn new(config: &BackplaneConfig, clock: Clock) -> Self {
        let why = Some("connecting to the broker".into());
        Self {
            queue: Mutex::new(Queue::new()),
            wake: Notify::new(),
            status: Mutex::new(Status { why, ..Status::default() }),
            nodes: Mutex::default(),
            counters: Counters::default(),
            clock,
            timeout: config.timeout,
        }
    }

    /// The thread has ended: nothing waits any more, and nothing ever will.
    pub(super) fn finish(&self) {
        let waiting: Vec<_> = {
            let mut queue = self.queue.lock();
            queue.close();
            queue.drain().collect()
        };
        waiting.into_iter().for_each(|waiting| waiting.refuse(AppendError::Stopping));
        let mut status = self.status.lock();
        status.is_connected = false;
        status.why = Some("it has been stopped".into());
    }

    async fn append(&self, content: Content, is_urgent: bool) -> Result<Came, AppendError> {
        let queued_at = self.clock.elapsed();
        let pushed = {
            let mut queue = self.queue.lock();
            let pushed = queue.push(content, queued_at, queued_at + self.timeout);
            if is_urgent {
                queue.hurry();
            }
            pushed
        };
        let result = match pushed {
            Ok(replied) => {
                self.wake.notify_one();
                // There is no reply if the thread has died, which may have appended it.
                replied.await.unwrap_or(Err(AppendError::Unavailable))
            }
            Err(why) => Err(why),
        };
        self.counters.count_append(AppendResult::of(&result));
        if result.is_ok() {
            self.counters.time_append(self.clock.elapsed() - queued_at);
        }
        result
    }
}

// ===== impl AppendResult =====

impl AppendResult {
    fn of<T>(result: &Result<T, AppendError>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(AppendError::Unavailable | AppendError::NotAppended) => Self::Unavailable,
            Err(AppendError::TooLarge { .. }) => Self::TooLarge,
            Err(AppendError::Stopping) => Self::Stopping,
        }
    }
}

// ===== impl AppendError =====

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable => f.write_str("the log cannot be reached, or is too slow"),
            Self::NotAppended => f.write_str("the log could not be reached in time"),
            Self::TooLarge { max } => write!(f, "a record of the log has at most {max} bytes"),
            Self::Stopping => f.write_str("the server is stopping"),
        }
    }
}

impl std::error::Error for AppendError {}
