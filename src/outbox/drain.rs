//! The loop that takes rows out of the table and publishes them.

mod batch;
mod open;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::types::Type;

use self::batch::Batch;
use self::open::{HasWarned, get};
use super::connection::{Connector, Down, Session, in_words};
use super::delay::Snapshots;
use super::lock::NotHeld;
use super::warnings::Warnings;
use super::{Shared, Start, listen, sql};
use crate::backplane::Backplane;
use crate::backplane::outage::{Ended, Outage};
use crate::backplane::wait::{either, sleep};
use crate::config::OutboxConfig;
use crate::hub::Hub;
use crate::sync::Ordering;

/// Drains an outbox for as long as the server runs.
pub(super) struct Drainer {
    config: OutboxConfig,
    /// Where rows are taken out. Without a log it is the direct one, which can hold a lock.
    connector: Connector,
    direct: Connector,
    row_bytes: usize,
    hub: Hub,
    shared: Arc<Shared>,
    backplane: Option<Backplane>,
    report: watch::Sender<Start>,
}

/// What changes.
struct State {
    outage: Outage,
    warnings: Warnings,
    snapshots: Snapshots,
    /// The most rows of the next transaction.
    rows: i64,
    /// Rows that are taken out one by one: one of them cannot be read.
    alone: i64,
    /// When the rows that wait are counted again.
    count_at: Duration,
    /// When the lock was first found to be another server's.
    refused_since: Option<Duration>,
    /// The pause before the next attempt.
    pause: Duration,
    /// The last transaction with rows failed: only one that does not shows that it is over.
    has_failed: bool,
    has_warned: HasWarned,
}

/// What became of a look at the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    /// There may be more.
    Full,
    /// There was nothing more.
    Empty,
    /// There was nothing more, or what is left is too young.
    TooEarly,
    /// It was not looked: no snapshot is old enough.
    NoSnapshot,
    /// The log did not take the rows, and they are back in the table.
    Refused,
    /// One of them cannot be read, and they are back in the table.
    NoText,
}

/// The first pause before another attempt, and the longest one. Each is drawn between half of it and all.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long a server tries to become the only one that drains, at its start.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// How often the rows that wait are counted, and how many of them at most.
const COUNT_PERIOD: Duration = Duration::from_secs(10);
const COUNT_MAX: i64 = 100_000;

/// How often it is looked whether the log can be used again.
const LOG_PAUSE: Duration = Duration::from_millis(100);

// ===== impl Drainer =====

impl Drainer {
    pub(super) fn new(
        config: &OutboxConfig,
        row_bytes: usize,
        hub: Hub,
        shared: Arc<Shared>,
        backplane: Option<Backplane>,
        report: watch::Sender<Start>,
    ) -> Result<Self, String> {
        let config = config.clone();
        let direct_url = config.direct_url.as_ref().unwrap_or(&config.url);
        let url = if backplane.is_some() { &config.url } else { direct_url };
        // A record that is too large is appended again, as smaller ones.
        let publish = backplane.as_ref().map_or(Duration::ZERO, |log| 2 * log.timeout());
        let connector = Connector::new(url, &config, row_bytes, publish)?;
        let direct = Connector::new(direct_url, &config, row_bytes, publish)?;
        Ok(Self { config, connector, direct, row_bytes, hub, shared, backplane, report })
    }

    pub(super) async fn run(&self) {
        let mut state = State {
            outage: Outage::default(),
            warnings: Warnings::default(),
            snapshots: Snapshots::new(self.config.delay),
            rows: OutboxConfig::BATCH_ROWS,
            alone: 0,
            count_at: Duration::ZERO,
            refused_since: None,
            pause: BACKOFF.0,
            has_failed: false,
            has_warned: HasWarned::default(),
        };
        let drain = Box::pin(self.drain(&mut state));
        if self.config.listen {
            let listen = Box::pin(listen::listen(&self.direct, &self.shared));
            either(drain, listen).await;
        } else {
            drain.await;
        }
    }

    async fn drain(&self, state: &mut State) {
        while !self.is_stopping() {
            // What waits for a database that does not answer ends with the server, too.
            let stop = async {
                while !self.is_stopping() {
                    sleep(LOG_PAUSE).await;
                }
                Err(NotHeld::Down(Down("stopping".into())))
            };
            let down = match either(self.open(state), stop).await.into_inner() {
                Ok(session) => {
                    self.started(Start::Running);
                    let Err(down) = self.session(&session, state).await else { return };
                    self.shared.counters.is_connected.store(false, Ordering::Relaxed);
                    down
                }
                Err(_) if self.is_stopping() => return,
                Err(not_held) => self.judge(not_held, state),
            };
            if state.outage.go_on(&down.0, self.shared.clock.elapsed()) {
                let why = down.0;
                tracing::warn!(why, "the outbox is not drained; trying again");
            }
            self.sleep(state.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            state.pause = (state.pause * 2).min(BACKOFF.1);
        }
    }

    /// It drains. That it does is known when a transaction has done all that it is for: on a standby all goes well up
    /// to there.
    fn drained(&self, state: &mut State) {
        self.shared.counters.is_connected.store(true, Ordering::Relaxed);
        state.pause = BACKOFF.0;
        match state.outage.end() {
            Some(Ended::Start) => tracing::info!("the outbox is drained"),
            Some(Ended::Outage) => tracing::warn!("the outbox is drained"),
            None => {}
        }
    }

    /// What is wrong; decides whether this server may run.
    fn judge(&self, not_held: NotHeld, state: &mut State) -> Down {
        let now = self.shared.clock.elapsed();
        match not_held {
            NotHeld::Down(down) => {
                self.started(Start::Running);
                down
            }
            NotHeld::Pooled(why) => {
                self.started(Start::Refused(why.clone()));
                Down(why)
            }
            NotHeld::Elsewhere(why) => {
                let since = *state.refused_since.get_or_insert(now);
                if now >= since + START_PATIENCE {
                    self.started(Start::Refused(why.clone()));
                }
                Down(why)
            }
        }
    }

    /// Reports how it is with the start, once.
    fn started(&self, how: Start) {
        self.report.send_if_modified(|start| {
            let is_first = *start == Start::Trying;
            if is_first {
                *start = how;
            }
            is_first
        });
    }

    /// Drains through one session, until the server stops.
    async fn session(&self, session: &Session, state: &mut State) -> Result<(), Down> {
        let mut pause = BACKOFF.0;
        loop {
            if self.is_stopping() {
                return Ok(());
            }
            self.look_around(session, state).await?;
            if !self.log_is_open() {
                if !state.has_failed {
                    self.drained(state);
                }
                self.sleep(LOG_PAUSE).await;
                // It is noticed that the session has ended.
                session.query("SELECT 1", &[]).await?;
                continue;
            }
            let looked = self.look(session, state).await;
            state.has_failed = match looked {
                Ok(Looked::NoSnapshot) => state.has_failed,
                Ok(_) => false,
                Err(_) => true,
            };
            if !state.has_failed {
                self.drained(state);
            }
            match looked? {
                Looked::Full | Looked::NoText => pause = BACKOFF.0,
                looked @ (Looked::Empty | Looked::TooEarly | Looked::NoSnapshot) => {
                    pause = BACKOFF.0;
                    let interval = self.interval(looked != Looked::Empty);
                    either(self.shared.wake.notified(), sleep(interval)).await;
                }
                Looked::Refused => {
                    self.sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Counts what waits, and takes a snapshot, if it is time to.
    async fn look_around(&self, session: &Session, state: &mut State) -> Result<(), Down> {
        let now = self.shared.clock.elapsed();
        if now >= state.count_at {
            state.count_at = now + COUNT_PERIOD;
            session.begin().await?;
            let row = session.query_one(sql::COUNT, &[(&COUNT_MAX, Type::INT8)]).await?;
            session.run("COMMIT").await?;
            let rows: i64 = row.try_get(0).map_err(|why| in_words(&why))?;
            let oldest: f64 = row.try_get(1).map_err(|why| in_words(&why))?;
            let oldest = Duration::try_from_secs_f64(oldest).unwrap_or_default();
            self.shared.counters.set_waiting(u64::try_from(rows).unwrap_or_default(), oldest);
        }
        // The time before the request: the snapshot is not older than that.
        let now = self.shared.clock.elapsed();
        if state.snapshots.is_due(now) {
            let snapshot = get::<String>(session, sql::SNAPSHOT).await?;
            state.snapshots.add(snapshot, self.shared.clock.elapsed().max(now));
        }
        Ok(())
    }

    /// Publishes and deletes rows, if there are any.
    async fn look(&self, session: &Session, state: &mut State) -> Result<Looked, Down> {
        let now = self.shared.clock.elapsed();
        let snapshot = match state.snapshots.are_needed() {
            false => None,
            true => match state.snapshots.old(now) {
                Some(snapshot) => Some(snapshot.to_owned()),
                None => return Ok(Looked::NoSnapshot),
            },
        };
        let rows = if state.alone > 0 { 1 } else { state.rows };
        // After one that was full.
        let has_rows = rows == 1 || rows > OutboxConfig::BATCH_ROWS;
        let batch = Batch { drainer: self, session, rows, has_rows };
        let looked = batch.run(snapshot.as_deref(), &mut state.warnings).await?;
        state.rows = match looked {
            Looked::Full if rows > 1 => (rows * 2).min(OutboxConfig::BATCH_ROWS_MAX),
            _ => OutboxConfig::BATCH_ROWS,
        };
        state.alone = match looked {
            Looked::Full => (state.alone - 1).max(0),
            Looked::NoText => rows,
            _ => 0,
        };
        Ok(looked)
    }

    /// The pause after which the table is looked at again. It is short where no notification comes: while the session
    /// that listens is lost, and when a row becomes old enough.
    fn interval(&self, has_young: bool) -> Duration {
        let OutboxConfig { interval, listen, delay, .. } = self.config;
        let is_unnotified = listen && !self.shared.is_listening.load(Ordering::Relaxed);
        match (has_young, is_unnotified) {
            (true, _) => interval.min(OutboxConfig::INTERVAL.max(Snapshots::pause(delay))),
            (false, true) => interval.min(OutboxConfig::INTERVAL),
            (false, false) => interval,
        }
    }

    /// A batch that waits for a log which cannot be reached would hold its transaction open for nothing.
    fn log_is_open(&self) -> bool {
        self.backplane.as_ref().is_none_or(|backplane| backplane.state().is_connected)
    }

    fn is_stopping(&self) -> bool {
        self.shared.is_stopping.load(Ordering::Relaxed)
    }

    /// Sleeps, but not while the server stops.
    async fn sleep(&self, time: Duration) {
        let stop = async {
            while !self.is_stopping() {
                sleep(LOG_PAUSE).await;
            }
        };
        either(sleep(time), stop).await;
    }
}
