//! What a channel feeds outlives its process.

use super::{Feed, OrgFeeds, View};
use crate::hub::history::History;
use crate::hub::log::Log;
use crate::hub::seats::{ImportedSeat, SeatKey};
use crate::hub::shard::{Common, ShardId};
use crate::hub::state::{FeedState, Passed, RestoreError};
use crate::ids::{EventId, Seq};
use crate::time::Time;
use crate::wire::Greeting;

impl<L: Log> Feed<L> {
    /// What has to be saved of it: its log.
    pub(in crate::hub) fn saved(&self) -> &L {
        let Self {
            history,
            shards: _,    // streams are exported one by one
            view: _,      // that of its place in the state
            announced: _, // streams that are behind are visited
            commands: _,  // they have been carried out
        } = self;
        history
    }

    /// What a stream takes with it, and the id up to which it has received everything; `None` if it stays.
    pub(in crate::hub) fn export(
        &mut self,
        shard: ShardId,
        key: SeatKey,
        common: &Common,
    ) -> Option<(ImportedSeat, EventId)> {
        let Self {
            history,
            shards,
            view: _,      // the subscription has it, too
            announced: _, // saved with what is published
            commands: _,  // a stream with one has to re-read
        } = self;
        let seats = shards.get_mut(shard.index())?;
        let (seat, exported) = seats.export(key)?;
        // That with which a stream would begin which has received everything up to there.
        let id = history.greeting_id(seat, Greeting::Connected, None, common.applied());
        Some((exported, id))
    }
}

impl Feed {
    /// What it remembers of the events after `known`.
    pub(in crate::hub) fn save(&self, known: Seq, now: Time) -> FeedState {
        self.saved().save(known, now)
    }

    /// See [`History::restore_newer`].
    fn restore_newer(
        &mut self,
        start: u64,
        state: FeedState,
        passed: Passed,
        common: &Common,
    ) -> Result<(), RestoreError> {
        self.history.restore_newer(Seq(start), state, passed, common)?;
        self.announced = self.history.head();
        Ok(())
    }

    pub(super) fn restore(
        view: View,
        state: FeedState,
        passed: Passed,
        common: &Common,
    ) -> Result<Self, RestoreError> {
        let history = History::restore(state, passed, common)?;
        let announced = history.head();
        Ok(Self { announced, ..Self::of(view, history) })
    }
}

impl OrgFeeds {
    /// The feeds of an org, as far as the limits allow.
    pub(in crate::hub) fn restore(
        member: FeedState,
        public: Option<FeedState>,
        passed: Passed,
        common: &Common,
    ) -> Result<Self, RestoreError> {
        if public.as_ref().is_some_and(|public| public.epoch == member.epoch) {
            return Err(RestoreError::Epochs);
        }
        let feed = |view, state| Feed::restore(view, state, passed, common);
        let member = feed(View::Member, member)?;
        let public = public.map(|state| feed(View::Public, state)).transpose()?;
        let mut feeds = Self { member, public: public.map(Box::new) };
        feeds.make_room(View::Member, None, &common.config, &common.memory);
        Ok(feeds)
    }

    /// Goes on as the feeds that were saved later. The public one may have been left out.
    pub(in crate::hub) fn restore_newer(
        &mut self,
        (member, start): (FeedState, u64),
        public: Option<(FeedState, u64)>,
        passed: Passed,
        common: &Common,
    ) -> Result<(), RestoreError> {
        self.member.restore_newer(start, member, passed, common)?;
        match (&mut self.public, public) {
            (Some(feed), Some((state, start))) => {
                feed.restore_newer(start, state, passed, common)?;
            }
            (Some(_), None) => return Err(RestoreError::Numbers),
            (None, _) => {}
        }
        self.make_room(View::Member, None, &common.config, &common.memory);
        Ok(())
    }
}
