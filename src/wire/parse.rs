//! The event stream parser of WHATWG HTML 9.2.6, byte by byte.

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

/// Turns bytes, in pieces of any size, into [`Event`]s.
#[derive(Debug, Default)]
pub struct Parser {}

impl Parser {
    /// Takes the next bytes of the stream and hands every event they complete to `dispatch`.
    pub fn push(&mut self, _bytes: &[u8], _dispatch: impl FnMut(Event)) {
        todo!()
    }

    /// The last `retry:` of the stream, in milliseconds.
    pub fn retry_ms(&self) -> Option<u64> {
        todo!()
    }

    /// The last event id, which a client sends when it comes back (updated by ids without data too).
    pub fn last_event_id(&self) -> &str {
        todo!()
    }
}
