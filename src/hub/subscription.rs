//! The guard of one seat. There is no seat without a guard and no other way to free one than to drop
//! it, so there is no moment at which a connection can die and leave a seat behind.

use std::sync::Arc;
use std::task::{Poll, Waker};

use smallvec::SmallVec;

use super::channel::{Channel, State};
use super::history::{History, View};
use super::seat::{Seat, SeatKey, Waiter};
use super::shard::{SeatRef, Shard};
use super::timers::{Deadline, SeatHandle, Timer, TimerKind};
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
    shard: u16,
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
    /// Nothing, and the shard's driver serves it from now on.
    Settled,
    /// Nothing, and the stream has to end, for this reason.
    End(CloseReason),
}

/// Frames with the numbers of their events.
pub(crate) type Frames = SmallVec<[(u64, Frame); FRAMES_PER_TAKE]>;

const FRAMES_PER_TAKE: usize = 16;

// ===== impl Subscription =====

impl Subscription {
    /// Takes a seat at `position`. The channel's lock is held by the accepted, who decided what the
    /// position is worth.
    pub(crate) fn new(
        channel: &Arc<Channel>,
        state: &mut State,
        shard: usize,
        view: View,
        position: u64,
    ) -> Self {
        let tick = channel.common.shards[shard].tick();
        let key = state.seats_mut(shard).take(position, tick);
        let shard = u16::try_from(shard).expect("the hub has at most 65,536 shards");
        Self {
            channel: channel.clone(),
            key,
            shard,
            view,
            reason: CloseReason::Client,
            over: false,
        }
    }

    /// Arms the wheel for this seat and counts it; after the channel's lock has been released.
    pub(crate) fn arm(&self) {
        let shard = self.shard();
        shard.seats.fetch_add(1, Ordering::Relaxed);
        metrics::add(&shard.counters.opened[self.view as usize], 1);
        let entry = SeatRef { channel: Arc::downgrade(&self.channel), key: self.key };
        let mut wheel = shard.wheel.lock();
        wheel.insert(self.channel.common.keepalive_at(shard.tick()), entry);
        shard.purge_keepalives(usize::from(self.shard), &mut wheel);
    }

    /// The next event or comment for this subscriber, or `None` once its stream has to end. While
    /// there is nothing, `waker` is kept and woken when that changes.
    pub fn poll_next(&mut self, waker: &Waker) -> Poll<Option<Frame>> {
        let shard = &self.channel.common.shards[usize::from(self.shard)];
        let mut guard = self.channel.state.lock();
        let State { history, shards, closing, .. } = &mut *guard;
        let seat = shards[usize::from(self.shard)].get_mut(self.key).expect(HELD);
        let polled = match seat.ending {
            // Its socket takes no end: whoever writes to it has to cut it off.
            Some(CloseReason::Stalled) => Poll::Pending,
            Some(_) => Poll::Ready(None),
            None => poll_seat(seat, history, self.view, *closing, shard),
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
        let seat = state.shards[usize::from(self.shard)].get_mut(self.key).expect(HELD);
        let before = seat.served_by(waker, false);
        drop(state);
        drop(before);
    }

    /// Takes a bounded number of frames for the parked stream with this number. While it catches up,
    /// no sweep touches it.
    pub(crate) fn take(&self, number: u32, frames: &mut Frames) -> Taken {
        let shard = &self.channel.common.shards[usize::from(self.shard)];
        let mut state = self.channel.state.lock();
        let State { history, shards, closing, .. } = &mut *state;
        let seat = shards[usize::from(self.shard)].get_mut(self.key).expect(HELD);
        if let Some(reason) = seat.ending {
            return Taken::End(reason);
        }
        let mut reread = false;
        while seat.cursor < history.head() && frames.len() < FRAMES_PER_TAKE {
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
            seat.touch(shard.tick());
            seat.waiter = Waiter::None;
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
        self.handle().unblock();
    }

    fn block(&self, number: u32, change: impl FnOnce(&mut Seat), took_some: bool) {
        let blocked = self.channel.block(self.shard, self.key, |seat, tick| {
            change(seat);
            seat.waiter = Waiter::Blocked { number };
            (seat.block(tick, took_some), ())
        });
        blocked.expect(HELD);
    }

    /// Has the stream end at this time, or at that of an earlier deadline.
    pub fn end_at(&self, deadline: Deadline) {
        let seat = SeatRef { channel: Arc::downgrade(&self.channel), key: self.key };
        let timer = Timer { seat, kind: TimerKind::Deadline(deadline.reason) };
        self.shard().set_timer(self.shard, deadline.tick(), timer);
    }

    /// The seat for who writes to the socket of a stream that is not parked.
    pub(crate) fn handle(&self) -> SeatHandle {
        SeatHandle::new(&self.channel, self.key, self.shard)
    }

    /// The position up to which this subscriber has been served.
    pub fn position(&self) -> EventId {
        let mut state = self.channel.state.lock();
        let seat = state.shards[usize::from(self.shard)].get_mut(self.key).expect(HELD);
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

    fn shard(&self) -> &Shard {
        &self.channel.common.shards[usize::from(self.shard)]
    }
}

/// What a seat that has not to end gets next. While it gets something it need not be told of more.
fn poll_seat(
    seat: &mut Seat,
    history: &mut History,
    view: View,
    closing: bool,
    shard: &Shard,
) -> Poll<Option<Frame>> {
    while seat.cursor < history.head() {
        let Some(event) = history.get(seat.cursor + 1) else {
            seat.cursor = history.head();
            seat.touch(shard.tick());
            metrics::add(&shard.counters.rereads, 1);
            return Poll::Ready(Some(history.reread().clone()));
        };
        seat.cursor += 1;
        if let Some(frame) = event.seen_by(view) {
            seat.touch(shard.tick());
            metrics::add(&shard.counters.delivered, 1);
            return Poll::Ready(Some(frame.clone()));
        }
    }
    if closing || seat.draining {
        return Poll::Ready(None);
    }
    if seat.keepalive_due {
        seat.touch(shard.tick());
        metrics::add(&shard.counters.keepalives, 1);
        return Poll::Ready(Some(Frame::keepalive()));
    }
    Poll::Pending
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let shard = self.shard();
        // The seat holds a waker, and dropping that may run anything: not under the lock.
        let seat = {
            let mut state = self.channel.state.lock();
            let seat = state.shards[usize::from(self.shard)].free(self.key);
            if state.seats() == 0 {
                state.idle_since = Time(u64::from(shard.tick()) * 1_000);
            }
            seat
        };
        debug_assert!(seat.is_some(), "a seat is freed once");
        let noted = seat.and_then(|seat| seat.ending);
        let reason = match self.reason {
            CloseReason::Client => noted.unwrap_or(CloseReason::Client),
            known => known,
        };
        if shard.seats.fetch_sub(1, Ordering::Relaxed) == 1 {
            // The driver may be waiting for the last one to leave.
            shard.wake();
        }
        metrics::add(&shard.counters.closed[self.view as usize][reason as usize], 1);
    }
}

const HELD: &str = "a subscription holds its seat until it is dropped";
