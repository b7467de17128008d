//! The guard of one seat. There is no seat without a guard and no other way to free one than to drop
//! it, so there is no moment at which a connection can die and leave a seat behind.

use std::sync::Arc;
use std::task::{Poll, Waker};

use smallvec::SmallVec;

use super::channel::{Channel, State};
use super::deadline::{Alarm, Cause, Deadline, Watch};
use super::history::{History, View};
use super::lane::{Lane, SeatRef};
use super::seat::{Seat, SeatKey, Waiter};
use crate::config::HubConfig;
use crate::ids::{EventId, OrgName, Time};
use crate::metrics::{self, CloseReason};
use crate::sync::Ordering;
use crate::wire::Frame;

/// One subscriber: a seat in a channel's slab, freed when this is dropped. Events are taken from it
/// one by one; nothing is queued for it.
#[derive(Debug)]
pub struct Subscription {
    channel: Arc<Channel>,
    key: SeatKey,
    lane: u16,
    view: View,
    reason: CloseReason,
    /// It has said that its stream has to end.
    over: bool,
}

/// What a parked stream got when it asked for what it has missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// These frames, and there may be more.
    Some,
    /// One frame, which says to re-read everything.
    Reread,
    /// Nothing, and the lane's driver serves it from now on.
    Settled,
    /// Nothing, and the stream has to end, for this reason.
    End(CloseReason),
}

/// Frames with the numbers of their events.
pub(crate) type Frames = SmallVec<[(u64, Frame); FRAMES_A_TAKE]>;

const FRAMES_A_TAKE: usize = 16;

// ===== impl Subscription =====

impl Subscription {
    /// Takes a seat at `position`. The channel's lock is held by the caller, who decided what the
    /// position is worth.
    pub(crate) fn new(
        channel: &Arc<Channel>,
        state: &mut State,
        lane: usize,
        view: View,
        position: u64,
    ) -> Self {
        let tick = channel.common.lanes[lane].tick();
        let key = state.seats_mut(lane).take(position, tick);
        let lane = u16::try_from(lane).expect("the hub has at most 65,536 lanes");
        Self { channel: channel.clone(), key, lane, view, reason: CloseReason::Client, over: false }
    }

    /// Arms the wheel for this seat and counts it; after the channel's lock has been released.
    pub(crate) fn settle(&self) {
        let lane = self.lane();
        lane.seats.fetch_add(1, Ordering::Relaxed);
        metrics::add(&lane.counters.opened[self.view as usize], 1);
        let entry = SeatRef { channel: Arc::downgrade(&self.channel), key: self.key };
        let mut wheel = lane.wheel.lock();
        wheel.insert(self.channel.common.keepalive_at(lane.tick()), entry);
        lane.forget_freed(usize::from(self.lane), &mut wheel);
    }

    /// The next event or comment for this subscriber, or `None` once its stream has to end. While
    /// there is nothing, `waker` is kept and woken when that changes.
    pub fn poll_next(&mut self, waker: &Waker) -> Poll<Option<Frame>> {
        let lane = &self.channel.common.lanes[usize::from(self.lane)];
        let mut guard = self.channel.state.lock();
        let State { history, lanes, closing, .. } = &mut *guard;
        let seat = lanes[usize::from(self.lane)].get_mut(self.key).expect(HELD);
        let polled = match seat.ending {
            // Its socket takes no end: whoever writes to it has to cut it off.
            Some(CloseReason::Stalled) => Poll::Pending,
            Some(_) => Poll::Ready(None),
            None => poll_seat(seat, history, self.view, *closing, lane),
        };
        if matches!(polled, Poll::Ready(None)) {
            self.reason = seat.ending.unwrap_or(CloseReason::Drained);
            self.over = true;
        }
        let before = seat.served_by(waker, polled.is_pending());
        drop(guard);
        drop(before);
        polled
    }

    /// Keeps the waker of the task that serves it, which has something to write that did not come from
    /// here.
    pub(crate) fn serve_by(&self, waker: &Waker) {
        let mut state = self.channel.state.lock();
        let seat = state.lanes[usize::from(self.lane)].get_mut(self.key).expect(HELD);
        let before = seat.served_by(waker, false);
        drop(state);
        drop(before);
    }

    /// Takes a bounded number of frames for the parked stream with this number. While it catches up,
    /// no sweep touches it.
    pub(crate) fn take(&self, number: u32, frames: &mut Frames) -> Taken {
        let lane = &self.channel.common.lanes[usize::from(self.lane)];
        let mut state = self.channel.state.lock();
        let State { history, lanes, closing, .. } = &mut *state;
        let seat = lanes[usize::from(self.lane)].get_mut(self.key).expect(HELD);
        if let Some(reason) = seat.ending {
            return Taken::End(reason);
        }
        let mut reread = false;
        while seat.cursor < history.head() && frames.len() < FRAMES_A_TAKE {
            if let Some(event) = history.get(seat.cursor + 1) {
                seat.cursor += 1;
                frames.extend(event.seen_by(self.view).map(|frame| (seat.cursor, frame.clone())));
            } else {
                // Whatever it was, it comes alone: nothing lies beyond the head.
                seat.cursor = history.head();
                frames.push((seat.cursor, history.reread().clone()));
                reread = true;
            }
        }
        if !frames.is_empty() {
            seat.touch(lane.tick());
            seat.waiter = Waiter::Nobody;
            return if reread { Taken::Reread } else { Taken::Some };
        }
        if *closing || seat.draining {
            return Taken::End(CloseReason::Drained);
        }
        seat.unblock();
        seat.waiter = Waiter::Socket { number, view: self.view };
        Taken::Settled
    }

    /// Gives back what was taken after `seq`, because the socket of the parked stream with this number
    /// takes no more for now, after it `took_some` or nothing. No sweep touches the stream until it
    /// takes again.
    pub(crate) fn give_back(&self, seq: u64, number: u32, took_some: bool) {
        self.block(number, |seat| seat.cursor = seq, took_some);
    }

    /// The same, where nothing had been taken.
    pub(crate) fn stay_blocked(&self, number: u32, took_some: bool) {
        self.block(number, |_| (), took_some);
    }

    /// The socket took all there was, and there is more.
    pub(crate) fn unblock(&self) {
        self.watch().unblock();
    }

    fn block(&self, number: u32, change: impl FnOnce(&mut Seat), took_some: bool) {
        let blocked = self.channel.block(self.lane, self.key, |seat, tick| {
            change(seat);
            seat.waiter = Waiter::Blocked { number };
            (seat.block(tick, took_some), ())
        });
        blocked.expect(HELD);
    }

    /// Has the stream end at this time, or at that of an earlier deadline.
    pub fn end_at(&self, deadline: Deadline) {
        let seat = SeatRef { channel: Arc::downgrade(&self.channel), key: self.key };
        let alarm = Alarm { seat, cause: Cause::Deadline(deadline.reason) };
        self.lane().set_alarm(self.lane, deadline.tick(), alarm);
    }

    /// The seat for who writes to the socket of a stream that is not parked.
    pub(crate) fn watch(&self) -> Watch {
        Watch::new(&self.channel, self.key, self.lane)
    }

    /// The position up to which this subscriber has been served.
    pub fn position(&self) -> EventId {
        let mut state = self.channel.state.lock();
        let seat = state.lanes[usize::from(self.lane)].get_mut(self.key).expect(HELD);
        let seq = seat.cursor;
        state.history.id(seq)
    }

    /// The organisation whose invalidations it hears.
    pub fn org(&self) -> &OrgName {
        &self.channel.org
    }

    pub(crate) fn config(&self) -> &HubConfig {
        &self.channel.common.config
    }

    /// Names the cause for which this will be dropped; [`CloseReason::Client`] unless somebody knows
    /// better.
    pub fn close_because(&mut self, reason: CloseReason) {
        self.reason = reason;
    }

    /// Whether it has said that its stream has to end.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether its stream ends because the server does.
    pub(crate) fn is_drained(&self) -> bool {
        self.reason == CloseReason::Drained
    }

    fn lane(&self) -> &Lane {
        &self.channel.common.lanes[usize::from(self.lane)]
    }
}

/// What a seat that has not to end gets next. While it gets something it need not be told of more.
fn poll_seat(
    seat: &mut Seat,
    history: &mut History,
    view: View,
    closing: bool,
    lane: &Lane,
) -> Poll<Option<Frame>> {
    while seat.cursor < history.head() {
        let Some(event) = history.get(seat.cursor + 1) else {
            seat.cursor = history.head();
            seat.touch(lane.tick());
            metrics::add(&lane.counters.rereads, 1);
            return Poll::Ready(Some(history.reread().clone()));
        };
        seat.cursor += 1;
        if let Some(frame) = event.seen_by(view) {
            seat.touch(lane.tick());
            metrics::add(&lane.counters.delivered, 1);
            return Poll::Ready(Some(frame.clone()));
        }
    }
    if closing || seat.draining {
        return Poll::Ready(None);
    }
    if seat.keepalive_due {
        seat.touch(lane.tick());
        metrics::add(&lane.counters.keepalives, 1);
        return Poll::Ready(Some(Frame::keepalive()));
    }
    Poll::Pending
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let lane = self.lane();
        // The seat holds a waker, and dropping that may run anything: not under the lock.
        let seat = {
            let mut state = self.channel.state.lock();
            let seat = state.lanes[usize::from(self.lane)].free(self.key);
            if state.seats() == 0 {
                state.idle_since = Time(u64::from(lane.tick()) * 1_000);
            }
            seat
        };
        debug_assert!(seat.is_some(), "a seat is freed once");
        let noted = seat.and_then(|seat| seat.ending);
        let reason = match self.reason {
            CloseReason::Client => noted.unwrap_or(CloseReason::Client),
            known => known,
        };
        if lane.seats.fetch_sub(1, Ordering::Relaxed) == 1 {
            // The driver may be waiting for the last one to leave.
            lane.wake();
        }
        metrics::add(&lane.counters.closed[self.view as usize][reason as usize], 1);
    }
}

const HELD: &str = "a subscription holds its seat until it is dropped";
