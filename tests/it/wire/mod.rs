//! The wire format, out and in. What we write is read back by our parser and by `sse-codec`, which
//! shares no code with it; what our parser makes of any bytes is what a naive twin makes of them.

mod read;
#[path = "../../../src/fuzzing/readers.rs"]
mod readers;
mod wpt;
mod written;

use nudged::wire::Parser;
use readers::Heard;

fn by_ours<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    for piece in pieces {
        let result = parser.push(piece, |event| events.push([event.name, event.data, event.id]));
        result.expect("the stream is small");
    }
    let last_event_id = parser.last_event_id().to_owned();
    Heard { events, retry_ms: parser.retry_ms(), last_event_id }
}
