//! A channel outlives its process.

use std::sync::Arc;

use super::{Channel, State};
use crate::hub::backlog::Backlog;
use crate::hub::backlog::state::{First, Range as TopicRange, SavedBacklog};
use crate::hub::feed::{Feeds, OrgFeeds};
use crate::hub::history::state::Range;
use crate::hub::shard::Common;
use crate::hub::state::{
    NewerOrgState, NewerTopicState, OrgState, Passed, RestoreError, TopicState,
};
use crate::hub::topic::TopicFeed;
use crate::ids::{OrgName, Seq, Topic};
use crate::state::Record;
use crate::sync::Mutex;
use crate::time::Time;

/// What another process knows of a channel, to find out what it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) struct Known {
    kept: Kept,
    idle_since: Time,
    in_use: bool,
    closes: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Org { member: Range, public: Option<Range> },
    Topic(TopicRange),
}

/// What another process has to know of a channel.
#[derive(Debug)]
pub(in crate::hub) enum News {
    /// All of it.
    Whole(Record, Known),
    /// What is new, beside what it knows.
    Newer(Record, Known),
    /// It knows everything.
    Nothing,
    /// The channel has left its registry.
    Gone,
}

impl Channel {
    /// What another process has to know of it, which knows so much. What its burst window holds is not part of it.
    pub(in crate::hub) fn save(&self, known: Option<&Known>, now: Time) -> News {
        let Self {
            org,
            topic,
            public: _, // the configuration says so
            common: _, // of the process
            state,
        } = self;
        let State {
            feeds,
            coalescer,
            idle_since,
            closing,
            removed,
            publishes: _, // of a rate, which has to be measured by one process
        } = &*state.lock();
        if *removed || closing.is_some() {
            return News::Gone;
        }
        let (idle_since, closes) = (*idle_since, coalescer.closes());
        let current =
            Known { kept: Kept::of(feeds), idle_since, in_use: feeds.seats() > 0, closes };
        if known == Some(&current) {
            return News::Nothing;
        }
        // What is of another epoch, or has another view, is another channel.
        let known = known.filter(|known| known.kept.goes_on_as(&current.kept));
        let (idle_ms, in_use) = (now.0.saturating_sub(idle_since.0), current.in_use);
        let org = org.as_str().to_owned();
        let record = match (feeds, current.kept, known.map(|known| known.kept)) {
            (Feeds::Org(feeds), Kept::Org { member, public }, known) => {
                let window_ms = coalescer.save(now);
                let (known_member, known_public) = match known {
                    Some(Kept::Org { member, public }) => (member.head, public.map(|of| of.head)),
                    _ => (Seq(0), None),
                };
                let OrgFeeds { member: member_feed, public: public_feed } = feeds;
                let public_head = known_public.unwrap_or(Seq(0));
                let state = OrgState {
                    org,
                    member: member_feed.save(known_member, now),
                    public: public_feed.as_ref().map(|feed| feed.save(public_head, now)),
                    idle_ms,
                    in_use,
                    window_ms,
                };
                match known {
                    None => Record::Org(state),
                    Some(_) => Record::NewerOrg(NewerOrgState {
                        state,
                        member_start: member.start.0,
                        public_start: public.map(|public| public.start.0),
                    }),
                }
            }
            (Feeds::Topic(feed), Kept::Topic(TopicRange { first, .. }), known) => {
                let head = if let Some(Kept::Topic(known)) = known { known.head } else { Seq(0) };
                let SavedBacklog { epoch, head, gone, events } = feed.save(head, now);
                let topic = topic.as_ref().map(|topic| topic.as_str().to_owned());
                let topic = topic.unwrap_or_default();
                let state = TopicState { org, topic, epoch, head, gone, events, idle_ms, in_use };
                let (bulk_first, first) = (first.bulk.0, first.other.0);
                match known {
                    None => Record::Topic(state),
                    Some(_) => Record::NewerTopic(NewerTopicState { state, bulk_first, first }),
                }
            }
            _ => unreachable!("of one kind"),
        };
        if known.is_some() { News::Newer(record, current) } else { News::Whole(record, current) }
    }

    /// Whether it is still in its registry, and goes on.
    pub(in crate::hub) fn is_saved(&self) -> bool {
        let state = self.state.lock();
        !state.removed && state.closing.is_none()
    }

    /// Goes on as the channel of an org that was saved later.
    pub(in crate::hub) fn restore_newer(
        &self,
        newer: NewerOrgState,
        passed: Passed,
    ) -> Result<(), RestoreError> {
        let NewerOrgState { state: saved, member_start, public_start } = newer;
        let OrgState { org: _, member, public, idle_ms, in_use, window_ms } = saved;
        let (common, config) = (&self.common, &self.common.config);
        let mut state = self.state.lock();
        let public = public.zip(public_start);
        let feeds = state.feeds.org_mut();
        feeds.restore_newer((member, member_start), public, passed, common)?;
        if let Some(last) = passed.last_use(idle_ms, in_use, config.history_age) {
            state.use_until(last);
        }
        state.coalescer.restore(window_ms, passed, config.coalesce);
        Ok(())
    }

    /// Goes on as the channel of a topic that was saved later.
    pub(in crate::hub) fn restore_newer_topic(
        self: &Arc<Self>,
        newer: NewerTopicState,
        passed: Passed,
    ) -> Result<(), RestoreError> {
        let NewerTopicState { state: saved, bulk_first, first } = newer;
        let TopicState { org: _, topic: _, epoch, head, gone, events, idle_ms, in_use } = saved;
        let saved = SavedBacklog { epoch, head, gone, events };
        let first = First { bulk: Seq(bulk_first), other: Seq(first) };
        let common = &self.common;
        let mut state = self.state.lock();
        let Feeds::Topic(feed) = &mut state.feeds else { return Err(RestoreError::Numbers) };
        feed.change(|backlog| backlog.restore_newer(first, saved, passed, common))?;
        if let Some(last) = passed.last_use(idle_ms, in_use, common.config.topic_age) {
            state.use_until(last);
        }
        state.list_if_idle(self);
        Ok(())
    }

    /// An org's channel with what it remembered, as far as the limits allow. `None` if no client can resume any more.
    pub(in crate::hub) fn restore(
        state: OrgState,
        passed: Passed,
        common: &Arc<Common>,
    ) -> Result<Option<Self>, RestoreError> {
        let OrgState { org, member, public, idle_ms, in_use, window_ms } = state;
        let config = &common.config;
        let Ok(name) = org.parse::<OrgName>() else { return Err(RestoreError::Org(org)) };
        let Some(idle_since) = passed.last_use(idle_ms, in_use, config.history_age) else {
            return Ok(None);
        };
        let is_public = config.public.shows(&name);
        let feeds = OrgFeeds::restore(member, public.filter(|_| is_public), passed, common)?;
        let mut state = State::new(Feeds::Org(feeds), idle_since);
        state.coalescer.restore(window_ms, passed, config.coalesce);
        Ok(Some(Self {
            public: is_public,
            org: name,
            topic: None,
            common: common.clone(),
            state: Mutex::new(state),
        }))
    }

    /// The channel of a topic with what it kept, as far as the limits allow. `None` if it is over.
    pub(in crate::hub) fn restore_topic(
        state: TopicState,
        passed: Passed,
        common: &Arc<Common>,
    ) -> Result<Option<(Topic, Self)>, RestoreError> {
        let TopicState { org, topic, epoch, head, gone, events, idle_ms, in_use } = state;
        let Ok(org) = org.parse() else { return Err(RestoreError::Org(org)) };
        let Ok(name) = topic.parse() else { return Err(RestoreError::Topic(topic)) };
        let Some(idle_since) = passed.last_use(idle_ms, in_use, common.config.topic_age) else {
            return Ok(None);
        };
        let saved = SavedBacklog { epoch, head, gone, events };
        let backlog = Backlog::restore(saved, passed, common)?;
        let state = State::new(Feeds::Topic(Box::new(TopicFeed::new(backlog))), idle_since);
        let topic = Topic { org, name };
        let channel = Self {
            public: false,
            org: topic.org.clone(),
            topic: Some(topic.name.clone()),
            common: common.clone(),
            state: Mutex::new(state),
        };
        Ok(Some((topic, channel)))
    }
}

// ===== impl Kept =====

impl Kept {
    fn of(feeds: &Feeds) -> Self {
        match feeds {
            Feeds::Org(OrgFeeds { member, public }) => Self::Org {
                member: member.history.range(),
                public: public.as_ref().map(|public| public.history.range()),
            },
            Feeds::Topic(topic) => Self::Topic(topic.feed.history.range()),
        }
    }

    /// Whether the ids of this mean the same there.
    fn goes_on_as(&self, other: &Self) -> bool {
        let epochs = |kept: &Self| match kept {
            Self::Org { member, public } => (Some(member.epoch), public.map(|public| public.epoch)),
            Self::Topic(topic) => (Some(topic.epoch), None),
        };
        epochs(self) == epochs(other)
    }
}
