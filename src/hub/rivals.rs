//! The streams of a topic that an exclusive one replaces.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::{Poll, Waker};

use smallvec::SmallVec;

use super::channel::{Channel, State};
use super::feed::{Feeds, View};
use super::seat::Seat;
use super::seat_ref::SeatRef;
use super::seats::SeatKey;
use super::shard::ShardId;
use super::steps::step;
use super::subscription::Subscription;
use super::timers::Timer;
use super::topic::TopicFeed;
use crate::metrics::CloseReason;
use crate::time::Tick;

/// The streams of a topic that an exclusive one has replaced, while they still have a seat.
#[derive(Debug, Default)]
pub(crate) struct Rivals {
    /// How many there are.
    left: usize,
    /// Wakes the exclusive stream that was opened last, and waits for them to end.
    waker: Option<Waker>,
    /// The exclusive streams whose turn a log decides that servers share. They have a seat each.
    claims: Vec<Claim>,
}

/// A stream that is the topic's only one once the log has its claim, until that has a later one.
#[derive(Debug)]
struct Claim {
    number: u64,
    shard: ShardId,
    seat: SeatKey,
    /// The log has it.
    settled: bool,
}

/// What is left to be done once no lock is held, after streams were replaced.
#[derive(Debug, Default)]
pub(crate) struct Replaced {
    /// Wakes an earlier exclusive stream, which was waiting and is replaced itself.
    waker: Option<Waker>,
    /// The streams whose clients read nothing now, and when they count as stalled.
    stuck: SmallVec<[(ShardId, Tick, SeatKey); 1]>,
}

// ===== impl Rivals =====

impl Rivals {
    /// How many of them have still a seat.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// How many streams have claimed the topic.
    pub(super) fn claims(&self) -> usize {
        self.claims.len()
    }

    /// What a stream has claimed ends with its seat.
    fn remove(&mut self, seat: &Seat, place: (ShardId, SeatKey)) -> Option<Waker> {
        self.claims.retain(|claim| (claim.shard, claim.seat) != place);
        if self.claims.is_empty() {
            self.claims = Vec::new();
        }
        if seat.draining != Some(CloseReason::Replaced) {
            return None;
        }
        self.left -= 1;
        if self.left == 0 { self.waker.take() } else { None }
    }
}

// ===== impl State =====

impl State {
    /// Counts a seat that was freed. Returns the exclusive stream to wake, once no lock is held, if it was the last that
    /// it waited for.
    pub(super) fn free_rival(&mut self, seat: &Seat, place: (ShardId, SeatKey)) -> Option<Waker> {
        match &mut self.feeds {
            Feeds::Org(_) => None,
            Feeds::Topic(topic) => topic.rivals.remove(seat, place),
        }
    }

    /// Notes what the stream with this seat claims.
    pub(super) fn claim(&mut self, number: u64, (shard, seat): (ShardId, SeatKey)) {
        if let Feeds::Topic(topic) = &mut self.feeds {
            topic.rivals.claims.push(Claim { number, shard, seat, settled: false });
        }
    }
}

// ===== impl TopicFeed =====

impl TopicFeed {
    /// Has every stream that is open end without another event.
    pub(super) fn replace(&mut self, channel: &Channel) -> Replaced {
        self.replace_but(&HashSet::new(), channel)
    }

    /// The log has these claims, in this order: the stream that made the last one, here or elsewhere, is the only one.
    /// Those whose claims are still to come in the log stay, and are the only ones then. It is as if each came by
    /// itself.
    pub(super) fn settle(&mut self, numbers: &[u64], channel: &Channel) -> Option<Replaced> {
        let last = numbers.last()?;
        // A record that is stored twice says the same twice.
        let repeated = numbers.iter().rev().take_while(|number| *number == last).count();
        let overtaken: HashSet<u64> = numbers[..numbers.len() - repeated].iter().copied().collect();
        let mut spared = HashSet::new();
        for claim in &mut self.rivals.claims {
            step();
            let is_last = claim.number == *last;
            let is_overtaken = overtaken.contains(&claim.number);
            let comes_first = !claim.settled && !is_overtaken;
            if comes_first || is_last && overtaken.is_empty() {
                spared.insert((claim.shard, claim.seat));
            }
            claim.settled |= is_last || is_overtaken;
        }
        Some(self.replace_but(&spared, channel))
    }

    fn replace_but(&mut self, spared: &HashSet<(ShardId, SeatKey)>, channel: &Channel) -> Replaced {
        let mut replaced = Replaced { waker: self.rivals.waker.take(), stuck: SmallVec::new() };
        for (shard, seats) in (0..).map(ShardId).zip(&mut self.feed.shards) {
            let tick = channel.common.shard(shard).tick();
            for index in 0..seats.end() {
                step();
                let Some((seat, key)) = seats.keyed_mut(index) else { continue };
                if seat.draining == Some(CloseReason::Replaced) || spared.contains(&(shard, key)) {
                    continue;
                }
                self.rivals.left += 1;
                if seat.leave(CloseReason::Replaced, tick) {
                    replaced.stuck.push((shard, seat.stalls_after(tick, &channel.common), key));
                }
            }
            seats.visit_all();
        }
        replaced
    }
}

// ===== impl Replaced =====

impl Replaced {
    /// Has the shards' drivers end the streams.
    pub(super) fn notify(self, channel: &Arc<Channel>) {
        for (shard, stalls_at, key) in self.stuck {
            let timer = Timer::stall(SeatRef::new(channel, key));
            channel.common.shard(shard).set_timer(stalls_at, timer);
        }
        channel.common.schedule(channel);
        self.waker.into_iter().for_each(Waker::wake);
    }
}

// ===== impl Subscription =====

impl Subscription {
    /// Ready once no stream is left that this exclusive one replaces, or it is replaced itself; at once if it is not
    /// exclusive. Until then `waker` is kept, and woken when that changes.
    pub fn poll_sole(&self, waker: &Waker) -> Poll<()> {
        if !self.is_exclusive() {
            return Poll::Ready(());
        }
        let mut state = self.channel().state.lock();
        let is_replaced = self.is_replaced(&mut state.feeds);
        let Feeds::Topic(feed) = &mut state.feeds else { return Poll::Ready(()) };
        if is_replaced || feed.rivals.left == 0 {
            return Poll::Ready(());
        }
        let before = feed.rivals.waker.replace(waker.clone());
        drop(state);
        drop(before);
        Poll::Pending
    }

    /// Has the streams that are left, and that this exclusive one replaces, end at once, without a last event: those
    /// that do not read are reset.
    pub fn end_rivals(&self) {
        if !self.is_exclusive() {
            return;
        }
        {
            let mut state = self.channel().state.lock();
            if self.is_replaced(&mut state.feeds) {
                return;
            }
            for seats in state.feeds.shards_mut(View::Topic).into_iter().flatten() {
                for index in 0..seats.end() {
                    let Some(seat) = seats.at_mut(index) else { continue };
                    let is_rival = seat.draining == Some(CloseReason::Replaced);
                    if is_rival && seat.is_blocked() {
                        seat.ending = Some(CloseReason::Stalled);
                    }
                }
                seats.visit_all();
            }
        }
        self.channel().common.schedule(self.channel());
    }
}
