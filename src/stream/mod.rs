//! How events leave: [`EventStream`], the response body that holds a seat, and [`drive`], the one task
//! of a lane that sleeps.

mod clock;
mod driver;
mod event_stream;

pub use clock::Clock;
pub use driver::drive;
pub use event_stream::EventStream;
pub(crate) use event_stream::HEADERS;
