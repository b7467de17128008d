//! The events of topics: any name, and a payload.

use std::fmt;

use serde_json::value::RawValue;

use super::encode::append_ascii_json;
use crate::ids::EventId;

/// An event for a topic, checked and encoded, but for its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its lines after that of the id, with the blank one.
    lines: Vec<u8>,
    bulk: bool,
}

/// What the event carries.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Payload<'a> {
    /// JSON, on one `data:` line as it came: what is not ASCII is escaped, and CR and LF are deleted, which in JSON can only
    /// be insignificant white space (RFC 8259, 2).
    Json(&'a RawValue),
    /// Text, on as many `data:` lines as it has lines, which end with CR, LF or CRLF (WHATWG HTML, 9.2.6).
    Text(&'a str),
}

/// Why an event is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// The name is not in the grammar, see [`Message::new`].
    Name,
    /// The name is one of [`Message::RESERVED`].
    Reserved,
    /// The event would have `len` bytes on the wire; at most `max` are allowed.
    TooLong {
        /// The length.
        len: usize,
        /// The allowed length.
        max: usize,
    },
}

/// The line of the longest id: sixteen digits, and the twenty of the largest number.
const ID_LINE_MAX: usize = "id: ".len() + 16 + "-".len() + 20 + "\n".len();

// ===== impl Message =====

impl Message {
    /// The names of nudged's own events.
    pub const RESERVED: [&'static str; 5] =
        ["connected", "resumed", "invalidate", "closed", "ping"];

    /// The longest allowed name, in bytes.
    pub const NAME_LEN_MAX: usize = 64;

    /// The longest reason for which a topic is closed, in bytes.
    #[cfg(feature = "server")]
    pub(crate) const REASON_BYTES_MAX: usize = 256;

    /// An event of at most `bytes_max` bytes on the wire, with the longest id and without the framing of HTTP. Its name
    /// is `[A-Za-z][A-Za-z0-9._:-]{0,63}`. A bulk event may be dropped without notice once its topic keeps too many; of
    /// any other one the clients that miss it are notified.
    ///
    /// # Errors
    /// The name is not allowed, or the event is too long.
    pub fn new(
        name: &str,
        payload: Payload<'_>,
        bulk: bool,
        bytes_max: usize,
    ) -> Result<Self, InvalidMessage> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
        let starts_well = name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
        if !starts_well || name.len() > Self::NAME_LEN_MAX || !name.bytes().all(allowed) {
            return Err(InvalidMessage::Name);
        }
        if Self::RESERVED.contains(&name) {
            return Err(InvalidMessage::Reserved);
        }
        let lines = encode(name, payload);
        let len = ID_LINE_MAX + lines.len();
        if len > bytes_max {
            return Err(InvalidMessage::TooLong { len, max: bytes_max });
        }
        Ok(Self { lines, bulk })
    }

    /// The last event of a topic, with the reason for which it is closed.
    pub fn closed(reason: &str) -> Self {
        let mut lines = b"event: closed\ndata: {\"reason\":".to_vec();
        append_ascii_json(&mut lines, &serde_json::Value::from(reason).to_string());
        lines.extend_from_slice(b"}\n\n");
        Self { lines, bulk: false }
    }

    /// Whether it may be dropped without notice.
    pub fn is_bulk(&self) -> bool {
        self.bulk
    }

    /// The whole event, under this id.
    pub(super) fn with_id(&self, id: EventId) -> Vec<u8> {
        let mut event = Vec::with_capacity(ID_LINE_MAX + self.lines.len());
        event.extend_from_slice(b"id: ");
        id.append_to(&mut event);
        event.push(b'\n');
        event.extend_from_slice(&self.lines);
        event
    }
}

fn encode(name: &str, payload: Payload<'_>) -> Vec<u8> {
    let mut lines = Vec::with_capacity(128);
    lines.extend_from_slice(b"event: ");
    lines.extend_from_slice(name.as_bytes());
    lines.push(b'\n');
    match payload {
        Payload::Json(json) => append_data(&mut lines, |line| {
            json.get().split(['\r', '\n']).for_each(|part| append_ascii_json(line, part));
        }),
        Payload::Text(text) => {
            for line in text.replace("\r\n", "\n").split(['\r', '\n']) {
                append_data(&mut lines, |out| out.extend_from_slice(line.as_bytes()));
            }
        }
    }
    lines.push(b'\n');
    lines
}

/// Appends a `data:` line.
fn append_data(lines: &mut Vec<u8>, append: impl FnOnce(&mut Vec<u8>)) {
    lines.extend_from_slice(b"data: ");
    append(lines);
    lines.push(b'\n');
}

// ===== impl InvalidMessage =====

impl fmt::Display for InvalidMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str(
                "an event's name is 1 to 64 of A-Z a-z 0-9 . _ : - and starts with a letter",
            ),
            Self::Reserved => write!(
                f,
                "the names {} are reserved for the server's own events",
                Message::RESERVED.join(", ")
            ),
            Self::TooLong { len, max } => {
                write!(f, "the event has {len} bytes on the wire; at most {max} are allowed")
            }
        }
    }
}

impl std::error::Error for InvalidMessage {}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(payload: Payload<'_>) -> String {
        let message = Message::new("n", payload, false, usize::MAX).expect("a message");
        let id = "0000000000000001-2".parse().expect("an id");
        String::from_utf8(message.with_id(id)).expect("UTF-8")
    }

    #[test]
    fn json_is_one_line_of_ascii() {
        let json = "{\r\n \"é\\n\": [1,\n\"\u{1F600}\u{2028}\"]}";
        let raw: &RawValue = serde_json::from_str(json).expect("JSON");
        let expected = "id: 0000000000000001-2\nevent: n\ndata: { \"\\u00e9\\n\": [1,\"\\ud83d\\ude00\\u2028\"]}\n\n";
        assert_eq!(written(Payload::Json(raw)), expected);
    }

    #[test]
    fn text_has_a_line_for_each_of_its_lines() {
        let head = "id: 0000000000000001-2\nevent: n\n";
        for (text, lines) in [
            ("", "data: \n"),
            ("a", "data: a\n"),
            ("a\r", "data: a\ndata: \n"),
            ("a\nb\r\nc\rd", "data: a\ndata: b\ndata: c\ndata: d\n"),
            ("\r\r\n\n", "data: \ndata: \ndata: \ndata: \n"),
        ] {
            assert_eq!(written(Payload::Text(text)), format!("{head}{lines}\n"), "{text:?}");
        }
    }
}
