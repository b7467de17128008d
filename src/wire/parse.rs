//! The event stream parser of WHATWG HTML 9.2.6, over pieces of any size.
//!
//! Lines are found in bytes and decoded one by one, which equals decoding the stream first: no byte of a
//! multi-byte character is CR or LF, and an incomplete character ends before either of them.

use std::fmt;

/// The longest line, and the largest event (its type, data and id together, decoded), in bytes: 1 MiB.
/// The standard sets no limit; without one a single stream could fill the memory.
pub const EVENT_LEN_MAX: usize = 1 << 20;

/// One dispatched event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its type, `message` unless the stream named one.
    pub name: String,
    /// Its data, lines joined by LF.
    pub data: String,
    /// The last event id as of this event; empty if none was ever given.
    pub id: String,
}

/// Turns bytes, in pieces of any size, into [`Event`]s: the same ones however the bytes were cut. An
/// event that the stream does not finish with an empty line is never dispatched.
///
/// Between events it holds the last id and no other memory.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    /// The beginning of a line that continues in the next piece.
    line: Vec<u8>,
    data: String,
    name: String,
    /// The id of the event being read; it counts once the event is complete.
    id: Option<String>,
    last_event_id: String,
    retry_ms: Option<u64>,
    /// Behind the first line, where a byte order mark is text like any other.
    begun: bool,
    /// The last byte was a CR: a following LF belongs to it.
    after_cr: bool,
    failed: bool,
}

/// A line or an event of the stream is larger than [`EVENT_LEN_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTooLarge;

const BOM: &[u8] = "\u{feff}".as_bytes();

// ===== impl Parser =====

impl Parser {
    /// A parser for a stream that is resumed from this id, which stays the last event id until the stream gives
    /// another, as in browsers.
    pub fn resume(last_event_id: String) -> Self {
        Self { last_event_id, ..Self::default() }
    }

    /// Parses the next bytes of the stream and passes every event that they complete to `dispatch`.
    ///
    /// # Errors
    ///
    /// [`EventTooLarge`], after the events before it were dispatched. The rest of the stream cannot be parsed:
    /// every later call fails too.
    pub fn push(
        &mut self,
        bytes: &[u8],
        mut dispatch: impl FnMut(Event),
    ) -> Result<(), EventTooLarge> {
        if self.failed {
            return Err(EventTooLarge);
        }
        let result = self.lines(bytes, &mut dispatch);
        if result.is_err() {
            let last_event_id = std::mem::take(&mut self.last_event_id);
            *self = Self { failed: true, retry_ms: self.retry_ms, ..Self::resume(last_event_id) };
        }
        result
    }

    /// The last `retry:` of the stream, in milliseconds; one too large for the type is its maximum.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// The last event id, which a client sends when it reconnects. An id without data counts too, one whose
    /// event is not complete does not.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    fn lines(
        &mut self,
        bytes: &[u8],
        dispatch: &mut impl FnMut(Event),
    ) -> Result<(), EventTooLarge> {
        let mut rest = bytes;
        if let [first, tail @ ..] = rest {
            if self.after_cr && *first == b'\n' {
                rest = tail;
            }
            self.after_cr = false;
        }
        while let Some(end) = rest.iter().position(|b| matches!(b, b'\r' | b'\n')) {
            let (line, tail) = rest.split_at(end);
            self.end_line(line, dispatch)?;
            let line_end = if tail.starts_with(b"\r\n") { 2 } else { 1 };
            rest = &tail[line_end..];
            self.after_cr = tail == b"\r";
        }
        self.hold(rest)
    }

    /// Keeps the beginning of a line. Only new bytes are ever searched for its end.
    fn hold(&mut self, part: &[u8]) -> Result<(), EventTooLarge> {
        if self.line.len() + part.len() > EVENT_LEN_MAX {
            return Err(EventTooLarge);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn end_line(
        &mut self,
        end: &[u8],
        dispatch: &mut impl FnMut(Event),
    ) -> Result<(), EventTooLarge> {
        if !self.line.is_empty() {
            self.hold(end)?;
            let line = std::mem::take(&mut self.line);
            return self.interpret(&line, dispatch);
        }
        if end.len() > EVENT_LEN_MAX {
            return Err(EventTooLarge);
        }
        self.interpret(end, dispatch)
    }

    fn interpret(
        &mut self,
        line: &[u8],
        dispatch: &mut impl FnMut(Event),
    ) -> Result<(), EventTooLarge> {
        let line = if self.begun { line } else { line.strip_prefix(BOM).unwrap_or(line) };
        self.begun = true;
        if line.is_empty() {
            if let Some(event) = self.complete() {
                dispatch(event);
            }
            return Ok(());
        }
        let (name, value) = match line.iter().position(|b| *b == b':') {
            Some(0) => return Ok(()), // a comment
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        self.field(name, value.strip_prefix(b" ").unwrap_or(value));
        if self.held() > EVENT_LEN_MAX { Err(EventTooLarge) } else { Ok(()) }
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"data" => {
                let value = String::from_utf8_lossy(value);
                self.data.reserve(value.len() + 1);
                self.data.push_str(&value);
                self.data.push('\n');
            }
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            b"id" if !value.contains(&0) => {
                self.id = Some(String::from_utf8_lossy(value).into_owned());
            }
            b"retry" => self.retry_ms = decimal(value).or(self.retry_ms),
            _ => {}
        }
    }

    fn held(&self) -> usize {
        self.data.len() + self.name.len() + self.id.as_ref().map_or(0, String::len)
    }

    /// The effect of an empty line: the id counts from here on, and if there is data there is an event.
    fn complete(&mut self) -> Option<Event> {
        if let Some(id) = self.id.take() {
            self.last_event_id = id;
        }
        let mut name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        data.pop()?; // the LF behind the last line; there is one if there was any line
        if name.is_empty() {
            name.push_str("message");
        }
        Some(Event { name, data, id: self.last_event_id.clone() })
    }
}

/// A number of ASCII digits, at least one: an empty `retry` changes nothing.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, b| {
        let digit = char::from(*b).to_digit(10)?;
        Some(number.saturating_mul(10).saturating_add(u64::from(digit)))
    })
}

// ===== impl EventTooLarge =====

impl fmt::Display for EventTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the stream holds a line or an event of more than {EVENT_LEN_MAX} bytes")
    }
}

impl std::error::Error for EventTooLarge {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parser_holds_no_buffer_between_events() {
        let mut parser = Parser::default();
        let stream = "id: 1\nevent: a\ndata: x\ndata: y\n\n: comment\n";
        for byte in stream.as_bytes() {
            parser.push(&[*byte], drop).expect("a small stream");
        }
        assert_eq!(parser.last_event_id(), "1");
        let Parser { line, data, name, id, .. } = &parser;
        assert_eq!((line.capacity(), data.capacity(), name.capacity(), id), (0, 0, 0, &None));
    }
}
