//! Decoders in use that deviate from the standard, and must get no event that the server did not send.

use nudged::ids::EventId;
use nudged::wire::{Frame, Greeting};

/// The decoder of httpx-sse 0.4.3 (`httpx_sse/_decoders.py`), which the MCP SDK for Python uses. Once it knows an id,
/// or has a `retry`, it dispatches an event at every blank line; the standard demands data (WHATWG HTML, 9.2.6).
#[derive(Default)]
pub(crate) struct HttpxSse {
    event: String,
    data: Vec<String>,
    last_event_id: String,
    retry: Option<u64>,
}

impl HttpxSse {
    /// The events of a whole stream: type, data, last event id.
    pub(crate) fn decode(mut self, stream: &str) -> Vec<[String; 3]> {
        stream.lines().filter_map(|line| self.line(line)).collect()
    }

    fn line(&mut self, line: &str) -> Option<[String; 3]> {
        if line.is_empty() {
            let has_data = !self.event.is_empty() || !self.data.is_empty();
            if !has_data && self.last_event_id.is_empty() && self.retry.is_none() {
                return None;
            }
            self.retry = None;
            let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
            return Some([event, data.join("\n"), self.last_event_id.clone()]);
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => self.event = value.to_owned(),
            "data" => self.data.push(value.to_owned()),
            "id" if !value.contains('\0') => self.last_event_id = value.to_owned(),
            "retry" => self.retry = value.parse().ok().or(self.retry),
            _ => {}
        }
        None
    }
}

/// SCENARIO: a Python client with httpx-sse follows a stream that is silent for a while, and whose server restarts.
/// BUG: a blank line followed each keepalive comment and the last `retry:`, and it dispatched an empty event at each.
/// FIX: both are a line.
#[test]
fn a_decoder_that_dispatches_at_any_blank_line_gets_the_events_and_nothing_else() {
    let id: EventId = "00c0ffee00c0ffee-42".parse().expect("an id");
    let frames = [
        Frame::greeting(Greeting::Connected, id, 1500, 20),
        Frame::keepalive(),
        Frame::keepalive(),
        Frame::invalidate(id, ["posts"]),
        Frame::keepalive(),
        Frame::farewell(2500),
    ];
    let stream: Vec<u8> = frames.iter().flat_map(Frame::payload).collect();
    let events = HttpxSse::default().decode(std::str::from_utf8(&stream).expect("UTF-8"));
    let names: Vec<_> = events.iter().map(|[name, _, _]| name.as_str()).collect();
    assert_eq!(names, ["connected", "invalidate"], "{events:?}");
}
