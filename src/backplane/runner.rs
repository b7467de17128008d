//! The thread that follows the log: opens it again whenever it is in doubt, applies what it reads, and appends what waits.

mod actions;

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{Notify, watch};

use super::attempts::Attempts;
use super::broker::{Appender, Broker, Down, Entry, NotStored, Opened, Reader, Record};
use super::follower::{Follower, MEASURED, Next, Reopen, Rules, new_tag};
use super::handle::Shared;
use super::payload::limits_hash;
use super::queue::{Taken, Waiting};
use super::wait::{Either, either, sleep, within};
use super::{AppendError, warnings::Warnings};
use crate::config::BackplaneConfig;
use crate::hub::Hub;
use crate::metrics;

/// Follows the log, until the queue is closed, and nothing waits any more, nor a barrier for a loss.
pub(super) struct Runner<B> {
    broker: B,
    hub: Hub,
    shared: Arc<Shared>,
    linger: Duration,
    core: RefCell<Core>,
    /// The follower wants the log opened again.
    in_doubt: Notify,
    /// Records have been read.
    has_read: Notify,
}

/// What changes. Nothing of it is borrowed while anything is awaited.
struct Core {
    follower: Follower,
    attempts: Attempts,
    /// What the follower appends, before everything else.
    urgent: Vec<Record>,
    identity: String,
    reopen: Option<Reopen>,
    /// The last connection ended with a record that was not stored.
    was_refused: bool,
    /// The queue is closed, and a barrier that is due is waited for until then.
    ends_at: Option<Duration>,
    warnings: Warnings,
}

/// How often time is looked at.
const TICK: Duration = Duration::from_millis(100);

/// How often a log that is shorter than it was is asked again.
const BOUNDS_PAUSE: Duration = Duration::from_millis(100);

/// How long to open the log may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server that stops goes on for a barrier that no other server may know to be due: what it takes to open
/// the log, to be sure of a loss, and to append.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Characters of a reason that are shown: it may be the broker's own text.
const WHY_MAX: usize = 300;

/// The first pause before it is opened again, and the longest one. Each is drawn between half of it and all.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Starts the thread. `end` is true once it has ended.
pub(super) fn start(
    broker: impl Broker,
    config: &BackplaneConfig,
    hub: Hub,
    shared: Arc<Shared>,
    end: watch::Sender<bool>,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let config = config.clone();
    let work = move || {
        let runner = Runner::new(broker, &config, hub, shared.clone());
        let run = catch_unwind(AssertUnwindSafe(|| runtime.block_on(runner.run())));
        if run.is_err() {
            tracing::error!("the thread that follows the log has died");
        }
        shared.finish();
        // To drop it would wait for a name lookup, which a silent name server delays for as long as it likes.
        runtime.shutdown_background();
        _ = end.send(true);
    };
    thread::Builder::new().name("nudged-backplane".into()).spawn(work)?;
    Ok(())
}

// ===== impl Runner =====

impl<B: Broker> Runner<B> {
    pub(super) fn new(broker: B, config: &BackplaneConfig, hub: Hub, shared: Arc<Shared>) -> Self {
        let rules = Rules {
            node: new_tag(),
            limits: limits_hash(hub.config()),
            tail_bytes: config.tail_bytes,
            measured: MEASURED,
        };
        let core = Core {
            follower: Follower::new(rules),
            attempts: Attempts::default(),
            urgent: Vec::new(),
            identity: String::new(),
            reopen: None,
            was_refused: false,
            ends_at: None,
            warnings: Warnings::default(),
        };
        let (linger, core) = (config.linger, RefCell::new(core));
        let (in_doubt, has_read) = (Notify::new(), Notify::new());
        Self { broker, hub, shared, linger, core, in_doubt, has_read }
    }

    pub(super) async fn run(&self) {
        either(self.connections(), self.ticks()).await;
    }

    /// Opens the log again and again.
    async fn connections(&self) {
        let mut pause = BACKOFF.0;
        loop {
            let head = self.hub.applied().map_or(0, |mark| mark.position);
            let why = match within(OPEN_TIMEOUT, self.broker.open()).await {
                Some(Ok(opened)) => {
                    metrics::add(&self.shared.counters.opens, 1);
                    self.connection(opened).await
                }
                Some(Err(down)) => down.0,
                None => "the broker does not respond".into(),
            };
            if self.lose(&why, head) {
                pause = BACKOFF.0;
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Follows the log through one connection. Returns why it is of no use any more.
    async fn connection(&self, opened: Opened<B::Reader, B::Appender>) -> String {
        let Opened { reader, appender, bounds } = opened;
        self.shared.queue.lock().set_payload_max(bounds.payload_max);
        {
            let mut core = self.core.borrow_mut();
            core.identity.clone_from(&bounds.identity);
            core.urgent.clear();
            core.reopen = None;
            core.was_refused = false;
            core.attempts.reopened();
            core.follower.opened(bounds, self.shared.clock.now());
            self.perform(&mut core);
        }
        let doubt = async {
            while self.core.borrow().reopen.is_none() {
                self.in_doubt.notified().await;
            }
        };
        let work = either(self.reads(reader), self.appends(appender));
        match either(work, doubt).await {
            Either::Left(why) => why.into_inner(),
            Either::Right(()) => {
                let reason = self.core.borrow().reopen;
                reason.map_or_else(String::new, |reason| reason.to_string())
            }
        }
    }

    /// Reads and applies. Returns why it cannot go on.
    async fn reads(&self, mut reader: B::Reader) -> String {
        loop {
            let next = self.core.borrow().follower.next();
            let read = match next {
                Next::Open => return std::future::pending().await,
                Next::Bounds => {
                    sleep(BOUNDS_PAUSE).await;
                    reader.bounds().await.map(|bounds| {
                        let mut core = self.core.borrow_mut();
                        core.follower.bounds(bounds, self.shared.clock.now());
                        self.perform(&mut core);
                    })
                }
                Next::Read(from) => reader.read(from).await.map(|entries| self.take(entries)),
            };
            if let Err(Down(why)) = read {
                return why;
            }
            // There may be many more, and others have something to do too.
            tokio::task::yield_now().await;
        }
    }

    fn take(&self, entries: Vec<Entry>) {
        let mut core = self.core.borrow_mut();
        let head = || self.hub.applied().map_or(0, |mark| mark.position);
        let kinds = entries.iter().filter_map(|entry| Some((entry.position, entry.kind?)));
        let (kinds, before) = (kinds.collect::<Vec<_>>(), head());
        core.follower.read(entries, self.shared.clock.now());
        self.perform(&mut core);
        drop(core);
        // Others were read to learn how large they are, or come again.
        let applied = before + 1..=head();
        for (_, kind) in kinds.into_iter().filter(|(position, _)| applied.contains(position)) {
            self.shared.counters.count_record(kind);
        }
        self.has_read.notify_one();
    }

    /// Appends what waits, one record after the other. Returns why it cannot go on.
    async fn appends(&self, appender: B::Appender) -> String {
        loop {
            let record = self.next_record().await;
            let tag = record.tag;
            self.core.borrow_mut().follower.appending(tag, self.shared.clock.now());
            // That the record is read is the better acknowledgement, if the other one is late or lost.
            match either(appender.append(record), self.comes_back(tag)).await {
                Either::Right(()) => {}
                Either::Left(Ok(position)) => {
                    let mut core = self.core.borrow_mut();
                    core.follower.appended(tag, position);
                    core.follower.tick(self.shared.clock.now());
                    self.perform(&mut core);
                }
                Either::Left(Err(NotStored(why))) => {
                    self.core.borrow_mut().was_refused = true;
                    return why;
                }
            }
        }
    }

    async fn comes_back(&self, tag: u64) {
        while self.core.borrow().follower.awaits(tag) {
            self.has_read.notified().await;
        }
    }

    /// Waits for something to append.
    async fn next_record(&self) -> Record {
        loop {
            let (taken, lingers) = {
                let mut core = self.core.borrow_mut();
                if !core.urgent.is_empty() {
                    return core.urgent.remove(0);
                }
                // In doubt nothing is appended: it waits.
                let mut queue = self.shared.queue.lock();
                let since = queue.lingers_since().filter(|_| core.follower.is_current());
                let now = self.shared.clock.elapsed();
                let lingers = since.map(|since| (since + self.linger).saturating_sub(now));
                (lingers.filter(Duration::is_zero).map(|_| queue.take()), lingers)
            };
            // Publishers wait for the queue's lock, so a record is made without it.
            if let Some(record) = taken.and_then(|taken| self.to_record(taken)) {
                return record;
            }
            match lingers {
                Some(lingers) => _ = either(sleep(lingers), self.shared.wake.notified()).await,
                None => self.shared.wake.notified().await,
            }
        }
    }

    /// Makes a record of what was taken out of the queue.
    fn to_record(&self, taken: Taken) -> Option<Record> {
        let group = taken.into_group()?;
        let mut core = self.core.borrow_mut();
        let (kind, payload) = group.to_record(&core.identity);
        let tag = new_tag();
        core.attempts.add(tag, group);
        Some(Record { tag, kind, payload })
    }

    /// Looks at time. Returns once the queue is closed, and nothing waits any more, nor a barrier for a loss.
    async fn ticks(&self) {
        loop {
            {
                let mut core = self.core.borrow_mut();
                core.follower.tick(self.shared.clock.now());
                self.perform(&mut core);
                let now = self.shared.clock.elapsed();
                let mut queue = self.shared.queue.lock();
                let expired = queue.expire(now);
                let (is_closed, is_empty) = (queue.is_closed(), queue.is_empty());
                drop(queue);
                refuse(expired.into_iter().chain(core.attempts.expire(now)));
                core.warnings.tick(now);
                if is_closed {
                    let ends_at = *core.ends_at.get_or_insert(now + STOP_MAX);
                    let owes = core.follower.owes_barrier() && now < ends_at;
                    if is_empty && core.attempts.is_empty() && !owes {
                        return;
                    }
                }
            }
            sleep(TICK).await;
        }
    }

    /// The connection is of no use any more. Returns whether it has been.
    fn lose(&self, why: &str, head: u64) -> bool {
        let why: String = why.chars().take(WHY_MAX).collect();
        let mut core = self.core.borrow_mut();
        let was_of_use = core.follower.is_answered()
            || !core.was_refused && self.hub.applied().is_some_and(|mark| mark.position > head);
        core.follower.closed();
        let mut status = self.shared.status.lock();
        status.is_connected = false;
        status.why = Some(why.clone());
        drop(status);
        if core.warnings.outage.go_on(&why, self.shared.clock.elapsed()) {
            tracing::warn!(why, "the log is not followed; trying again");
        }
        was_of_use
    }
}

/// Responds that nothing came back in time.
fn refuse(waiting: impl Iterator<Item = Waiting>) {
    waiting.for_each(|waiting| waiting.refuse(AppendError::NotAppended));
}
