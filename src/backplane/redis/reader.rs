//! Reads a log over a connection of its own, on which `XREAD` waits.

use std::pin::Pin;
use std::time::Duration;

use redis::{Cmd, Value, cmd};
use tokio::time::Instant;

use super::connection::{Connection, Failed};
use super::entry::{Unreadable, entries};
use super::log::Log;
use super::meter::REPLY_BYTES_MAX;
use crate::backplane::broker::{Bounds, Down, Entry, Reader};
use crate::config::RECORD_BYTES_MAX;
use crate::sync::Ordering;

/// A reader.
pub(crate) struct RedisReader {
    log: Log,
    connection: Connection,
    /// An `XREAD` that has no reply yet. A read that is given up leaves it to the next one.
    asked: Option<Asked>,
    count: Count,
    anchor: Option<Anchor>,
    /// When the log and its server were looked at last.
    looked: Instant,
}

/// A record that was read. `XREAD` does not notice that the log has been deleted: once another one of the same name is
/// longer than what was read, its records come, and those before them never do. So this one is read again with each
/// read: as long as it has its tag, the log is the same. A small one, since it comes each time.
#[derive(Clone, Copy)]
struct Anchor {
    position: u64,
    tag: u64,
}

struct Asked {
    from: u64,
    count: usize,
    anchor: Option<Anchor>,
    /// To the `XREAD`, and to that of the anchor.
    replies: Pin<Box<dyn Future<Output = Result<[Value; 2], Failed>> + Send>>,
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

/// Entries that are read at once: as many of the largest records as a reply may have.
const ENTRIES_MAX: usize = 60;

const _: () = assert!(ENTRIES_MAX * (RECORD_BYTES_MAX + 4096) < REPLY_BYTES_MAX);

/// Entries that are read first, when nothing is known of their size.
const ENTRIES_FIRST: usize = 16;

/// How often the log and its server are looked at while records come: a setting may have been changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The payload of an [`Anchor`]. Each beat is small enough, and the log never is without one.
const ANCHOR_BYTES_MAX: usize = 1024;

/// By which a read may have more entries than the one before.
const GROWTH: usize = 4;

// ===== impl RedisReader =====

impl RedisReader {
    pub(super) fn new(log: Log, connection: Connection) -> Self {
        let count = Count { next: ENTRIES_FIRST, largest: 0 };
        Self { log, connection, asked: None, count, anchor: None, looked: Instant::now() }
    }

    #[cfg(test)]
    pub(super) fn ask_one_by_one(&mut self) {
        self.count.next = 1;
    }

    fn ask(&self, from: u64) -> Asked {
        let is_careful = from <= self.log.shared.one_by_one.load(Ordering::Relaxed);
        let count = if is_careful { 1 } else { self.count.next };
        let command = xread(&self.log.key, from, count, Some(QUIET));
        let anchor = self.anchor;
        let check = anchor.map(|anchor| xread(&self.log.key, anchor.position, 1, None));
        let (connection, bound) = (self.connection.clone(), QUIET + self.log.timeout);
        let replies = Box::pin(async move {
            match &check {
                // It is answered after the other one, so it speaks for that.
                Some(check) => connection.request_both([&command, check], bound).await,
                None => Ok([connection.request(&command, bound).await?, Value::Nil]),
            }
        });
        Asked { from, count, anchor, replies }
    }

    /// Whether the reply to the read of the anchor is the record that it was.
    fn check(&self, anchor: Anchor, reply: Value) -> Result<(), Down> {
        let read = self.parse(reply)?;
        let is_same = read
            .first()
            .is_some_and(|entry| entry.position == anchor.position && entry.tag == anchor.tag);
        if is_same {
            return Ok(());
        }
        let position = anchor.position;
        Err(Down(format!("record {position} is no longer the one that was read")))
    }

    fn parse(&self, reply: Value) -> Result<Vec<Entry>, Down> {
        entries(reply).map_err(|why| match why {
            Unreadable::Id(id) => Down(self.log.unfit(&id)),
            Unreadable::Reply => Down("Redis gives an unreadable answer to XREAD".into()),
        })
    }

    async fn look(&mut self) -> Result<Bounds, Down> {
        let bounds = self.log.bounds().await?;
        self.looked = Instant::now();
        Ok(bounds)
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
            "entry 0-{from} in {key} is larger than 32 MiB, or has too many fields, and cannot be read. XDEL {key} \
             0-{from}: all clients re-read once"
        ))
    }
}

impl Reader for RedisReader {
    async fn bounds(&mut self) -> Result<Bounds, Down> {
        self.log.bounds().await
    }

    async fn read(&mut self, from: u64) -> Result<Vec<Entry>, Down> {
        if self.looked.elapsed() >= LOOK_INTERVAL {
            self.look().await?;
        }
        let asked = match self.asked.take_if(|asked| asked.from == from) {
            Some(asked) => asked,
            None => self.ask(from),
        };
        let (count, anchor) = (asked.count, asked.anchor);
        let replies = self.asked.insert(asked).replies.as_mut().await;
        self.asked = None;
        let [reply, check] = replies.map_err(|why| self.fail(from, count, why))?;
        let read = self.parse(reply)?;
        anchor.map_or(Ok(()), |anchor| self.check(anchor, check))?;
        if read.is_empty() {
            // It waits for ever where the stream has been deleted, and begun anew.
            let Bounds { newest, .. } = self.look().await?;
            let last = from.saturating_sub(1);
            if newest < last {
                return Err(Down(format!(
                    "the log ends with record {newest}, and record {last} was read"
                )));
            }
        }
        self.count.adapt(&read);
        self.anchor = read.iter().rev().find_map(Anchor::of).or(self.anchor);
        let mut length = self.log.length.lock();
        read.iter().for_each(|entry| length.read(entry.position, entry.payload.len()));
        drop(length);
        Ok(read)
    }
}

/// Without a time to wait it returns what there is.
fn xread(key: &str, from: u64, count: usize, wait: Option<Duration>) -> Cmd {
    let mut command = cmd("XREAD");
    command.arg("COUNT").arg(count);
    if let Some(wait) = wait {
        command.arg("BLOCK").arg(wait.as_millis() as u64);
    }
    command.arg("STREAMS").arg(key).arg(format!("0-{}", from.saturating_sub(1)));
    command
}

// ===== impl Anchor =====

impl Anchor {
    fn of(entry: &Entry) -> Option<Self> {
        let is_fit = entry.tag != 0 && entry.payload.len() <= ANCHOR_BYTES_MAX;
        is_fit.then_some(Self { position: entry.position, tag: entry.tag })
    }
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
