//! The stream that a log is, as its readers and appenders see it.

use std::sync::Arc;
use std::time::Duration;

use redis::{Value, cmd};
use tracing::warn;

use super::Shared;
use super::connection::{CONNECT_MAX, Connection, Failed};
use super::entry::{Id, text};
use super::info::Info;
use super::length::Length;
use super::primary::Primary;
use crate::backplane::broker::{Bounds, Down};
use crate::config::{BackplaneConfig, RECORD_BYTES_MAX};
use crate::sync::Mutex;

/// A stream, over the connection for requests.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) connection: Connection,
    pub(super) key: Arc<str>,
    pub(super) timeout: Duration,
    pub(super) length: Arc<Mutex<Length>>,
    config: Arc<BackplaneConfig>,
    identity: Arc<str>,
    pub(super) shared: Arc<Shared>,
}

/// What `XINFO STREAM` says.
struct Described {
    oldest: u64,
    newest: u64,
    entries: u64,
}

// ===== impl Log =====

impl Log {
    pub(super) async fn open(
        primary: Primary,
        config: &BackplaneConfig,
        shared: Arc<Shared>,
    ) -> Result<Self, Down> {
        let Primary { connection, info, .. } = primary;
        let bytes_max = config.tail_bytes.saturating_mul(4);
        note(&info, bytes_max, &shared);
        let log = Self {
            connection,
            key: format!("{}:log", config.log).into(),
            timeout: config.timeout.max(CONNECT_MAX),
            length: Arc::new(Mutex::new(Length::new(bytes_max))),
            config: Arc::new(config.clone()),
            identity: info.identity().unwrap_or_default().into(),
            shared,
        };
        let described = log.describe().await?;
        let bytes = log.memory().await?;
        let Described { oldest, newest, entries } = described;
        log.length.lock().opened(oldest, newest, entries, bytes);
        Ok(log)
    }

    /// What the log has now, if its server can still be trusted.
    pub(super) async fn bounds(&self) -> Result<Bounds, Down> {
        let info = Info::of(&self.connection, &self.config).await?;
        info.check().map_err(Down)?;
        if info.identity().as_deref() != Some(&self.identity) {
            return Err(Down("the broker has another history than before".into()));
        }
        let Described { oldest, newest, .. } = self.describe().await?;
        let identity = self.identity.to_string();
        // What a process has taken it has in memory.
        let may_lose_last = false;
        Ok(Bounds { oldest, newest, identity, may_lose_last, payload_max: RECORD_BYTES_MAX })
    }

    /// Why every record is refused after an entry with this id.
    pub(super) fn poisoned(&self, id: &str) -> String {
        let key = &self.key;
        format!(
            "{key} has an entry {id:.48} that was added with an id of another form (XADD … *): every later append is \
             refused. DEL {key}: all clients re-read once"
        )
    }

    /// Why the log cannot go on after an entry with this id.
    pub(super) fn unfit(&self, id: &str) -> String {
        match Id::parse(id) {
            Some(Id::Foreign) => self.poisoned(id),
            _ => format!("the position {id:.48} in {} is no count of records", self.key),
        }
    }

    async fn describe(&self) -> Result<Described, Down> {
        let mut command = cmd("XINFO");
        command.arg("STREAM").arg(&*self.key);
        let key = &self.key;
        match self.connection.request(&command, self.timeout).await {
            Err(Failed::Refused(why)) if why.contains("no such key") => {
                Ok(Described { oldest: 1, newest: 0, entries: 0 })
            }
            Err(Failed::Refused(why)) if why.starts_with("WRONGTYPE") => Err(Down(format!(
                "key {key} cannot be the log: it is no stream; delete it, or take another name"
            ))),
            // The answer has the first entry, and the last one.
            Err(Failed::Lost(_)) if self.connection.is_exhausted() => Err(Down(format!(
                "the first or the last entry in {key} is larger than 32 MiB, or has too many fields, and cannot be \
                 read. XDEL it, or DEL {key}: all clients re-read once"
            ))),
            answer => self.described(&answer.map_err(|why| why.down("XINFO STREAM"))?),
        }
    }

    fn described(&self, answer: &Value) -> Result<Described, Down> {
        let unreadable = || Down("Redis gives an unreadable answer to XINFO STREAM".into());
        let Value::Array(fields) = answer else { return Err(unreadable()) };
        let field = |name: &str| {
            let mut pairs = fields.chunks_exact(2);
            pairs.find(|pair| text(&pair[0]) == Some(name)).map(|pair| &pair[1])
        };
        let position = |id: &str| match Id::parse(id) {
            Some(Id::Position(position)) => Ok(position),
            _ => Err(Down(self.unfit(id))),
        };
        let Some(Value::Int(entries)) = field("length") else { return Err(unreadable()) };
        let entries = u64::try_from(*entries).map_err(|_| unreadable())?;
        let newest = match field("last-generated-id").and_then(text).ok_or_else(unreadable)? {
            "0-0" => 0,
            id => position(id)?,
        };
        let oldest = match field("first-entry") {
            Some(Value::Array(first)) => {
                position(first.first().and_then(text).ok_or_else(unreadable)?)?
            }
            _ => newest + 1,
        };
        if oldest > newest + 1 || (entries == 0) != (oldest == newest + 1) {
            return Err(Down(format!("the first and the last position in {} disagree", self.key)));
        }
        Ok(Described { oldest, newest, entries })
    }

    /// Bytes of the stream.
    async fn memory(&self) -> Result<u64, Down> {
        let mut command = cmd("MEMORY");
        command.arg("USAGE").arg(&*self.key);
        let answer = self.connection.request(&command, self.timeout).await;
        match answer.map_err(|why| why.down("MEMORY USAGE"))? {
            Value::Nil => Ok(0),
            Value::Int(bytes) => Ok(bytes.try_into().unwrap_or(0)),
            _ => Err(Down("Redis gives an unreadable answer to MEMORY USAGE".into())),
        }
    }
}

/// Mentions what is not as it should be with a server, and breaks no promise.
fn note(info: &Info, bytes_max: usize, shared: &Shared) {
    let notes = notes(info, bytes_max);
    let mut noted = shared.noted.lock();
    if *noted != notes {
        notes.iter().for_each(|note| warn!("Redis is used as it is: {note}"));
    }
    *noted = notes;
}

fn notes(info: &Info, bytes_max: usize) -> Vec<String> {
    let (max, mut notes) = (info.memory_max(), Vec::new());
    if (1..bytes_max).contains(&max) {
        notes.push(format!(
            "maxmemory is {max} bytes, and the log keeps {bytes_max}: once the memory is full, every publish is refused"
        ));
    }
    if !info.has_file() {
        notes.push(
            "it has no append-only file (appendonly no): when it starts again, the log is as old as its last \
             snapshot, or empty"
                .into(),
        );
    }
    notes
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn what_is_not_as_it_should_be_is_mentioned() {
        let notes = |text: &str| notes(&Info::parse(text), 1000).join(" ");
        assert_eq!(notes("maxmemory:0\r\naof_enabled:1\r\n"), "");
        assert_eq!(notes("maxmemory:1000\r\naof_enabled:1\r\n"), "");
        assert!(notes("maxmemory:999\r\naof_enabled:1\r\n").starts_with("maxmemory is 999 bytes"));
        assert!(notes("maxmemory:0\r\naof_enabled:0\r\n").contains("(appendonly no)"));
    }
}
