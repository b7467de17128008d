//! The seats of one view of a channel on one shard: a slab, one slot for each subscriber.

use std::mem;
use std::task::Waker;

use slab::Slab;

use super::batch::{Batch, SocketId, WriteKind, WriteOp};
use super::feed::View;
use super::shard::Common;
use crate::ids::Seq;
use crate::metrics::CloseReason;
use crate::time::Tick;

/// The index of a seat, with a generation as an ABA guard: slots are used again, and a stale key must never
/// reach another subscriber's seat. The lowest bit of the generation is the view of the seat's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SeatKey {
    index: u32,
    generation: u32,
}

/// The state of one subscriber.
#[derive(Debug)]
pub(crate) struct Seat {
    /// The number of the last event that was delivered to it, or that it need not see.
    pub(crate) cursor: Seq,
    pub(crate) waiter: Waiter,
    generation: u32,
    /// The tick of the last delivery.
    pub(crate) touched: Tick,
    /// The tick since which pending bytes have made no progress; [`NOT_BLOCKED`] if none are pending.
    blocked_since: Tick,
    /// [`KEEPALIVE_DUE`] and [`WATCHED`].
    flags: u8,
    /// That of [`Seats::round`] if the stream has re-read everything since that was requested last; [`DUE`] if it has
    /// to do so now, as soon as it has taken what there is.
    round: u8,
    /// The stream has to end, without another event.
    pub(crate) ending: Option<CloseReason>,
    /// The stream has to end with a farewell, for this reason: once it has received what there is if the server drains.
    pub(crate) draining: Option<CloseReason>,
}

const FEWER: &str = "fewer seats than file descriptors";

/// It was silent for too long: its task sends a comment unless there is an event.
const KEEPALIVE_DUE: u8 = 1;

/// A stall timer is set.
const WATCHED: u8 = 2;

/// The round of a stream that has to re-read now. No round is counted by this number.
const DUE: u8 = 0;

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

/// The slab.
#[derive(Debug)]
pub(crate) struct Seats {
    slab: Slab<Seat>,
    /// That of the last seat.
    generation: u32,
    /// One more than the highest index in use since the slab was last empty.
    end: usize,
    /// They are in the inbox of the shard, or are being swept.
    dirty: bool,
    /// A pass does what was requested of them, or is about to begin.
    passing: bool,
    /// Counts the requests to re-read everything, in a circle without [`DUE`].
    round: u8,
    /// The generation of the last seat whose stream has to end.
    ends_until: Option<u32>,
}

// ===== impl Seat =====

impl Seat {
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

    /// Why it has to end now, without another event; `None` if it goes on.
    pub(crate) fn ends_for(&self) -> Option<CloseReason> {
        let removed = self.draining.filter(|reason| *reason == CloseReason::Removed);
        self.ending.or(removed)
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

    /// Whether it has re-read everything since that was requested last, or was opened since.
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

// ===== impl SeatKey =====

impl SeatKey {
    pub(crate) fn view(self) -> View {
        if self.generation & 1 == View::Public as u32 { View::Public } else { View::Member }
    }
}

// ===== impl Seats =====

impl Seats {
    /// No seats, for streams of this view.
    pub(crate) fn of(view: View) -> Self {
        Self {
            slab: Slab::new(),
            generation: view as u32,
            end: 0,
            dirty: false,
            passing: false,
            round: DUE + 1,
            ends_until: None,
        }
    }

    pub(crate) fn insert(&mut self, cursor: Seq, tick: Tick) -> SeatKey {
        self.generation = self.generation.wrapping_add(2);
        let generation = self.generation;
        let seat = Seat {
            cursor,
            waiter: Waiter::None,
            generation,
            touched: tick,
            blocked_since: NOT_BLOCKED,
            flags: 0,
            round: self.round,
            ending: None,
            draining: None,
        };
        let index = self.slab.insert(seat);
        self.end = self.end.max(index + 1);
        SeatKey { index: u32::try_from(index).expect(FEWER), generation }
    }

    pub(crate) fn get_mut(&mut self, key: SeatKey) -> Option<&mut Seat> {
        let seat = self.slab.get_mut(key.index as usize)?;
        (seat.generation == key.generation).then_some(seat)
    }

    /// Frees the seat, if the key is not stale.
    pub(crate) fn remove(&mut self, key: SeatKey) -> Option<Seat> {
        self.get_mut(key)?;
        let seat = self.slab.remove(key.index as usize);
        shrink_if_sparse(&mut self.slab);
        self.end = self.end.min(self.slab.capacity());
        Some(seat)
    }

    /// Returns whether the channel has to be left in the shard's inbox: not if it has no seats here, or is there
    /// already.
    pub(crate) fn mark_dirty(&mut self) -> bool {
        self.len() > 0 && !mem::replace(&mut self.dirty, true)
    }

    /// From here on a change marks the seats dirty again.
    pub(crate) fn end_sweep(&mut self) {
        self.dirty = false;
    }

    pub(crate) fn round(&self) -> u8 {
        self.round
    }

    /// Every stream that is open now has to re-read everything.
    pub(crate) fn request_reread(&mut self) {
        self.round = self.round.checked_add(1).unwrap_or_else(|| {
            // No stream may take an old round for this one.
            let open = self.slab.iter_mut().map(|(_, seat)| seat);
            open.filter(|seat| seat.round != DUE).for_each(|seat| seat.round = DUE + 1);
            DUE + 2
        });
    }

    /// Every stream that is open now has to end.
    pub(crate) fn request_end(&mut self) {
        if self.len() > 0 {
            self.ends_until = Some(self.generation);
        }
    }

    /// A pass is needed for what was requested. Returns whether it has to be begun.
    pub(crate) fn request_pass(&mut self) -> bool {
        self.len() > 0 && !mem::replace(&mut self.passing, true)
    }

    pub(crate) fn is_passing(&self) -> bool {
        self.passing
    }

    /// The pass has visited all.
    pub(crate) fn end_pass(&mut self) {
        self.passing = false;
        self.ends_until = None;
    }

    /// Whether the stream of the seat at this index has been requested to end, and has not been made to.
    pub(crate) fn has_to_end(&self, index: usize) -> bool {
        let Some(until) = self.ends_until else { return false };
        // The generation comes around again, but not within a window.
        let since = self.generation.wrapping_sub(until);
        let is_later = |seat: &Seat| seat.generation.wrapping_sub(until).wrapping_sub(1) < since;
        self.slab.get(index).is_some_and(|seat| seat.draining.is_none() && !is_later(seat))
    }

    /// Whether the stream of the seat at this index has been requested to re-read everything, and has not been made to.
    pub(crate) fn has_to_reread(&self, index: usize) -> bool {
        self.slab.get(index).is_some_and(|seat| seat.round != DUE && seat.round != self.round)
    }

    /// The seat at this index, for a pass in memory order over `0..end`.
    pub(crate) fn at_mut(&mut self, index: usize) -> Option<&mut Seat> {
        self.slab.get_mut(index)
    }

    /// The same, with its key.
    pub(crate) fn keyed_mut(&mut self, index: usize) -> Option<(&mut Seat, SeatKey)> {
        let seat = self.slab.get_mut(index)?;
        let (index, generation) = (u32::try_from(index).expect(FEWER), seat.generation);
        Some((seat, SeatKey { index, generation }))
    }

    pub(crate) fn end(&self) -> usize {
        self.end
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }
}

/// Gives memory back as a slab empties.
pub(crate) fn shrink_if_sparse<T>(slab: &mut Slab<T>) {
    if is_sparse(slab.len(), slab.capacity()) {
        slab.shrink_to_fit();
    }
}

/// Whether a collection has to give memory back after a removal: at each halving of its entries, so that the
/// cost is a constant per removal.
pub(crate) fn is_sparse(len: usize, capacity: usize) -> bool {
    (len == 0 || len.is_power_of_two()) && len * 4 <= capacity
}

const _: () = assert!(size_of::<Seat>() <= 48, "a seat is what a subscriber costs the hub");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_the_view_of_its_seat() {
        for view in [View::Member, View::Public] {
            let mut seats = Seats::of(view);
            assert!((0..5).all(|n| seats.insert(Seq(n), Tick(0)).view() == view));
        }
    }

    #[test]
    fn a_stale_key_reaches_no_other_seat() {
        let mut seats = Seats::of(View::Member);
        let first = seats.insert(Seq(0), Tick(0));
        assert!(seats.remove(first).is_some());
        let second = seats.insert(Seq(7), Tick(0));
        assert_eq!(first.index, second.index, "the slot is used again");
        assert!(seats.get_mut(first).is_none());
        assert!(seats.remove(first).is_none());
        assert_eq!(seats.get_mut(second).map(|seat| seat.cursor), Some(Seq(7)));
    }

    #[test]
    fn an_emptied_slab_frees_its_memory() {
        let mut seats = Seats::of(View::Public);
        let keys: Vec<_> = (0..1000).map(|n| seats.insert(Seq(n), Tick(0))).collect();
        for key in keys.into_iter().skip(8).rev() {
            seats.remove(key);
        }
        assert_eq!(seats.len(), 8);
        assert!(seats.slab.capacity() < 100, "capacity of {}", seats.slab.capacity());
        let left: Vec<_> =
            (0..seats.end()).filter_map(|i| Some(seats.at_mut(i)?.cursor.0)).collect();
        assert!(left.into_iter().eq(0..8));
    }
}
