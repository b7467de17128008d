//! What a reader's task does: it takes what a consumer delivers, and checks it.

use std::time::Duration;

use async_nats::Message;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Log;
use super::consumer::Consumer;
use super::entry::{Delivery, entry};
use super::unparsable::Found;
use crate::backplane::broker::{Down, Entry};
use crate::sync::Ordering;

/// Records in their order, or why there are no more.
pub(super) type Batch = Result<Vec<Entry>, Down>;

/// Reads from a position on.
pub(super) struct Pump {
    log: Log,
    /// The position of the next record.
    next: u64,
    batches: mpsc::Sender<Batch>,
}

/// How often the log is looked at: its settings may have been changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Records that are looked at by themselves, from one on that cannot be parsed.
const LOOKED_AT: u64 = 512;

/// Each of them may have as many bytes as a record.
const LOOKS_AT_ONCE: usize = 16;

// ===== impl Pump =====

impl Pump {
    pub(super) fn new(log: Log, from: u64, batches: mpsc::Sender<Batch>) -> Self {
        Self { log, next: from, batches }
    }

    /// Reads until something is wrong, which is the last batch.
    pub(super) async fn run(mut self) {
        if let Err(down) = self.read().await {
            // The reader may be gone.
            _ = self.batches.send(Err(down)).await;
        }
    }

    async fn read(&mut self) -> Result<(), Down> {
        let suspect = self.log.shared.suspect.load(Ordering::Relaxed);
        if suspect > self.next {
            self.read_until(Some(suspect)).await?;
        }
        if suspect == self.next {
            self.pass_suspects().await?;
        }
        self.read_until(None).await
    }

    /// Takes the next record without the library's parser. If that cannot parse it, passes it, and all such of the next
    /// records: its program has published others, and each of them would cost a connection.
    async fn pass_suspects(&mut self) -> Result<(), Down> {
        let (first, log) = (self.next, self.log.clone());
        let looks = (first..first + LOOKED_AT).map(|position| log.look_at(position));
        let mut looks = stream::iter(looks).buffered(LOOKS_AT_ONCE);
        let mut positions = first..;
        while let (Some(found), Some(position)) = (looks.next().await, positions.next()) {
            match found? {
                Found::Unparsable(passed) => {
                    if self.next < position {
                        self.read_until(Some(position)).await?;
                    }
                    self.next = position + 1;
                    self.send(vec![passed]).await?;
                }
                // Whatever the connection was lost for, it is not lost here again.
                Found::Parsable(record) if position == first => {
                    self.next = position + 1;
                    self.send(vec![record]).await?;
                    break;
                }
                Found::Parsable(_) => {}
                Found::Nothing => break,
            }
        }
        Ok(())
    }

    /// Reads up to this position, or on and on. No record of the log is deleted, so they can be counted.
    async fn read_until(&mut self, end: Option<u64>) -> Result<(), Down> {
        let mut consumer = self.consumer().await?;
        let mut looked = Instant::now();
        loop {
            let left = end.map_or(u64::MAX, |end| end.saturating_sub(self.next));
            if left == 0 {
                return Ok(());
            }
            consumer.ask(&self.log.connection, left).await?;
            let messages = consumer.messages(&self.log.connection).await?;
            let mut entries = Vec::with_capacity(messages.len());
            for message in messages {
                match message.reply.as_ref().and_then(|reply| Delivery::parse(reply)) {
                    Some(delivery) => {
                        entries.extend(self.take(&mut consumer, message, delivery)?)
                    }
                    None => consumer.take_status(&self.log.connection, &message)?,
                }
            }
            self.send(entries).await?;
            // At least each heartbeat passes here.
            if looked.elapsed() >= LOOK_INTERVAL {
                looked = Instant::now();
                // Records that do not come are the follower's to notice: it misses those of its own.
                self.log.bounds().await?;
            }
        }
    }

    /// Creates a consumer that begins with the next record.
    async fn consumer(&mut self) -> Result<Consumer, Down> {
        let stream = &self.log.wanted.stream;
        let (consumer, start) = Consumer::create(&self.log.connection, stream, self.next).await?;
        if start < self.next {
            // NATS before 2.11 begins with its end, if the position is beyond that. Later versions wait, which the
            // follower notices.
            let (newest, last) = (self.log.bounds().await?.newest, self.next - 1);
            if newest < last {
                return Err(Down(format!(
                    "the log ends with record {newest}, and record {last} was read"
                )));
            }
        }
        self.next = self.next.max(start);
        Ok(consumer)
    }

    /// Takes a record that was delivered; `None` for one that was read before, which a replica that lags begins with.
    fn take(
        &mut self,
        consumer: &mut Consumer,
        message: Message,
        delivery: Delivery,
    ) -> Result<Option<Entry>, Down> {
        consumer.take_record(delivery.number, message.length)?;
        if delivery.position < self.next {
            return Ok(None);
        }
        self.next = delivery.position + 1;
        let Delivery { position, stored_ns, .. } = delivery;
        Ok(Some(entry(message.headers.as_ref(), &message.payload, position, stored_ns)))
    }

    async fn send(&self, entries: Vec<Entry>) -> Result<(), Down> {
        if entries.is_empty() || self.batches.send(Ok(entries)).await.is_ok() {
            return Ok(());
        }
        Err(Down("nothing reads".into()))
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.log.shared.suspect.store(self.next, Ordering::Relaxed);
    }
}
