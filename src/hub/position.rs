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
    /// The last event, or the position before the first one. What a burst window still holds comes after it.
    pub id: EventId,
    /// Open streams.
    pub streams: usize,
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

// ===== impl Channel =====

impl Channel {
    /// `None` if it has left the registry.
    fn position(&self, now: Time) -> Option<Positions> {
        let mut state = self.state.lock();
        if state.removed {
            return None;
        }
        state.use_until(now);
        let of = |feed: &mut Feed| {
            let id = feed.history.id(feed.history.head());
            Position { id, streams: feed.seats() }
        };
        let member = of(self.feed(&mut state, View::Member));
        let public = self.public.then(|| of(self.feed(&mut state, View::Public)));
        Some(Positions { member, public })
    }
}
