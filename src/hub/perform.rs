//! Lines of another process, published and carried out here as requests are: what came to a predecessor after this process
//! had taken over from it. Lines of the log that servers share are applied elsewhere.

#[cfg(all(test, not(nudged_loom)))]
mod tests;

use std::fmt;
use std::time::Duration;

use super::feed::Feeds;
use super::record::{self, Line, TopicLine};
use super::{Hub, Keys};
use crate::ids::{EventId, Mark, OrgName, Topic};
use crate::metrics;
use crate::time::Time;

/// What became of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Performed {
    /// The id of the last event, if it has one: see [`Published`](super::Published). None either if it is more, or longer,
    /// than this server takes.
    pub(crate) id: Option<EventId>,
    /// The streams that commands were for, those of topics that ended among them.
    pub(crate) streams: usize,
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CannotPerform {
    /// A line is unusable: the first one is this, from 1.
    Line(usize),
    /// The hub follows a log, in which they would have to be.
    FollowsLog,
}

// ===== impl Hub =====

impl Hub {
    /// Does what the lines say, one after the other, exactly as [`Self::publish`], [`Self::publish_message`],
    /// [`Self::close_topic`], [`Self::end_members`] and [`Self::reread`] do. What commands and losses have streams do is
    /// spread over `window`.
    ///
    /// The lines were valid where they come from, whose limits may be higher. Of keys that are too much here, all of the
    /// org's clients re-read everything; of an event that is too long, the streams of its topic are notified as of one that
    /// is gone, unless it is bulk.
    ///
    /// # Errors
    /// [`CannotPerform`]; nothing was done.
    pub(crate) fn perform(
        &self,
        lines: &[u8],
        now: Time,
        window: Duration,
    ) -> Result<Performed, CannotPerform> {
        if self.shared.common.log.is_some() {
            return Err(CannotPerform::FollowsLog);
        }
        let parsed = record::lines(lines).zip(1..).map(|(range, number)| {
            let line = Line::parse(&lines[range], self.config());
            // No claim is appended where there is no log.
            let line = line.filter(|line| !matches!(line, Line::Topic(_, TopicLine::Exclusive(_))));
            line.ok_or(CannotPerform::Line(number))
        });
        let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
        let mut performed = Performed::default();
        for line in parsed {
            self.perform_line(line, now, window, &mut performed);
        }
        Ok(performed)
    }

    /// Has all clients of all orgs re-read everything, as [`Self::reread_all`] does.
    ///
    /// # Errors
    /// [`CannotPerform::FollowsLog`]; nothing was done.
    pub(crate) fn perform_reread_all(
        &self,
        now: Time,
        window: Duration,
    ) -> Result<Performed, CannotPerform> {
        match self.shared.common.log {
            Some(_) => Err(CannotPerform::FollowsLog),
            None => Ok(Performed { id: None, streams: self.reread_all(now, window) }),
        }
    }

    fn perform_line(&self, line: Line<'_>, now: Time, window: Duration, performed: &mut Performed) {
        match line {
            Line::Keys(org, keys) => {
                let org = org.to_name();
                performed.id = match Keys::new(keys, self.config()) {
                    Ok(keys) => self.publish(&org, &keys, now).id,
                    // They were checked when they were read.
                    Err(_) => self.lose_keys(&org, now, window),
                };
            }
            Line::TooMuch(org) => performed.id = self.lose_keys(&org.to_name(), now, window),
            Line::Reread(org) => performed.streams += self.reread(&org.to_name(), now, window),
            Line::End(org) => performed.streams += self.end_members(&org.to_name(), now, window),
            Line::Topic(topic, TopicLine::Message(message)) => {
                performed.id = Some(self.publish_message(&topic, &message, now));
            }
            Line::Topic(topic, TopicLine::TooLong { bulk }) => {
                performed.id = self.lose_message(&topic, bulk);
            }
            Line::Topic(topic, TopicLine::Close(reason)) => {
                performed.streams += self.close_topic(&topic, &reason, now);
            }
            Line::Topic(_, TopicLine::Exclusive(_)) => {}
        }
    }

    /// Keys were published that cannot be passed on. It counts as a publish, which has no id.
    fn lose_keys(&self, org: &OrgName, now: Time, window: Duration) -> Option<EventId> {
        metrics::add(&self.shard_counters().published, 1);
        self.reread(org, now, window);
        None
    }

    /// An event was published that cannot be passed on. A topic that there is not does not begin with it.
    fn lose_message(&self, topic: &Topic, bulk: bool) -> Option<EventId> {
        metrics::add(&self.shard_counters().published, 1);
        let channel = self.shared.topics.get(topic).filter(|_| !bulk)?;
        if let Feeds::Topic(feed) = &mut channel.state.lock().feeds {
            feed.change(|backlog| backlog.lose(Mark::NONE));
        }
        self.shared.common.schedule(&channel);
        None
    }
}

// ===== impl CannotPerform =====

impl fmt::Display for CannotPerform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number} is unusable"),
            Self::FollowsLog => {
                f.write_str("the server follows a log, in which it would have to be")
            }
        }
    }
}

impl std::error::Error for CannotPerform {}
