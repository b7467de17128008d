//! Ends that come by the clock: deadlines, and sockets that take nothing for too long. An alarm lies in
//! a wheel of its lane until its tick; nobody takes it back when its stream goes earlier.

use std::mem;
use std::sync::{Arc, Weak};

use smallvec::SmallVec;

use super::Hub;
use super::channel::Channel;
use super::lane::{Lane, SeatRef};
use super::seat::{Seat, SeatKey, Waiter};
use super::sweep::{SEATS_A_TURN, STALE_MAX, Task, Turn, Write};
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
pub(crate) struct Alarm {
    pub(super) seat: SeatRef,
    pub(super) cause: Cause,
}

/// What an alarm was set for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cause {
    Deadline(CloseReason),
    /// The socket took nothing when this was set.
    Stall,
}

/// A seat as whoever writes for it knows it: the seat may be gone.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    channel: Weak<Channel>,
    key: SeatKey,
    lane: u16,
}

/// Alarms that a seat commonly has: an age, an expiry, a stall.
const ALARMS_A_SEAT: usize = 3;

// ===== impl Deadline =====

impl Deadline {
    /// The first tick that is not before it.
    pub(super) fn tick(self) -> u32 {
        u32::try_from(self.at.0.div_ceil(1_000)).unwrap_or(u32::MAX)
    }
}

// ===== impl Hub, for the driver of a lane =====

impl Hub {
    /// Adds the alarms to `due` whose time has come by `tick`.
    pub(crate) fn alarms(&self, tick: u32, due: &mut Vec<Alarm>) {
        let mut alarms = self.lane().alarms.lock();
        alarms.advance(tick, |alarm| due.push(alarm));
        self.lane().forget_alarms(self.lane, &mut alarms);
    }

    /// Has the streams end whose time these say has come, and sets the alarms again: for a stall that
    /// is not long enough yet, and for a stream that has not ended at the next tick.
    pub(crate) fn ring(&self, due: &[Alarm], turn: &mut Turn) {
        let again: SmallVec<[Option<u32>; SEATS_A_TURN]> =
            due.iter().map(|alarm| self.end(alarm, turn)).collect();
        let mut alarms = self.lane().alarms.lock();
        for (alarm, again) in due.iter().zip(again) {
            if let Some(tick) = again {
                alarms.insert(tick, alarm.clone());
            }
        }
    }

    /// Puts back what the wheels gave out and nobody has looked at.
    pub(crate) fn put_back(&self, silent: Vec<SeatRef>, due: Vec<Alarm>) {
        let lane = self.lane();
        let tick = lane.tick();
        let mut wheel = lane.wheel.lock();
        silent.into_iter().for_each(|seat| wheel.insert(tick, seat));
        drop(wheel);
        let mut alarms = lane.alarms.lock();
        due.into_iter().for_each(|alarm| alarms.insert(tick, alarm));
    }

    /// When the alarm has to ring again, if at all.
    fn end(&self, alarm: &Alarm, turn: &mut Turn) -> Option<u32> {
        let channel = alarm.seat.channel.upgrade()?;
        let mut state = channel.state.lock();
        let seat = state.lanes.get_mut(self.lane)?.get_mut(alarm.seat.key)?;
        let tick = self.lane().tick();
        let reason = match alarm.cause {
            Cause::Deadline(reason) => reason,
            Cause::Stall => match seat.stalls_at(self.common().stall_ticks())? {
                later if later > tick => return Some(later),
                _ => CloseReason::Stalled,
            },
        };
        // A socket that takes nothing will not take an end either.
        if reason == CloseReason::Stalled || seat.ending.is_none() {
            seat.ending = Some(reason);
        }
        match mem::replace(&mut seat.waiter, Waiter::Nobody) {
            Waiter::Nobody => {}
            Waiter::Task(waker) | Waiter::Busy(waker) => {
                seat.waiter = Waiter::Busy(waker.clone());
                turn.push_waker(waker);
            }
            waiter @ (Waiter::Socket { number, .. } | Waiter::Blocked { number }) => {
                seat.waiter = waiter;
                turn.writes.push(Write { socket: number, task: Task::End(reason) });
            }
        }
        Some(tick + 1)
    }
}

// ===== impl Watch =====

impl Watch {
    pub(super) fn new(channel: &Arc<Channel>, key: SeatKey, lane: u16) -> Self {
        Self { channel: Arc::downgrade(channel), key, lane }
    }

    /// The socket took nothing. Returns why the stream has to end, if it has to.
    pub(crate) fn block(&self) -> Option<CloseReason> {
        let channel = self.channel.upgrade()?;
        channel.block(self.lane, self.key, |seat, tick| (seat.block(tick, false), seat.ending))?
    }

    /// The socket took something.
    pub(crate) fn unblock(&self) {
        self.change(Seat::unblock);
    }

    /// The task that serves the stream rests, with something in hand or with nothing.
    pub(crate) fn rest(&self) {
        if let Some(channel) = self.channel.upgrade() {
            channel.block(self.lane, self.key, |seat, _| (seat.rest(), ()));
        }
    }

    /// Whether the stream has to end because its client takes nothing; it may just have been seen to take
    /// some.
    pub(crate) fn is_stalled(&self, took_some: bool) -> bool {
        let Some(channel) = self.channel.upgrade() else { return false };
        let stalled = channel.block(self.lane, self.key, |seat, tick| {
            if took_some {
                seat.progress(tick);
            }
            (false, seat.ending == Some(CloseReason::Stalled))
        });
        stalled.unwrap_or(false)
    }

    /// Whether the stream is over.
    pub(crate) fn is_gone(&self) -> bool {
        !self.change(|_| ())
    }

    /// Names the cause for which the stream will be dropped, unless one is known.
    pub(crate) fn note(&self, reason: CloseReason) {
        self.change(|seat| _ = seat.ending.get_or_insert(reason));
    }

    /// Changes the seat, if it is still there.
    fn change(&self, change: impl FnOnce(&mut Seat)) -> bool {
        let Some(channel) = self.channel.upgrade() else { return false };
        let mut state = channel.state.lock();
        let seats = state.lanes.get_mut(usize::from(self.lane));
        seats.and_then(|seats| seats.get_mut(self.key)).map(change).is_some()
    }
}

// ===== impl Lane =====

impl Lane {
    /// Sets an alarm for a seat of this lane.
    pub(super) fn set_alarm(&self, lane: u16, tick: u32, alarm: Alarm) {
        let mut alarms = self.alarms.lock();
        alarms.insert(tick, alarm);
        self.forget_alarms(usize::from(lane), &mut alarms);
    }

    /// Drops what freed seats left behind, once that is more than the living may have: each keeps its
    /// channel's memory.
    fn forget_alarms(&self, lane: usize, alarms: &mut Wheel<Alarm>) {
        let living = self.seats.load(Ordering::Relaxed) as usize;
        // One more than the living have, so that a walk is paid for by as many seats that were freed.
        if alarms.len() > (ALARMS_A_SEAT + 1) * living + STALE_MAX {
            alarms.retain(|alarm| alarm.seat.is_taken(lane));
        }
    }
}

// ===== impl Channel, for who writes =====

impl Channel {
    /// Notes with `note` that a socket is full, and sets the alarm that `note` asks for.
    pub(super) fn block<T>(
        self: &Arc<Self>,
        lane: u16,
        key: SeatKey,
        note: impl FnOnce(&mut Seat, u32) -> (bool, T),
    ) -> Option<T> {
        let at = &self.common.lanes[usize::from(lane)];
        let tick = at.tick();
        let (watch, noted) = {
            let mut state = self.state.lock();
            note(state.lanes.get_mut(usize::from(lane))?.get_mut(key)?, tick)
        };
        if watch {
            let seat = SeatRef { channel: Arc::downgrade(self), key };
            let stalls_at = tick.saturating_add(self.common.stall_ticks()).saturating_add(1);
            at.set_alarm(lane, stalls_at, Alarm { seat, cause: Cause::Stall });
        }
        Some(noted)
    }
}
