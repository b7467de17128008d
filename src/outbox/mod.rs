//! Publishes that happen when a transaction is committed: an application writes rows into a table of its PostgreSQL, in
//! its own transactions, and this publishes and deletes them.
//!
//! ```text
//! COMMIT of the application ─► nudged_outbox ─► BEGIN; DELETE … RETURNING ─► publish: hub, or log ─► COMMIT
//! ```
//!
//! A row is published at least once: a crash between the publish and the COMMIT publishes it again. Any number of servers
//! that share a log drain the same table, each other rows of it. A server without a log is the only one, which a lock
//! ensures, and with which servers with a log do not drain. Events of a topic keep the order of their rows, which
//! invalidations do not need.

mod connection;
mod delay;
mod dial;
mod drain;
mod listen;
mod lock;
mod pooled;
mod rows;
mod sql;
mod tls;
mod warnings;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::{Notify, watch};

pub use self::sql::sql;
pub(crate) use self::tls::authorities;

use self::drain::Drainer;
use crate::backplane::Backplane;
use crate::config::OutboxConfig;
use crate::http::OutboxCounters;
use crate::hub::Hub;
use crate::sync::{AtomicBool, Ordering};
use crate::time::Clock;

/// A handle to what drains the outbox. Dropping it stops that.
#[derive(Debug)]
pub(crate) struct Outbox {
    shared: Arc<Shared>,
    start: watch::Receiver<Start>,
    ended: watch::Receiver<bool>,
}

/// What the handle and the thread share.
#[derive(Debug)]
struct Shared {
    counters: Arc<OutboxCounters>,
    clock: Clock,
    /// There may be rows, or it is to stop.
    wake: Arc<Notify>,
    is_stopping: AtomicBool,
    is_listening: AtomicBool,
}

/// How it is with the start.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Start {
    /// It is not known yet.
    Trying,
    /// It drains, or tries to for as long as it runs.
    Running,
    /// This server must not run, for this reason.
    Refused(String),
}

// ===== impl Outbox =====

impl Outbox {
    /// Drains the outbox on a thread of its own, to the log if there is one. It tries again for as long as the database is
    /// down. A row may have `row_bytes`. Counts in `counters`.
    ///
    /// # Errors
    /// The thread or its runtime could not be created, or the certificates of the authorities could not be read.
    pub(crate) fn start(
        config: &OutboxConfig,
        row_bytes: usize,
        hub: Hub,
        clock: Clock,
        backplane: Option<Backplane>,
        counters: Arc<OutboxCounters>,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared {
            counters,
            clock,
            wake: Arc::new(Notify::new()),
            is_stopping: AtomicBool::new(false),
            is_listening: AtomicBool::new(false),
        });
        let (report, start) = watch::channel(Start::Trying);
        let (end, ended) = watch::channel(false);
        let drainer = Drainer::new(config, row_bytes, hub, shared.clone(), backplane, report)
            .map_err(io::Error::other)?;
        let finished = shared.clone();
        let work = move || {
            let run = catch_unwind(AssertUnwindSafe(|| runtime.block_on(drainer.run())));
            if run.is_err() {
                tracing::error!("the thread that drains the outbox has died");
            }
            finished.counters.is_connected.store(false, Ordering::Relaxed);
            // To drop it would wait for a name lookup, which a silent name server delays for as long as it likes.
            runtime.shutdown_background();
            _ = end.send(true);
        };
        thread::Builder::new().name("nudged-outbox".into()).spawn(work)?;
        Ok(Self { shared, start, ended })
    }

    /// Waits until it drains, or it is known that the database cannot be reached for now.
    ///
    /// # Errors
    /// Another server, without a log as this one, drains the outbox.
    pub(crate) async fn started(&self) -> Result<(), String> {
        let mut start = self.start.clone();
        match start.wait_for(|start| *start != Start::Trying).await.as_deref() {
            Ok(Start::Refused(why)) => Err(why.clone()),
            _ => Ok(()),
        }
    }

    /// Ends it once the rows that are being published have been.
    pub(crate) fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }

    /// Waits until its thread has ended, which it does before [`Self::stop`] only by a defect.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.clone();
        _ = ended.wait_for(|ended| *ended).await;
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.stop();
    }
}
