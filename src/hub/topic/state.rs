//! What a topic keeps outlives its process.

use super::TopicFeed;
use crate::hub::backlog::state::SavedBacklog;
use crate::ids::Seq;
use crate::time::Time;

impl TopicFeed {
    /// What it remembers, without the events up to `known`.
    pub(in crate::hub) fn save(&self, known: Seq, now: Time) -> SavedBacklog {
        let Self {
            feed,
            rivals: _, // streams that were replaced end here, and those that wait for that stay
            idle: _,   // listed again
        } = self;
        feed.saved().save(known, now)
    }
}
