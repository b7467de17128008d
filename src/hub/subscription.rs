//! The guard of one seat. There is no seat without a guard, and only dropping the guard frees the seat, so
//! a connection cannot leave one behind, whenever it dies.

#[cfg(feature = "server")]
mod state;

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::SystemTime;

use smallvec::SmallVec;

use super::batch::SocketId;
use super::channel::{Channel, State};
use super::feed::{Feeds, View};
use super::filter::Filter;
use super::seat::{Seat, Waiter};
use super::seat_ref::{SeatHandle, SeatRef};
use super::seats::SeatKey;
use super::shard::{Shard, ShardId};
use super::source::Source;
use super::timers::{Deadline, Timer};
use crate::config::HubConfig;
use crate::ids::{EventId, OrgName, Seq, TopicName};
use crate::metrics::{self, CloseReason, Greeted};
use crate::time::Tick;
use crate::wire::{Frame, Greeting, Keepalive};

#[cfg(feature = "server")]
pub(super) use self::state::Place;

/// One subscriber: a seat in a channel's slab, freed when this is dropped. It is a cursor into the
/// channel's history; nothing is queued for it.
#[derive(Debug)]
pub struct Subscription {
    channel: Arc<Channel>,
    key: SeatKey,
    shard: ShardId,
    view: View,
    /// `None` once another process has it: then its end is none.
    reason: Option<CloseReason>,
    keepalive: Keepalive,
    /// [`Self::poll_next`] has returned the end.
    over: bool,
    /// Its keepalive may have an id: it has a filter, or ids are of a log.
    pings: bool,
    /// It replaces the streams that its topic had.
    exclusive: bool,
}

/// What [`Subscription::take_frames`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// These frames, and there may be more.
    Some,
    /// One frame, after which the client re-reads everything.
    Reread,
    /// Nothing; from now on the driver delivers to the stream.
    Idle,
    /// Nothing, and the stream has to end, for this reason.
    End(CloseReason),
}

/// Frames with the numbers of their events.
pub(crate) type Frames = SmallVec<[(Seq, Frame); FRAMES_PER_TAKE]>;

const FRAMES_PER_TAKE: usize = 16;

// ===== impl Subscription =====

impl Subscription {
    /// Takes a seat at `position`, which the caller has checked. It holds the channel's lock.
    pub(crate) fn new(
        channel: &Arc<Channel>,
        state: &mut State,
        shard: ShardId,
        view: View,
        position: Seq,
    ) -> Self {
        let tick = channel.common.shard(shard).tick();
        let key = state.take_seat(shard, view, position, tick);
        Self {
            channel: channel.clone(),
            key,
            shard,
            view,
            reason: Some(CloseReason::Client),
            keepalive: Keepalive::default(),
            over: false,
            pings: channel.common.log.is_some(),
            exclusive: false,
        }
    }

    /// Counts the seat and arms the wheel for it. The channel's lock has been released.
    pub(crate) fn arm(&self) {
        let shard = self.shard();
        shard.add_seat();
        metrics::add(&shard.counters.opened[self.view as usize], 1);
        let tick = self.channel.common.keepalive_at(shard.tick());
        shard.set_keepalive(tick, SeatRef::new(&self.channel, self.key));
    }

    /// The next event or keepalive for this subscriber, or `None` once its stream has to end. While
    /// there is none, `waker` is kept, and woken when that changes.
    pub fn poll_next(&mut self, waker: &Waker) -> Poll<Option<Frame>> {
        let mut guard = self.channel.state.lock();
        let State { feeds, closing, .. } = &mut *guard;
        let mut source = feeds.source(self.shard, self.key).expect(HELD);
        let ends_for = source.seat.ends_for();
        let polled = match ends_for {
            // Its socket takes no end: the task that writes to it has to close it.
            Some(CloseReason::Stalled) => Poll::Pending,
            Some(_) => Poll::Ready(None),
            None => poll_source(&mut source, self, *closing),
        };
        let seat = source.seat;
        if matches!(polled, Poll::Ready(None)) {
            let reason = ends_for.or(*closing).or(seat.draining);
            self.reason = Some(reason.expect("it ends for a reason"));
            self.over = true;
        }
        let replaced = seat.set_waker(waker, polled.is_pending());
        drop(guard);
        drop(replaced);
        polled
    }

    /// Keeps the waker of the task that serves the stream, which is about to write something of its own.
    pub(crate) fn set_busy(&self, waker: &Waker) {
        let mut state = self.channel.state.lock();
        let seat = state.feeds.seat_mut(self.shard, self.key).expect(HELD);
        let replaced = seat.set_waker(waker, false);
        drop(state);
        drop(replaced);
    }

    /// Takes a bounded number of frames for a stream whose socket the driver writes. Sweeps pass over the stream until
    /// it has taken all.
    pub(crate) fn take_frames(&self, socket: SocketId, frames: &mut Frames) -> Taken {
        let shard = self.channel.common.shard(self.shard);
        let mut state = self.channel.state.lock();
        let State { feeds, closing, .. } = &mut *state;
        let mut source = feeds.source(self.shard, self.key).expect(HELD);
        if let Some(reason) = source.seat.ends_for() {
            return Taken::End(reason);
        }
        while frames.len() < FRAMES_PER_TAKE
            && let Some(event) = source.event()
        {
            frames.push(event);
        }
        let reread = if frames.is_empty() { source.reread(&self.channel.common) } else { None };
        let is_reread = reread.is_some();
        let seat = source.seat;
        frames.extend(reread.map(|frame| (seat.cursor, frame)));
        if !frames.is_empty() {
            seat.touch(shard.tick());
            seat.waiter = Waiter::None;
            return if is_reread { Taken::Reread } else { Taken::Some };
        }
        if let Some(reason) = closing.or(seat.draining) {
            return Taken::End(reason);
        }
        seat.unblock();
        seat.waiter = Waiter::Socket { socket };
        Taken::Idle
    }

    /// Gives back what was taken after `seq`, because the stream's socket is full, after it `took_some` or nothing.
    /// With `reread`, that is the event after which the client re-reads everything. Sweeps pass over the stream until
    /// it takes again.
    pub(crate) fn give_back(&self, seq: Seq, reread: bool, socket: SocketId, took_some: bool) {
        let change = |seat: &mut Seat| {
            seat.cursor = seq;
            if reread {
                seat.reread();
            }
        };
        self.block(socket, change, took_some);
    }

    /// Notes that the socket is full, where nothing has to be given back.
    pub(crate) fn stay_blocked(&self, socket: SocketId, took_some: bool) {
        self.block(socket, |_| (), took_some);
    }

    /// Notes that the socket took all that was written to it.
    pub(crate) fn unblock(&self) {
        let mut state = self.channel.state.lock();
        state.feeds.seat_mut(self.shard, self.key).expect(HELD).unblock();
    }

    fn block(&self, socket: SocketId, change: impl FnOnce(&mut Seat), took_some: bool) {
        let blocked = self.channel.block(self.shard, self.key, |seat, tick| {
            change(seat);
            seat.waiter = Waiter::Blocked { socket };
            (seat.block(tick, took_some), ())
        });
        blocked.expect(HELD);
    }

    /// Has it kept open by a comment, or by an event.
    pub fn set_keepalive(&mut self, keepalive: Keepalive) {
        self.keepalive = keepalive;
    }

    /// Has it receive only events that may interest it, from its position on. Its keepalive is then an event with its
    /// position, whatever [`Self::set_keepalive`] says, as it is on every stream of a hub that follows a log; there it
    /// is what that says while the stream has something still to receive. A stream of a topic has no filter, and
    /// receives every event.
    pub fn set_filter(&mut self, filter: Filter) {
        let mut state = self.channel.state.lock();
        if let Feeds::Org(feeds) = &mut state.feeds {
            feeds.get_mut(self.view).expect(HELD).set_filter(self.shard, self.key, filter);
            self.pings = !filter.is_all() || self.channel.common.log.is_some();
        }
    }

    /// A keepalive that is written now.
    pub(crate) fn keepalive_frame(&self) -> Frame {
        if !self.pings {
            return self.keepalive.frame();
        }
        let mut state = self.channel.state.lock();
        state
            .feeds
            .source(self.shard, self.key)
            .expect(HELD)
            .keepalive(self.keepalive, &self.channel.common)
    }

    /// Has the stream end at this deadline, or at an earlier one that it has.
    pub fn end_at(&self, deadline: Deadline) {
        let seat = SeatRef::new(&self.channel, self.key);
        self.shard().set_timer(deadline.at.next_tick(), Timer::deadline(seat, deadline.reason));
    }

    /// Has the stream end before this time of the wall clock, which is at `now`, also if that clock is set or the
    /// machine suspended.
    pub fn expire_at(&self, expires: SystemTime, now: SystemTime) {
        let timer = Timer::deadline(SeatRef::new(&self.channel, self.key), CloseReason::Expired);
        self.shard().set_expiry(Tick::of_wall(expires), Tick::expiring(now), timer);
    }

    /// A reference to the seat, for the task of a stream that hyper polls.
    pub(crate) fn handle(&self) -> SeatHandle {
        SeatHandle::new(&self.channel, self.key, self.shard)
    }

    /// The position up to which events have been delivered.
    pub fn position(&self) -> EventId {
        let mut state = self.channel.state.lock();
        state.feeds.source(self.shard, self.key).expect(HELD).position()
    }

    /// The number of the last event that has been delivered.
    #[cfg(any(test, fuzzing, feature = "server"))]
    pub(crate) fn cursor(&self) -> Seq {
        let mut state = self.channel.state.lock();
        state.feeds.seat_mut(self.shard, self.key).expect(HELD).cursor
    }

    /// How the stream begins, and with which id. If everything has to be re-read since it was opened, or something
    /// is missed, that is now. `last` is the id that its client came with.
    pub(crate) fn begin(&self, greeting: Greeting, last: Option<EventId>) -> (Greeting, EventId) {
        let mut state = self.channel.state.lock();
        let mut source = state.feeds.source(self.shard, self.key).expect(HELD);
        source.begin(greeting, last, &self.channel.common)
    }

    /// Counts how its stream begins. `states_id` is whether its client has stated an id.
    pub(crate) fn count_greeting(&self, greeting: Greeting, states_id: bool) {
        let greeted = match (greeting, states_id) {
            (Greeting::Resumed, _) => Greeted::Resumed,
            (Greeting::Connected, true) => Greeted::Reread,
            (Greeting::Connected, false) => Greeted::New,
        };
        metrics::add(&self.shard().counters.greeted[greeted as usize], 1);
    }

    /// The organisation whose invalidations it receives, or which has its topic.
    pub fn org(&self) -> &OrgName {
        &self.channel.org
    }

    /// The name of its topic; `None` if it receives an organisation's invalidations.
    pub fn topic(&self) -> Option<&TopicName> {
        self.channel.topic.as_ref()
    }

    pub(super) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    pub(super) fn set_exclusive(&mut self) {
        self.exclusive = true;
    }

    /// Its seat.
    pub(super) fn place(&self) -> (ShardId, SeatKey) {
        (self.shard, self.key)
    }

    pub(super) fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// Whether a later exclusive stream has taken its place.
    pub(super) fn is_replaced(&self, feeds: &mut Feeds) -> bool {
        let seat = feeds.seat_mut(self.shard, self.key).expect(HELD);
        seat.draining == Some(CloseReason::Replaced)
    }

    pub(crate) fn config(&self) -> &HubConfig {
        &self.channel.common.config
    }

    /// Whether it is its turn to re-read, and whether it is its turn to end.
    #[cfg(all(any(test, fuzzing), not(nudged_loom)))]
    pub(crate) fn turn(&self) -> (bool, bool) {
        let mut state = self.channel.state.lock();
        let seat = state.feeds.seat_mut(self.shard, self.key).expect(HELD);
        (seat.is_reread_due(), seat.draining == Some(CloseReason::Removed))
    }

    /// The tick of the last delivery.
    #[cfg(all(test, not(nudged_loom)))]
    pub(crate) fn touched(&self) -> Tick {
        let mut state = self.channel.state.lock();
        state.feeds.seat_mut(self.shard, self.key).expect(HELD).touched
    }

    pub(crate) fn view(&self) -> View {
        self.view
    }

    /// The cause that counts if it is dropped now.
    pub(crate) fn ends_for(&self) -> CloseReason {
        let mut state = self.channel.state.lock();
        let seat = state.feeds.seat_mut(self.shard, self.key);
        self.reason_with(seat.and_then(|seat| seat.ending)).unwrap_or(CloseReason::Client)
    }

    /// The same, where this was noted in its seat; `None` if another process has it.
    fn reason_with(&self, noted: Option<CloseReason>) -> Option<CloseReason> {
        match self.reason {
            Some(CloseReason::Client) => noted.or(self.reason),
            known => known,
        }
    }

    /// Sets the cause for which this will be dropped; without it, it is [`CloseReason::Client`].
    pub fn close_because(&mut self, reason: CloseReason) {
        self.reason = Some(reason);
    }

    /// Whether [`Self::poll_next`] has returned the end.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// The cause for which it has ended, or for which it will be dropped.
    pub(crate) fn reason(&self) -> CloseReason {
        self.reason.unwrap_or(CloseReason::Client)
    }

    fn shard(&self) -> &Shard {
        self.channel.common.shard(self.shard)
    }
}

/// The next event or keepalive of a stream that goes on.
fn poll_source(
    source: &mut Source<'_>,
    subscription: &Subscription,
    closing: Option<CloseReason>,
) -> Poll<Option<Frame>> {
    let (keepalive, shard) = (subscription.keepalive, subscription.shard());
    let counters = &shard.counters;
    let event = source.event().map(|(_, frame)| (frame, &counters.delivered));
    let common = &*subscription.channel.common;
    let event = event.or_else(|| Some((source.reread(common)?, &counters.rereads)));
    if let Some((frame, counter)) = event {
        source.seat.touch(shard.tick());
        metrics::add(counter, 1);
        return Poll::Ready(Some(frame));
    }
    if closing.is_some() || source.seat.draining.is_some() {
        return Poll::Ready(None);
    }
    if source.seat.is_keepalive_due() {
        source.seat.touch(shard.tick());
        metrics::add(&counters.keepalives, 1);
        return Poll::Ready(Some(source.keepalive(keepalive, common)));
    }
    Poll::Pending
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let shard = self.shard();
        // The seat holds a waker, and dropping that may run any code: not under the lock.
        let (seat, sole) = {
            let mut state = self.channel.state.lock();
            let seat = state.free_seat(self.shard, self.key);
            if state.seats() == 0 {
                state.use_until(shard.tick().time());
                state.list_if_idle(&self.channel);
            }
            let sole = seat.as_ref().and_then(|seat| state.free_rival(seat, self.place()));
            (seat, sole)
        };
        sole.into_iter().for_each(Waker::wake);
        debug_assert!(seat.is_some(), "a seat is freed once");
        let reason = self.reason_with(seat.and_then(|seat| seat.ending));
        shard.remove_seat();
        if let Some(reason) = reason {
            metrics::add(&shard.counters.closed[self.view as usize][reason as usize], 1);
        }
    }
}

const HELD: &str = "a subscription holds its seat until it is dropped";
