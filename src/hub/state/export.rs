//! Takes subscribers out of a hub, and into another one.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{DeadlineState, SeatState};
use crate::hub::channel::{Channel, State};
use crate::hub::feed::{Feeds, View};
use crate::hub::filter::Filter;
use crate::hub::log::Log;
use crate::hub::seat_ref::SeatRef;
use crate::hub::seats::{ImportedSeat, SeatKey};
use crate::hub::shard::ShardId;
use crate::hub::subscription::Place;
use crate::hub::timers::{Deadline, Timer};
use crate::hub::{Hub, Subscription};
use crate::ids::{Epoch, EventId, OrgName, Seq, Topic};
use crate::metrics::CloseReason;
use crate::sync::MutexGuard;
use crate::time::{Tick, Time};
use crate::wire::Keepalive;

/// Exports the subscribers of one shard. It knows the deadlines that they had when it was made, and by then what the driver
/// had taken out of its wheels has to be back.
#[derive(Debug)]
pub(crate) struct Exporter {
    shard: ShardId,
    deadlines: HashMap<SeatAt, SmallVec<[(Tick, CloseReason); 1]>>,
    expiries: HashMap<SeatAt, Tick>,
}

/// A seat, by the address of its channel, which no other one has as long as a wheel refers to it.
type SeatAt = (usize, SeatKey);

/// Why a exported subscriber cannot have a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImportError {
    /// The hub is closing.
    Closing,
    /// This is no name of an organisation.
    Org(String),
    /// This is no name of a topic.
    Topic(String),
    /// The organisation has no public streams here.
    NotPublic(String),
    /// On a topic, nothing is public or filtered.
    View,
}

// ===== impl Exporter =====

impl Exporter {
    fn new(hub: &Hub) -> Self {
        let shard = hub.shard();
        let mut deadlines = HashMap::<SeatAt, SmallVec<_>>::new();
        let mut expiries = HashMap::new();
        shard.each_deadline(
            |seat, tick, reason| deadlines.entry(at(seat)).or_default().push((tick, reason)),
            |seat, tick| {
                let earliest = expiries.entry(at(seat)).or_insert(tick);
                *earliest = tick.min(*earliest);
            },
        );
        Self { shard: hub.shard, deadlines, expiries }
    }

    /// What this subscriber takes with it into another process; `None` if it stays, and has to end in this one: because
    /// that is due already, because its channel is closed, or because it is exclusive and the hub follows a log. It is not
    /// changed.
    pub(crate) fn export(&self, subscription: &Subscription, now: Time) -> Option<SeatState> {
        debug_assert_eq!(subscription.place().0, self.shard, "of the same shard");
        let mut state = subscription.export(now)?;
        let (channel, key) = subscription.seat_of();
        let seat = (Arc::as_ptr(channel).addr(), key);
        let deadline = |(tick, reason): &(Tick, CloseReason)| DeadlineState {
            in_ms: tick.time().0.saturating_sub(now.0),
            reason: reason.label().to_owned(),
        };
        if let Some(deadlines) = self.deadlines.get(&seat) {
            state.deadlines = deadlines.iter().map(deadline).collect();
        }
        state.expires_s = self.expiries.get(&seat).map(|tick| tick.0.into());
        Some(state)
    }
}

fn at(seat: &SeatRef) -> SeatAt {
    (seat.channel.as_ptr().addr(), seat.key)
}

// ===== impl Hub =====

impl Hub {
    /// What exports the subscribers of this handle's shard, whose driver rests. It reads the shard's wheels, once.
    pub(crate) fn exporter(&self) -> Exporter {
        Exporter::new(self)
    }

    /// Takes a seat on this handle's shard for a subscriber that was exported, where that was: at its position if that is covered
    /// here, and otherwise it has to re-read everything. It is not counted as opened, and no limit of streams refuses it.
    /// Nothing is delivered to it until it is [attached](Subscription::attach) or polled. Nothing that is idle is removed for
    /// it, see [`Hub::end_restore`].
    ///
    /// # Errors
    /// [`ImportError`].
    pub(crate) fn import(&self, state: &SeatState, now: Time) -> Result<Subscription, ImportError> {
        let shard = self.shard();
        // Its driver has not run yet, and its first tick must not look like a pause.
        shard.advance_tick(now.tick());
        let subscription = match &state.topic {
            None => self.import_at_org(state, now)?,
            Some(topic) => self.import_at_topic(state, topic, now)?,
        };
        for DeadlineState { in_ms, reason } in &state.deadlines {
            let reason = CloseReason::of_label(reason).unwrap_or(CloseReason::MaxAge);
            let at = Time(now.0.saturating_add(*in_ms));
            subscription.end_at(Deadline { at, reason });
        }
        if let Some(expires) = state.expires_s {
            let (channel, key) = subscription.seat_of();
            let timer = Timer::deadline(SeatRef::new(channel, key), CloseReason::Expired);
            let expires = Tick(u32::try_from(expires).unwrap_or(u32::MAX - 1));
            shard.set_expiry(expires, Tick(0), timer);
        }
        Ok(subscription)
    }

    fn import_at_org(&self, state: &SeatState, now: Time) -> Result<Subscription, ImportError> {
        let view = if state.public { View::Public } else { View::Member };
        loop {
            let channel = self.org_of(&state.org, now)?;
            if state.public && !channel.public {
                return Err(ImportError::NotPublic(state.org.clone()));
            }
            let mut guard = channel.state.lock();
            if self.is_closing() {
                return Err(ImportError::Closing);
            }
            if guard.removed {
                continue;
            }
            let history = &channel.feed(&mut guard, view, now).history;
            let has = |mark| self.shared.common.has_mark(mark);
            let position = history.take_up(id_of(state), has);
            let exported = ImportedSeat {
                cursor: position.unwrap_or_else(|| history.head()),
                reread_due: state.reread || position.is_none(),
                is_current: true,
                ..exported(state, now)
            };
            return Ok(self.place(&channel, guard, view, exported, state));
        }
    }

    fn import_at_topic(
        &self,
        state: &SeatState,
        topic: &str,
        now: Time,
    ) -> Result<Subscription, ImportError> {
        let Ok(org) = state.org.parse::<OrgName>() else {
            return Err(ImportError::Org(state.org.clone()));
        };
        let Ok(name) = topic.parse() else { return Err(ImportError::Topic(topic.to_owned())) };
        if state.public || !Filter::of_bits(state.filter).is_all() {
            return Err(ImportError::View);
        }
        let topic = Topic { org, name };
        loop {
            let channel = self.shared.topics.get_or_take_up(&topic, now);
            let mut guard = channel.state.lock();
            if self.is_closing() {
                return Err(ImportError::Closing);
            }
            if guard.removed {
                continue;
            }
            let Feeds::Topic(feed) = &mut guard.feeds else { unreachable!("that of a topic") };
            let backlog = &feed.feed.history;
            let has = |mark| self.shared.common.has_mark(mark);
            let position = backlog.take_up(id_of(state), has);
            let notified = state.notified.is_some_and(|notified| notified >= backlog.gone().0);
            let cursor = position.unwrap_or_else(|| Log::head(backlog));
            let exported = ImportedSeat {
                cursor,
                reread_due: state.reread || position.is_none(),
                is_current: notified || cursor >= backlog.gone(),
                ..exported(state, now)
            };
            feed.unlist(&channel);
            return Ok(self.place(&channel, guard, View::Topic, exported, state));
        }
    }

    /// Takes the seat.
    fn place(
        &self,
        channel: &Arc<Channel>,
        mut guard: MutexGuard<'_, State>,
        view: View,
        exported: ImportedSeat,
        state: &SeatState,
    ) -> Subscription {
        let keepalive = if state.ping { Keepalive::Event } else { Keepalive::Comment };
        let place = Place { view, exported, keepalive, exclusive: state.exclusive };
        let subscription = Subscription::import(channel, &mut guard, self.shard, place);
        drop(guard);
        subscription.rearm(&exported);
        subscription
    }

    fn org_of(&self, org: &str, now: Time) -> Result<Arc<Channel>, ImportError> {
        if let Some(channel) = self.shared.registry.get_named(org) {
            return Ok(channel);
        }
        let Ok(name) = org.parse::<OrgName>() else { return Err(ImportError::Org(org.to_owned())) };
        Ok(self.shared.registry.get_or_take_up(&name, now))
    }
}

fn id_of(state: &SeatState) -> EventId {
    EventId { epoch: Epoch(state.epoch), seq: Seq(state.seq) }
}

/// What does not depend on the channel.
fn exported(state: &SeatState, now: Time) -> ImportedSeat {
    let since = |age_ms: u64| Time(now.0.saturating_sub(age_ms));
    ImportedSeat {
        cursor: Seq(state.seq),
        touched: since(state.silent_ms).tick(),
        // Each age is that of a tick, and by up to a second too long: rounded down again, a stall would be enforced too
        // early, and the earlier the more often a stream moves.
        blocked_since: state.blocked_ms.map(|age_ms| since(age_ms).next_tick()),
        reread_due: state.reread,
        is_current: true,
        filter: Filter::of_bits(state.filter),
    }
}

// ===== impl ImportError =====

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closing => f.write_str("the hub is closing"),
            Self::Org(name) => write!(f, "{name:?} is no name of an organisation"),
            Self::Topic(name) => write!(f, "{name:?} is no name of a topic"),
            Self::NotPublic(org) => write!(f, "{org} has no public streams"),
            Self::View => f.write_str("a stream of a topic is not public and has no filter"),
        }
    }
}

impl std::error::Error for ImportError {}
