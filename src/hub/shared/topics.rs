//! The topics' side of the log: what a record has for a topic, how its backlog is filled from the tail, and the claims of
//! exclusive streams.

use std::sync::Arc;

use smallvec::SmallVec;

use super::SharedLog;
use super::tail::Extent;
use crate::config::HubConfig;
use crate::hub::backlog::Backlog;
use crate::hub::channel::{Channel, State};
use crate::hub::feed::Feeds;
use crate::hub::record::{Line, TopicLine};
use crate::hub::rivals::Replaced;
use crate::hub::shard::Common;
use crate::hub::steps::step;
use crate::hub::topic::Exclusive;
use crate::hub::{Hub, Start, SubscribeError, Subscription};
use crate::ids::{EventId, Mark, StreamHash, Topic};
use crate::metrics::CloseReason;
use crate::time::Time;
use crate::wire::{Greeting, Message};

/// All lines that a record has for a topic.
struct TopicLines<'l> {
    mark: Mark,
    stream: StreamHash,
    /// Each with how many events follow it in the record.
    lines: SmallVec<[(&'l TopicLine<'l>, u32); 1]>,
}

/// How many times as many records, or bytes of lines, as a topic keeps events or bytes are looked through to fill it:
/// some of them may be bulk, and give way. A record may have many events, so these are often enough of them.
const LOOK_BACK: usize = 4;

// ===== impl Hub =====

impl Hub {
    /// Takes a seat at a topic for an exclusive stream, which makes this claim. Once the log has it, the stream is the
    /// topic's only one on every server, and until then it ends no other. After this, append the claim, wait until the
    /// record is applied, and for [`Subscription::poll_sole`]; if that fails, drop the subscription.
    ///
    /// # Errors
    /// [`SubscribeError`]: the hub is closing, or there are as many claims as the topic may have streams.
    pub(crate) fn claim_topic(
        &self,
        topic: &Topic,
        start: Start,
        claim: u64,
        now: Time,
    ) -> Result<(Subscription, Greeting), SubscribeError> {
        self.open_topic(topic, start, Some(Exclusive::Claim(claim)), now)
    }

    /// Streams of a topic that are open here.
    pub(crate) fn topic_streams(&self, topic: &Topic) -> usize {
        self.shared.topics.get(topic).map_or(0, |channel| channel.state.lock().seats())
    }

    /// Applies all lines that a record has for a topic, in their order.
    pub(super) fn apply_topic<'l, 'p: 'l>(
        &self,
        topic: &Topic,
        mark: Mark,
        lines: impl Iterator<Item = &'l Line<'p>>,
        now: Time,
    ) {
        let mut lines = TopicLines::of(topic, mark, lines);
        if let (Some(first), Some(last)) = (lines.first_close(), lines.last_close()) {
            self.close_from_log(topic, &lines, first, now);
            lines.forget(last + 1);
        }
        self.extend_from_log(topic, &lines, now);
    }

    /// Everything before the record `mark` is unknown to every topic. Returns the number of streams.
    pub(super) fn cut_topics(&self, mark: Mark) -> usize {
        let topics = &self.shared.topics;
        let channels = (0..).map_while(|partition| topics.channels_of(partition)).flatten();
        channels.map(|channel| channel.cut_topic(mark)).sum()
    }

    /// Appends the events, and then lets the claims decide, in the topic as it is, or begins a new one, if there is
    /// room. Otherwise the tail has the events, and a stream that is opened later gets them from there.
    fn extend_from_log(&self, topic: &Topic, lines: &TopicLines<'_>, now: Time) {
        let topics = &self.shared.topics;
        if lines.lines.is_empty() {
            return;
        }
        loop {
            // Without a stream, a claim ends none.
            let channel = match lines.has_events() {
                true => topics.get_or_add(topic, now),
                false => topics.get(topic),
            };
            let Some(channel) = channel else { return };
            let Some(replaced) = channel.apply_topic(lines, now) else { continue };
            replaced.into_iter().for_each(|replaced| replaced.notify(&channel));
            self.shared.common.schedule(&channel);
            topics.evict_excess();
            topics.evict_for(&channel);
            channel.evict_own();
            return;
        }
    }

    /// Ends the topic, if it is there, after what came before the first line that closes it.
    fn close_from_log(&self, topic: &Topic, lines: &TopicLines<'_>, first: usize, now: Time) {
        let close = |channel: &Arc<Channel>| channel.close_from_log(lines, first, now);
        if let Some((channel, replaced)) = self.shared.topics.close(topic, close) {
            replaced.into_iter().for_each(|replaced: Replaced| replaced.notify(&channel));
            self.shared.common.schedule(&channel);
        }
    }
}

// ===== impl TopicLines =====

impl<'l> TopicLines<'l> {
    /// Those of this topic. There may be others, whose names have the same hash.
    fn of<'p: 'l>(topic: &Topic, mark: Mark, lines: impl Iterator<Item = &'l Line<'p>>) -> Self {
        let of_topic = lines.filter_map(|line| match line {
            Line::Topic(of, line) if of == topic => Some((line, 0)),
            _ => None,
        });
        let mut lines: SmallVec<[_; 1]> = of_topic.collect();
        let mut events = 0;
        for (line, later) in lines.iter_mut().rev() {
            step();
            *later = events;
            events += u32::from(line.is_event());
        }
        Self { mark, stream: topic.stream(), lines }
    }

    fn has_events(&self) -> bool {
        self.events() > 0
    }

    fn events(&self) -> usize {
        self.lines.iter().filter(|(line, _)| line.is_event()).count()
    }

    fn first_close(&self) -> Option<usize> {
        self.lines.iter().position(|(line, _)| line.is_close())
    }

    fn last_close(&self) -> Option<usize> {
        self.lines.iter().rposition(|(line, _)| line.is_close())
    }

    /// Forgets the first lines.
    fn forget(&mut self, count: usize) {
        self.lines.drain(..count);
    }

    /// The id of what so many events follow.
    fn id(&self, later: u32) -> EventId {
        self.mark.id(self.stream, later)
    }
}

// ===== impl TopicLine =====

impl TopicLine<'_> {
    fn is_event(&self) -> bool {
        matches!(self, Self::Message(_) | Self::TooLong { .. })
    }

    fn is_close(&self) -> bool {
        matches!(self, Self::Close(_))
    }
}

// ===== impl Channel =====

impl Channel {
    /// Applies what a record has for the topic, unless it was filled with that. `None` if the topic has left the
    /// registry.
    fn apply_topic(
        self: &Arc<Self>,
        lines: &TopicLines<'_>,
        now: Time,
    ) -> Option<Option<Replaced>> {
        let mut state = self.state.lock();
        if state.removed {
            return None;
        }
        let mut replaced = None;
        if state.follow(lines.mark) {
            let events = lines.events();
            if events > 0 {
                state.use_until(now);
                state.count_publishes(events);
            }
            replaced = state.apply_topic(lines, 0..lines.lines.len(), self, now);
            state.list_if_idle(self);
        }
        Some(replaced)
    }

    /// Ends every stream after the lines up to that with this index, which closes the topic. `None` if the topic began
    /// after that. The caller holds the registry's lock, and removes the topic from it.
    fn close_from_log(
        self: &Arc<Self>,
        lines: &TopicLines<'_>,
        close: usize,
        now: Time,
    ) -> Option<Option<Replaced>> {
        let mut state = self.state.lock();
        if !state.follow(lines.mark) {
            return None;
        }
        let replaced = state.apply_topic(lines, 0..close, self, now);
        if let (TopicLine::Close(reason), later) = lines.lines[close] {
            state.append_from_log(lines.id(later), &Message::closed(reason), now, self);
        }
        state.closing.get_or_insert(CloseReason::Closed);
        state.removed = true;
        state.list_if_idle(self);
        Some(replaced)
    }

    /// What came before this record is unknown. Returns the number of streams.
    fn cut_topic(&self, mark: Mark) -> usize {
        let mut state = self.state.lock();
        let Feeds::Topic(feed) = &mut state.feeds else { return 0 };
        feed.change(|backlog| backlog.cut(mark));
        state.seats()
    }
}

// ===== impl State =====

impl State {
    /// Whether the topic has not followed this record yet. From now on it has.
    fn follow(&mut self, mark: Mark) -> bool {
        let Feeds::Topic(feed) = &mut self.feeds else { return false };
        feed.feed.history.follow(mark.position)
    }

    /// Applies lines that do not close the topic. A stream that their claims replace gets none of their events,
    /// wherever these are.
    fn apply_topic(
        &mut self,
        lines: &TopicLines<'_>,
        range: std::ops::Range<usize>,
        channel: &Channel,
        now: Time,
    ) -> Option<Replaced> {
        let mut claims = SmallVec::<[u64; 1]>::new();
        for (line, later) in &lines.lines[range] {
            match line {
                TopicLine::Message(message) => {
                    self.append_from_log(lines.id(*later), message, now, channel);
                }
                TopicLine::TooLong { bulk: true } | TopicLine::Close(_) => {}
                TopicLine::TooLong { bulk: false } => {
                    let Feeds::Topic(feed) = &mut self.feeds else { continue };
                    feed.change(|backlog| backlog.lose(lines.mark));
                }
                TopicLine::Exclusive(claim) => claims.push(*claim),
            }
        }
        let Feeds::Topic(feed) = &mut self.feeds else { return None };
        feed.settle(&claims, channel)
    }

    fn append_from_log(&mut self, id: EventId, message: &Message, now: Time, channel: &Channel) {
        let Feeds::Topic(feed) = &mut self.feeds else { return };
        let config = &channel.common.config;
        feed.change(|backlog| backlog.append_from_log(id, message, now, config));
    }
}

// ===== impl Backlog =====

impl Backlog {
    /// That of a topic, with what the tail of the log has for it since it was closed, if it was.
    pub(in crate::hub) fn filled(topic: &Topic, log: &SharedLog, common: &Common) -> Self {
        let config = &common.config;
        let extent = Extent {
            records: config.topic_events.max(1).saturating_mul(LOOK_BACK),
            bytes: config.topic_bytes.saturating_mul(LOOK_BACK),
            oldest: Time(0),
        };
        let stream = topic.stream();
        let chain = log.chain(stream, extent);
        let (mut base, mut records) = (chain.base, Vec::new());
        for link in chain.records.iter().rev() {
            let parsed: Vec<_> =
                link.lines().filter_map(|line| Line::parse(line, config)).collect();
            let closed = TopicLines::of(topic, link.mark, parsed.iter()).last_close();
            records.push((link, parsed, closed.map_or(0, |index| index + 1)));
            if closed.is_some() {
                base = link.mark;
                break;
            }
        }
        let memory = common.topics.memory.clone();
        let mut backlog = Self::in_log(stream, base, chain.head.position, memory);
        for (link, parsed, closed) in records.iter().rev() {
            let mut lines = TopicLines::of(topic, link.mark, parsed.iter());
            lines.forget(*closed);
            backlog.fill(&lines, link.at, config);
        }
        backlog
    }

    fn fill(&mut self, lines: &TopicLines<'_>, at: Time, config: &HubConfig) {
        for (line, later) in &lines.lines {
            match line {
                TopicLine::Message(message) => {
                    self.append_from_log(lines.id(*later), message, at, config);
                }
                TopicLine::TooLong { bulk: false } => self.lose(lines.mark),
                TopicLine::TooLong { bulk: true }
                | TopicLine::Close(_)
                | TopicLine::Exclusive(_) => {}
            }
        }
    }
}
