//! What outlives a process, as a sequence of records, and the file in which it does. Knows the hub, no socket.

mod records;

pub(crate) use self::records::{InvalidRecords, RecordReader, RecordWriter, Recorded, kinds};
