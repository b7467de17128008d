//! The events of topics in the bodies of publishes.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::published::{Published, What, with_id};
use super::{Publisher, Text, parse_object, present};
use crate::config::HubConfig;
use crate::http::reject::Reject;
use crate::hub::record::Lines;
use crate::ids::Topic;
use crate::time::Time;
use crate::wire::{Message, Payload};

/// The body of a publish to a topic. What it carries is `data` or `text`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Publish<'a> {
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    text: Option<Text<'a>>,
    #[serde(default)]
    bulk: bool,
}

const PUBLISH: &str = r#"a document like {"event":"output","data":{"n":1}}, or with "text":"…" in place of data, and "bulk":true if it may be dropped"#;

/// Publishes an event to one topic. The response has its id.
pub(crate) fn publish_message(
    publisher: Publisher<'_>,
    topic: &Topic,
    body: &[u8],
    now: Time,
) -> Result<Published, Reject> {
    let hub = publisher.hub;
    let Publish { event, data, text, bulk } = parse_object(body, PUBLISH)?;
    let text = text.map(Text::into_inner);
    let payload = payload(data, text.as_ref())
        .map_err(|why| Reject::Document { expected: PUBLISH, why: why.into() })?;
    let message = check_message(&event.into_inner(), payload, bulk, hub.config())?;
    publisher.acquire(&topic.org, now)?;
    if !publisher.is_direct() {
        let mut lines = Lines::new();
        lines.topic_body(topic, body);
        return Ok(Published::Lines(lines, What::Topic(topic.clone())));
    }
    Ok(Published::Here(with_id(Some(hub.publish_message(topic, &message, now)))))
}

/// What an event carries that has to have one of both.
///
/// # Errors
/// It has both, or neither.
pub(super) fn payload<'a>(
    data: Option<&'a RawValue>,
    text: Option<&'a Cow<'_, str>>,
) -> Result<Payload<'a>, &'static str> {
    match (data, text) {
        (Some(json), None) => Ok(Payload::Json(json)),
        (None, Some(text)) => Ok(Payload::Text(text)),
        (Some(_), Some(_)) => Err("it has both data and text"),
        (None, None) => Err("it has neither data nor text"),
    }
}

/// Checks an event against the limits, and encodes it.
pub(super) fn check_message(
    name: &str,
    payload: Payload<'_>,
    bulk: bool,
    limits: &HubConfig,
) -> Result<Message, Reject> {
    Message::new(name, payload, bulk, limits.topic_event_bytes_max).map_err(Reject::Message)
}
