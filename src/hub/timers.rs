//! What the clock brings: comments on silent streams, deadlines, and stalls. Each lies in a wheel of its
//! shard until its tick, and stays there when its stream ends earlier.

use super::batch::{Batch, WriteKind};
use super::seat::Waiter;
use super::seat_ref::SeatRef;
use super::shard::{Common, ShardId};
use crate::metrics::{self, CloseReason};
use crate::time::{Tick, Time};

/// When a stream has to end, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// It ends at this time or within two seconds after it. A token has an expiry instead, before which its stream
    /// ends: [`Subscription::expire_at`](super::Subscription::expire_at).
    pub at: Time,
    /// What the end is counted as.
    pub reason: CloseReason,
}

/// A check of a seat that may end its stream.
#[derive(Clone, Debug)]
pub(crate) struct Timer {
    pub(super) seat: SeatRef,
    kind: TimerKind,
}

/// What a timer was set for.
#[derive(Clone, Copy, Debug)]
enum TimerKind {
    Deadline(CloseReason),
    /// The socket took nothing when this was set.
    Stall,
}

// ===== impl Timer =====

impl Timer {
    pub(super) fn deadline(seat: SeatRef, reason: CloseReason) -> Self {
        Self { seat, kind: TimerKind::Deadline(reason) }
    }

    pub(super) fn stall(seat: SeatRef) -> Self {
        Self { seat, kind: TimerKind::Stall }
    }

    /// The reason, if it is a deadline.
    #[cfg(feature = "server")]
    pub(super) fn reason(&self) -> Option<CloseReason> {
        match self.kind {
            TimerKind::Deadline(reason) => Some(reason),
            TimerKind::Stall => None,
        }
    }

    /// Has its stream take no more. That is all that must not wait for the end of the stream.
    pub(super) fn expire(&self, shard: ShardId) {
        let Some(channel) = self.seat.channel.upgrade() else { return };
        let mut state = channel.state.lock();
        let Some(seat) = state.feeds.seat_mut(shard, self.seat.key) else { return };
        seat.ending.get_or_insert(CloseReason::Expired);
    }

    /// Ends the stream if its time has come. Returns when the timer has to fire again: where a stall is not
    /// long enough yet, and at the next tick in case the stream has not ended by then.
    pub(super) fn fire(&self, shard: ShardId, common: &Common, batch: &mut Batch) -> Option<Tick> {
        let channel = self.seat.channel.upgrade()?;
        let mut state = channel.state.lock();
        let seat = state.feeds.seat_mut(shard, self.seat.key)?;
        let (tick, pauses) = (common.shard(shard).tick(), &common.shard(shard).pauses);
        let resumed = pauses.last(common.config.stall_timeout).tick();
        let reason = match self.kind {
            TimerKind::Deadline(reason) => reason,
            TimerKind::Stall => match seat.stalls_at(common, resumed)? {
                later if later > tick => return Some(later),
                _ => CloseReason::Stalled,
            },
        };
        // A socket that takes nothing will not take an end either.
        if reason == CloseReason::Stalled || seat.ending.is_none() {
            seat.ending = Some(reason);
        }
        seat.notify(WriteKind::End(reason), batch);
        Some(tick.after(1))
    }
}

/// Has a keepalive sent to a subscriber that has been silent for long enough. Returns when its seat has to be
/// looked at again, if it is still taken.
pub(super) fn keep_alive(
    seat: &SeatRef,
    shard: ShardId,
    common: &Common,
    batch: &mut Batch,
) -> Option<Tick> {
    let channel = seat.channel.upgrade()?;
    let mut state = channel.state.lock();
    let seat = state.feeds.seat_mut(shard, seat.key)?;
    let shard = common.shard(shard);
    let tick = shard.tick();
    if tick.since(seat.touched) < common.keepalive_min() {
        return Some(common.keepalive_at(seat.touched));
    }
    if matches!(seat.waiter, Waiter::Socket { .. }) {
        seat.touch(tick);
        metrics::add(&shard.counters.keepalives, 1);
    } else {
        seat.set_keepalive_due();
    }
    seat.notify(WriteKind::Keepalive, batch);
    Some(common.keepalive_at(tick))
}
