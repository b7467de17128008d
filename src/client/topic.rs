//! `nudged publish --topic` and `nudged close`: one event for a topic, and its end.

use std::io::Write;
use std::time::Duration;

use http::Method;
use serde::Serialize;
use serde_json::value::RawValue;

use super::publish::Published;
use super::reread::Streams;
use super::retry::{Command, Repeat};
use super::{Endpoint, Error};
use crate::ids::Topic;
use crate::wire::{InvalidMessage, Message, Payload};

/// An event, and the topic to publish it to.
#[derive(Clone, Debug)]
pub struct PublishEvent {
    /// The server.
    pub server: Endpoint,
    /// The topic, which the server makes if it has none of that name.
    pub topic: Topic,
    /// The event.
    pub event: TopicEvent,
    /// How long attempts are repeated of which it is certain that nothing was published; zero for one attempt.
    pub retry_for: Duration,
}

/// An event for a topic, checked but for its length, whose bound the server has.
#[derive(Clone, Debug)]
pub struct TopicEvent {
    /// The body of its publish.
    json: Vec<u8>,
}

/// A topic that is over.
#[derive(Clone, Debug)]
pub struct CloseTopic {
    /// The server.
    pub server: Endpoint,
    /// The topic.
    pub topic: Topic,
    /// What its subscribers receive as the reason; `None` for `closed`. The server allows up to 256 bytes.
    pub reason: Option<String>,
    /// How long attempts are repeated of which it is certain that nothing was closed; zero for one attempt.
    pub retry_for: Duration,
}

#[derive(Serialize)]
struct EventBody<'a> {
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    bulk: bool,
}

#[derive(Serialize)]
struct CloseBody<'a> {
    reason: &'a str,
}

/// Publishes an event to a topic, and writes its id to `out` as one line.
///
/// **It is sent again only where it is certain that nothing was published**, because every subscriber would get it
/// twice: if the server cannot be reached (no connection, a failed TLS handshake), or the response is 429, or 503 with a
/// problem body, as nudged's own have, of another type than `backplane-unavailable`. There is a line in `notes` for each
/// attempt that failed. If the connection breaks later, no response comes, or the response is another 502, 503 or 504,
/// which may be a proxy's that has passed the request on, the event may have been published: that is an error, with a
/// line in `notes`. To publish it again nevertheless, put an id into the data of the events, by which subscribers drop
/// the second one.
///
/// # Errors
/// The server cannot be reached, or refuses, and no attempt is left within [`PublishEvent::retry_for`]; it refuses for
/// good; it is not known whether the event was published; or the output cannot be written.
pub async fn publish_event(
    publish: &PublishEvent,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), Error> {
    let PublishEvent { server, topic, event, retry_for } = publish;
    let command = command(Method::POST, topic, event.json.clone());
    let answer: Published = command.run(server, *retry_for, notes).await?;
    answer.write(out)
}

/// Closes a topic: its subscribers receive `closed` with the reason, their streams end, and what it kept is removed. The
/// next publish begins it anew. Writes the number of these streams to `out` as one line. Tries again as
/// [`publish_event`] does, since a second attempt could close what another publisher has begun anew.
///
/// # Errors
/// As of [`publish_event`].
pub async fn close_topic(
    close: &CloseTopic,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), Error> {
    let CloseTopic { server, topic, reason, retry_for } = close;
    let json = reason.as_deref().map(|reason| serde_json::to_vec(&CloseBody { reason }));
    let json = json.transpose().expect("a string is JSON").unwrap_or_default();
    let answer: Streams =
        command(Method::DELETE, topic, json).run(server, *retry_for, notes).await?;
    answer.write(out)
}

fn command(method: Method, topic: &Topic, json: Vec<u8>) -> Command {
    Command { method, path: path(topic), json, repeat: Repeat::IfUndone }
}

/// The path of a topic's events. No character of the names needs an escape.
pub(super) fn path(Topic { org, name }: &Topic) -> String {
    format!("/api/{org}/topics/{name}/events")
}

// ===== impl TopicEvent =====

impl TopicEvent {
    /// An event with a name as [`Message::new`] allows it. A bulk event may be dropped without notice once its topic keeps
    /// too many; of any other one the subscribers that miss it are notified.
    ///
    /// # Errors
    /// The name is not allowed, or is one of [`Message::RESERVED`].
    pub fn new(name: &str, payload: Payload<'_>, bulk: bool) -> Result<Self, InvalidMessage> {
        Message::new(name, payload, bulk, usize::MAX)?;
        let (data, text) = match payload {
            Payload::Json(json) => (Some(json), None),
            Payload::Text(text) => (None, Some(text)),
        };
        let body = EventBody { event: name, data, text, bulk };
        Ok(Self { json: serde_json::to_vec(&body).expect("strings and JSON are JSON") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_a_publish_has_the_json_as_it_came() {
        let json = "{ \"b\":1.0e2,\n\"a\": \"\\u00fc\u{fc}\" }";
        let raw: &RawValue = serde_json::from_str(json).expect("JSON");
        let event = TopicEvent::new("run.output", Payload::Json(raw), true).expect("an event");
        let body = String::from_utf8(event.json).expect("text");
        assert_eq!(body, format!("{{\"event\":\"run.output\",\"data\":{json},\"bulk\":true}}"));
        let event = TopicEvent::new("a", Payload::Text("x\n\"y\""), false).expect("an event");
        assert_eq!(event.json, br#"{"event":"a","text":"x\n\"y\""}"#);
    }

    #[test]
    fn a_name_that_the_server_would_refuse_is_no_event() {
        for name in ["", "1a", "a b", "a\nb", "\u{e9}", "a".repeat(65).as_str()] {
            let refused = TopicEvent::new(name, Payload::Text(""), false).expect_err(name);
            assert_eq!(refused, InvalidMessage::Name, "{name:?}");
        }
        for name in Message::RESERVED {
            let refused = TopicEvent::new(name, Payload::Text(""), false).expect_err(name);
            assert_eq!(refused, InvalidMessage::Reserved, "{name}");
        }
    }
}
