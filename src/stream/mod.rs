//! How events leave the hub: [`EventStream`], the response body that holds a seat, and [`drive`], the one
//! task of a shard that sleeps. Knows no socket: the server lends its own to the driver as `Sockets`. [`Heartbeat`] is
//! apart from these: it keeps the streams of others open.

mod access_record;
mod driver;
mod event_stream;
mod heartbeat;
#[cfg(feature = "server")]
mod monitor;
#[cfg(feature = "server")]
mod ready_queue;
mod share;
#[cfg(feature = "server")]
pub(crate) mod state;

pub use crate::time::Clock;
#[cfg(all(test, feature = "server"))]
pub(crate) use driver::Driver;
pub use driver::drive;
pub use event_stream::EventStream;
pub use heartbeat::{Heartbeat, Pulse};
#[cfg(feature = "server")]
pub(crate) use {
    access_record::{AccessLog, AccessRecord, Ended},
    driver::{Sockets, drive_with},
    event_stream::{HEADERS, retry_ms, with_headers},
    monitor::{MonitoredBytes, StreamMonitor},
    ready_queue::ReadyQueue,
};
