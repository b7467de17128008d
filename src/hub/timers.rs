//! Ends that come by the clock: deadlines, and sockets that take nothing for too long. An timer lies in
//! a wheel of its shard until its tick; nobody takes it back when its stream goes earlier.

use std::mem;
use std::sync::{Arc, Weak};

use smallvec::SmallVec;

use super::Hub;
use super::channel::Channel;
use super::seat::{Seat, SeatKey, Waiter};
use super::shard::{SeatRef, Shard};
use super::sweep::{Batch, SEATS_PER_TURN, STALE_MAX, WriteKind, WriteOp};
use super::wheel::Wheel;
use crate::ids::Time;
use crate::metrics::CloseReason;
use crate::sync::Ordering;

/// When a stream has to end, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// Not before this time, and within two seconds of it.
    pub at: Time,
    /// What the end is counted as.
    pub reason: CloseReason,
}

/// A look at a seat that may end its stream.
#[derive(Clone, Debug)]
pub(crate) struct Timer {
    pub(super) seat: SeatRef,
    pub(super) kind: TimerKind,
}

/// What an timer was set for.
#[derive(Clone, Copy, Debug)]
pub(super) enum TimerKind {
    Deadline(CloseReason),
    /// The socket took nothing when this was set.
    Stall,
}

/// A seat as whoever writes for it knows it: the seat may be gone.
#[derive(Clone, Debug)]
pub(crate) struct SeatHandle {
    channel: Weak<Channel>,
    key: SeatKey,
    shard: u16,
}

/// Alarms that a seat commonly has: an age, an expiry, a stall.
const TIMERS_PER_SEAT: usize = 3;

// ===== impl Deadline =====

impl Deadline {
    /// The first tick that is not before it.
    pub(super) fn tick(self) -> u32 {
        u32::try_from(self.at.0.div_ceil(1_000)).unwrap_or(u32::MAX)
    }
}

// ===== impl Hub, for the driver of a shard =====

impl Hub {
    /// Adds the timers to `due` whose time has come by `tick`.
    pub(crate) fn timers(&self, tick: u32, due: &mut Vec<Timer>) {
        let mut timers = self.shard().timers.lock();
        timers.advance(tick, |timer| due.push(timer));
        self.shard().purge_timers(self.shard, &mut timers);
    }

    /// Has the streams end whose time these say has come, and sets the timers again: for a stall that
    /// is not long enough yet, and for a stream that has not ended at the next tick.
    pub(crate) fn fire(&self, due: &[Timer], batch: &mut Batch) {
        let again: SmallVec<[Option<u32>; SEATS_PER_TURN]> =
            due.iter().map(|timer| self.end(timer, batch)).collect();
        let mut timers = self.shard().timers.lock();
        for (timer, again) in due.iter().zip(again) {
            if let Some(tick) = again {
                timers.insert(tick, timer.clone());
            }
        }
    }

    /// Puts back what the wheels gave out and nobody has looked at.
    pub(crate) fn put_back(&self, silent: Vec<SeatRef>, due: Vec<Timer>) {
        let shard = self.shard();
        let tick = shard.tick();
        let mut wheel = shard.wheel.lock();
        silent.into_iter().for_each(|seat| wheel.insert(tick, seat));
        drop(wheel);
        let mut timers = shard.timers.lock();
        due.into_iter().for_each(|timer| timers.insert(tick, timer));
    }

    /// When the timer has to ring again, if at all.
    fn end(&self, timer: &Timer, batch: &mut Batch) -> Option<u32> {
        let channel = timer.seat.channel.upgrade()?;
        let mut state = channel.state.lock();
        let seat = state.shards.get_mut(self.shard)?.get_mut(timer.seat.key)?;
        let tick = self.shard().tick();
        let reason = match timer.kind {
            TimerKind::Deadline(reason) => reason,
            TimerKind::Stall => match seat.stalls_at(self.common().stall_ticks())? {
                later if later > tick => return Some(later),
                _ => CloseReason::Stalled,
            },
        };
        // A socket that takes nothing will not take an end either.
        if reason == CloseReason::Stalled || seat.ending.is_none() {
            seat.ending = Some(reason);
        }
        match mem::replace(&mut seat.waiter, Waiter::None) {
            Waiter::None => {}
            Waiter::Task(waker) | Waiter::Busy(waker) => {
                seat.waiter = Waiter::Busy(waker.clone());
                batch.push_waker(waker);
            }
            waiter @ (Waiter::Socket { number, .. } | Waiter::Blocked { number }) => {
                seat.waiter = waiter;
                batch.writes.push(WriteOp { socket: number, kind: WriteKind::End(reason) });
            }
        }
        Some(tick + 1)
    }
}

// ===== impl SeatHandle =====

impl SeatHandle {
    pub(super) fn new(channel: &Arc<Channel>, key: SeatKey, shard: u16) -> Self {
        Self { channel: Arc::downgrade(channel), key, shard }
    }

    /// The socket took something.
    pub(crate) fn unblock(&self) {
        self.change(Seat::unblock);
    }

    /// The task that serves the stream rests, with something in hand or with nothing.
    pub(crate) fn rest(&self) {
        if let Some(channel) = self.channel.upgrade() {
            channel.block(self.shard, self.key, |seat, _| (seat.rest(), ()));
        }
    }

    /// Whether the stream has to end because its client takes nothing; it may just have been seen to take
    /// some.
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

    /// Names the cause for which the stream will be dropped, unless one is known.
    pub(crate) fn note(&self, reason: CloseReason) {
        self.change(|seat| _ = seat.ending.get_or_insert(reason));
    }

    /// Changes the seat, if it is still there.
    fn change(&self, change: impl FnOnce(&mut Seat)) -> bool {
        let Some(channel) = self.channel.upgrade() else { return false };
        let mut state = channel.state.lock();
        let seats = state.shards.get_mut(usize::from(self.shard));
        seats.and_then(|seats| seats.get_mut(self.key)).map(change).is_some()
    }
}

// ===== impl Shard =====

impl Shard {
    /// Sets an timer for a seat of this shard.
    pub(super) fn set_timer(&self, shard: u16, tick: u32, timer: Timer) {
        let mut timers = self.timers.lock();
        timers.insert(tick, timer);
        self.purge_timers(usize::from(shard), &mut timers);
    }

    /// Drops what freed seats left behind, once that is more than the living may have: each keeps its
    /// channel's memory.
    fn purge_timers(&self, shard: usize, timers: &mut Wheel<Timer>) {
        let living = self.seats.load(Ordering::Relaxed) as usize;
        // One more than the living have, so that a walk is paid for by as many seats that were freed.
        if timers.len() > (TIMERS_PER_SEAT + 1) * living + STALE_MAX {
            timers.retain(|timer| timer.seat.is_taken(shard));
        }
    }
}

// ===== impl Channel, for who writes =====

impl Channel {
    /// Notes with `note` that a socket is full, and sets the timer that `note` asks for.
    pub(super) fn block<T>(
        self: &Arc<Self>,
        shard: u16,
        key: SeatKey,
        note: impl FnOnce(&mut Seat, u32) -> (bool, T),
    ) -> Option<T> {
        let at = &self.common.shards[usize::from(shard)];
        let tick = at.tick();
        let (watch, noted) = {
            let mut state = self.state.lock();
            note(state.shards.get_mut(usize::from(shard))?.get_mut(key)?, tick)
        };
        if watch {
            let seat = SeatRef { channel: Arc::downgrade(self), key };
            let stalls_at = tick.saturating_add(self.common.stall_ticks()).saturating_add(1);
            at.set_timer(shard, stalls_at, Timer { seat, kind: TimerKind::Stall });
        }
        Some(noted)
    }
}
