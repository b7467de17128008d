//! The successor takes streams: each gets a seat and a worker, and nothing is written until the workers start.

use std::fmt;
use std::io::BufReader;
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use super::memory_file;
use super::stream_records::{BUFFER_BYTES, StreamConnState, StreamReader};
use crate::admission::{Admission, TakeOver, TooMany};
use crate::hub::state::ImportError;
use crate::server::reactor::{Adopted, Handle, StreamConn};
use crate::state::InvalidRecords;
use crate::stream::{AccessLog, EventStream};
use crate::time::Time;

/// Takes the streams of another process, for workers that have not started.
#[derive(Debug)]
pub(crate) struct Adopter {
    workers: Vec<Handle>,
    /// The streams of each of these workers.
    conns: Vec<Adopted>,
    limits: TakeOver,
    /// The access log, if there is one.
    log: Option<AccessLog>,
    lanes: Vec<Option<Lane>>,
    now: Time,
    taken: u64,
}

/// Streams of another process that have a place here, for workers that have not started. They are the other process's
/// until they [begin](Self::begin): if this is dropped, they leave no trace here.
#[derive(Debug)]
pub(crate) struct Taken {
    workers: Vec<Handle>,
    /// The streams of each of these workers.
    conns: Vec<Adopted>,
    pub(crate) count: u64,
}

/// What a worker of the other process gives.
#[derive(Debug)]
struct Lane {
    records: StreamReader,
    /// Sockets that have not arrived.
    left: u64,
}

/// Why the streams cannot be taken. None of them has been.
#[derive(Debug)]
pub(crate) enum AdoptError {
    /// The records cannot be read.
    Records(InvalidRecords),
    /// What was sent does not fit together.
    Unexpected(String),
    /// A stream has no place in the hub.
    Stream(ImportError),
    Limit(TooMany),
}

// ===== impl Adopter =====

impl Adopter {
    /// The streams are spread evenly over these workers, of which there is one at least.
    pub(crate) fn new(
        workers: Vec<Handle>,
        admission: Admission,
        log: Option<AccessLog>,
        now: Time,
    ) -> Self {
        let conns = workers.iter().map(|_| Adopted::default()).collect();
        let limits = TakeOver::new(admission);
        Self { workers, conns, limits, log, lanes: Vec::new(), now, taken: 0 }
    }

    /// The next worker of the other process gives so many streams, with a file of their records.
    ///
    /// # Errors
    /// [`AdoptError`]
    pub(crate) fn lane(
        &mut self,
        lane: u32,
        count: u64,
        records: OwnedFd,
    ) -> Result<(), AdoptError> {
        let index = lane as usize;
        if index >= LANES_MAX || self.lanes.get(index).is_some_and(Option::is_some) {
            return Err(AdoptError::Unexpected(format!("the streams of worker {lane}")));
        }
        if self.lanes.len() <= index {
            self.lanes.resize_with(index + 1, || None);
        }
        let file = memory_file::received(records).map_err(|why| AdoptError::Records(why.into()))?;
        let records = StreamReader::new(BufReader::with_capacity(BUFFER_BYTES, file));
        self.lanes[index] = Some(Lane { records, left: count });
        Ok(())
    }

    /// The next sockets of a worker of the other process, in the order of its records.
    ///
    /// # Errors
    /// [`AdoptError`]
    pub(crate) fn sockets(&mut self, lane: u32, sockets: Vec<OwnedFd>) -> Result<(), AdoptError> {
        for socket in sockets {
            let Some(from) = self.lanes.get_mut(lane as usize).and_then(Option::as_mut) else {
                return Err(AdoptError::Unexpected(format!("a socket of worker {lane}")));
            };
            let state = from.records.next().map_err(AdoptError::Records)?;
            let (Some(state), Some(left)) = (state, from.left.checked_sub(1)) else {
                let why = format!("worker {lane} sends more sockets than records");
                return Err(AdoptError::Unexpected(why));
            };
            from.left = left;
            self.take(socket.into(), state)?;
        }
        Ok(())
    }

    /// How many workers of the other process have given all of their streams.
    pub(crate) fn complete_lanes(&self) -> usize {
        self.lanes.iter().flatten().filter(|lane| lane.left == 0).count()
    }

    /// A descriptor keeps its mode in another process: it does not block.
    fn take(&mut self, socket: TcpStream, state: StreamConnState) -> Result<(), AdoptError> {
        let worker = (self.taken % self.workers.len() as u64) as usize;
        self.taken += 1;
        let peer = || socket.peer_addr().ok().map(|peer| peer.ip());
        let permit = self.limits.add(&state.permit, peer);
        let hub = self.workers[worker].hub();
        let stream = EventStream::import(hub, &state.stream, self.log, self.now)
            .map_err(AdoptError::Stream)?;
        let socket = mio::net::TcpStream::from_std(socket);
        let conn = StreamConn::adopted(socket, stream, state, self.now)
            .ok_or_else(|| AdoptError::Unexpected("TLS keys that are none".into()))?;
        self.conns[worker].push(conn, permit);
        Ok(())
    }

    /// All have arrived: each gets its place.
    ///
    /// # Errors
    /// [`AdoptError`]: some are missing, or there are more than this process may serve.
    pub(crate) fn finish(self) -> Result<Taken, AdoptError> {
        let Self { workers, mut conns, limits, lanes, log: _, now: _, taken } = self;
        let missing: u64 = lanes.iter().flatten().map(|lane| lane.left).sum();
        let mut whole = lanes.into_iter().flatten().map(|mut lane| lane.records.next());
        if missing > 0 {
            return Err(AdoptError::Unexpected(format!("{missing} sockets are missing")));
        }
        if let Some(state) = whole.find_map(Result::transpose) {
            let why = "a worker sends more records than sockets".to_owned();
            return Err(state.map_or_else(AdoptError::Records, |_| AdoptError::Unexpected(why)));
        }
        let mut places = limits.finish().map_err(AdoptError::Limit)?;
        for conns in &mut conns {
            conns.complete(|permit| places.complete(permit));
        }
        Ok(Taken { workers, conns, count: taken })
    }
}

// ===== impl Taken =====

impl Taken {
    /// The streams are this process's: gives them to the workers.
    pub(crate) fn begin(self) {
        for (worker, conns) in self.workers.iter().zip(self.conns) {
            worker.adopt(conns);
        }
    }
}

/// Workers that a process may have: `--workers` allows no more.
const LANES_MAX: usize = 4096;

// ===== impl AdoptError =====

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records(why) => write!(f, "the records of the streams cannot be read: {why}"),
            Self::Unexpected(what) => write!(f, "not expected: {what}"),
            Self::Stream(why) => write!(f, "a stream has no place: {why}"),
            Self::Limit(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for AdoptError {}
