//! The messages of an upgrade. Each is one packet of a socket pair (`SOCK_SEQPACKET`), of CBOR: an array of the kind and of
//! the array of the fields. Descriptors are beside it (`SCM_RIGHTS`). What may be long lies in a file in memory (memfd)
//! whose descriptor is sent.
//!
//! ```text
//! old process                                new process, started from the path of the old one
//!   Listeners, with the sockets        ──►     has nothing to bind
//!                                      ◄──   Hello: its version, its limits           (10 s)
//!                                      ◄──   Ready: the log is loaded, if there is one (60 s)
//!   Histories: a file of records, in
//!   parts, while all goes on          ──►
//!                                      ◄──   Ready: after each part                 (60 s)
//!   all workers stop                                                                  (1 s from here)
//!   Hub: a file of records, with what
//!   has changed since                  ──►
//!   Streams: a file of records, and
//!   Sockets, 253 in a packet           ──►     takes the seats, writes nothing
//!                                      ◄──   Took: so many streams
//!   Commit: from here it writes nothing──►
//!                                      ◄──   Live: sent before its first write
//!   closes what it gave, drains the rest
//!   IsMain                             ──►     is ready, for the service manager
//!   Connection, Operation: what comes
//!   late to the old process            ──►   Done
//! ```

use minicbor::{Decode, Decoder, Encode};

use crate::server::unix_socket::FileId;

/// Versions of the format that are spoken, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Versions {
    #[n(0)]
    pub(crate) first: u32,
    #[n(1)]
    pub(crate) last: u32,
}

/// One packet. A kind from 128 on may be skipped by a version that does not know it, any other must be known. So may a
/// field that a later version has added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) enum Message {
    /// Old to new: what the descriptors beside it listen for, in their order. `left` is how many packets of these follow.
    #[n(0)]
    Listeners {
        #[n(0)]
        versions: Versions,
        #[n(1)]
        build: String,
        #[n(2)]
        sockets: Vec<ListeningState>,
        #[n(3)]
        left: u32,
        /// Connections that are open in the old process.
        #[n(4)]
        connections: u64,
    },
    /// New to old.
    #[n(1)]
    Hello {
        #[n(0)]
        versions: Versions,
        #[n(1)]
        build: String,
        #[n(2)]
        workers: u32,
        /// `RLIMIT_NOFILE`.
        #[n(3)]
        descriptors: u64,
        /// The most streams that it serves.
        #[n(4)]
        streams_max: u64,
        /// Its id.
        #[n(5)]
        process: u32,
    },
    /// New to old: it can take over, or the next part of the histories.
    #[n(2)]
    Ready,
    /// Old to new, with a file of records: what the hub remembers beside what the parts had. So many lanes follow.
    #[n(3)]
    Hub {
        #[n(0)]
        lanes: u32,
    },
    /// Old to new, with a file of records: the streams and the waiting connections of one worker, whose sockets follow.
    #[n(4)]
    Streams {
        #[n(0)]
        lane: u32,
        #[n(1)]
        count: u64,
    },
    /// Old to new: the next sockets of this worker.
    #[n(5)]
    Sockets {
        #[n(0)]
        lane: u32,
    },
    /// New to old: it has taken so many sockets.
    #[n(6)]
    Took {
        #[n(0)]
        count: u64,
    },
    /// Old to new.
    #[n(7)]
    Commit,
    /// New to old.
    #[n(8)]
    Live,
    /// Old to new: the service manager knows the new process as the main one (`MAINPID=`).
    #[n(9)]
    IsMain,
    /// Old to new, with the socket: a connection that is to be served from here on, of which `first` has been read.
    #[n(10)]
    Connection {
        /// The address of its peer, with any port; empty if it has none that is known.
        #[n(0)]
        peer: String,
        #[n(1)]
        internal: bool,
        #[n(2)]
        secure: bool,
        #[cbor(n(3), with = "minicbor::bytes")]
        first: Vec<u8>,
        /// A header of the PROXY protocol has been read too, and it has named the peer.
        #[n(4)]
        named: Option<bool>,
    },
    /// Old to new, with a file: the lines of a publish or command that came to the old process; with `all`, that all streams
    /// re-read.
    #[n(11)]
    Operation {
        #[n(0)]
        number: u64,
        #[n(1)]
        all: bool,
    },
    /// New to old: it was performed, or refused, and then nothing was done. The id is that of its last event, the streams
    /// are those that its commands were for.
    #[n(12)]
    Done {
        #[n(0)]
        number: u64,
        #[n(1)]
        performed: bool,
        #[n(2)]
        epoch_seq: Option<(u64, u64)>,
        #[n(3)]
        streams: u64,
    },
    /// Either way: it will not be, for this reason.
    #[n(13)]
    Refused {
        #[n(0)]
        why: String,
    },
    /// Old to new, with a file of records: a part of what the hub remembers. Later records are of what has changed since.
    #[n(14)]
    Histories,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct ListeningState {
    /// The worker that accepts on it.
    #[n(0)]
    pub(crate) worker: u32,
    /// Which of the addresses it is for.
    #[n(1)]
    pub(crate) address: u32,
    #[n(2)]
    pub(crate) secure: bool,
    #[n(3)]
    pub(crate) internal: bool,
    /// The file of a Unix socket, which the last process that listens on it removes.
    #[n(4)]
    pub(crate) file: Option<FileId>,
}

/// The most bytes of a packet.
pub(crate) const PACKET_MAX: usize = 64 * 1024;

/// The most characters of a reason.
const REASON_MAX: usize = 1_024;

/// The first kind that may be skipped.
const SKIPPABLE: u32 = 128;

// ===== impl Versions =====

impl Versions {
    /// Those that this build speaks.
    pub(crate) const SPOKEN: Self = Self { first: 1, last: 1 };

    /// The newest version that both speak.
    pub(crate) fn common(self, other: Self) -> Option<u32> {
        let newest = self.last.min(other.last);
        (newest >= self.first.max(other.first)).then_some(newest)
    }
}

// ===== impl Message =====

impl Message {
    /// One that says why there will be no upgrade.
    pub(crate) fn refused(why: &str) -> Self {
        Self::Refused { why: why.chars().take(REASON_MAX).collect() }
    }

    /// The bytes of its packet.
    ///
    /// # Errors
    /// They would be more than [`PACKET_MAX`].
    pub(crate) fn encode(&self) -> Result<Vec<u8>, String> {
        let packet = minicbor::to_vec(self).map_err(|why| why.to_string())?;
        match packet.len() {
            ..=PACKET_MAX => Ok(packet),
            length => Err(format!("{length} bytes are more than the {PACKET_MAX} of a packet")),
        }
    }

    /// The message of a packet; `None` if it is of an unknown kind that may be skipped.
    ///
    /// # Errors
    /// It is no message, or of an unknown kind that must be known.
    pub(crate) fn decode(packet: &[u8]) -> Result<Option<Self>, String> {
        let kind = kind(packet).map_err(|why| why.to_string())?;
        if kind >= SKIPPABLE {
            return Ok(None);
        }
        let mut decoder = Decoder::new(packet);
        let message = decoder.decode().map_err(|why| format!("kind {kind}: {why}"))?;
        match packet.len() - decoder.position() {
            0 => Ok(Some(message)),
            left => Err(format!("kind {kind}: {left} bytes follow")),
        }
    }
}

fn kind(packet: &[u8]) -> Result<u32, minicbor::decode::Error> {
    let mut decoder = Decoder::new(packet);
    match decoder.array()? {
        Some(2) => decoder.u32(),
        _ => Err(minicbor::decode::Error::message("it is no array of a kind and its fields")),
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests;
