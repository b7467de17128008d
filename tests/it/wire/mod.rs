//! The wire format in both directions. Our parser and `sse-codec`, which shares no code with it, read what we write;
//! our parser and a naive twin agree on any bytes.

pub(crate) mod decoders;
mod read;
#[path = "../../../src/fuzzing/readers.rs"]
mod readers;
mod wpt;
mod written;

use nudged::wire::Parser;
use readers::Received;

fn by_ours<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Received {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    for piece in pieces {
        let result = parser.push(piece, |event| events.push([event.name, event.data, event.id]));
        result.expect("the stream is small");
    }
    let last_event_id = parser.last_event_id().to_owned();
    Received { events, retry_ms: parser.retry_ms(), last_event_id }
}
