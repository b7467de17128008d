//! A publish of many lines, each to an org or to a topic.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::message::{check_message, payload};
use super::published::{Published, What, with_count};
use super::{KeyList, Publisher, Text, check_keys, parse_object, present};
use crate::config::HubConfig;
use crate::http::auth::{AuthError, Grant};
use crate::http::reject::Reject;
use crate::hub::record::Lines;
use crate::hub::{Hub, Keys};
use crate::ids::{OrgName, StreamHash, Topic};
use crate::time::Time;
use crate::wire::Message;

/// One line: `keys`, or a `topic` with an event.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Line<'a> {
    #[serde(borrow)]
    org: Text<'a>,
    #[serde(borrow, default, deserialize_with = "present")]
    keys: Option<KeyList<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    topic: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    event: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    text: Option<Text<'a>>,
    #[serde(default, deserialize_with = "present")]
    bulk: Option<bool>,
}

/// What a line publishes.
#[derive(Debug)]
pub(super) enum Publish<'a> {
    Keys(OrgName, Keys<'a>),
    Message(Topic, Message),
}

const LINE: &str = r#"a line like {"org":"acme","keys":["posts"]} or {"org":"acme","topic":"run-7","event":"output","data":{"n":1}}"#;

/// Publishes one line after the other, if all of them are valid and for what the token grants. The response has their
/// number.
pub(crate) fn publish_batch(
    publisher: Publisher<'_>,
    body: &[u8],
    grant: &Grant,
    now: Time,
) -> Result<Published, Reject> {
    let Publisher { hub, rate_limiter, .. } = publisher;
    let lines = body.split(|byte| *byte == b'\n').zip(1..);
    let lines = lines.filter(|(line, _)| !line.trim_ascii().is_empty());
    let publishes = lines
        .map(|(line, number)| {
            let publish = Publish::parse(line, hub.config());
            let publish = publish.and_then(|publish| publish.check(grant));
            let publish = publish.map(|publish| (number, line, publish));
            publish.map_err(|why| Reject::Line { number, why: Box::new(why) })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if publishes.is_empty() {
        return Err(Reject::Document { expected: LINE, why: "there is none".into() });
    }
    if let Some(rate_limiter) = rate_limiter {
        let orgs = publishes.iter().map(|(.., publish)| publish.org());
        rate_limiter.try_acquire(orgs, now).map_err(|(index, why)| Reject::Line {
            number: publishes[index].0,
            why: Box::new(Reject::RateLimited(why)),
        })?;
    }
    if !publisher.is_direct() {
        let mut lines = Lines::new();
        for (_, line, publish) in &publishes {
            lines.raw(line, publish.topic());
        }
        return Ok(Published::Lines(lines, What::Lines(publishes.len())));
    }
    for (.., publish) in &publishes {
        publish.run(hub, now);
    }
    Ok(Published::Here(with_count(publishes.len())))
}

// ===== impl Publish =====

impl<'a> Publish<'a> {
    pub(super) fn parse(line: &'a [u8], limits: &HubConfig) -> Result<Self, Reject> {
        let line: Line<'a> = parse_object(line, LINE)?;
        let wrong = |why: &str| Reject::Document { expected: LINE, why: why.into() };
        let org = line.org.into_inner().parse().map_err(Reject::Org)?;
        let has_event = line.topic.is_some()
            || line.event.is_some()
            || line.data.is_some()
            || line.text.is_some()
            || line.bulk.is_some();
        if let Some(keys) = line.keys {
            return match has_event {
                true => Err(wrong("it has keys, and a topic or parts of an event")),
                false => Ok(Self::Keys(org, check_keys(keys, limits)?)),
            };
        }
        if !has_event {
            return Err(wrong("missing field `keys`, or `topic` with an event"));
        }
        let topic = line.topic.ok_or_else(|| wrong("missing field `topic`"))?;
        let name = topic.into_inner().parse().map_err(Reject::Topic)?;
        let event = line.event.ok_or_else(|| wrong("missing field `event`"))?;
        let text: Option<Cow<'_, str>> = line.text.map(Text::into_inner);
        let payload = payload(line.data, text.as_ref()).map_err(wrong)?;
        let bulk = line.bulk.unwrap_or_default();
        let message = check_message(&event.into_inner(), payload, bulk, limits)?;
        Ok(Self::Message(Topic { org, name }, message))
    }

    /// Refuses what the token does not grant.
    fn check(self, grant: &Grant) -> Result<Self, Reject> {
        if !grant.orgs.allow(self.org()) {
            return Err(Reject::Auth(AuthError::Org));
        }
        match &self {
            Self::Message(Topic { name, .. }, _) if !grant.topics.allow(name) => {
                Err(Reject::Auth(AuthError::Topic))
            }
            _ => Ok(self),
        }
    }

    fn org(&self) -> &OrgName {
        match self {
            Self::Keys(org, _) | Self::Message(Topic { org, .. }, _) => org,
        }
    }

    /// The topic that it is for.
    pub(super) fn topic(&self) -> Option<StreamHash> {
        match self {
            Self::Keys(..) => None,
            Self::Message(topic, _) => Some(topic.stream()),
        }
    }

    pub(super) fn run(&self, hub: &Hub, now: Time) {
        match self {
            Self::Keys(org, keys) => _ = hub.publish(org, keys, now),
            Self::Message(topic, message) => _ = hub.publish_message(topic, message, now),
        }
    }
}
