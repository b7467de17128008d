//! A subscriber outlives its process.

use std::sync::Arc;

use super::{HELD, Subscription};
use crate::hub::batch::SocketId;
use crate::hub::channel::{Channel, State};
use crate::hub::feed::{Feed, Feeds, View};
use crate::hub::log::Log;
use crate::hub::seat::Waiter;
use crate::hub::seat_ref::SeatRef;
use crate::hub::seats::{ImportedSeat, SeatKey};
use crate::hub::shard::{Dirty, ShardId};
use crate::hub::state::SeatState;
use crate::hub::timers::Timer;
use crate::ids::Seq;
use crate::metrics::CloseReason;
use crate::time::Time;
use crate::wire::Keepalive;

/// What a seat was exported with, and where it goes on.
#[derive(Clone, Copy, Debug)]
pub(in crate::hub) struct Place {
    pub(in crate::hub) view: View,
    pub(in crate::hub) exported: ImportedSeat,
    pub(in crate::hub) keepalive: Keepalive,
    pub(in crate::hub) exclusive: bool,
}

impl Subscription {
    /// Its seat, for [`Exporter`](crate::hub::state::Exporter).
    pub(in crate::hub) fn seat_of(&self) -> (&Arc<Channel>, SeatKey) {
        (&self.channel, self.key)
    }

    /// What it takes with it into another process, without its deadlines; `None` if it has to end in this one.
    pub(in crate::hub) fn export(&self, now: Time) -> Option<SeatState> {
        let Self {
            channel,
            key,
            shard,
            view,
            reason,
            keepalive,
            over,
            pings: _, // by the filter, and whether there is a log
            exclusive,
        } = self;
        let common = &channel.common;
        // With a log the next process does not know what a stream has claimed.
        if *over || *reason != Some(CloseReason::Client) || *exclusive && common.log.is_some() {
            return None;
        }
        let mut state = channel.state.lock();
        let State { feeds, closing, removed, .. } = &mut *state;
        if closing.is_some() || *removed {
            return None;
        }
        let (exported, id, gone) = match feeds {
            Feeds::Org(feeds) => {
                let (exported, id) = feeds.get_mut(*view)?.export(*shard, *key, common)?;
                (exported, id, None)
            }
            Feeds::Topic(topic) => {
                let (exported, id) = topic.feed.export(*shard, *key, common)?;
                (exported, id, Some(topic.feed.history.gone()))
            }
        };
        drop(state);
        let ImportedSeat { cursor, touched, blocked_since, reread_due, is_current, filter } =
            exported;
        let age = |time: Time| now.0.saturating_sub(time.0);
        Some(SeatState {
            org: channel.org.as_str().to_owned(),
            topic: channel.topic.as_ref().map(|topic| topic.as_str().to_owned()),
            public: *view == View::Public,
            epoch: id.epoch.0,
            seq: id.seq.0,
            // On an org, one that has not re-read since a command has to now: nothing else is left of that.
            reread: reread_due || gone.is_none() && !is_current,
            silent_ms: age(touched.time()),
            blocked_ms: blocked_since.map(|since| age(since.time())),
            filter: filter.bits(),
            ping: *keepalive == Keepalive::Event,
            exclusive: *exclusive,
            deadlines: Vec::new(),
            expires_s: None,
            notified: gone.filter(|gone| is_current && cursor < *gone).map(|gone| gone.0),
        })
    }

    /// Takes a seat for a stream that was exported. The caller holds the channel's lock, and [arms](Self::rearm) it after.
    pub(in crate::hub) fn import(
        channel: &Arc<Channel>,
        state: &mut State,
        shard: ShardId,
        place: Place,
    ) -> Self {
        let Place { view, exported, keepalive, exclusive } = place;
        let mut subscription = Self::new(channel, state, shard, view, exported.cursor);
        subscription.keepalive = keepalive;
        subscription.exclusive = exclusive;
        subscription.pings |= !exported.filter.is_all();
        state.feeds.seats_mut(shard, view).import(subscription.key, exported);
        subscription
    }

    /// Counts the seat and arms the wheels for it. The channel's lock has been released.
    pub(in crate::hub) fn rearm(&self, exported: &ImportedSeat) {
        let (shard, common) = (self.shard(), &self.channel.common);
        shard.add_seat();
        let seat = SeatRef::new(&self.channel, self.key);
        if let Some(since) = exported.blocked_since {
            let at = since.after(common.stall_ticks()).after(1);
            shard.set_timer(at, Timer::stall(seat.clone()));
        }
        shard.set_keepalive(common.keepalive_at(exported.touched), seat);
    }

    /// Has the shard's driver write to this socket from now on: at the next sweep, if there is something to write already.
    /// If the stream was exported with pending bytes, it goes on once its socket takes these. For a stream that has just been
    /// [imported](crate::hub::Hub::import) and is not polled. Returns whether it has pending bytes.
    pub(crate) fn attach(&self, socket: SocketId) -> bool {
        let (is_blocked, is_behind) = {
            let mut state = self.channel.state.lock();
            let seat = state.feeds.seat_mut(self.shard, self.key).expect(HELD);
            let is_blocked = seat.is_blocked();
            seat.waiter =
                if is_blocked { Waiter::Blocked { socket } } else { Waiter::Socket { socket } };
            (is_blocked, !is_blocked && self.mark_behind(&mut state.feeds))
        };
        if is_behind {
            self.shard().push_dirty(&self.channel, Dirty { view: self.view, since: None });
        }
        is_blocked
    }

    /// Whether there is something for it that no sweep is on its way for.
    fn mark_behind(&self, feeds: &mut Feeds) -> bool {
        match feeds {
            Feeds::Org(feeds) => {
                let feed = feeds.get_mut(self.view).expect(HELD);
                mark_behind(feed, self.shard, self.key)
            }
            Feeds::Topic(topic) => mark_behind(&mut topic.feed, self.shard, self.key),
        }
    }

    /// Another process has its stream: dropping it frees the seat, and is not counted.
    pub(crate) fn give_away(&mut self) {
        self.reason = None;
    }
}

fn mark_behind<L: Log>(feed: &mut Feed<L>, shard: ShardId, key: SeatKey) -> bool {
    let Feed { history, shards, .. } = feed;
    let seats = &mut shards[shard.index()];
    let round = seats.round();
    let Some(seat) = seats.get_mut(key) else { return false };
    let (head, cursor): (Seq, Seq) = (history.head(), seat.cursor);
    if cursor == head {
        if !history.restarts(seat, round) {
            return false;
        }
        // A sweep passes over a seat at the head otherwise.
        seats.visit_all();
    }
    seats.mark_late()
}
