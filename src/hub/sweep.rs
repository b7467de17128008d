//! The driver's side of the hub: closing windows, walking the seats of dirty channels, and the wheel.
//! All of it collects under a lock and acts after it, a bounded number of seats at a time.

use std::sync::Arc;
use std::task::Waker;

use smallvec::SmallVec;

use super::Hub;
use super::channel::{Channel, State};
use super::lane::SeatRef;
use super::seat::Waiter;
use crate::ids::Time;
use crate::sync::Ordering;

/// Seats that are looked at under one lock, and woken after it.
const BATCH: usize = 32;

/// A walk over the seats that one channel has on one lane, in memory order.
#[derive(Debug)]
pub(crate) struct Sweep {
    channel: Arc<Channel>,
    lane: usize,
    position: usize,
    /// The head, and whether streams had to end, when the walk began.
    began_at: (u64, bool),
}

type Wakers = SmallVec<[Waker; BATCH]>;

// ===== impl Sweep =====

impl Sweep {
    /// Wakes some of the subscribers that have something to take. Returns whether there may be more.
    pub(crate) fn turn(&mut self) -> bool {
        let mut wakers = Wakers::new();
        let more = self.collect(&mut wakers);
        wakers.into_iter().for_each(Waker::wake);
        more
    }

    fn collect(&mut self, wakers: &mut Wakers) -> bool {
        let mut state = self.channel.state.lock();
        let State { history, lanes, closing, .. } = &mut *state;
        let seats = &mut lanes[self.lane];
        let now_at = (history.head(), *closing);
        if self.position == 0 {
            self.began_at = now_at;
        }
        while self.position < seats.end() {
            if wakers.len() == BATCH {
                return true;
            }
            let seat = seats.at_mut(self.position);
            self.position += 1;
            let Some(seat) = seat else { continue };
            if seat.cursor == history.head() && !*closing {
                continue;
            }
            if let Waiter::Task(waker) = std::mem::replace(&mut seat.waiter, Waiter::Nobody) {
                wakers.push(waker);
            }
        }
        // What came while this walk went on waited for the next one, so that under load one walk
        // delivers many events.
        self.position = 0;
        let more = self.began_at != now_at;
        if !more {
            seats.end_sweep();
        }
        more
    }
}

// ===== impl Hub, for the driver of a lane =====

impl Hub {
    /// Closes the windows whose time has come.
    pub(crate) fn close_windows(&self, now: Time) {
        while let Some(channel) = self.lane().pop_window(now) {
            channel.release(now);
            self.common().spread(&channel);
        }
    }

    /// The next channel to sweep on this lane.
    pub(crate) fn next_sweep(&self) -> Option<Sweep> {
        let channel = self.lane().pop_dirty()?;
        Some(Sweep { channel, lane: self.lane, position: 0, began_at: (0, false) })
    }

    /// Moves the lane's time on to `tick` and adds the seats to `due` that have to be looked at.
    pub(crate) fn tick(&self, tick: u32, due: &mut Vec<SeatRef>) {
        let lane = self.lane();
        lane.set_tick(tick);
        let mut wheel = lane.wheel.lock();
        wheel.advance(tick, |entry| due.push(entry));
        // Seats that were freed leave their entries behind; they may never outnumber the living.
        let living = lane.seats.load(Ordering::Relaxed) as usize;
        if wheel.len() > 2 * living + STALE_MAX {
            wheel.retain(|entry| entry.is_taken(self.lane));
        }
    }

    /// Gives these seats a comment if they were silent for long enough, and puts them back.
    pub(crate) fn keep_alive(&self, due: &[SeatRef]) {
        for batch in due.chunks(BATCH) {
            let mut wakers = Wakers::new();
            let deadlines: SmallVec<[Option<u32>; BATCH]> =
                batch.iter().map(|entry| self.look(entry, &mut wakers)).collect();
            let mut wheel = self.lane().wheel.lock();
            for (entry, deadline) in batch.iter().zip(deadlines) {
                if let Some(deadline) = deadline {
                    wheel.insert(deadline, entry.clone());
                }
            }
            drop(wheel);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// When the seat has to be looked at again, if it is still taken.
    fn look(&self, entry: &SeatRef, wakers: &mut Wakers) -> Option<u32> {
        let channel = entry.channel.upgrade()?;
        let mut state = channel.state.lock();
        let seat = state.lanes.get_mut(self.lane)?.get_mut(entry.key)?;
        let (common, tick) = (self.common(), self.lane().tick());
        if tick - seat.touched < common.keepalive_min() {
            return Some(common.keepalive_at(seat.touched));
        }
        seat.keepalive_due = true;
        if let Waiter::Task(waker) = std::mem::replace(&mut seat.waiter, Waiter::Nobody) {
            wakers.push(waker);
        }
        Some(common.keepalive_at(tick))
    }
}

/// Stale entries of the wheel that are not worth a walk over it.
const STALE_MAX: usize = 1024;
