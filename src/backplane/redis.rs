//! A log in a stream of Redis, whose entries have the ids `0-1`, `0-2` …: the second parts are the positions.
//!
//! The client library is given connections that are made here, and is used for its protocol alone: nothing connects
//! again by itself, and hides what was lost. Each opening has two, since one waits for entries.

mod appender;
mod connection;
mod entry;
mod info;
mod length;
mod log;
mod meter;
mod primary;
mod reader;
mod sentinel;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::appender::RedisAppender;
use self::log::Log;
use self::primary::Primary;
use self::reader::RedisReader;
use super::broker::{Broker, Down, Opened};
use crate::config::BackplaneConfig;
use crate::sync::{AtomicU64, Mutex};

/// A log in a stream of Redis, or of Valkey.
#[derive(Debug)]
pub(crate) struct Redis {
    config: BackplaneConfig,
    shared: Arc<Shared>,
}

/// What outlives a connection.
#[derive(Debug, Default)]
struct Shared {
    /// What of the server's settings the log mentions already.
    noted: Mutex<Vec<String>>,
    /// Up to this position entries are read one by one: together they were too large.
    one_by_one: AtomicU64,
}

// ===== impl Redis =====

impl Redis {
    pub(crate) fn new(config: &BackplaneConfig) -> Self {
        Self { config: config.clone(), shared: Arc::default() }
    }
}

impl Broker for Redis {
    type Reader = RedisReader;
    type Appender = RedisAppender;

    /// The stream itself is created by the first record.
    async fn open(&self) -> Result<Opened<RedisReader, RedisAppender>, Down> {
        let primary = Primary::connect(&self.config).await?;
        let reads = primary.connect_again(&self.config).await?;
        let log = Log::open(primary, &self.config, self.shared.clone()).await?;
        let bounds = log.bounds().await?;
        let appender = RedisAppender::new(&log);
        Ok(Opened { reader: RedisReader::new(log, reads), appender, bounds })
    }
}
