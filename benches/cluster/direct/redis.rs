//! Redis Streams: `XADD`, and an `XREAD` that waits, each on a connection of its own.

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Value, cmd};

use super::LOG_BYTES;
use crate::Outcome;

/// The way to one log.
pub(crate) struct Direct {
    client: MultiplexedConnection,
    key: String,
}

pub(crate) struct Reader {
    client: MultiplexedConnection,
    key: String,
    /// The id of the last entry that was read.
    last: String,
    /// Entries of the last reply that were not returned yet.
    left: usize,
}

/// Entries of a reply.
const COUNT: usize = 512;
/// After this time without an entry there is a reply too, in milliseconds.
const BLOCK: usize = 2_000;

// ===== impl Direct =====

impl Direct {
    pub(crate) async fn open(url: &str, log: &str) -> Outcome<Self> {
        // A read waits for longer than the default.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let client = Client::open(url)?;
        let client = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Self { client, key: format!("{log}:log") })
    }

    pub(crate) async fn read(mut self) -> Outcome<Reader> {
        let mut newest = cmd("XREVRANGE");
        newest.arg(&self.key).arg("+").arg("-").arg("COUNT").arg(1);
        let last = match newest.query_async(&mut self.client).await? {
            Value::Array(entries) if entries.is_empty() => "0-0".into(),
            Value::Array(entries) => id(entries.last())?,
            other => return Err(format!("XREVRANGE: {other:?}").into()),
        };
        Ok(Reader { client: self.client, key: self.key, last, left: 0 })
    }

    pub(crate) async fn append(&self, payload: Bytes) -> Outcome<()> {
        let kept = (LOG_BYTES / payload.len().max(1)).max(1);
        let mut append = cmd("XADD");
        append.arg(&self.key).arg("MAXLEN").arg("~").arg(kept).arg("0-*").arg("v").arg(1);
        append.arg("n").arg(format!("{:016x}", fastrand::u64(1..))).arg("k").arg("lines");
        append.arg("d").arg(&payload[..]);
        match append.query_async(&mut self.client.clone()).await? {
            Value::BulkString(_) => Ok(()),
            other => Err(format!("not appended: {other:?}").into()),
        }
    }
}

// ===== impl Reader =====

impl Reader {
    pub(crate) async fn next(&mut self) -> Outcome<()> {
        while self.left == 0 {
            let mut read = cmd("XREAD");
            read.arg("COUNT").arg(COUNT).arg("BLOCK").arg(BLOCK);
            read.arg("STREAMS").arg(&self.key).arg(&self.last);
            // Nil if there is none, or streams, each with its name and its entries.
            let Value::Array(streams) = read.query_async(&mut self.client).await? else { continue };
            let [Value::Array(stream)] = &streams[..] else { return Err("no stream".into()) };
            let Some(Value::Array(entries)) = stream.last() else {
                return Err("no entries".into());
            };
            self.last = id(entries.last())?;
            self.left = entries.len();
        }
        self.left -= 1;
        Ok(())
    }
}

/// That of an entry.
fn id(entry: Option<&Value>) -> Outcome<String> {
    match entry {
        Some(Value::Array(entry)) => match entry.first() {
            Some(Value::BulkString(id)) => Ok(String::from_utf8(id.clone())?),
            other => Err(format!("no id: {other:?}").into()),
        },
        other => Err(format!("no entry: {other:?}").into()),
    }
}
