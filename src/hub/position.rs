//! Where the views of an org are, for pages that begin there.

use super::Hub;
use super::channel::Channel;
use super::feed::{Feed, View};
use crate::ids::{EventId, OrgName};
use crate::time::Time;

/// Where the views of an org are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// The members' view.
    pub member: Position,
    /// The public view; `None` if the org has no public streams.
    pub public: Option<Position>,
}

/// Where a view is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The last event, or the position before the first one. What a burst window still holds comes after it. In a log
    /// that servers share it is the last record that was applied, and may include what a window holds: data that
    /// is read afterwards includes that too.
    pub id: EventId,
    /// Open streams.
    pub streams: usize,
}

/// How many streams of an org are open.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    pub(crate) member: usize,
    pub(crate) public: usize,
}

// ===== impl Hub =====

impl Hub {
    /// Where the views of `org` are. A backend that reads this first and the data second has data to which nothing is
    /// missing but what is published after `id`; a stream that [resumes](Hub::subscribe) from there receives it.
    ///
    /// As after a stream that has ended, the org is remembered for [`history_age`] from now on, within
    /// [`idle_channels_max`].
    ///
    /// [`history_age`]: crate::config::HubConfig::history_age
    /// [`idle_channels_max`]: crate::config::HubConfig::idle_channels_max
    pub fn position(&self, org: &OrgName, now: Time) -> Positions {
        loop {
            let channel = self.shared.registry.get_or_create(org, now);
            if let Some(positions) = channel.position(now) {
                return positions;
            }
        }
    }
}

#[cfg(feature = "server")]
impl Hub {
    /// The open streams of an org. Nothing is remembered.
    pub(crate) fn streams(&self, org: &OrgName) -> Streams {
        let of = |channel: &Channel| {
            let state = channel.state.lock();
            Streams { member: state.seats_of(View::Member), public: state.seats_of(View::Public) }
        };
        self.shared.registry.get(org).map(|channel| of(&channel)).unwrap_or_default()
    }
}

// ===== impl Channel =====

impl Channel {
    /// `None` if it has left the registry.
    fn position(&self, now: Time) -> Option<Positions> {
        let mut state = self.state.lock();
        if state.removed {
            return None;
        }
        state.use_until(now);
        let applied = self.common.applied();
        let of = |feed: &mut Feed| {
            let id = feed.history.id_at_head(applied);
            Position { id, streams: feed.seats() }
        };
        let member = of(self.feed(&mut state, View::Member, now));
        let public = self.public.then(|| of(self.feed(&mut state, View::Public, now)));
        Some(Positions { member, public })
    }
}
