//! Reads a log over a connection of its own, on which `XREAD` waits.

use std::pin::Pin;
use std::time::Duration;

use redis::{Cmd, Value, cmd};

use super::connection::{Connection, Failed};
use super::entry::{Unreadable, entries};
use super::log::Log;
use crate::backplane::broker::{Bounds, Down, Entry, Reader};
use crate::sync::Ordering;

/// A reader.
pub(crate) struct RedisReader {
    log: Log,
    connection: Connection,
    /// An `XREAD` that has no reply yet. A read that is given up leaves it to the next one.
    asked: Option<Asked>,
    count: Count,
}

struct Asked {
    from: u64,
    count: usize,
    reply: Pin<Box<dyn Future<Output = Result<Value, Failed>> + Send>>,
}

/// How many entries a read asks for: as many as have [`READ_BYTES`] if they are as large as the last ones.
struct Count {
    next: usize,
    /// Of the largest entry lately, in bytes.
    largest: usize,
}

/// An `XREAD` without an entry returns after this time.
const QUIET: Duration = Duration::from_secs(2);

/// About so many bytes are read at once.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// Entries that are read at once.
const ENTRIES_MAX: usize = 512;

/// By which a read may have more entries than the one before.
const GROWTH: usize = 4;

// ===== impl RedisReader =====

impl RedisReader {
    pub(super) fn new(log: Log, connection: Connection) -> Self {
        Self { log, connection, asked: None, count: Count { next: 1, largest: 0 } }
    }

    fn ask(&self, from: u64) -> Asked {
        let is_careful = from <= self.log.shared.one_by_one.load(Ordering::Relaxed);
        let count = if is_careful { 1 } else { self.count.next };
        let command = xread(&self.log.key, from, count);
        let (connection, bound) = (self.connection.clone(), QUIET + self.log.timeout);
        let reply = Box::pin(async move { connection.request(&command, bound).await });
        Asked { from, count, reply }
    }

    /// There is no reply. If it was too large, the next connection reads its entries one by one.
    fn fail(&self, from: u64, count: usize, why: Failed) -> Down {
        let key = &self.log.key;
        if !self.connection.is_exhausted() {
            return why.down("XREAD");
        }
        if count > 1 {
            let last = from.saturating_add(count as u64);
            self.log.shared.one_by_one.fetch_max(last, Ordering::Relaxed);
            return why.down("XREAD");
        }
        Down(format!(
            "entry 0-{from} in {key} is larger than 32 MiB, and cannot be read. XDEL {key} 0-{from}: all clients \
             re-read once"
        ))
    }
}

impl Reader for RedisReader {
    async fn bounds(&mut self) -> Result<Bounds, Down> {
        self.log.bounds().await
    }

    async fn read(&mut self, from: u64) -> Result<Vec<Entry>, Down> {
        let asked = match self.asked.take_if(|asked| asked.from == from) {
            Some(asked) => asked,
            None => self.ask(from),
        };
        let count = asked.count;
        let reply = self.asked.insert(asked).reply.as_mut().await;
        self.asked = None;
        let read = entries(reply.map_err(|why| self.fail(from, count, why))?);
        let read = read.map_err(|why| match why {
            Unreadable::Id(id) => Down(self.log.unfit(&id)),
            Unreadable::Reply => Down("Redis gives an unreadable answer to XREAD".into()),
        })?;
        if read.is_empty() {
            // It waits for ever where the stream has been deleted, and begun anew.
            let Bounds { newest, .. } = self.log.bounds().await?;
            let last = from.saturating_sub(1);
            if newest < last {
                return Err(Down(format!(
                    "the log ends with record {newest}, and record {last} was read"
                )));
            }
        }
        self.count.adapt(&read);
        let mut length = self.log.length.lock();
        read.iter().for_each(|entry| length.read(entry.position, entry.payload.len()));
        drop(length);
        Ok(read)
    }
}

fn xread(key: &str, from: u64, count: usize) -> Cmd {
    let mut command = cmd("XREAD");
    command.arg("COUNT").arg(count).arg("BLOCK").arg(QUIET.as_millis() as u64);
    command.arg("STREAMS").arg(key).arg(format!("0-{}", from.saturating_sub(1)));
    command
}

// ===== impl Count =====

impl Count {
    fn adapt(&mut self, read: &[Entry]) {
        let largest = read.iter().map(|entry| entry.payload.len()).max().unwrap_or(0);
        self.largest = largest.max(self.largest / 2).max(1);
        let more = self.next.saturating_mul(GROWTH).min(ENTRIES_MAX);
        self.next = (READ_BYTES / self.largest).clamp(1, more);
    }
}
