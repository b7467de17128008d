//! A sweep of a dirty channel's seats, to find the subscribers that are behind.

use std::sync::Arc;

use super::batch::{Batch, VISITS_PER_TURN, WriteKind};
use super::channel::{Channel, State};
use super::feed::{Feed, View};
use super::history::History;
use super::seat::{Seat, Waiter};
use super::shard::ShardId;
use crate::ids::Seq;
use crate::time::Tick;

/// A pass over the seats that one channel has on one shard for one view, in memory order, some at a time.
#[derive(Debug)]
pub(crate) struct Sweep {
    channel: Arc<Channel>,
    shard: ShardId,
    view: View,
    /// The index of the next seat.
    index: usize,
    /// The head, and whether streams had to end, when the pass began.
    began_at: (Seq, bool),
    /// It is done: the next change marks the channel dirty again.
    over: bool,
}

/// Events that a sweep hands to a subscriber at once.
pub(crate) const EVENTS_PER_WRITE: usize = 64;

// ===== impl Sweep =====

impl Sweep {
    pub(super) fn new(channel: Arc<Channel>, shard: ShardId, view: View) -> Self {
        Self { channel, shard, view, index: 0, began_at: (Seq(0), false), over: false }
    }

    /// Collects what some of the subscribers need. Returns whether the sweep goes on.
    pub(crate) fn collect(&mut self, batch: &mut Batch) -> bool {
        let mut state = self.channel.state.lock();
        let State { feeds, closing, .. } = &mut *state;
        let Feed { history, shards, .. } = feeds.get_mut(self.view).expect("it has had seats");
        let seats = &mut shards[self.shard.index()];
        let (tick, round) = (self.channel.common.shard(self.shard).tick(), seats.round());
        let now_at = (history.head(), *closing);
        if self.index == 0 {
            self.began_at = now_at;
        }
        let (mut events, filtered) = (0, seats.filters.is_some());
        // Slots without a notification cost time too.
        let end = seats.end().min(self.index + VISITS_PER_TURN);
        while self.index < end && !batch.is_full() {
            if filtered && seats.skip(self.index, history, *closing, batch) {
                self.index += 1;
                continue;
            }
            if let Some(seat) = seats.at_mut(self.index)
                && (seat.cursor < history.head() || *closing)
            {
                events = events.max(deliver(seat, round, history, *closing, tick, batch));
            }
            self.index += 1;
        }
        batch.head = history.head();
        batch.events.extend(history.newest(events).cloned());
        if self.index < seats.end() {
            return true;
        }
        // What was published during this pass waits for the next one, so that under load one pass
        // delivers many events.
        self.index = 0;
        let more = self.began_at != now_at;
        if !more {
            seats.end_sweep();
            self.over = true;
        }
        more
    }
}

impl Drop for Sweep {
    /// The channel stays marked as dirty until a sweep is done, so it is left to the next driver.
    fn drop(&mut self) {
        if !self.over {
            self.channel.common.shard(self.shard).push_dirty(&self.channel, self.view);
        }
    }
}

/// Notifies a subscriber that is behind, or whose stream has to end. Returns how many events the batch has
/// to hold for it.
fn deliver(
    seat: &mut Seat,
    round: u8,
    history: &History,
    closing: bool,
    tick: Tick,
    batch: &mut Batch,
) -> usize {
    let count = usize::try_from(history.head().since(seat.cursor)).unwrap_or(usize::MAX);
    let near = count <= EVENTS_PER_WRITE && history.covers(seat.cursor);
    if closing || !near || !seat.is_current(round) || !matches!(seat.waiter, Waiter::Socket { .. })
    {
        seat.notify(WriteKind::CatchUp, batch);
        return 0;
    }
    seat.cursor = history.head();
    seat.touch(tick);
    seat.notify(WriteKind::Events { count }, batch);
    count
}
