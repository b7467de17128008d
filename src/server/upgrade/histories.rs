//! What the hub remembers, in parts that are sent while all goes on. The next part waits until the new process has read the
//! one before, so that at most one of them takes memory.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use tokio::time::Instant;

use super::control::{Control, ControlError};
use super::hand_over::{reason, undue};
use super::memory_file;
use super::message::Message;
use super::stream_records::BUFFER_BYTES;
use crate::state::{Record, RecordWriter};

/// Sends records in parts.
pub(super) struct Parts<'a> {
    control: &'a Control,
    /// For sending and reading one part.
    most: Duration,
    part: Option<RecordWriter<BufWriter<File>>>,
    /// Of the parts that were sent.
    sent: u64,
}

/// The length of a part. It has the one record with which it becomes longer.
pub(super) const PART_BYTES: u64 = 4 * 1024 * 1024;

impl<'a> Parts<'a> {
    pub(super) fn new(control: &'a Control, most: Duration) -> Self {
        Self { control, most, part: None, sent: 0 }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// It cannot be written, or the part to which it was added cannot be sent or read.
    pub(super) fn add(&mut self, record: &Record) -> io::Result<()> {
        let part = match &mut self.part {
            Some(part) => part,
            none => {
                let file = BufWriter::with_capacity(BUFFER_BYTES, memory_file::create()?);
                none.insert(RecordWriter::new(file))
            }
        };
        part.write(record)?;
        if part.bytes() >= PART_BYTES { self.send() } else { Ok(()) }
    }

    /// Sends what is left. Returns how many bytes all parts had.
    ///
    /// # Errors
    /// It cannot be sent or read.
    pub(super) fn end(mut self) -> io::Result<u64> {
        self.send()?;
        Ok(self.sent)
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(part) = self.part.take() else { return Ok(()) };
        self.sent += part.bytes();
        let mut file = part.finish()?;
        file.flush()?;
        let until = Instant::now() + self.most;
        let failed = |why: ControlError| io::Error::other(reason("Histories", why));
        let sent = self.control.send(&Message::Histories, &[file.get_ref().as_fd()], until);
        sent.map_err(failed)?;
        match self.control.receive(until).map_err(failed)?.0 {
            Message::Ready => Ok(()),
            other => Err(io::Error::other(undue("Ready", &other))),
        }
    }
}
