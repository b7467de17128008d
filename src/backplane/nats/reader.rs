//! Reads a log over one connection.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Log;
use super::connection::within;
use super::pump::{Batch, Pump};
use crate::backplane::broker::{Bounds, Down, Entry, Reader};

/// A reader. Its records come from a task, so that a read that is given up loses none.
#[derive(Debug)]
pub(crate) struct NatsReader {
    log: Log,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    /// The position of the next record.
    next: u64,
    batches: mpsc::Receiver<Batch>,
    /// Aborted when this is dropped.
    _task: JoinSet<()>,
}

/// A read without a record returns after this time.
const QUIET: Duration = Duration::from_secs(2);

/// Batches that wait to be read, each of them bounded by [`Pump`].
const BATCHES_MAX: usize = 2;

// ===== impl NatsReader =====

impl NatsReader {
    pub(super) fn new(log: Log) -> Self {
        Self { log, running: None }
    }
}

impl Reader for NatsReader {
    async fn bounds(&mut self) -> Result<Bounds, Down> {
        self.log.bounds().await
    }

    async fn read(&mut self, from: u64) -> Result<Vec<Entry>, Down> {
        self.running.take_if(|running| running.next != from);
        let running = self.running.get_or_insert_with(|| Running::start(&self.log, from));
        let Some(batch) = within(QUIET, running.batches.recv()).await else {
            return Ok(Vec::new());
        };
        let batch = batch.unwrap_or_else(|| Err(Down("the log's reader has ended".into())));
        match &batch {
            Ok(entries) => running.next = entries.last().map_or(from, |last| last.position + 1),
            Err(_) => self.running = None,
        }
        batch
    }
}

// ===== impl Running =====

impl Running {
    fn start(log: &Log, from: u64) -> Self {
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let mut task = JoinSet::new();
        task.spawn(Pump::new(log.clone(), from, sender).run());
        Self { next: from, batches, _task: task }
    }
}
