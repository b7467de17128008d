//! How events leave: [`EventStream`], the response body that holds a seat; the parking lot, which writes
//! to HTTP/1 streams without hyper; and [`drive`], the one task of a lane that sleeps.

mod clock;
mod driver;
mod entrance;
mod event_stream;
mod head;
mod line;
mod lot;
mod outlet;
mod parked;
#[cfg(test)]
mod tests;

pub use clock::Clock;
pub use driver::drive;
pub use event_stream::EventStream;
pub(crate) use {
    driver::drive_with,
    entrance::{Arrival, Caller, Entrance, Reception},
    event_stream::{Fields, retry_ms, with_headers},
    line::{Line, Piece},
    lot::Lot,
    outlet::Outlet,
    parked::reason,
};
