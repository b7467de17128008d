//! JetStream by its JSON requests, and pull consumers.

use async_nats::{Client, HeaderMap, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::LOG_BYTES;
use crate::Outcome;

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

/// Records of a request. The next one is made when half of them have come.
const REQUEST: usize = 1024;
const SECOND: u64 = 1_000_000_000;

// ===== impl Direct =====

impl Direct {
    /// Makes the stream, in a file, if there is none.
    pub(crate) async fn open(url: &str, stream: &str) -> Outcome<Self> {
        let client = async_nats::connect(url).await?;
        let direct = Self { client, subject: format!("{stream}.log"), stream: stream.into() };
        if direct.api("STREAM.INFO", "", &json!({})).await.is_err() {
            let settings = json!({
                "name": stream, "subjects": [direct.subject], "retention": "limits", "discard": "old",
                "storage": "file", "num_replicas": 1, "max_bytes": LOG_BYTES, "max_msgs": -1,
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

    pub(crate) async fn append(&self, payload: Bytes) -> Outcome<()> {
        let sent = self.client.request_with_headers(self.subject.clone(), header(), payload);
        let answer: Value = serde_json::from_slice(&sent.await?.payload)?;
        match answer["seq"].as_u64() {
            Some(_) => Ok(()),
            None => Err(format!("not appended: {answer}").into()),
        }
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

    pub(crate) async fn next(&mut self) -> Outcome<()> {
        loop {
            if self.asked <= REQUEST / 2 {
                self.ask().await?;
            }
            let message = self.messages.next().await.ok_or("the connection has ended")?;
            if message.status.is_none() {
                self.asked = self.asked.saturating_sub(1);
                return Ok(());
            }
            // A request has ended.
            self.asked = 0;
        }
    }
}
