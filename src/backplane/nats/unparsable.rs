//! Records whose headers the client library cannot parse: it closes the connection on them, or panics. Another program
//! may have published such a one, and no server could read on.

use std::str;
use std::time::UNIX_EPOCH;

use async_nats::header::HeaderValue;
use async_nats::{HeaderMap, HeaderName, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::Log;
use super::api::Api;
use super::entry::entry;
use crate::backplane::broker::{Down, Entry};

#[derive(Deserialize)]
struct Stored {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    /// In base64, and so is the payload.
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    /// When it was stored (RFC 3339).
    time: String,
}

/// What is at a position.
pub(super) enum Found {
    /// No record, yet or any more.
    Nothing,
    /// A record as the library would read it.
    Parsable(Entry),
    /// What stands for a record that cannot be read: nothing of it can be used, but its position.
    Unparsable(Entry),
}

// ===== impl Log =====

impl Log {
    /// Reads the record at this position, without the library's parser.
    pub(super) async fn look_at(&self, position: u64) -> Result<Found, Down> {
        let call = format!("STREAM.MSG.GET.{}", self.wanted.stream);
        let request = json!({ "seq": position }).to_string();
        let message = match self.connection.api(&call, &request).await? {
            Api::Done(Stored { message }) => message,
            Api::Refused(why) if why.is_no_message() => return Ok(Found::Nothing),
            Api::Refused(why) => return Err(why.down(&format!("to read record {position}"))),
        };
        let invalid = |_| Down(format!("JetStream gives record {position} unreadably"));
        let headers = BASE64_STANDARD.decode(&message.hdrs).map_err(invalid)?;
        let payload = BASE64_STANDARD.decode(&message.data).map_err(invalid)?;
        let stored = humantime::parse_rfc3339(&message.time).ok();
        let stored = stored.and_then(|stored| stored.duration_since(UNIX_EPOCH).ok());
        let stored = stored.and_then(|stored| stored.as_nanos().try_into().ok()).unwrap_or(0);
        if headers.is_empty() {
            return Ok(Found::Parsable(entry(None, &payload, position, stored)));
        }
        Ok(match parse(&headers) {
            Some(headers) => Found::Parsable(entry(Some(&headers), &payload, position, stored)),
            None => Found::Unparsable(Entry { kind: None, ..entry(None, &[], position, stored) }),
        })
    }
}

/// What the library makes of these headers, line by line as in its `connection.rs`; `None` if it fails. A test compares
/// both.
pub(super) fn parse(headers: &[u8]) -> Option<HeaderMap> {
    let mut lines = str::from_utf8(headers).ok()?.lines().peekable();
    let version = lines.next()?.strip_prefix("NATS/1.0")?.trim();
    let status = version.split_once(' ').map_or(version, |(status, _)| status.trim());
    if !status.is_empty() {
        status.parse::<StatusCode>().ok()?;
    }
    let mut headers = HeaderMap::new();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once(':')?;
        let name: HeaderName = name.parse().ok()?;
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        headers.append(name, value.trim_end().parse::<HeaderValue>().ok()?);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn headers_have_a_version_names_and_values() {
        for good in [
            "NATS/1.0\r\n\r\n",
            "NATS/1.0 503 x\r\nA:b\r\n c\r\nD: \r\n\r\n",
            "NATS/1.0 503\t x\r\n\r\n",
        ] {
            assert!(parse(good.as_bytes()).is_some(), "{good:?}");
        }
        for bad in [
            "",
            "HTTP/1.0\r\n",
            "\r\nNATS/1.0\r\n\r\n",
            "NATS/1.0 x\r\n",
            "NATS/1.0\r\nno colon\r\n",
            "NATS/1.0\r\n\u{e9}: x\r\n",
            "NATS/1.0\r\nA: b\rc\r\n\r\n",
            "NATS/1.0\r\nA: b\r\n\r\n c\r\n\r\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(parse(b"NATS/1.0\r\nA: \xff\r\n"), None);
    }
}
