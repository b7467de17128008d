//! SSE as text: the encoder ([`Frame`], [`greet`], [`Message`]) and the parser of a browser ([`Parser`], the algorithm of
//! WHATWG HTML 9.2.6). It knows no org and no subscriber.

mod encode;
mod memory;
mod message;
mod parse;
#[cfg(feature = "server")]
mod restored;

pub(crate) use encode::greet_chunked;
pub use encode::{Frame, Greeting, Keepalive, LAST_CHUNK, greet};
#[cfg(all(any(test, fuzzing), not(nudged_loom)))]
pub(crate) use memory::cost;
pub(crate) use memory::{Counted, MemoryUse, block};
pub use message::{InvalidMessage, Message, Payload};
pub use parse::{EVENT_LEN_MAX, Event, EventTooLarge, Parser};
#[cfg(feature = "server")]
pub(crate) use restored::InvalidEvent;
