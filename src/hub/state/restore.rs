//! Reads what a hub remembers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::GoneState;
use crate::hub::Hub;
use crate::hub::channel::Channel;
use crate::ids::Topic;
use crate::state::Record;
use crate::time::Time;
use crate::wire::InvalidEvent;

/// Turns ages into times of this process.
#[derive(Clone, Copy, Debug)]
pub(in crate::hub) struct Passed {
    now: Time,
    /// Since the state was saved, in milliseconds.
    passed: u64,
}

/// Why a record cannot be restored.
#[derive(Debug)]
pub(crate) enum RestoreError {
    /// This is no name of an organisation.
    Org(String),
    /// This is no name of a topic.
    Topic(String),
    /// There is one of this name already.
    Twice(String),
    /// The numbers of its events are not in order, or not within its head.
    Numbers,
    /// Two views have one epoch.
    Epochs,
    /// An event is none.
    Event(InvalidEvent),
    /// This hub follows a log and the other one did not, or the other way round.
    Log,
}

/// Higher numbers of events are not restored: none is reached by counting.
pub(in crate::hub) const SEQ_MAX: u64 = 1 << 60;

/// Bytes of memory of the newest events of one view or topic that are saved: less than one record may have.
pub(in crate::hub) const SAVED_BYTES_MAX: usize = 400 << 20;

// ===== impl Passed =====

impl Passed {
    pub(in crate::hub) fn now(self) -> Time {
        self.now
    }

    /// When something was so old as the state was saved; `None` before the beginning of time.
    pub(in crate::hub) fn time(self, age_ms: u64) -> Option<Time> {
        self.now.0.checked_sub(age_ms.checked_add(self.passed)?).map(Time)
    }

    /// Until when a channel was in use, that of streams until now; `None` if it has been idle for longer than `age`.
    pub(in crate::hub) fn last_use(
        self,
        idle_ms: u64,
        in_use: bool,
        age: Duration,
    ) -> Option<Time> {
        let last = self.time(idle_ms);
        if in_use {
            // The clients of streams that do not come may resume for as long as those of streams that end now.
            return last.max(Some(self.now.tick().time()));
        }
        last.filter(|last| last.after(age) > self.now)
    }

    /// What is left of a time that was left as the state was saved, in milliseconds.
    pub(in crate::hub) fn left(self, left_ms: u64) -> u64 {
        left_ms.saturating_sub(self.passed)
    }
}

// ===== impl Hub =====

impl Hub {
    /// Restores what one record remembers, as it was `passed` ago, as far as the limits allow, into a hub that is not in
    /// use yet. What is too old is left out. Of what is missing no id is covered, whatever the record says.
    ///
    /// # Errors
    /// The record is not one that a hub like this has saved. What was restored before stays.
    pub(crate) fn restore(
        &self,
        record: Record,
        passed: Duration,
        now: Time,
    ) -> Result<(), RestoreError> {
        let common = &self.shared.common;
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let passed = Passed { now, passed };
        match record {
            Record::Log(_) if common.log.is_none() => return Err(RestoreError::Log),
            Record::Counters(state) => self.restore_counters(&state),
            // The follower reads the log itself; what waits for it asks `has_applied`.
            Record::Log(_) => {}
            _ if common.log.is_some() => return Err(RestoreError::Log),
            Record::Org(state) => {
                if let Some(channel) = Channel::restore(state, passed, common)? {
                    let org = channel.org.clone();
                    let is_new = self.shared.registry.add(Arc::new(channel));
                    return if is_new { Ok(()) } else { Err(RestoreError::Twice(org.to_string())) };
                }
            }
            Record::Topic(state) => {
                if let Some((topic, channel)) = Channel::restore_topic(state, passed, common)? {
                    let channel = Arc::new(channel);
                    if !self.shared.topics.add(&topic, &channel) {
                        return Err(RestoreError::Twice(format!("{}/{}", topic.org, topic.name)));
                    }
                    self.shared.topics.evict_for(&channel);
                    channel.evict_own();
                }
            }
            // One that is not here was too old, or had to give way: nothing of it is covered.
            Record::NewerOrg(newer) => {
                if let Some(channel) = self.shared.registry.get_named(&newer.state.org) {
                    channel.restore_newer(newer, passed)?;
                }
            }
            Record::NewerTopic(newer) => {
                let topic = topic_of(&newer.state.org, &newer.state.topic)?;
                if let Some(channel) = self.shared.topics.get(&topic) {
                    channel.restore_newer_topic(newer, passed)?;
                    self.shared.topics.evict_for(&channel);
                    channel.evict_own();
                }
            }
            Record::Gone(GoneState { org, topic: None }) => self.shared.registry.forget(&org),
            Record::Gone(GoneState { org, topic: Some(topic) }) => {
                self.shared.topics.forget(&topic_of(&org, &topic)?);
            }
        }
        Ok(())
    }

    /// All has been restored, and every stream that will come has been imported: enforces the limits of what is idle, and
    /// counts the streams that have not come as drained, if the counters were restored. Returns how many these are.
    pub(crate) fn end_restore(&self, now: Time) -> u64 {
        self.shared.registry.tidy_all(now);
        self.shared.topics.tidy(now);
        self.count_absent()
    }
}

fn topic_of(org: &str, topic: &str) -> Result<Topic, RestoreError> {
    let Ok(name) = topic.parse() else { return Err(RestoreError::Topic(topic.to_owned())) };
    let Ok(org) = org.parse() else { return Err(RestoreError::Org(org.to_owned())) };
    Ok(Topic { org, name })
}

// ===== impl RestoreError =====

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Org(name) => write!(f, "{name:?} is no name of an organisation"),
            Self::Topic(name) => write!(f, "{name:?} is no name of a topic"),
            Self::Twice(name) => write!(f, "{name:?} is there twice"),
            Self::Numbers => f.write_str("the numbers of its events are not in order"),
            Self::Epochs => f.write_str("two views have the same epoch"),
            Self::Event(why) => why.fmt(f),
            Self::Log => f.write_str(
                "one of the two servers shares a log with others, and the other one does not",
            ),
        }
    }
}

impl std::error::Error for RestoreError {}
