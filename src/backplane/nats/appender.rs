//! Appends to a log, and waits for JetStream's acknowledgement.

use async_nats::HeaderMap;
use serde::Deserialize;

use super::Log;
use super::api::Refusal;
use super::connection::Unanswered;
use super::entry::{HEADER, header_of};
use super::stream::POSITION_MAX;
use crate::backplane::broker::{Appender, NotStored, Record};

/// Appends over one connection.
#[derive(Clone, Debug)]
pub(crate) struct NatsAppender {
    log: Log,
}

/// JetStream's answer to a message that it stores.
#[derive(Deserialize)]
struct Acknowledgement {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<Refusal>,
}

/// JetStream refuses a message to another stream than this one.
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";

// ===== impl NatsAppender =====

impl NatsAppender {
    pub(super) fn new(log: &Log) -> Self {
        Self { log: log.clone() }
    }

    #[cfg(test)]
    pub(super) fn server_name(&self) -> &str {
        &self.log.connection.server.server_name
    }
}

impl Appender for NatsAppender {
    async fn append(&self, record: Record) -> Result<u64, NotStored> {
        let wanted = &self.log.wanted;
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, header_of(&record));
        headers.insert(EXPECTED_STREAM, wanted.stream.as_str());
        let subject = wanted.subject.clone();
        let answer = self.log.connection.request(subject, Some(headers), record.payload).await;
        let answer = answer.map_err(|why| match why {
            Unanswered::NoResponder => NotStored(format!("there is no stream {}", wanted.stream)),
            Unanswered::Other(why) => NotStored(why),
        })?;
        match serde_json::from_slice(&answer.payload) {
            Ok(Acknowledgement { error: Some(why), .. }) => Err(NotStored(why.down("a record").0)),
            Ok(Acknowledgement { duplicate: true, .. }) => {
                Err(NotStored("JetStream takes the record for one that it has".into()))
            }
            Ok(Acknowledgement { seq: position @ 1..=POSITION_MAX, .. }) => Ok(position),
            Ok(_) | Err(_) => Err(NotStored("the broker's answer is no acknowledgement".into())),
        }
    }
}
