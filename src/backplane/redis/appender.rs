//! Appends to a log.

use redis::cmd;

use super::connection::Failed;
use super::entry::{Id, text};
use super::log::Log;
use crate::backplane::broker::{Appender, NotStored, Record, VERSION};

/// Appends over the connection for requests.
#[derive(Clone, Debug)]
pub(crate) struct RedisAppender {
    log: Log,
}

// ===== impl RedisAppender =====

impl RedisAppender {
    pub(super) fn new(log: &Log) -> Self {
        Self { log: log.clone() }
    }
}

impl Appender for RedisAppender {
    async fn append(&self, record: Record) -> Result<u64, NotStored> {
        let log = &self.log;
        let mut command = cmd("XADD");
        command.arg(&*log.key);
        if let Some(oldest) = log.length.lock().oldest_kept() {
            command.arg("MINID").arg("~").arg(format!("0-{oldest}"));
        }
        command.arg("0-*").arg("v").arg(VERSION).arg("n").arg(format!("{:016x}", record.tag));
        command.arg("k").arg(record.kind.name()).arg("d").arg(&record.payload[..]);
        let answer = match log.connection.request(&command, log.timeout).await {
            Err(Failed::Refused(why)) if why.contains("equal or smaller") => {
                return Err(NotStored(log.poisoned("with a time")));
            }
            answer => answer.map_err(Failed::not_stored)?,
        };
        match text(&answer).and_then(Id::parse) {
            Some(Id::Position(position)) => Ok(position),
            _ => Err(NotStored("the broker's answer is no position".into())),
        }
    }
}
