//! The driver's side of the hub: closing windows, walking the seats of dirty channels, and the wheel.
//! All of it collects under a lock and acts after it, a bounded number of seats at a time.

use std::mem;
use std::sync::Arc;
use std::task::Waker;

use smallvec::SmallVec;

use super::Hub;
use super::channel::{Channel, State};
use super::history::{Event, History, View};
use super::seat::{Seat, Waiter};
use super::shard::SeatRef;
use crate::ids::Time;
use crate::metrics::{self, CloseReason};

/// A walk over the seats that one channel has on one shard, in memory order.
#[derive(Debug)]
pub(crate) struct Sweep {
    channel: Arc<Channel>,
    shard: usize,
    position: usize,
    /// The head, and whether streams had to end, when the walk began.
    began_at: (u64, bool),
    /// It was done, so that the next change asks for another.
    over: bool,
}

/// What one turn found to do, to be done once no lock is held. The driver keeps it for its memory.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(super) wakers: SmallVec<[Waker; SEATS_PER_TURN]>,
    /// Sockets that the driver writes to itself.
    pub(crate) writes: Vec<WriteOp>,
    /// What [`Task::Events`] refers to: consecutive events, up to the head.
    pub(crate) events: Vec<Event>,
    /// The number of the last of them.
    pub(crate) head: u64,
}

/// Something to do for the parked stream with this number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteOp {
    pub(crate) socket: u32,
    pub(crate) kind: WriteKind,
}

/// What a parked stream needs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WriteKind {
    /// The last `count` of the turn's events. They count as taken: who cannot write them all gives
    /// them back.
    Events { count: usize, view: View },
    /// More than that, or the end: it has to take from its subscription what it needs.
    CatchUp,
    /// A comment. It counts as sent.
    Keepalive,
    /// Its end, now, for this reason.
    End(CloseReason),
}

/// Seats that are served in one turn, before everything else on the worker has its own. One under
/// loom, so that two seats are enough for a walk of several turns.
pub(crate) const SEATS_PER_TURN: usize = if cfg!(nudged_loom) { 1 } else { 32 };

/// Events that a sweep hands to a subscriber at once.
pub(crate) const EVENTS_PER_WRITE: usize = 64;

/// Stale entries of the wheel that are not worth a walk over it.
pub(super) const STALE_MAX: usize = 1024;

// ===== impl Turn =====

impl Batch {
    /// Wakes the tasks; what is to be written is left to the driver.
    pub(crate) fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    pub(super) fn push_waker(&mut self, waker: Waker) {
        self.wakers.push(waker);
    }

    /// Makes it empty and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.writes.clear();
        self.events.clear();
    }

    pub(super) fn is_full(&self) -> bool {
        self.wakers.len() + self.writes.len() >= SEATS_PER_TURN
    }
}

// ===== impl Sweep =====

impl Sweep {
    /// Collects what some of the subscribers need. Returns whether the walk goes on.
    pub(crate) fn collect(&mut self, batch: &mut Batch) -> bool {
        let mut state = self.channel.state.lock();
        let State { history, shards, closing, .. } = &mut *state;
        let seats = &mut shards[self.shard];
        let tick = self.channel.common.shards[self.shard].tick();
        let now_at = (history.head(), *closing);
        if self.position == 0 {
            self.began_at = now_at;
        }
        let mut events = 0;
        while self.position < seats.end() && !batch.is_full() {
            if let Some(seat) = seats.at_mut(self.position)
                && (seat.cursor < history.head() || *closing)
            {
                events = events.max(serve(seat, history, *closing, tick, batch));
            }
            self.position += 1;
        }
        batch.head = history.head();
        batch.events.extend(
            (0..events).rev().filter_map(|back| history.get(now_at.0 - back as u64)).cloned(),
        );
        if self.position < seats.end() {
            return true;
        }
        // What came while this walk went on waited for the next one, so that under load one walk
        // delivers many events.
        self.position = 0;
        let more = self.began_at != now_at;
        if !more {
            seats.end_sweep();
            self.over = true;
        }
        more
    }
}

impl Drop for Sweep {
    /// The channel counts as dirty until a walk is done: it is left to the next driver.
    fn drop(&mut self) {
        if !self.over {
            self.channel.common.shards[self.shard].push_dirty(self.channel.clone());
        }
    }
}

/// Serves a seat that is behind, or has to end. Returns how many events have to be at hand.
fn serve(seat: &mut Seat, history: &History, closing: bool, tick: u32, batch: &mut Batch) -> usize {
    match mem::replace(&mut seat.waiter, Waiter::None) {
        Waiter::Task(waker) => {
            seat.waiter = Waiter::Busy(waker.clone());
            batch.wakers.push(waker);
            0
        }
        Waiter::Socket { number, view } => {
            let count = usize::try_from(history.head() - seat.cursor).unwrap_or(usize::MAX);
            let near = count <= EVENTS_PER_WRITE && history.covers(seat.cursor);
            if closing || !near {
                batch.writes.push(WriteOp { socket: number, kind: WriteKind::CatchUp });
                return 0;
            }
            let visible = (seat.cursor + 1..=history.head())
                .any(|seq| history.get(seq).is_some_and(|event| event.seen_by(view).is_some()));
            seat.cursor = history.head();
            seat.waiter = Waiter::Socket { number, view };
            if !visible {
                return 0;
            }
            seat.touch(tick);
            batch.writes.push(WriteOp { socket: number, kind: WriteKind::Events { count, view } });
            count
        }
        waiter => {
            seat.waiter = waiter;
            0
        }
    }
}

// ===== impl Hub, for the driver of a shard =====

impl Hub {
    /// Closes the windows whose time has come.
    pub(crate) fn close_windows(&self, now: Time) {
        while let Some(channel) = self.shard().pop_window(now) {
            channel.release(now);
            self.common().schedule(&channel);
        }
    }

    /// The next channel to sweep on this shard.
    pub(crate) fn next_sweep(&self) -> Option<Sweep> {
        let channel = self.shard().pop_dirty()?;
        Some(Sweep { channel, shard: self.shard, position: 0, began_at: (0, false), over: false })
    }

    /// Moves the shard's time on to `tick` and adds the seats to `due` that have to be looked at.
    pub(crate) fn tick(&self, tick: u32, due: &mut Vec<SeatRef>) {
        let shard = self.shard();
        shard.set_tick(tick);
        let mut wheel = shard.wheel.lock();
        wheel.advance(tick, |entry| due.push(entry));
        shard.purge_keepalives(self.shard, &mut wheel);
    }

    /// Finds the seats among these that were silent for long enough to need a comment, and puts all
    /// of them back into the wheel.
    pub(crate) fn keep_alive(&self, due: &[SeatRef], batch: &mut Batch) {
        let deadlines: SmallVec<[Option<u32>; SEATS_PER_TURN]> =
            due.iter().map(|entry| self.look(entry, batch)).collect();
        let mut wheel = self.shard().wheel.lock();
        for (entry, deadline) in due.iter().zip(deadlines) {
            if let Some(deadline) = deadline {
                wheel.insert(deadline, entry.clone());
            }
        }
    }

    /// When the seat has to be looked at again, if it is still taken.
    fn look(&self, entry: &SeatRef, batch: &mut Batch) -> Option<u32> {
        let channel = entry.channel.upgrade()?;
        let mut state = channel.state.lock();
        let seat = state.shards.get_mut(self.shard)?.get_mut(entry.key)?;
        let (common, shard) = (self.common(), self.shard());
        let tick = shard.tick();
        if tick - seat.touched < common.keepalive_min() {
            return Some(common.keepalive_at(seat.touched));
        }
        match mem::replace(&mut seat.waiter, Waiter::None) {
            Waiter::Task(waker) => {
                seat.keepalive_due = true;
                seat.waiter = Waiter::Busy(waker.clone());
                batch.wakers.push(waker);
            }
            Waiter::Socket { number, view } => {
                seat.waiter = Waiter::Socket { number, view };
                seat.touch(tick);
                metrics::add(&shard.counters.keepalives, 1);
                batch.writes.push(WriteOp { socket: number, kind: WriteKind::Keepalive });
            }
            waiter => {
                seat.keepalive_due = true;
                seat.waiter = waiter;
            }
        }
        Some(common.keepalive_at(tick))
    }
}
