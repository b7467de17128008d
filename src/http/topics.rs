//! What the request for a topic's stream says of it: where it begins, and whether it is to be the only one; and the
//! reason for which a topic is closed.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Response, Uri};
use http_body_util::Full;
use serde::Deserialize;

use super::last_event_id::{agreed, stated_id, values_of};
use super::publish::{Destination, Publisher, Text, accepted, parse_object, present};
use super::query;
use super::reject::Reject;
use crate::config::{EXCLUSIVE_PARAMETER, SINCE_PARAMETER};
use crate::hub::Start;
use crate::hub::record::Lines;
use crate::ids::{EventId, Topic};
use crate::stream::Clock;
use crate::time::Time;
use crate::wire::Message;

/// The reason if the request gives none.
const CLOSED: &str = "closed";

const EXPECTED: &str = r#"a document like {"reason":"done"}, or an empty body"#;

/// The body of a request to close a topic, if there is one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Closing<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    reason: Option<Text<'a>>,
}

/// Whether the stream is to replace the topic's others.
///
/// # Errors
/// The parameter has another value than it may have.
pub(super) fn is_exclusive(uri: &Uri) -> Result<bool, Reject> {
    match query(uri, EXCLUSIVE_PARAMETER).as_deref() {
        None | Some("0" | "false") => Ok(false),
        Some("" | "1" | "true") => Ok(true),
        Some(_) => Err(Reject::Exclusive),
    }
}

/// Where the stream begins: behind the event that its client received last, or else where its URL says. What says
/// nothing that can be used is everything that is kept. Returns also whether the client has stated an id, usable or not.
pub(super) fn start(headers: &HeaderMap, uri: &Uri, clock: &Clock) -> (Start, bool) {
    if let Some(id) = stated_id(headers, uri) {
        return (id.and_then(|id| id.parse().ok()).map_or(Start::All, Start::After), true);
    }
    let since = since(uri, clock);
    (since, since.last_id().is_some())
}

/// Where the URL says that the stream begins.
fn since(uri: &Uri, clock: &Clock) -> Start {
    let is_since = |name: &str| name == SINCE_PARAMETER;
    match agreed(values_of(uri, is_since)).flatten().as_deref() {
        None | Some("all") => Start::All,
        Some("now") => Start::Now,
        Some(text) => match (text.parse::<EventId>(), milliseconds(text)) {
            (Ok(id), _) => Start::After(id),
            (_, Some(since)) => Start::Since(of_wall(since, SystemTime::now(), clock.elapsed())),
            _ => Start::All,
        },
    }
}

/// A number of digits only; one that is too large is the largest.
fn milliseconds(text: &str) -> Option<Duration> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| Duration::from_millis(text.parse().unwrap_or(u64::MAX)))
}

/// The hub's time at which the wall clock had this time since 1970, while that clock is at `wall` and the hub's has
/// `elapsed`. It is rounded down as the times of events are, so that an event of the same moment is included.
fn of_wall(since: Duration, wall: SystemTime, elapsed: Duration) -> Time {
    let wall = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let start = wall.saturating_sub(elapsed);
    Time(0).after(since.saturating_sub(start))
}

/// Closes a topic for the reason in the body, which is empty or JSON. It counts as a publish to the org. The response has
/// the number of streams that end; with a log, of those of this server.
pub(super) async fn close(
    publisher: Publisher<'_>,
    topic: &Topic,
    body: &[u8],
    now: Time,
) -> Result<Response<Full<Bytes>>, Reject> {
    let reason = parse_reason(body)?;
    publisher.acquire(&topic.org, now)?;
    let hub = publisher.hub;
    let lines = || {
        let mut lines = Lines::new();
        lines.close(topic, &reason);
        lines
    };
    let streams = match publisher.destination() {
        Destination::Hub => hub.close_topic(topic, &reason, now),
        Destination::Log(_) => {
            let streams = hub.topic_streams(topic);
            publisher.append(lines()).await?;
            streams
        }
        Destination::Successor(successor) => publisher.forward(successor, lines()).await?.streams,
    };
    Ok(accepted(format!("{{\"streams\":{streams}}}")))
}

/// The reason in the body of a request to close a topic.
///
/// # Errors
/// The body is something else, or the reason is too long.
fn parse_reason(body: &[u8]) -> Result<String, Reject> {
    if body.is_empty() {
        return Ok(CLOSED.into());
    }
    let Closing { reason } = parse_object(body, EXPECTED)?;
    let reason = reason.map_or_else(|| CLOSED.into(), Text::into_inner);
    if reason.len() > Message::REASON_BYTES_MAX {
        return Err(Reject::Reason { len: reason.len() });
    }
    Ok(reason.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const ID: &str = "0123456789abcdef-7";
    const OTHER: &str = "0123456789abcdef-8";

    fn start_of(query: &str, fields: &[&str]) -> Start {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append("last-event-id", HeaderValue::from_str(field).expect("text"));
        }
        let uri = format!("/?{query}").parse().expect("a URI");
        start(&headers, &uri, &Clock::start()).0
    }

    #[test]
    fn a_stream_begins_where_its_request_says() {
        let after = |id: &str| Start::After(id.parse().expect("an id"));
        for (query, fields, expected) in [
            ("", &[][..], Start::All),
            ("since=", &[], Start::All),
            ("since=all", &[], Start::All),
            ("since=now", &[], Start::Now),
            ("since=now&since=now&since=", &[], Start::Now),
            (&format!("since={ID}"), &[], after(ID)),
            (&format!("since=%30{}", &ID[1..]), &[], after(ID)),
            // What cannot be used, or is not known to be later than another, is everything.
            ("since=yesterday", &[], Start::All),
            ("since=Now", &[], Start::All),
            ("since=-1", &[], Start::All),
            ("since=+1", &[], Start::All),
            ("since=1.5", &[], Start::All),
            ("since=1e3", &[], Start::All),
            ("since=%D9%A1", &[], Start::All),
            (&format!("since=now&since={ID}"), &[], Start::All),
            (&format!("since={ID}&since={OTHER}"), &[], Start::All),
            ("SINCE=now", &[], Start::All),
            // The last id wins, in the field and in the URL, also if it is none.
            ("since=now", &[ID], after(ID)),
            ("since=now", &["x"], Start::All),
            ("since=now", &[ID, OTHER], Start::All),
            ("since=now", &["", " "], Start::Now),
            (&format!("since=now&last_event_id={ID}"), &[], after(ID)),
            (&format!("since=now&lastEventId={ID}"), &[OTHER], after(OTHER)),
            ("since=now&Last-Event-ID=x", &[], Start::All),
            ("since=now&last_event_id=", &[], Start::Now),
        ] {
            assert_eq!(start_of(query, fields), expected, "{query} {fields:?}");
        }
    }

    #[test]
    fn a_time_is_that_of_the_wall_clock() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_micros(1_000_000_500);
        let elapsed = Duration::from_micros(60_000_400);
        let hub = |millis| of_wall(Duration::from_millis(millis), wall, elapsed);
        assert_eq!(hub(1_000_000), Time(59_999), "0.5 ms before the wall clock's time");
        assert_eq!(hub(1_000_001), Time(60_000));
        assert_eq!(hub(940_000), Time(0), "before the hub's time");
        assert_eq!(hub(0), Time(0));
        assert_eq!(hub(u64::MAX), Time(u64::MAX - 940_001));
        // A wall clock that was set to a time before 1970, and one that is behind the hub's.
        let set = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(of_wall(Duration::from_millis(5), set, elapsed), Time(5));
        for (text, expected) in [("0", Some(0)), ("18446744073709551616", Some(u64::MAX))] {
            assert_eq!(milliseconds(text), expected.map(Duration::from_millis), "{text}");
        }
        assert!(matches!(start_of("since=99999999999999999999999999", &[]), Start::Since(_)));
        assert!(matches!(start_of("since=1", &[]), Start::Since(Time(0))));
    }

    #[test]
    fn exclusive_is_on_or_off() {
        for (query, expected) in [
            ("", Some(false)),
            ("exclusive", Some(true)),
            ("exclusive=", Some(true)),
            ("exclusive=1", Some(true)),
            ("a=b&%65xclusive=true", Some(true)),
            ("exclusive=0", Some(false)),
            ("exclusive=false", Some(false)),
            ("exclusive=yes", None),
            ("exclusive=TRUE", None),
            ("Exclusive=1", Some(false)),
        ] {
            let uri = format!("/?{query}").parse().expect("a URI");
            assert_eq!(is_exclusive(&uri).ok(), expected, "{query}");
        }
    }

    #[test]
    fn a_reason_is_text_of_at_most_256_bytes() {
        let long = |len| format!(r#"{{"reason":"{}"}}"#, "a".repeat(len));
        for (body, expected) in [
            ("", "closed"),
            ("{}", "closed"),
            (r#" {"reason":"done"} "#, "done"),
            (r#"{"reason":""}"#, ""),
            (r#"{"reason":"\u00e9\n"}"#, "\u{e9}\n"),
            (&long(256), &"a".repeat(256)),
        ] {
            assert_eq!(parse_reason(body.as_bytes()).expect(body), expected, "{body}");
        }
        for body in [
            &*long(257),
            &format!(r#"{{"reason":"{}"}}"#, "\u{e9}".repeat(129)),
            r#"{"reason":null}"#,
            r#"{"reason":1}"#,
            r#"{"reason":"a","reason":"b"}"#,
            r#"{"reason":"a","why":"b"}"#,
            r#"["done"]"#,
            r#""done""#,
            "null",
            "done",
            " ",
        ] {
            let refused = parse_reason(body.as_bytes());
            assert!(
                matches!(refused, Err(Reject::Document { .. } | Reject::Reason { .. })),
                "{body}"
            );
        }
    }
}
