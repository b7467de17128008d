//! How events leave the hub: [`EventStream`], the response body that holds a seat, and [`drive`], the one
//! task of a shard that sleeps. Knows no socket: whoever holds some lends them to the driver as [`Sockets`].

mod clock;
mod driver;
mod event_stream;
mod monitor;

pub use clock::Clock;
#[cfg(test)]
pub(crate) use driver::Driver;
pub use driver::drive;
pub use event_stream::EventStream;
pub(crate) use {
    driver::{Sockets, drive_with},
    event_stream::{HEADERS, retry_ms, with_headers},
    monitor::{MonitoredBytes, StreamMonitor},
};
