//! Weak references to a seat. They stay valid when the seat is freed and its slot is used again; they then
//! find nothing.

use std::sync::{Arc, Weak};

use super::channel::Channel;
use super::seats::SeatKey;
use super::shard::ShardId;
use crate::metrics::CloseReason;

/// An entry of a shard's wheels. It lacks the shard that [`SeatHandle`] has, which would cost 8 bytes a seat in
/// the wheel.
#[derive(Clone, Debug)]
pub(crate) struct SeatRef {
    pub(crate) channel: Weak<Channel>,
    pub(crate) key: SeatKey,
}

/// A seat, for the connection of a stream that hyper serves.
#[derive(Clone, Debug)]
pub(crate) struct SeatHandle {
    channel: Weak<Channel>,
    key: SeatKey,
    shard: ShardId,
}

// ===== impl SeatRef =====

impl SeatRef {
    pub(crate) fn new(channel: &Arc<Channel>, key: SeatKey) -> Self {
        Self { channel: Arc::downgrade(channel), key }
    }

    /// Whether the seat is still that of the subscriber for which this was made.
    pub(crate) fn is_taken(&self, shard: ShardId) -> bool {
        self.channel
            .upgrade()
            .is_some_and(|channel| channel.state.lock().feeds.seat_mut(shard, self.key).is_some())
    }
}

// ===== impl SeatHandle =====

impl SeatHandle {
    pub(super) fn new(channel: &Arc<Channel>, key: SeatKey, shard: ShardId) -> Self {
        Self { channel: Arc::downgrade(channel), key, shard }
    }

    /// The task that serves the stream is idle, with unsent bytes or without.
    pub(crate) fn rest(&self) {
        if let Some(channel) = self.channel.upgrade() {
            channel.block(self.shard, self.key, |seat, _| (seat.rest(), ()));
        }
    }

    /// Whether the stream has to end because its client takes nothing. With `took_some`, the client has just
    /// taken some.
    pub(crate) fn is_stalled(&self, took_some: bool) -> bool {
        let Some(channel) = self.channel.upgrade() else { return false };
        let stalled = channel.block(self.shard, self.key, |seat, tick| {
            if took_some {
                seat.progress(tick);
            }
            (false, seat.ending == Some(CloseReason::Stalled))
        });
        stalled.unwrap_or(false)
    }

    /// Records the cause for which the stream will be dropped, unless one is known.
    pub(crate) fn note(&self, reason: CloseReason) {
        let Some(channel) = self.channel.upgrade() else { return };
        if let Some(seat) = channel.state.lock().feeds.seat_mut(self.shard, self.key) {
            seat.ending.get_or_insert(reason);
        }
    }
}
