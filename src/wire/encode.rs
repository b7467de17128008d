//! Encodes events, each once.
//!
//! A publisher cannot break the framing: keys travel inside JSON strings, where every control character is
//! escaped, so that no CR, LF or NUL in a key reaches a line; names and ids are generated here. All that is written is
//! ASCII.

use std::io::Write;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;

use super::memory::{MemoryUse, cost, share};
use super::message::Message;
use crate::ids::{EventId, hex_digit};

/// One event, encoded, with its HTTP/1.1 chunk framing (RFC 9112, 7.1) around it:
/// `<length in hexadecimal>\r\n` event `\r\n`. The reactor writes [`Frame::chunked`]; an
/// HTTP implementation that frames by itself takes [`Frame::payload`]. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct Frame {
    chunked: Bytes,
    payload_start: u8,
}

/// What keeps a silent stream open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keepalive {
    /// [`Frame::keepalive`], which is no event.
    #[default]
    Comment,
    /// [`Frame::ping`], for clients that cannot see comments.
    Event,
}

/// How a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Greeting {
    /// The client has to re-read everything: its copies may be stale.
    Connected,
    /// All events that the client missed follow.
    Resumed,
}

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

const CRLF: &[u8] = b"\r\n";

/// Appends the first event of a stream: `retry:` in milliseconds, the position, the greeting, and the longest silence
/// in seconds.
pub fn greet(out: &mut Vec<u8>, greeting: Greeting, id: EventId, retry_ms: u32, keepalive_s: u32) {
    out.extend_from_slice(b"retry: ");
    out.extend_from_slice(itoa::Buffer::new().format(retry_ms).as_bytes());
    out.push(b'\n');
    append_greeting(out, greeting, id, keepalive_s);
}

fn append_greeting(out: &mut Vec<u8>, greeting: Greeting, id: EventId, keepalive_s: u32) {
    let name = match greeting {
        Greeting::Connected => "connected",
        Greeting::Resumed => "resumed",
    };
    out.extend_from_slice(b"id: ");
    id.append_to(out);
    out.extend_from_slice(b"\nevent: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: {\"keepalive\":");
    out.extend_from_slice(itoa::Buffer::new().format(keepalive_s).as_bytes());
    out.extend_from_slice(b"}\n\n");
}

/// Appends the same as a chunk, which is that of [`Frame::greeting`].
pub(crate) fn greet_chunked(
    out: &mut Vec<u8>,
    greeting: Greeting,
    id: EventId,
    retry_ms: u32,
    keepalive_s: u32,
) {
    let start = out.len();
    out.extend_from_slice(b"00\r\n");
    greet(out, greeting, id, retry_ms, keepalive_s);
    let length = out.len() - start - b"00\r\n".len();
    assert!(length < 256, "two digits");
    out[start..start + 2]
        .copy_from_slice(&[length >> 4, length].map(|bits| hex_digit(bits as u64)));
    out.extend_from_slice(CRLF);
}

const ID_LINE: &str = "a published event begins with its id";

const TO_MEMORY: &str = "writing to memory does not fail";

// ===== impl Frame =====

impl Frame {
    /// `invalidate` with these keys, in their order.
    pub fn invalidate<'a>(id: EventId, keys: impl IntoIterator<Item = &'a str>) -> Self {
        let event = invalidate(id, keys, usize::MAX).expect("without a bound");
        Self::enclose(&event, None)
    }

    /// The same, whose memory is counted; `None` if the event is longer than `bytes_max`.
    pub(crate) fn invalidate_in<'a>(
        memory: &Arc<MemoryUse>,
        id: EventId,
        keys: impl IntoIterator<Item = &'a str>,
        bytes_max: usize,
    ) -> Option<Self> {
        Some(Self::enclose(&invalidate(id, keys, bytes_max)?, Some(memory)))
    }

    /// An event of a topic.
    pub fn message(id: EventId, message: &Message) -> Self {
        Self::enclose(&message.with_id(id), None)
    }

    /// The same, whose memory is counted.
    pub(crate) fn message_in(memory: &Arc<MemoryUse>, id: EventId, message: &Message) -> Self {
        Self::enclose(&message.with_id(id), Some(memory))
    }

    /// The same event with another id, of an epoch that no history has: a client that comes back with it re-reads
    /// everything.
    pub(crate) fn uncovered(&self, memory: &Arc<MemoryUse>) -> Self {
        let mut chunked = self.chunked.to_vec();
        let digit = &mut chunked[usize::from(self.payload_start) + b"id: ".len()];
        let value = char::from(*digit).to_digit(16).expect("an id begins with a digit");
        *digit = hex_digit(u64::from(value) ^ 8);
        Self { chunked: share(chunked, Some(memory)), payload_start: self.payload_start }
    }

    /// `connected` on a live stream, whose longest silence is that of its greeting: re-read everything.
    pub fn connected(id: EventId, keepalive_s: u32) -> Self {
        Self::enclose(&connected(id, keepalive_s), None)
    }

    /// The same, whose memory is counted.
    pub(crate) fn connected_in(memory: &Arc<MemoryUse>, id: EventId, keepalive_s: u32) -> Self {
        Self::enclose(&connected(id, keepalive_s), Some(memory))
    }

    /// The comment that keeps a silent stream open, and detects a dead peer. It is one line: decoders in use dispatch
    /// an event at any blank line, once they know an id.
    pub const fn keepalive() -> Self {
        Self { chunked: Bytes::from_static(b"c\r\n: keepalive\n\r\n"), payload_start: 3 }
    }

    /// The same as an event, for clients that cannot see comments. It has no id, so it leaves a client's last one as
    /// it is.
    pub const fn ping() -> Self {
        let chunked = Bytes::from_static(b"16\r\nevent: ping\ndata: {}\n\n\r\n");
        Self { chunked, payload_start: 4 }
    }

    /// The keepalive of a filtered stream: an event with the stream's position, whose data is not empty because Firefox
    /// takes no id from a block without data.
    pub fn ping_at(id: EventId) -> Self {
        Self::enclose(&ping(id), None)
    }

    /// The same, whose memory is counted.
    pub(crate) fn ping_in(memory: &Arc<MemoryUse>, id: EventId) -> Self {
        Self::enclose(&ping(id), Some(memory))
    }

    /// A frame around the first event of a stream, see [`greet`].
    pub fn greeting(greeting: Greeting, id: EventId, retry_ms: u32, keepalive_s: u32) -> Self {
        let mut event = Vec::with_capacity(112);
        greet(&mut event, greeting, id, retry_ms, keepalive_s);
        Self::enclose(&event, None)
    }

    /// The end of a drained stream: a reconnection time in milliseconds. It is no event, and has no blank line, see
    /// [`Self::keepalive`]; a browser takes the field as soon as its line has ended (WHATWG HTML, 9.2.6).
    pub fn farewell(retry_ms: u32) -> Self {
        Self::enclose(format!("retry: {retry_ms}\n").as_bytes(), None)
    }

    /// The end of a stream that another one of its topic has replaced. It has no id: what the client has missed comes
    /// after its last one.
    pub const fn replaced() -> Self {
        let chunked = b"2b\r\nevent: closed\ndata: {\"reason\":\"replaced\"}\n\n\r\n";
        Self { chunked: Bytes::from_static(chunked), payload_start: 4 }
    }

    /// The id of an event that begins with one.
    pub(crate) fn id(&self) -> EventId {
        let text = &self.bytes(false)[b"id: ".len()..];
        let end = text.iter().position(|byte| *byte == b'\n').expect(ID_LINE);
        let text = std::str::from_utf8(&text[..end]).expect(ID_LINE);
        text.parse().expect(ID_LINE)
    }

    /// Whether it is an event that was published, which begins with its id and its name.
    pub(crate) fn is_published(&self) -> bool {
        let payload = self.bytes(false);
        let mut lines = payload.split(|byte| *byte == b'\n');
        let has_id = lines.next().is_some_and(|line| line.starts_with(b"id: "));
        has_id
            && !matches!(
                lines.next(),
                Some(b"event: connected" | b"event: resumed" | b"event: ping")
            )
    }

    /// The event in chunk framing.
    pub fn chunked(&self) -> &Bytes {
        &self.chunked
    }

    /// The event alone, sharing the frame's memory.
    pub fn payload(&self) -> Bytes {
        self.chunked.slice(self.payload_range())
    }

    /// The event with its chunk framing, or alone.
    pub(crate) fn bytes(&self, chunked: bool) -> &[u8] {
        if chunked { &self.chunked } else { &self.chunked[self.payload_range()] }
    }

    /// Bytes of memory that it needs, however often it is shared.
    pub(crate) fn cost(&self) -> usize {
        cost(self.chunked.len())
    }

    fn payload_range(&self) -> std::ops::Range<usize> {
        usize::from(self.payload_start)..self.chunked.len() - CRLF.len()
    }

    /// Allocates exactly as much as is needed.
    pub(super) fn enclose(event: &[u8], memory: Option<&Arc<MemoryUse>>) -> Self {
        let mut digits = [0u8; 18];
        let mut rest = &mut digits[..];
        write!(rest, "{:x}\r\n", event.len()).expect("sixteen digits and CRLF fit");
        let unused = rest.len();
        let head = &digits[..digits.len() - unused];

        let mut chunked = Vec::with_capacity(head.len() + event.len() + CRLF.len());
        chunked.extend_from_slice(head);
        chunked.extend_from_slice(event);
        chunked.extend_from_slice(CRLF);
        Self {
            chunked: share(chunked, memory),
            payload_start: u8::try_from(head.len()).expect("at most 18"),
        }
    }
}

/// The text of an event with these keys, unless it is longer than `bytes_max`.
fn invalidate<'a>(
    id: EventId,
    keys: impl IntoIterator<Item = &'a str>,
    bytes_max: usize,
) -> Option<Vec<u8>> {
    let mut event = Vec::with_capacity(128);
    event.extend_from_slice(b"id: ");
    id.append_to(&mut event);
    event.extend_from_slice(b"\nevent: invalidate\ndata: {\"keys\":[");
    let mut first = true;
    for key in keys {
        if !mem::replace(&mut first, false) {
            event.push(b',');
        }
        append_json(&mut event, key);
        if event.len() > bytes_max {
            return None;
        }
    }
    event.extend_from_slice(b"]}\n\n");
    (event.len() <= bytes_max).then_some(event)
}

/// Appends a string as JSON. Most keys need no escapes.
fn append_json(event: &mut Vec<u8>, key: &str) {
    if key.bytes().all(|byte| IS_PLAIN[usize::from(byte)]) {
        event.reserve(key.len() + 2);
        event.push(b'"');
        event.extend_from_slice(key.as_bytes());
        event.push(b'"');
    } else {
        append_escaped(event, key);
    }
}

/// Whether a byte is a character that stands for itself in JSON.
static IS_PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        table[byte as usize] = byte != b'"' && byte != b'\\';
        byte += 1;
    }
    table
};

/// The same for any key.
fn append_escaped(event: &mut Vec<u8>, key: &str) {
    append_ascii_json(event, &serde_json::to_string(key).expect(TO_MEMORY));
}

/// Appends JSON, in which what is not ASCII is escaped (RFC 8259, 7): some clients take U+0085, U+2028 or U+2029 for the
/// end of a line, or the text for Latin-1. Only strings have it.
pub(super) fn append_ascii_json(event: &mut Vec<u8>, json: &str) {
    for part in json.split_inclusive(|c: char| !c.is_ascii()) {
        let ascii = part.trim_end_matches(|c: char| !c.is_ascii());
        event.extend_from_slice(ascii.as_bytes());
        for unit in part[ascii.len()..].encode_utf16() {
            let digits = [12, 8, 4, 0].map(|shift| hex_digit(u64::from(unit) >> shift));
            event.extend_from_slice(b"\\u");
            event.extend_from_slice(&digits);
        }
    }
}

fn connected(id: EventId, keepalive_s: u32) -> Vec<u8> {
    let mut event = Vec::with_capacity(96);
    append_greeting(&mut event, Greeting::Connected, id, keepalive_s);
    event
}

fn ping(id: EventId) -> Vec<u8> {
    let mut event = Vec::with_capacity(80);
    event.extend_from_slice(b"id: ");
    id.append_to(&mut event);
    event.extend_from_slice(b"\nevent: ping\ndata: {}\n\n");
    event
}

// ===== impl Keepalive =====

impl Keepalive {
    /// Its frame, which is encoded once for all streams.
    pub const fn frame(self) -> Frame {
        match self {
            Self::Comment => Frame::keepalive(),
            Self::Event => Frame::ping(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encoders_of_a_greeting_write_the_same_chunk() {
        for (id, retry_ms) in
            [("0000000000000000-0", 0), ("ffffffffffffffff-18446744073709551615", u32::MAX)]
        {
            let id = id.parse().expect("an id");
            for greeting in [Greeting::Connected, Greeting::Resumed] {
                let mut out = b"head".to_vec();
                let keepalive_s = if retry_ms == 0 { 1 } else { u32::MAX };
                greet_chunked(&mut out, greeting, id, retry_ms, keepalive_s);
                let frame = Frame::greeting(greeting, id, retry_ms, keepalive_s);
                assert_eq!(out[4..], frame.chunked()[..]);
            }
        }
    }
}
