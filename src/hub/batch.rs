//! What a bounded part of a driver's work collects under a channel's lock, to be done once no lock is
//! held.

use std::task::Waker;

use smallvec::SmallVec;

use crate::ids::Seq;
use crate::metrics::CloseReason;
use crate::wire::Frame;

/// Tasks to wake and sockets to write to. A driver has one and uses its memory again.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(super) wakers: SmallVec<[Waker; SEATS_PER_TURN]>,
    /// For sockets that the driver writes to itself.
    pub(crate) writes: Vec<WriteOp>,
    /// What [`WriteKind::Events`] refers to: the last events of a feed.
    pub(crate) events: Vec<(Seq, Frame)>,
}

/// A write to a socket that the driver owns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteOp {
    pub(crate) socket: SocketId,
    pub(crate) kind: WriteKind,
}

/// The number under which the driver's sockets and the hub know a stream whose socket the driver writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SocketId(pub(crate) u32);

/// What to write to a stream's socket.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WriteKind {
    /// The last `count` events of the batch. They count as taken; those that cannot be written are given
    /// back.
    Events { count: usize },
    /// More than that, or the end: the stream takes from its subscription what it needs.
    CatchUp,
    /// A comment. It counts as sent.
    Keepalive,
    /// The end of the stream, now, for this reason.
    End(CloseReason),
}

/// Seats in one batch; the other tasks of the worker run before the next. One under loom, so that two seats are
/// enough for a sweep of several batches.
pub(crate) const SEATS_PER_TURN: usize = if cfg!(nudged_loom) { 1 } else { 32 };

/// Slots, channels, partitions and burst windows that are visited in one turn.
pub(crate) const VISITS_PER_TURN: usize = 256;

// ===== impl Batch =====

impl Batch {
    /// Wakes the tasks; the writes are left to the driver.
    pub(crate) fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    /// Empties it and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.writes.clear();
        self.events.clear();
    }

    /// The seats that it has something for.
    pub(crate) fn seats(&self) -> usize {
        self.wakers.len() + self.writes.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.seats() >= SEATS_PER_TURN
    }
}
