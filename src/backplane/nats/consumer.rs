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

use super::api::Api;
use super::connection::Connection;
use crate::backplane::broker::Down;

/// A consumer, and what it has still to deliver.
pub(super) struct Consumer {
    /// The subject on which it is asked for records.
    requests: String,
    inbox: String,
    messages: Subscriber,
    /// Records that were asked for and have not come.
    asked: u64,
    /// Records that it delivered.
    number: u64,
    /// Heartbeats since the last record, or the last look at the log.
    pub(super) heartbeats: u32,
    /// The last request was full before it had a record.
    stuck: bool,
}

#[derive(Deserialize)]
struct Created {
    name: String,
    delivered: Delivered,
}

#[derive(Deserialize)]
struct Delivered {
    stream_seq: u64,
}

/// Records of a request. The next one is made when half of them have come.
const REQUEST_MAX: u64 = 1024;

/// Bytes of a request: with [`REQUEST_MAX`] and two requests the bound of what waits in memory.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of the messages that are taken at once, but for the last of them.
const BYTES_MAX: usize = 1024 * 1024;

/// A request ends then, and is made again.
const REQUEST_TIME: Duration = Duration::from_secs(30);

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
        let Created { name, delivered } = match connection.api(&call, &settings.to_string()).await?
        {
            Api::Done(created) => created,
            Api::Refused(why) => return Err(why.down(&format!("to read stream {stream}"))),
        };
        let consumer = Self {
            requests: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
            inbox,
            messages,
            asked: 0,
            number: 0,
            heartbeats: 0,
            stuck: false,
        };
        Ok((consumer, delivered.stream_seq.saturating_add(1)))
    }

    /// Asks for records, at most `left`, if few are to come.
    pub(super) async fn ask(&mut self, connection: &Connection, left: u64) -> Result<(), Down> {
        let batch = REQUEST_MAX.min(left.saturating_sub(self.asked));
        if batch == 0 || self.asked > REQUEST_MAX / 2 {
            return Ok(());
        }
        // One record has to fit.
        let bytes = REQUEST_BYTES_MAX.max(connection.server.max_payload.saturating_mul(2));
        let request = json!({
            "batch": batch, "max_bytes": bytes,
            "expires": nanos(REQUEST_TIME), "idle_heartbeat": nanos(HEARTBEAT),
        });
        let request = Bytes::from(request.to_string());
        connection.publish(self.requests.clone(), self.inbox.clone(), request).await?;
        self.asked += batch;
        Ok(())
    }

    /// The messages that there are, at least one, within a bound; none once the connection is lost.
    pub(super) async fn messages(&mut self) -> Vec<Message> {
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

    /// Takes a record, its delivery of this number. What was lost on the way must not look like a hole in the log, for
    /// which all clients would re-read.
    pub(super) fn take_record(&mut self, number: u64) -> Result<(), Down> {
        self.asked = self.asked.saturating_sub(1);
        self.number += 1;
        (self.heartbeats, self.stuck) = (0, false);
        if number == self.number { Ok(()) } else { Err(lost()) }
    }

    /// Takes a message that is no record, but about a request.
    pub(super) fn take_status(&mut self, message: &Message) -> Result<(), Down> {
        let number = |name: &str| {
            let value = message.headers.as_ref()?.get(name)?;
            value.as_str().parse::<u64>().ok()
        };
        let status = message.status.map_or(0, |status| status.as_u16());
        let description = message.description.as_deref().unwrap_or("no description");
        match status {
            100 if number("Nats-Last-Consumer").is_none_or(|last| last == self.number) => {
                self.heartbeats += 1;
                return Ok(());
            }
            100 => return Err(lost()),
            // The request has run out of time, or out of bytes.
            404 | 408 => {}
            409 if description.contains("MaxBytes") && !self.stuck => self.stuck = true,
            409 if description.contains("Batch Completed") => {}
            _ => return Err(Down(format!("JetStream ends the reading: {description} ({status})"))),
        }
        let missing = number("Nats-Pending-Messages").unwrap_or(self.asked);
        self.asked = self.asked.saturating_sub(missing);
        Ok(())
    }
}

fn lost() -> Down {
    Down("records were lost between the broker and this server".into())
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}
