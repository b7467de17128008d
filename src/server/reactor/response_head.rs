//! The response head of a stream that the reactor writes.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

use crate::http::Fields;
use crate::stream::HEADERS;

/// Writes response heads into memory that is used again: most often a head is sent at once.
#[derive(Debug, Default)]
pub(super) struct ResponseHeads {
    /// The part that stays the same within a second, by whether the body is chunked.
    fixed: [Option<(u64, Vec<u8>)>; 2],
    head: Vec<u8>,
}

// ===== impl ResponseHeads =====

impl ResponseHeads {
    /// The head of a response that begins now, with additional fields, as hyper writes it for
    /// [`EventStream::into_response`](crate::stream::EventStream::into_response) if the connection ends with it.
    pub(super) fn write(&mut self, chunked: bool, fields: &Fields) -> &mut Vec<u8> {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let fixed = &mut self.fixed[usize::from(chunked)];
        if fixed.as_ref().is_none_or(|(written, _)| *written != second) {
            *fixed = Some((second, write_fixed(chunked, now.into())));
        }
        let head = &mut self.head;
        head.clear();
        head.extend_from_slice(fixed.as_ref().map_or(&[], |(_, bytes)| bytes));
        for (name, value) in fields.iter() {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

fn write_fixed(chunked: bool, date: HttpDate) -> Vec<u8> {
    let mut head = Vec::with_capacity(320);
    head.extend_from_slice(if chunked { b"HTTP/1.1" } else { b"HTTP/1.0" });
    head.extend_from_slice(b" 200 OK\r\n");
    for (name, value) in HEADERS {
        write!(head, "{name}: {value}\r\n").expect(TO_MEMORY);
    }
    if chunked {
        // The connection ends with its stream. Over HTTP/1.0 every connection does that did not agree on more.
        head.extend_from_slice(b"transfer-encoding: chunked\r\nconnection: close\r\n");
    }
    write!(head, "date: {date}\r\n").expect(TO_MEMORY);
    head
}

const TO_MEMORY: &str = "writing to memory does not fail";
