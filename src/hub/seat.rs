//! The seats of one channel on one shard: a slab, one slot for each subscriber.

use std::mem;
use std::task::Waker;

use slab::Slab;

use super::history::View;
use crate::metrics::CloseReason;

/// A seat's place, with a generation, because places are used again and a stale key must never reach
/// somebody else's seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SeatKey {
    index: u32,
    generation: u32,
}

/// What the hub knows of one subscriber.
#[derive(Debug)]
pub(crate) struct Seat {
    /// The number of the last event that was handed to it, or that it need not see.
    pub(crate) cursor: u64,
    pub(crate) waiter: Waiter,
    generation: u32,
    /// The tick at which something was last handed to it.
    pub(crate) touched: u32,
    /// The wheel found it silent for too long.
    pub(crate) keepalive_due: bool,
    /// There is something to write, of which the socket has taken nothing since this tick; or [`NOT_BLOCKED`].
    blocked_since: u32,
    /// An timer is set that will find out whether it has stalled.
    watched: bool,
    /// Its stream has to end, without another event.
    pub(crate) ending: Option<CloseReason>,
    /// Its turn to end has come: nothing follows what there is.
    pub(crate) draining: bool,
}

/// No tick: the socket takes what there is.
const NOT_BLOCKED: u32 = u32::MAX;

/// Who has to be told that a seat has something to take.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// Nobody: it is being served.
    None,
    /// The task that serves the stream.
    Task(Waker),
    /// That task was told, or has something to write; only an end is worth waking it again.
    Busy(Waker),
    /// The shard's driver writes to the socket of the parked stream with this number itself.
    Socket { number: u32, view: View },
    /// The socket of the parked stream with this number is full: only an end reaches it.
    Blocked { number: u32 },
}

/// The slab.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    slab: Slab<Seat>,
    generation: u32,
    /// One more than the highest index in use since the slab was last empty.
    end: usize,
    /// Whether the shard has been told that there is something to sweep.
    dirty: bool,
}

// ===== impl Seat =====

impl Seat {
    /// Something is handed out, which breaks the silence.
    pub(crate) fn touch(&mut self, tick: u32) {
        self.touched = tick;
        self.keepalive_due = false;
    }

    /// The socket is full, after it took something or nothing. Returns whether an timer has to be set
    /// that finds out how long this lasts.
    #[must_use]
    pub(crate) fn block(&mut self, tick: u32, took_some: bool) -> bool {
        if took_some || self.blocked_since == NOT_BLOCKED {
            self.blocked_since = tick;
        }
        !mem::replace(&mut self.watched, true)
    }

    /// The socket took what there was.
    pub(crate) fn unblock(&mut self) {
        self.blocked_since = NOT_BLOCKED;
        // It came to before it was cut off.
        self.ending = self.ending.filter(|reason| *reason != CloseReason::Stalled);
    }

    /// The client took some of what was handed out. If the task has more in hand, this is no stall.
    pub(crate) fn progress(&mut self, tick: u32) {
        if self.blocked_since != NOT_BLOCKED {
            self.unblock();
            self.blocked_since = tick;
        }
    }

    /// The task that serves it rests. Had the client room for what was handed out last, the task would
    /// wait for more. Returns what [`Self::block`] does.
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
        !mem::replace(&mut self.watched, true)
    }

    /// When the socket, if it takes nothing meanwhile, will have taken nothing for so many ticks.
    /// `None` calls off the timer.
    pub(crate) fn stalls_at(&mut self, ticks: u32) -> Option<u32> {
        self.watched = self.blocked_since != NOT_BLOCKED;
        // Both ticks are rounded down, so the last second may be missing yet.
        self.watched.then(|| self.blocked_since.saturating_add(ticks).saturating_add(1))
    }

    /// Keeps the waker of the task that serves it, which waits or is busy. What it knew before has to be
    /// dropped once no lock is held.
    #[must_use]
    pub(crate) fn served_by(&mut self, waker: &Waker, waits: bool) -> Waiter {
        let made = if waits { Waiter::Task } else { Waiter::Busy };
        match mem::replace(&mut self.waiter, Waiter::None) {
            Waiter::Task(known) | Waiter::Busy(known) if known.will_wake(waker) => {
                self.waiter = made(known);
                Waiter::None
            }
            before => {
                self.waiter = made(waker.clone());
                before
            }
        }
    }
}

// ===== impl Seats =====

impl Seats {
    pub(crate) fn take(&mut self, cursor: u64, tick: u32) -> SeatKey {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let seat = Seat {
            cursor,
            waiter: Waiter::None,
            generation,
            touched: tick,
            keepalive_due: false,
            blocked_since: NOT_BLOCKED,
            watched: false,
            ending: None,
            draining: false,
        };
        let index = self.slab.insert(seat);
        self.end = self.end.max(index + 1);
        SeatKey {
            index: u32::try_from(index).expect("fewer seats than file descriptors"),
            generation,
        }
    }

    pub(crate) fn get_mut(&mut self, key: SeatKey) -> Option<&mut Seat> {
        let seat = self.slab.get_mut(key.index as usize)?;
        (seat.generation == key.generation).then_some(seat)
    }

    /// Frees the seat.
    pub(crate) fn free(&mut self, key: SeatKey) -> Option<Seat> {
        self.get_mut(key)?;
        let seat = self.slab.remove(key.index as usize);
        shrink_if_sparse(&mut self.slab);
        self.end = self.end.min(self.slab.capacity());
        Some(seat)
    }

    /// Returns whether the shard has to be told that there is something to sweep.
    pub(crate) fn mark_dirty(&mut self) -> bool {
        self.len() > 0 && !mem::replace(&mut self.dirty, true)
    }

    /// From here on a change asks for another sweep.
    pub(crate) fn end_sweep(&mut self) {
        self.dirty = false;
    }

    /// The seat at this index, for a walk in memory order over `0..end`.
    pub(crate) fn at_mut(&mut self, index: usize) -> Option<&mut Seat> {
        self.slab.get_mut(index)
    }

    pub(crate) fn end(&self) -> usize {
        self.end
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }
}

/// Has a slab give memory back as it empties. It looks at each halving of its entries, so that looking
/// costs a constant for each entry that was removed.
pub(crate) fn shrink_if_sparse<T>(slab: &mut Slab<T>) {
    let len = slab.len();
    if len == 0 {
        *slab = Slab::new();
    } else if len.is_power_of_two() && len * 4 <= slab.capacity() {
        slab.shrink_to_fit();
    }
}

const _: () = assert!(size_of::<Seat>() <= 48, "a seat is what a subscriber costs the hub");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_reaches_nobody() {
        let mut seats = Seats::default();
        let first = seats.take(0, 0);
        assert!(seats.free(first).is_some());
        let second = seats.take(7, 0);
        assert_eq!(first.index, second.index, "the place is used again");
        assert!(seats.get_mut(first).is_none());
        assert!(seats.free(first).is_none());
        assert_eq!(seats.get_mut(second).map(|seat| seat.cursor), Some(7));
    }

    #[test]
    fn an_emptied_slab_gives_its_memory_back() {
        let mut seats = Seats::default();
        let keys: Vec<_> = (0..1000).map(|n| seats.take(n, 0)).collect();
        for key in keys.into_iter().skip(8).rev() {
            seats.free(key);
        }
        assert_eq!(seats.len(), 8);
        assert!(seats.slab.capacity() < 100, "still room for {}", seats.slab.capacity());
        let left: Vec<_> = (0..seats.end()).filter_map(|i| Some(seats.at_mut(i)?.cursor)).collect();
        assert!(left.into_iter().eq(0..8));
    }
}
