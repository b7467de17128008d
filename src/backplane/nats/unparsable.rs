//! Records whose headers the client library cannot parse: it closes the connection on them. Another program may have
//! published such a one, and no server could read on.

use std::str;

use async_nats::{HeaderName, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::Log;
use super::api::Api;
use crate::backplane::broker::{Down, Entry, VERSION};

#[derive(Deserialize)]
struct Stored {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    /// In base64.
    #[serde(default)]
    hdrs: String,
    /// When it was stored, as text that is the same for every server.
    time: String,
}

/// What is at a position.
pub(super) enum Found {
    /// No record, yet or any more.
    Nothing,
    Parsable,
    /// What stands for a record that cannot be read: nothing of it can be used, but its position.
    Unparsable(Entry),
}

// ===== impl Log =====

impl Log {
    /// Looks whether the record at this position can be read.
    pub(super) async fn look_at(&self, position: u64) -> Result<Found, Down> {
        let call = format!("STREAM.MSG.GET.{}", self.wanted.stream);
        let request = json!({ "seq": position }).to_string();
        let message = match self.connection.api(&call, &request).await? {
            Api::Done(Stored { message }) => message,
            Api::Refused(why) if why.is_no_message() => return Ok(Found::Nothing),
            Api::Refused(why) => return Err(why.down(&format!("to read record {position}"))),
        };
        let headers = BASE64_STANDARD.decode(&message.hdrs);
        if message.hdrs.is_empty() || headers.is_ok_and(|headers| are_parsable(&headers)) {
            return Ok(Found::Parsable);
        }
        let digits = message.time.bytes().filter(u8::is_ascii_digit);
        let tag = digits.fold(0_u64, |tag, b| tag.wrapping_mul(10).wrapping_add((b - b'0').into()));
        let payload = Bytes::new();
        Ok(Found::Unparsable(Entry { position, tag, version: VERSION, kind: None, payload }))
    }
}

/// Whether the library parses these headers.
pub(super) fn are_parsable(headers: &[u8]) -> bool {
    let Ok(headers) = str::from_utf8(headers) else { return false };
    let mut lines = headers.lines().filter(|line| !line.is_empty()).peekable();
    let Some(status) = lines.next().and_then(|line| line.strip_prefix("NATS/1.0")) else {
        return false;
    };
    let status = status.trim().split(' ').next().unwrap_or("");
    if !status.is_empty() && status.parse::<StatusCode>().is_err() {
        return false;
    }
    while let Some(line) = lines.next() {
        let Some((name, _)) = line.split_once(':') else { return false };
        if name.parse::<HeaderName>().is_err() {
            return false;
        }
        while lines.next_if(|line| line.starts_with(char::is_whitespace)).is_some() {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::are_parsable;

    #[test]
    fn headers_have_a_version_names_and_values() {
        for good in ["NATS/1.0\r\n\r\n", "NATS/1.0 503 x\r\nA:b\r\n c\r\nD: \r\n\r\n"] {
            assert!(are_parsable(good.as_bytes()), "{good:?}");
        }
        for bad in [
            "",
            "HTTP/1.0\r\n",
            "NATS/1.0 x\r\n",
            "NATS/1.0\r\nno colon\r\n",
            "NATS/1.0\r\n\u{e9}: x\r\n",
        ] {
            assert!(!are_parsable(bad.as_bytes()), "{bad:?}");
        }
        assert!(!are_parsable(b"NATS/1.0\r\nA: \xff\r\n"));
    }
}
