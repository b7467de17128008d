//! Publishing: reads a body within its limits, checks all of it, and only then publishes to the hub.

mod batch;
#[cfg(feature = "postgres")]
mod checked;
mod message;
mod published;

use std::borrow::Cow;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::body_budget::{BodyBudget, OverBudget, PartialBody};
use super::essence;
use super::rate_limit::RateLimiter;
use super::reject::Reject;
use super::successor::{Done, Operation, Operations};
use super::timer::Timer;
use crate::backplane::{Appended, Backplane};
use crate::config::HubConfig;
use crate::hub::record::Lines;
use crate::hub::{Hub, Keys};
use crate::ids::OrgName;
use crate::time::Time;

pub(crate) use self::batch::publish_batch;
#[cfg(feature = "postgres")]
pub(crate) use self::checked::CheckedLine;
pub(crate) use self::message::publish_message;
pub(crate) use self::published::Published;

use self::published::{What, with_id};

/// The body of a publish to one org.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Publish<'a> {
    #[serde(borrow)]
    keys: KeyList<'a>,
}

/// What a `Vec` is, but for its errors, which would name a sequence.
struct KeyList<'a>(Vec<Text<'a>>);

struct KeyListVisitor;

/// A string, which borrows from the body unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The hub that is published to, by way of the log if there is one, and the rate limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publisher<'a> {
    pub(crate) hub: &'a Hub,
    pub(super) rate_limiter: Option<&'a RateLimiter>,
    pub(super) backplane: Option<&'a Backplane>,
    pub(super) successor: &'a OnceLock<Arc<Operations>>,
}

/// Where what is published goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Destination<'a> {
    /// The hub.
    Hub,
    /// The log that several servers share, and from there the hub of each.
    Log(&'a Backplane),
    /// The process that has taken over from this one, whose hub has the streams. A hub that follows a log has none: what
    /// is appended reaches the successor too.
    Successor(&'a Operations),
}

impl<'a> Publisher<'a> {
    #[cfg(any(test, fuzzing))]
    pub(crate) fn unlimited(hub: &'a Hub) -> Self {
        static NO_SUCCESSOR: OnceLock<Arc<Operations>> = OnceLock::new();
        Self { hub, rate_limiter: None, backplane: None, successor: &NO_SUCCESSOR }
    }

    /// Where what is published now goes, until the next wait: a successor takes over while every worker is stopped.
    pub(super) fn destination(self) -> Destination<'a> {
        match (self.backplane, self.successor.get()) {
            (Some(backplane), _) => Destination::Log(backplane),
            (None, Some(successor)) => Destination::Successor(successor),
            (None, None) => Destination::Hub,
        }
    }

    /// Whether it goes to this hub at once.
    pub(super) fn is_direct(self) -> bool {
        matches!(self.destination(), Destination::Hub)
    }

    /// Counts a publish to this org, or a request about its streams.
    pub(super) fn acquire(self, org: &OrgName, now: Time) -> Result<(), Reject> {
        let Some(rate_limiter) = self.rate_limiter else { return Ok(()) };
        let acquired = rate_limiter.try_acquire(std::iter::once(org), now);
        acquired.map_err(|(_, why)| Reject::RateLimited(why))
    }

    /// Counts a request about the streams of all orgs.
    pub(super) fn acquire_all(self, now: Time) -> Result<(), Reject> {
        let Some(rate_limiter) = self.rate_limiter else { return Ok(()) };
        rate_limiter.try_acquire_all(now).map_err(Reject::RateLimited)
    }

    /// Appends lines to the log, and waits until they have come back from there.
    pub(super) async fn append(self, lines: Lines) -> Result<Appended, Reject> {
        let backplane = self.backplane.expect("only lines for a log come here");
        backplane.append(lines).await.map_err(Reject::from)
    }

    /// Has the successor perform what these lines say.
    pub(super) async fn forward(
        self,
        successor: &Operations,
        lines: Lines,
    ) -> Result<Done, Reject> {
        let operation = Operation::Lines(lines.into_bytes());
        // Boxed, because hardly any publish has to do with it.
        Box::pin(successor.perform(operation, self.hub)).await.map_err(Reject::from)
    }
}

/// The limits of a body: its size in bytes, the time it may take, and what all bodies of its connection may take.
#[derive(Clone, Debug)]
pub(crate) struct BodyLimits {
    pub(crate) bytes_max: usize,
    pub(crate) timeout: Duration,
    pub(crate) budget: Option<BodyBudget>,
}

pub(super) const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const PUBLISH: &str = r#"a document like {"keys":["posts"]}"#;

/// Publishes `{"keys":[…]}` to one org. The response has the id of the event, if it has one yet. With a log it has that
/// of the record: the event with the keys has this id, or that of a later record.
pub(crate) fn publish_one(
    publisher: Publisher<'_>,
    org: &OrgName,
    body: &[u8],
    now: Time,
) -> Result<Published, Reject> {
    let hub = publisher.hub;
    let publish: Publish<'_> = parse_object(body, PUBLISH)?;
    let keys = check_keys(publish.keys, hub.config())?;
    publisher.acquire(org, now)?;
    if !publisher.is_direct() {
        let mut lines = Lines::new();
        lines.body(org, body);
        return Ok(Published::Lines(lines, What::Org(org.clone())));
    }
    Ok(Published::Here(with_id(hub.publish(org, &keys, now).id)))
}

/// Reads a body of the `allowed` content type within its limits, of which it counts until it is dropped.
pub(crate) async fn read<B>(
    headers: HeaderMap,
    body: B,
    allowed: &'static str,
    limits: BodyLimits,
    timer: &Timer,
) -> Result<PartialBody, Reject>
where
    B: Body<Data = Bytes>,
{
    check_content(&headers, allowed)?;
    drop(headers);
    read_any(body, limits, timer).await
}

/// Reads a body within its limits that may be empty, and is JSON otherwise.
pub(super) async fn read_if_any<B>(
    headers: HeaderMap,
    body: B,
    limits: BodyLimits,
    timer: &Timer,
) -> Result<PartialBody, Reject>
where
    B: Body<Data = Bytes>,
{
    let body = read_any(body, limits, timer).await?;
    if !body.bytes().is_empty() {
        check_content(&headers, JSON)?;
    }
    Ok(body)
}

/// Checks that a body is of the `allowed` content type, and not encoded.
pub(super) fn check_content(headers: &HeaderMap, allowed: &'static str) -> Result<(), Reject> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(|value| essence(value).eq_ignore_ascii_case(allowed)) {
        return Err(Reject::ContentType { allowed });
    }
    if has_content_coding(headers) {
        return Err(Reject::ContentCoding);
    }
    Ok(())
}

/// Reads a body of any content type within its limits.
async fn read_any<B>(body: B, limits: BodyLimits, timer: &Timer) -> Result<PartialBody, Reject>
where
    B: Body<Data = Bytes>,
{
    let BodyLimits { bytes_max, timeout, budget } = limits;
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(Reject::TooLarge { max: bytes_max });
    }
    let collect = collect(body, bytes_max, PartialBody::begin(budget));
    let collected = timer.sleep(timeout).limit(collect).await;
    collected.unwrap_or(Err(Reject::TooSlow { seconds: timeout.as_secs() }))
}

/// Whether the body is encoded, for which "identity" is the word that it is not (RFC 9110, 8.4 and 12.5.3).
fn has_content_coding(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONTENT_ENCODING).iter();
    let codings = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut codings = codings.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty());
    codings.any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

async fn collect<B>(body: B, max: usize, mut collected: PartialBody) -> Result<PartialBody, Reject>
where
    B: Body<Data = Bytes>,
{
    let mut body = pin!(body);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Reject::Incomplete)?;
        let data = frame.into_data().map_err(|_| Reject::Trailers)?;
        if data.len() > max - collected.len() {
            return Err(Reject::TooLarge { max });
        }
        collected.push(&data).map_err(|OverBudget { max }| Reject::Bodies { max })?;
    }
    Ok(collected)
}

/// The content type of a publish: to many orgs (`batch`), or to one.
pub(crate) fn content_type(batch: bool) -> &'static str {
    if batch { NDJSON } else { JSON }
}

/// Parses an object only: serde would accept an array of the members' values, too.
pub(super) fn parse_object<'a, T: Deserialize<'a>>(
    text: &'a [u8],
    expected: &'static str,
) -> Result<T, Reject> {
    if text.trim_ascii_start().starts_with(b"[") {
        return Err(Reject::Document { expected, why: "this is an array".into() });
    }
    serde_json::from_slice(text)
        .map_err(|why| Reject::Document { expected, why: in_terms_of_json(&why.to_string()) })
}

/// What serde found in place of what was expected, by its name in JSON.
fn in_terms_of_json(why: &str) -> String {
    for (serde, json) in [("map", "object"), ("sequence", "array")] {
        let found = why.strip_prefix("invalid type: ").and_then(|found| found.strip_prefix(serde));
        if let Some(rest) = found {
            return format!("invalid type: {json}{rest}");
        }
    }
    why.to_owned()
}

fn check_keys<'a>(keys: KeyList<'a>, limits: &HubConfig) -> Result<Keys<'a>, Reject> {
    Keys::new(keys.0.into_iter().map(|key| key.0), limits).map_err(Reject::Keys)
}

/// Deserializes a member that has to have a value if it is there: for an `Option`, `null` would be none.
pub(super) fn present<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

pub(super) fn accepted(body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

// ===== impl Text =====

impl<'a> Text<'a> {
    pub(super) fn into_inner(self) -> Cow<'a, str> {
        self.0
    }
}

// ===== impl KeyList =====

impl<'de: 'a, 'a> Deserialize<'de> for KeyList<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(KeyListVisitor).map(Self)
    }
}

impl<'de> Visitor<'de> for KeyListVisitor {
    type Value = Vec<Text<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut keys: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(key) = keys.next_element()? {
            list.push(key);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::auth::Grant;

    /// SCENARIO: `[["posts"]]` is published, and `["acme",["posts"]]` as a line.
    /// BUG: serde accepts a list of values as a struct, so both were published.
    /// FIX: only an object is accepted.
    #[test]
    fn an_array_is_not_a_publish() {
        let hub = Hub::new(HubConfig::default());
        let org = "acme".parse().expect("a name");
        let publisher = Publisher::unlimited(&hub);
        let one = publish_one(publisher, &org, br#" [["posts"]]"#, Time(0));
        assert!(matches!(one, Err(Reject::Document { .. })), "{one:?}");
        let everyone = Grant::everyone();
        let many = publish_batch(publisher, br#"["acme",["posts"]]"#, &everyone, Time(0));
        assert!(matches!(many, Err(Reject::Line { number: 1, .. })), "{many:?}");
    }
}
