//! The freeze: the workers of a server stop at once, so that nothing is written and no publish is half done, and each
//! gives its streams away. Then they go on, with their streams or without them.

use std::io::{BufWriter, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::{fmt, io};

use tokio::time::Instant;

use super::control::{Control, ControlError, DESCRIPTORS_MAX};
use super::memory_file;
use super::message::Message;
use super::stream_records::{BUFFER_BYTES, StreamWriter};
use super::successor::Successor;
use crate::server::reactor::Handle;
use crate::state::RecordWriter;

/// The workers of a server, which stop as soon as they can. If this is dropped without an outcome, those that have sent
/// nothing go on, and the others end with a panic: their streams may be another process's.
#[derive(Debug)]
pub(crate) struct Freeze {
    lanes: Vec<Sender<Order>>,
    reports: Receiver<Report>,
}

/// How a freeze ends.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// The streams stay: it is as if nothing had been.
    Kept,
    /// Those that were sent are the successor's.
    Given(Successor),
}

/// What the workers have sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SentStreams {
    pub(crate) given: u64,
    /// Those that stay with this process.
    pub(crate) kept: u64,
}

/// Why a freeze fails. The workers go on.
#[derive(Debug)]
pub(crate) enum FreezeError {
    /// So many workers did not stop in time, or send in time.
    Late(usize),
    /// A worker has ended.
    Ended,
    Control(ControlError),
}

/// What has a worker stop: its end of the freeze.
#[derive(Debug)]
pub(crate) struct Stop {
    lane: u32,
    control: Arc<Control>,
    orders: Receiver<Order>,
    reports: Sender<Report>,
}

/// What a worker that has stopped is asked for.
#[derive(Debug)]
enum Order {
    Send(Instant),
    Release(Outcome),
}

#[derive(Debug)]
enum Report {
    Stopped,
    Sent(Result<SentStreams, ControlError>),
}

/// What a worker that has stopped can give away.
pub(crate) trait Streams {
    /// Writes the records of its streams.
    ///
    /// # Errors
    /// They cannot be written. A stream that cannot have a record has none.
    fn write(&mut self, records: &mut StreamWriter<'_>) -> io::Result<SentStreams>;

    /// Calls `send` with the next sockets, at most so many, in the order of their records, until there are none left.
    fn sockets(
        &mut self,
        most: usize,
        send: &mut dyn FnMut(&[BorrowedFd<'_>]) -> Result<(), ControlError>,
    ) -> Result<(), ControlError>;
}

// ===== impl Freeze =====

impl Freeze {
    /// Asks the workers of these reactors to stop.
    pub(crate) fn begin(workers: &[Handle], control: &Arc<Control>) -> Self {
        let (reports, of_workers) = channel();
        let lanes = workers.iter().zip(0..).map(|(worker, lane)| {
            let (orders, of_lane) = channel();
            let (control, reports) = (control.clone(), reports.clone());
            worker.freeze(Stop { lane, control, orders: of_lane, reports });
            orders
        });
        Self { lanes: lanes.collect(), reports: of_workers }
    }

    /// Waits until all workers have stopped.
    ///
    /// # Errors
    /// [`FreezeError`]: one of them has not.
    pub(crate) fn wait_stopped(&self, until: Instant) -> Result<(), FreezeError> {
        self.collect(until, |_| Ok(()))
    }

    /// Has every worker send its streams: a file of records, then the sockets.
    ///
    /// # Errors
    /// [`FreezeError`]: one of them could not, or not in time.
    pub(crate) fn send_streams(&self, until: Instant) -> Result<SentStreams, FreezeError> {
        for lane in &self.lanes {
            lane.send(Order::Send(until)).map_err(|_| FreezeError::Ended)?;
        }
        let mut all = SentStreams::default();
        self.collect(until, |report| {
            if let Report::Sent(sent) = report {
                let SentStreams { given, kept } = sent?;
                all.given += given;
                all.kept += kept;
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// Lets the workers go on, those too that have not stopped yet.
    pub(crate) fn release(self, outcome: &Outcome) {
        for lane in &self.lanes {
            // One that has ended needs none.
            _ = lane.send(Order::Release(outcome.clone()));
        }
    }

    /// One report of every worker.
    fn collect(
        &self,
        until: Instant,
        mut each: impl FnMut(Report) -> Result<(), ControlError>,
    ) -> Result<(), FreezeError> {
        for reported in 0..self.lanes.len() {
            let left = until.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(report) => each(report).map_err(FreezeError::Control)?,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(FreezeError::Late(self.lanes.len() - reported));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(FreezeError::Ended),
            }
        }
        Ok(())
    }
}

// ===== impl Stop =====

impl Stop {
    /// Blocks until the outcome, and gives the streams away as that is asked for. Returns the successor if they are
    /// now its.
    ///
    /// # Panics
    /// The streams were sent, and whether they are the successor's is not known: to write to them again might make two
    /// writers.
    pub(crate) fn wait(self, streams: &mut impl Streams) -> Option<Successor> {
        let mut has_sent = false;
        // If it fails, the outcome is there already.
        _ = self.reports.send(Report::Stopped);
        loop {
            // The upgrade's thread has deadlines, and ends with an outcome or without. A deadline here would pass at the same
            // moment as that, if the whole process is stopped for longer.
            match self.orders.recv() {
                Ok(Order::Send(until)) => {
                    has_sent = true;
                    let sent = self.send(streams, until);
                    _ = self.reports.send(Report::Sent(sent));
                }
                Ok(Order::Release(Outcome::Given(successor))) => return Some(successor),
                Ok(Order::Release(Outcome::Kept)) => return None,
                Err(_) if !has_sent => {
                    tracing::warn!("an upgrade ended without an outcome; the streams stay");
                    return None;
                }
                Err(_) => panic!("an upgrade ended without an outcome after the streams were sent"),
            }
        }
    }

    fn send(
        &self,
        streams: &mut impl Streams,
        until: Instant,
    ) -> Result<SentStreams, ControlError> {
        let Self { lane, control, .. } = self;
        let file = memory_file::create().map_err(ControlError::System)?;
        let mut records = RecordWriter::new(BufWriter::with_capacity(BUFFER_BYTES, &file));
        let sent = streams.write(&mut records).map_err(ControlError::System)?;
        let flushed = records.finish().and_then(|mut buffer| buffer.flush());
        flushed.map_err(ControlError::System)?;
        let message = Message::Streams { lane: *lane, count: sent.given };
        control.send(&message, &[file.as_fd()], until)?;
        let message = Message::Sockets { lane: *lane };
        streams.sockets(DESCRIPTORS_MAX, &mut |sockets| control.send(&message, sockets, until))?;
        Ok(sent)
    }
}

// ===== impl FreezeError =====

impl fmt::Display for FreezeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(workers) => write!(f, "{workers} of the workers did not stop in time"),
            Self::Ended => f.write_str("a worker has ended"),
            Self::Control(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for FreezeError {}
