//! What outlives a process, as a sequence of records, and the file in which it does. Knows the hub, no socket.

mod error;
mod file;
mod hub_record;
mod path;
mod records;
mod sealed;
#[cfg(all(test, not(nudged_loom)))]
mod tests;

pub use self::error::StateError;
pub(crate) use self::file::{Found, StateFile, check};
pub(crate) use self::hub_record::Record;
pub(crate) use self::records::{
    InvalidRecords, RecordReader, RecordWriter, Recorded, append, kinds,
};
pub(crate) use self::sealed::Taken;
