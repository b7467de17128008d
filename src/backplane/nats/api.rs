//! JetStream's API: JSON on subjects.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::connection::{Connection, Unanswered};
use crate::backplane::broker::Down;

/// What JetStream answers.
pub(super) enum Api<T> {
    Done(T),
    Refused(Refusal),
}

/// An error of JetStream's API.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    code: u32,
    err_code: u32,
    description: String,
}

// ===== impl Connection =====

impl Connection {
    /// Asks JetStream (`$JS.API.` + `call`).
    pub(super) async fn api<T: DeserializeOwned>(
        &self,
        call: &str,
        body: &str,
    ) -> Result<Api<T>, Down> {
        let subject = format!("$JS.API.{call}");
        let answer = self.request(subject, None, Bytes::copy_from_slice(body.as_bytes())).await;
        let answer = answer.map_err(|why| match why {
            Unanswered::NoResponder => Down(
                "the broker has no JetStream: nats-server needs -js, or jetstream {} in its configuration"
                    .into(),
            ),
            Unanswered::Other(why) => Down(format!("JetStream, asked for {call}: {why}")),
        })?;
        let invalid =
            |why| Down(format!("JetStream, asked for {call}, gives an unreadable answer: {why}"));
        let mut answer: Value = serde_json::from_slice(&answer.payload).map_err(invalid)?;
        Ok(match answer.get_mut("error").map(Value::take) {
            Some(why) => Api::Refused(serde_json::from_value(why).map_err(invalid)?),
            None => Api::Done(serde_json::from_value(answer).map_err(invalid)?),
        })
    }
}

// ===== impl Refusal =====

impl Refusal {
    pub(super) fn is_no_stream(&self) -> bool {
        self.err_code == 10059
    }

    pub(super) fn is_name_in_use(&self) -> bool {
        self.err_code == 10058
    }

    /// There is no record at this position.
    pub(super) fn is_no_message(&self) -> bool {
        self.err_code == 10037
    }

    pub(super) fn down(&self, what: &str) -> Down {
        let Self { code, err_code, description } = self;
        Down(format!("JetStream refuses {what}: {description} ({code}, {err_code})"))
    }
}
