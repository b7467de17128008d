//! A client of the engine as nudged has it, for what nudged is compared with: JetStream by its JSON requests, appends
//! that wait for their acknowledgement, and pull consumers.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use nudged::bench::Cost;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::Outcome;
use crate::shared::nats::Nats;
use crate::shared::process::now;

/// The way to one stream, on a connection of its own.
pub(crate) struct Direct {
    client: Client,
    subject: String,
    stream: String,
}

/// A consumer of what is appended after it was made.
pub(crate) struct Reader {
    client: Client,
    /// The subject on which it is asked for records.
    requests: String,
    inbox: String,
    messages: Subscriber,
    /// Records that were asked for and have not come.
    asked: usize,
}

/// Appends that wait for their acknowledgement at once.
const IN_FLIGHT: usize = 256;

/// Records of a request. The next one is made when half of them have come.
const REQUEST: usize = 1024;
const SECOND: u64 = 1_000_000_000;

/// The processor time that the engine has used.
pub(crate) fn cpu(nats: &Nats) -> Outcome<Duration> {
    Ok(Cost::of(&[nats.process.id()])?.cpu)
}

/// A runtime for the clients of one thread.
pub(crate) fn runtime() -> Outcome<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

// ===== impl Direct =====

impl Direct {
    /// Makes the stream, in a file, if there is none.
    pub(crate) async fn open(nats: &Nats, stream: &str) -> Outcome<Self> {
        let client = async_nats::connect(&nats.url).await?;
        let direct = Self { client, subject: format!("{stream}.log"), stream: stream.into() };
        if direct.api("STREAM.INFO", "", &json!({})).await.is_err() {
            let settings = json!({
                "name": stream, "subjects": [direct.subject], "retention": "limits", "discard": "old",
                "storage": "file", "num_replicas": 1, "max_bytes": 256 << 20, "max_msgs": -1,
                "max_consumers": -1,
            });
            direct.api("STREAM.CREATE", "", &settings).await?;
        }
        Ok(direct)
    }

    async fn api(&self, what: &str, rest: &str, request: &Value) -> Outcome<Value> {
        let subject = format!("$JS.API.{what}.{}{rest}", self.stream);
        let answer = self.client.request(subject, request.to_string().into()).await?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        match &answer["error"] {
            Value::Null => Ok(answer),
            error => Err(format!("{what}: {error}").into()),
        }
    }

    /// A reader of what is appended from now on.
    pub(crate) async fn read(self) -> Outcome<Reader> {
        let settings = json!({
            "stream_name": self.stream,
            "config": {
                "deliver_policy": "new", "ack_policy": "none", "replay_policy": "instant",
                "mem_storage": true, "num_replicas": 1, "inactive_threshold": 60 * SECOND,
            },
        });
        let made = self.api("CONSUMER.CREATE", "", &settings).await?;
        let name = made["name"].as_str().ok_or("a consumer without a name")?;
        let inbox = self.client.new_inbox();
        let messages = self.client.subscribe(inbox.clone()).await?;
        let requests = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{name}", self.stream);
        let mut reader = Reader { client: self.client, requests, inbox, messages, asked: 0 };
        reader.ask().await?;
        reader.client.flush().await?;
        Ok(reader)
    }

    /// Appends a record of lines as nudged does, and waits for the acknowledgement.
    pub(crate) async fn append(&self, payload: Bytes) -> Outcome<()> {
        let sent = self.client.request_with_headers(self.subject.clone(), header(), payload);
        let answer: Value = serde_json::from_slice(&sent.await?.payload)?;
        match answer["seq"].as_u64() {
            Some(_) => Ok(()),
            None => Err(format!("not appended: {answer}").into()),
        }
    }

    /// Appends all records, many at once, until the time is up. Returns how many.
    pub(crate) async fn append_all(
        &self,
        payloads: impl Iterator<Item = Bytes>,
        limit: Duration,
    ) -> Outcome<usize> {
        let start = now();
        let payloads = payloads.take_while(|_| start.elapsed() < limit);
        let mut sent =
            stream::iter(payloads.map(|payload| self.append(payload))).buffered(IN_FLIGHT);
        let mut count = 0;
        while let Some(done) = sent.next().await {
            done?;
            count += 1;
        }
        Ok(count)
    }
}

/// That of a record of lines, with a random tag.
fn header() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nudged", format!("1 lines {:016x}", fastrand::u64(1..)).as_str());
    headers
}

// ===== impl Reader =====

impl Reader {
    async fn ask(&mut self) -> Outcome<()> {
        let request = json!({ "batch": REQUEST, "expires": 30 * SECOND }).to_string();
        let (requests, inbox) = (self.requests.clone(), self.inbox.clone());
        self.client.publish_with_reply(requests, inbox, request.into()).await?;
        self.asked += REQUEST;
        Ok(())
    }

    /// The next record.
    pub(crate) async fn next(&mut self) -> Outcome<Message> {
        loop {
            if self.asked <= REQUEST / 2 {
                self.ask().await?;
            }
            let message = self.messages.next().await.ok_or("the connection has ended")?;
            if message.status.is_none() {
                self.asked = self.asked.saturating_sub(1);
                return Ok(message);
            }
            // A request has ended.
            self.asked = 0;
        }
    }
}
