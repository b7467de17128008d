//! A consumer: JetStream's cursor. It is ephemeral, and delivers what it is asked for, so that no more waits in memory
//! than there is room for.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::api::Api;
use super::connection::{Connection, within};
use crate::backplane::broker::Down;

/// A consumer, and what it has still to deliver.
pub(super) struct Consumer {
    /// The subject on which it is asked for records.
    requests: String,
    inbox: String,
    messages: Subscriber,
    /// One at a time: JetStream would alternate between several, and what fits into none would end all of them.
    request: Request,
    /// The largest request that it takes.
    batch_max: u64,
    /// Bytes of the next request.
    bytes: usize,
    /// Records that it delivered.
    number: u64,
}

/// The last request for records.
#[derive(Clone, Copy)]
struct Request {
    /// Requests are counted, and each is answered to an inbox of its own, so that a late word about the one before it is
    /// not taken for one about this one.
    number: u64,
    made: Instant,
    /// What it may still deliver. Without a record or a byte left it is over, and JetStream says nothing of it.
    records: u64,
    bytes: usize,
    /// Nothing was delivered for it yet.
    is_untouched: bool,
}

#[derive(Deserialize)]
struct Created {
    name: String,
    delivered: Delivered,
    #[serde(default)]
    config: Config,
}

#[derive(Default, Deserialize)]
struct Config {
    /// 0 for no limit. It is the broker's, as none is asked for.
    #[serde(default)]
    max_batch: u64,
}

#[derive(Deserialize)]
struct Delivered {
    stream_seq: u64,
}

/// Records of a request.
const REQUEST_MAX: u64 = 2 * 1024;

/// Bytes of a request, as long as one record has no more.
pub(super) const REQUEST_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of the messages that are taken at once, but for the last of them.
const BYTES_MAX: usize = 1024 * 1024;

/// A request ends then, and is made again.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// How late JetStream may say so. If a record comes at just that moment, it says nothing.
const REQUEST_DELAY: Duration = Duration::from_millis(200);

/// A consumer that shows nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(7);

/// How often an idle consumer shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// JetStream forgets a consumer that is not asked for so long.
const INACTIVE: Duration = Duration::from_secs(60);

// ===== impl Consumer =====

impl Consumer {
    /// Creates one that begins with this position. Returns where it does begin.
    pub(super) async fn create(
        connection: &Connection,
        stream: &str,
        from: u64,
    ) -> Result<(Self, u64), Down> {
        let (inbox, messages) = connection.subscribe().await?;
        let settings = json!({ "stream_name": stream, "config": {
            "deliver_policy": "by_start_sequence", "opt_start_seq": from,
            "ack_policy": "none", "replay_policy": "instant", "max_deliver": 1,
            "mem_storage": true, "num_replicas": 1, "inactive_threshold": nanos(INACTIVE),
        }});
        let call = format!("CONSUMER.CREATE.{stream}");
        let Created { name, delivered, config } =
            match connection.api(&call, &settings.to_string()).await? {
                Api::Done(created) => created,
                Api::Refused(why) => return Err(why.down(&format!("to read stream {stream}"))),
            };
        let consumer = Self {
            requests: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
            inbox,
            messages,
            request: Request::default(),
            batch_max: if config.max_batch == 0 { REQUEST_MAX } else { config.max_batch },
            bytes: REQUEST_BYTES,
            number: 0,
        };
        Ok((consumer, delivered.stream_seq.saturating_add(1)))
    }

    /// Asks for records, at most `left`, unless some are to come.
    pub(super) async fn ask(&mut self, connection: &Connection, left: u64) -> Result<(), Down> {
        if !self.request.is_over() {
            return Ok(());
        }
        let batch = REQUEST_MAX.min(self.batch_max).min(left);
        let request = json!({
            "batch": batch, "max_bytes": self.bytes,
            "expires": nanos(REQUEST_TIME), "idle_heartbeat": nanos(HEARTBEAT),
        });
        self.request = Request {
            number: self.request.number + 1,
            made: Instant::now(),
            records: batch,
            bytes: self.bytes,
            is_untouched: true,
        };
        let inbox = format!("{}.{}", self.inbox, self.request.number);
        let request = Bytes::from(request.to_string());
        connection.publish(self.requests.clone(), inbox, request).await
    }

    /// The messages that there are, at least one, within a bound; none if it is time to ask again.
    pub(super) async fn messages(&mut self, connection: &Connection) -> Result<Vec<Message>, Down> {
        let time = self.request.time_left();
        let messages = tokio::select! {
            biased;
            messages = within(time.min(SILENCE_MAX), self.ready_messages()) => messages,
            why = connection.failure() => return Err(Down(why)),
        };
        match messages {
            None if time < SILENCE_MAX => Ok(Vec::new()),
            None => Err(Down("JetStream delivers nothing any more, not even heartbeats".into())),
            // The connection is lost.
            Some(messages) if messages.is_empty() => Err(Down(connection.failure().await)),
            Some(messages) => Ok(messages),
        }
    }

    /// The messages that there are, at least one, within a bound; none once the connection is lost.
    async fn ready_messages(&mut self) -> Vec<Message> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        poll_fn(|cx| {
            while bytes < BYTES_MAX {
                match self.messages.poll_next_unpin(cx) {
                    Poll::Ready(Some(message)) => {
                        bytes += message.length;
                        taken.push(message);
                    }
                    Poll::Pending if taken.is_empty() => return Poll::Pending,
                    Poll::Pending | Poll::Ready(None) => break,
                }
            }
            Poll::Ready(())
        })
        .await;
        taken
    }

    /// Takes a record, its delivery of this number, in a message of this length. What was lost on the way must not look
    /// like a hole in the log, for which all clients would re-read.
    pub(super) fn take_record(&mut self, number: u64, length: usize) -> Result<(), Down> {
        let request = &mut self.request;
        request.records = request.records.saturating_sub(1);
        // JetStream counts what the library does: subject, acknowledgement's subject, headers and payload.
        request.bytes = request.bytes.saturating_sub(length);
        request.is_untouched = false;
        self.number += 1;
        if number == self.number { Ok(()) } else { Err(lost()) }
    }

    /// Takes a message that is no record, but about a request.
    pub(super) fn take_status(
        &mut self,
        connection: &Connection,
        message: &Message,
    ) -> Result<(), Down> {
        let status = message.status.map_or(0, |status| status.as_u16());
        let description = message.description.as_deref().unwrap_or("no description");
        let number = message.subject.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
        let is_last = number == Some(self.request.number);
        match status {
            100 => {
                let headers = message.headers.as_ref();
                let last = headers.and_then(|headers| headers.get("Nats-Last-Consumer"));
                let last = last.and_then(|last| last.as_str().parse().ok());
                return if last.is_none_or(|last: u64| last == self.number) {
                    Ok(())
                } else {
                    Err(lost())
                };
            }
            // The request has run out of time, or out of bytes.
            404 | 408 => {}
            409 if description.contains("Batch Completed") => {}
            409 if description.contains("Exceeds MaxBytes") => {
                if is_last && self.request.is_untouched {
                    let max = connection.server.max_payload.saturating_mul(2);
                    if self.bytes >= max {
                        return Err(ended(description, status));
                    }
                    self.bytes = self.bytes.saturating_mul(2).min(max);
                }
            }
            _ => return Err(ended(description, status)),
        }
        if is_last {
            self.request.records = 0;
        }
        Ok(())
    }
}

// ===== impl Request =====

impl Default for Request {
    /// None, which is over.
    fn default() -> Self {
        Self { number: 0, made: Instant::now(), records: 0, bytes: 0, is_untouched: false }
    }
}

impl Request {
    fn is_over(&self) -> bool {
        self.records == 0 || self.bytes == 0 || self.time_left().is_zero()
    }

    fn time_left(&self) -> Duration {
        (REQUEST_TIME + REQUEST_DELAY).saturating_sub(self.made.elapsed())
    }
}

fn lost() -> Down {
    Down("messages of JetStream were lost on the way; they are read again".into())
}

fn ended(description: &str, status: u16) -> Down {
    Down(format!("JetStream ends the reading: {description} ({status})"))
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SCENARIO: a record comes at the moment at which a request expires. BUG: JetStream (2.9.10) drops the request without a
    /// word, and nothing was asked for until the silence counted as a loss. FIX: a request ends by this server's clock too.
    #[tokio::test(start_paused = true)]
    async fn a_request_is_over_without_a_record_a_byte_or_time() {
        let request = Request { records: 1, bytes: 1, made: Instant::now(), ..Request::default() };
        assert!(!request.is_over());
        assert!(Request { records: 0, ..request }.is_over());
        assert!(Request { bytes: 0, ..request }.is_over());
        tokio::time::advance(REQUEST_TIME).await;
        assert!(!request.is_over(), "the broker says so first");
        tokio::time::advance(REQUEST_DELAY).await;
        assert!(request.is_over());
    }
}
