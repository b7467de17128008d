//! The state of one subscriber: where it is, what waits for events, and what it has to do.

#[cfg(feature = "server")]
mod state;

use std::mem;
use std::task::Waker;

use super::batch::{Batch, SocketId, WriteKind, WriteOp};
use super::shard::Common;
use crate::ids::Seq;
use crate::metrics::CloseReason;
use crate::time::Tick;

/// The state of one subscriber.
#[derive(Debug)]
pub(crate) struct Seat {
    /// The number of the last event that was delivered to it, or that it need not see.
    pub(crate) cursor: Seq,
    pub(crate) waiter: Waiter,
    pub(super) generation: u32,
    /// The tick of the last delivery.
    pub(crate) touched: Tick,
    /// The tick since which pending bytes have made no progress; [`NOT_BLOCKED`] if none are pending.
    blocked_since: Tick,
    /// [`KEEPALIVE_DUE`] and [`WATCHED`].
    flags: u8,
    /// That of [`Seats::round`] if the stream has re-read everything since the last command to; [`DUE`] if it has
    /// to do so now, as soon as it has taken what there is.
    pub(super) round: u8,
    /// The stream has to end, without another event.
    pub(crate) ending: Option<CloseReason>,
    /// The stream has to end with a farewell, for this reason: once it has received what there is if the server drains.
    pub(crate) draining: Option<CloseReason>,
}

/// It was silent for too long: its task sends a comment unless there is an event.
const KEEPALIVE_DUE: u8 = 1;

/// A stall timer is set.
const WATCHED: u8 = 2;

/// The round of a stream that has to re-read now. No round is counted by this number.
pub(super) const DUE: u8 = 0;

/// No tick: the socket has taken all bytes.
const NOT_BLOCKED: Tick = Tick::NEVER;

/// What has to be notified of a new event. A sweep finds one of these in each seat that is behind.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// Nothing: the stream is taking what there is.
    None,
    /// The task that serves the stream: it waits.
    Task(Waker),
    /// The task that serves the stream: it was woken, or has something to write. Only an end wakes it again.
    Busy(Waker),
    /// The stream's socket, which the shard's driver writes.
    Socket { socket: SocketId },
    /// The same while it is full: only an end is written to it.
    Blocked { socket: SocketId },
}

// ===== impl Seat =====

impl Seat {
    /// A seat whose stream is about to take what comes after `cursor`.
    pub(super) fn new(cursor: Seq, tick: Tick, generation: u32, round: u8) -> Self {
        Self {
            cursor,
            waiter: Waiter::None,
            generation,
            touched: tick,
            blocked_since: NOT_BLOCKED,
            flags: 0,
            round,
            ending: None,
            draining: None,
        }
    }

    /// Something is delivered, which ends the silence.
    pub(crate) fn touch(&mut self, tick: Tick) {
        self.touched = tick;
        self.flags &= !KEEPALIVE_DUE;
    }

    /// The socket is full, after it took something or nothing. Returns whether a stall timer has to be set.
    #[must_use]
    pub(crate) fn block(&mut self, tick: Tick, took_some: bool) -> bool {
        if took_some || self.blocked_since == NOT_BLOCKED {
            self.blocked_since = tick;
        }
        self.watch()
    }

    /// The socket took all bytes.
    pub(crate) fn unblock(&mut self) {
        self.blocked_since = NOT_BLOCKED;
        // It recovered before the stall was enforced.
        self.ending = self.ending.filter(|reason| *reason != CloseReason::Stalled);
    }

    /// The client took some of the pending bytes.
    pub(crate) fn progress(&mut self, tick: Tick) {
        if self.blocked_since != NOT_BLOCKED {
            self.unblock();
            self.blocked_since = tick;
        }
    }

    /// The task that serves the stream is idle: if it is still `Busy`, the last frame is stuck in HTTP/2 flow
    /// control. Returns whether a stall timer has to be set.
    #[must_use]
    pub(crate) fn rest(&mut self) -> bool {
        if !matches!(self.waiter, Waiter::Busy(_)) {
            self.unblock();
            return false;
        }
        self.blocked_since = match self.blocked_since {
            NOT_BLOCKED => self.touched,
            since => since.max(self.touched),
        };
        self.watch()
    }

    /// Its end is due, for this reason or one before. Returns whether it takes nothing now: from here on it has less
    /// time to go on.
    #[must_use]
    pub(crate) fn leave(&mut self, reason: CloseReason, tick: Tick) -> bool {
        self.draining.get_or_insert(reason);
        self.touched = tick;
        if self.blocked_since != NOT_BLOCKED {
            self.blocked_since = tick;
        }
        // A stall timer that was set before fires too late: the next one that is needed is set anew.
        let is_stuck = matches!(self.waiter, Waiter::Busy(_) | Waiter::Blocked { .. });
        self.set(WATCHED, is_stuck);
        is_stuck
    }

    /// Whether bytes are pending that its client does not take.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked_since != NOT_BLOCKED
    }

    /// Why it has to end now, without another event; `None` if it goes on.
    pub(crate) fn ends_for(&self) -> Option<CloseReason> {
        let at_once =
            |reason: &CloseReason| matches!(reason, CloseReason::Removed | CloseReason::Replaced);
        self.ending.or_else(|| self.draining.filter(at_once))
    }

    /// It has to re-read everything, as soon as it has taken what there is.
    pub(crate) fn reread(&mut self) {
        self.round = DUE;
    }

    pub(crate) fn is_reread_due(&self) -> bool {
        self.round == DUE
    }

    /// It re-reads everything, in this round of its feed.
    pub(crate) fn has_reread(&mut self, round: u8) {
        self.round = round;
    }

    /// Whether it has re-read everything since the last command to, or was opened since.
    pub(crate) fn is_current(&self, round: u8) -> bool {
        self.round == round
    }

    /// It was silent for too long.
    pub(crate) fn set_keepalive_due(&mut self) {
        self.set(KEEPALIVE_DUE, true);
    }

    pub(crate) fn is_keepalive_due(&self) -> bool {
        self.flags & KEEPALIVE_DUE != 0
    }

    /// Notes that a stall timer is needed. Returns whether one has to be set.
    fn watch(&mut self) -> bool {
        let is_set = self.flags & WATCHED != 0;
        self.set(WATCHED, true);
        !is_set
    }

    fn set(&mut self, flag: u8, value: bool) {
        self.flags = if value { self.flags | flag } else { self.flags & !flag };
    }

    /// The tick at which it counts as stalled if it makes no progress after the driver's last pause, which ended at
    /// `resumed`; `None` if nothing is pending, and then no timer is set.
    pub(crate) fn stalls_at(&mut self, common: &Common, resumed: Tick) -> Option<Tick> {
        let is_blocked = self.blocked_since != NOT_BLOCKED;
        self.set(WATCHED, is_blocked);
        is_blocked.then(|| self.stalls_after(self.blocked_since.max(resumed), common))
    }

    /// The tick at which it counts as stalled if it makes no progress from `tick` on.
    pub(crate) fn stalls_after(&self, tick: Tick, common: &Common) -> Tick {
        let ticks =
            if self.draining.is_some() { common.drain_ticks() } else { common.stall_ticks() };
        // Both ticks are rounded down, so up to a second may be missing.
        tick.after(ticks).after(1)
    }

    /// Notifies the subscriber. A task that waits is woken, to poll for what there is; for a socket, `kind` is
    /// left to the driver. A stream that is taking what there is, whose task is busy or whose socket is full
    /// gets there by itself; of these only [`WriteKind::End`] reaches the last two.
    // A call costs a third of what a sweep costs a seat.
    #[inline(always)]
    pub(crate) fn notify(&mut self, kind: WriteKind, batch: &mut Batch) {
        if let Waiter::Socket { socket } = self.waiter {
            batch.writes.push(WriteOp { socket, kind });
            if matches!(kind, WriteKind::CatchUp) {
                // From here on it takes by itself, until it has taken all.
                self.waiter = Waiter::None;
            }
            return;
        }
        let ends = matches!(kind, WriteKind::End(_));
        match mem::replace(&mut self.waiter, Waiter::None) {
            Waiter::Task(waker) => {
                self.waiter = Waiter::Busy(waker.clone());
                batch.wakers.push(waker);
            }
            Waiter::Busy(waker) if ends => {
                self.waiter = Waiter::Busy(waker.clone());
                batch.wakers.push(waker);
            }
            Waiter::Blocked { socket } if ends => {
                self.waiter = Waiter::Blocked { socket };
                batch.writes.push(WriteOp { socket, kind });
            }
            waiter => self.waiter = waiter,
        }
    }

    /// Keeps the waker of the task that serves the stream, which waits or is busy. Returns what it replaces, to
    /// be dropped once no lock is held.
    #[must_use]
    pub(crate) fn set_waker(&mut self, waker: &Waker, waits: bool) -> Waiter {
        let made = if waits { Waiter::Task } else { Waiter::Busy };
        match mem::replace(&mut self.waiter, Waiter::None) {
            Waiter::Task(known) | Waiter::Busy(known) if known.will_wake(waker) => {
                self.waiter = made(known);
                Waiter::None
            }
            replaced => {
                self.waiter = made(waker.clone());
                replaced
            }
        }
    }
}

const _: () = assert!(size_of::<Seat>() <= 48, "a seat is what a subscriber costs the hub");
