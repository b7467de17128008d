//! SSE as text: what we write ([`Frame`] and its friends) and what a browser makes of it
//! ([`Parser`], the algorithm of WHATWG HTML 9.2.6). Knows nothing of who listens.

mod encode;
mod parse;

pub(crate) use encode::greet_chunked;
pub use encode::{Frame, Greeting, LAST_CHUNK, greet};
pub use parse::{EVENT_LEN_MAX, Event, EventTooLarge, Parser};
