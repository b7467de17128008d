//! How events leave: [`EventStream`], the response body that holds a seat; the parking lot, which writes
//! to HTTP/1 streams without hyper; and [`drive`], the one task of a shard that sleeps.

mod clock;
mod driver;
mod event_stream;
mod handle;
mod monitor;
mod reactor;
mod response_head;
mod stream_conn;
#[cfg(test)]
mod tests;
mod transport;

pub use clock::Clock;
pub use driver::drive;
pub use event_stream::EventStream;
pub(crate) use {
    driver::drive_with,
    event_stream::{Fields, retry_ms, with_headers},
    handle::{Accepted, Arrival, Entrance, Reception},
    monitor::{MonitoredBytes, StreamMonitor},
    reactor::Reactor,
    stream_conn::reason,
    transport::Transport,
};
