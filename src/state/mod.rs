//! What outlives a process, as a sequence of records, and the file in which it does. Knows the hub, no socket.

mod hub_record;
mod records;

pub(crate) use self::hub_record::Record;
pub(crate) use self::records::{
    InvalidRecords, RecordReader, RecordWriter, Recorded, append, kinds,
};
