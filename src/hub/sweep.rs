//! A sweep of a dirty channel's seats, to find the subscribers that are behind.

use std::sync::Arc;

use super::batch::{Batch, VISITS_PER_TURN, WriteKind};
use super::channel::{Channel, State};
use super::feed::{Feed, Feeds, View};
use super::log::Log;
use super::seat::{Seat, Waiter};
use super::seats::Seats;
use super::shard::{Dirty, ShardId};
use crate::ids::Seq;
use crate::metrics::CloseReason;
use crate::time::{Tick, Time};

/// A pass over the seats that one channel has on one shard for one view, in memory order, some at a time.
#[derive(Debug)]
pub(crate) struct Sweep {
    channel: Arc<Channel>,
    shard: ShardId,
    view: View,
    progress: Progress,
}

/// How far a sweep is.
#[derive(Debug, Default)]
struct Progress {
    /// The index of the next seat.
    index: usize,
    /// The head, whether all streams had to end, and how often some had to, when the pass began.
    began_at: (Seq, bool, u32),
    /// The time of the first event that the pass is for, if it is for one.
    since: Option<Time>,
    /// The same of the pass that has visited the last seat, until it is taken.
    passed: Option<Time>,
    /// It is done: the next change marks the channel dirty again.
    over: bool,
}

/// What holds for the whole channel and shard.
#[derive(Clone, Copy, Debug)]
struct At {
    /// Every stream has to end.
    closing: bool,
    tick: Tick,
}

/// Events that a sweep hands to a subscriber at once.
pub(crate) const EVENTS_PER_WRITE: usize = 64;

// ===== impl Sweep =====

impl Sweep {
    pub(super) fn new(channel: Arc<Channel>, shard: ShardId, dirty: Dirty) -> Self {
        let Dirty { view, since } = dirty;
        Self { channel, shard, view, progress: Progress { since, ..Progress::default() } }
    }

    /// The time of the first event that a pass was for which has visited the last seat, once.
    pub(crate) fn take_passed(&mut self) -> Option<Time> {
        self.progress.passed.take()
    }

    /// Collects what some of the subscribers need. Returns whether the sweep goes on.
    pub(crate) fn collect(&mut self, batch: &mut Batch) -> bool {
        let mut state = self.channel.state.lock();
        let State { feeds, closing, .. } = &mut *state;
        let at =
            At { closing: closing.is_some(), tick: self.channel.common.shard(self.shard).tick() };
        let (progress, shard) = (&mut self.progress, self.shard);
        match feeds {
            Feeds::Org(feeds) => {
                let feed = feeds.get_mut(self.view).expect("it has had seats");
                progress.visit(&feed.history, &mut feed.shards[shard.index()], at, batch)
            }
            Feeds::Topic(topic) => {
                let Feed { history, shards, .. } = &mut topic.feed;
                progress.visit(history, &mut shards[shard.index()], at, batch)
            }
        }
    }
}

// ===== impl Progress =====

impl Progress {
    /// Visits some of the seats of a feed. Returns whether the sweep goes on.
    fn visit<L: Log>(&mut self, history: &L, seats: &mut Seats, at: At, batch: &mut Batch) -> bool {
        let At { closing, tick } = at;
        let round = seats.round();
        let (visits_all, visits) = seats.visits_all();
        let all = closing || visits_all;
        let now_at = (history.head(), closing, visits);
        if self.index == 0 {
            self.began_at = now_at;
            seats.begin_sweep();
        }
        let (mut events, filtered) = (0, seats.filters.is_some());
        // Slots without a notification cost time too.
        let end = seats.end().min(self.index + VISITS_PER_TURN);
        while self.index < end && !batch.is_full() {
            if filtered && seats.skip(self.index, history, all, batch) {
                self.index += 1;
                continue;
            }
            if let Some(seat) = seats.at_mut(self.index)
                && (seat.cursor < history.head() || all)
            {
                events = events.max(deliver(seat, round, history, all, tick, batch));
            }
            self.index += 1;
        }
        history.push_newest(events, &mut batch.events);
        if self.index < seats.end() {
            return true;
        }
        // What was published during this pass waits for the next one, so that under load one pass
        // delivers many events.
        self.index = 0;
        self.passed = self.since.take();
        let more = self.began_at != now_at || seats.is_late();
        if more {
            self.since = history.published_after(self.began_at.0);
        }
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
        if !self.progress.over {
            let shard = self.channel.common.shard(self.shard);
            let dirty = Dirty { view: self.view, since: self.progress.since };
            shard.push_dirty(&self.channel, dirty);
        }
    }
}

/// Notifies a subscriber that is behind, or whose stream may have to end. Returns how many events the batch has to hold
/// for it.
fn deliver<L: Log>(
    seat: &mut Seat,
    round: u8,
    history: &L,
    may_end: bool,
    tick: Tick,
    batch: &mut Batch,
) -> usize {
    let is_ready = !may_end && matches!(seat.waiter, Waiter::Socket { .. });
    let count = if is_ready { history.deliverable(seat, round) } else { None };
    let Some(count) = count else {
        if may_end && seat.ending == Some(CloseReason::Stalled) {
            // A stream that takes nothing is reset.
            seat.notify(WriteKind::End(CloseReason::Stalled), batch);
        } else {
            seat.notify(WriteKind::CatchUp, batch);
        }
        return 0;
    };
    seat.cursor = history.head();
    seat.touch(tick);
    seat.notify(WriteKind::Events { count }, batch);
    count
}
