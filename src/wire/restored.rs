//! Events that were encoded in an earlier process.

use std::fmt;
use std::sync::Arc;

use super::encode::Frame;
use super::memory::MemoryUse;
use crate::ids::EventId;

/// Why a text is not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidEvent {
    /// It does not begin with its id.
    Id,
    /// It does not end with a blank line, or has another one.
    Lines,
    /// It is no UTF-8, or has a carriage return, which ends a line.
    Text,
}

// ===== impl Frame =====

impl Frame {
    /// An event with this id, whose text this is, and whose memory is counted.
    ///
    /// # Errors
    /// The text is not one event with this id.
    pub(crate) fn restored_in(
        memory: &Arc<MemoryUse>,
        id: EventId,
        text: &[u8],
    ) -> Result<Self, InvalidEvent> {
        let mut start = Vec::with_capacity(48);
        start.extend_from_slice(b"id: ");
        id.append_to(&mut start);
        start.push(b'\n');
        let lines = text.strip_prefix(&*start).ok_or(InvalidEvent::Id)?;
        let last = lines.strip_suffix(b"\n\n").ok_or(InvalidEvent::Lines)?;
        if last.contains(&b'\r') || std::str::from_utf8(last).is_err() {
            return Err(InvalidEvent::Text);
        }
        let is_blank = last.is_empty() || last.starts_with(b"\n") || last.ends_with(b"\n");
        if is_blank || last.windows(2).any(|two| two == b"\n\n") {
            return Err(InvalidEvent::Lines);
        }
        Ok(Self::enclose(text, Some(memory)))
    }
}

// ===== impl InvalidEvent =====

impl fmt::Display for InvalidEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => f.write_str("an event does not begin with its id"),
            Self::Lines => {
                f.write_str("an event has no blank line at its end, or one that is elsewhere")
            }
            Self::Text => f.write_str("an event is no UTF-8, or has a carriage return"),
        }
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use super::*;
    use crate::wire::{Message, Payload};

    fn restored(text: &[u8]) -> Result<Frame, InvalidEvent> {
        let id = "00000000000000ff-7".parse().expect("an id");
        Frame::restored_in(&Arc::default(), id, text)
    }

    #[test]
    fn an_event_is_restored_as_it_was() {
        let id = "00000000000000ff-7".parse().expect("an id");
        let message = |text| Message::new("n", Payload::Text(text), false, 1_000).expect("short");
        let frames = [
            Frame::invalidate(id, ["posts", "a\n\n\u{7f}\u{0}\r\u{2028}"]),
            Frame::message(id, &message("\r\n\na\tb\n\nc\u{e9}\u{0}\u{2028}\r\n")),
            Frame::message(id, &message("")),
            Frame::message(id, &Message::closed("a\nb")),
        ];
        for frame in frames {
            let again = restored(&frame.payload()).expect("an event");
            assert_eq!((again.chunked(), again.id()), (frame.chunked(), id));
        }
    }

    #[test]
    fn what_is_not_one_event_is_refused() {
        for (text, why) in [
            (&b""[..], InvalidEvent::Id),
            (b"id: 00000000000000ff-8\ndata: x\n\n", InvalidEvent::Id),
            (b"id: 00000000000000ff-77\ndata: x\n\n", InvalidEvent::Id),
            (b"id: 00000000000000ff-7", InvalidEvent::Id),
            (b"id: 00000000000000ff-7\n", InvalidEvent::Lines),
            (b"id: 00000000000000ff-7\n\n", InvalidEvent::Lines),
            (b"id: 00000000000000ff-7\n\n\n", InvalidEvent::Lines),
            (b"id: 00000000000000ff-7\ndata: x\n", InvalidEvent::Lines),
            (b"id: 00000000000000ff-7\ndata: x\n\n\n", InvalidEvent::Lines),
            (b"id: 00000000000000ff-7\ndata: x\n\ndata: y\n\n", InvalidEvent::Lines),
            (b"id: 00000000000000ff-7\ndata: \rx\n\n", InvalidEvent::Text),
            (b"id: 00000000000000ff-7\ndata: \xffx\n\n", InvalidEvent::Text),
        ] {
            assert_eq!(restored(text).err(), Some(why), "{}", text.escape_ascii());
        }
    }
}
