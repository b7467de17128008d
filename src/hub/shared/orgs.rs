//! The orgs' side of the log: what a record has for an org, and how its channel is filled from the tail.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::SmallVec;

use super::tail::{Extent, Link};
use crate::config::HubConfig;
use crate::hub::channel::{Channel, Outcome, State};
use crate::hub::coalesce::{Burst, Coalescer, Kept};
use crate::hub::command::Reached;
use crate::hub::feed::{OrgFeeds, View};
use crate::hub::pass::Window;
use crate::hub::record::Line;
use crate::hub::shard::ShardId;
use crate::hub::{Hub, Keys};
use crate::ids::{Mark, StreamHash};
use crate::metrics;
use crate::time::Time;

/// All lines that a record has for an org, as one: their order means nothing, as a client that re-reads everything
/// because of one of them does so after all were published.
#[derive(Debug, Default)]
pub(super) struct OrgLines<'l> {
    keys: SmallVec<[Keys<'l>; 1]>,
    /// There were more keys than may be passed on.
    too_much: bool,
    reread: bool,
    end: bool,
}

/// What has to be done once the lock of a channel is released.
#[derive(Debug, Default)]
struct Todo {
    outcome: Option<Outcome>,
    commands: SmallVec<[Reached; 2]>,
}

// ===== impl Hub =====

impl Hub {
    /// Applies what a record has for an org. Without a channel there is nothing to do: one that is created from now on
    /// finds the record in the tail.
    pub(super) fn apply_org<'l, 'p: 'l>(
        &self,
        org: &str,
        lines: impl Iterator<Item = &'l Line<'p>>,
        mark: Mark,
        now: Time,
    ) {
        let Some(channel) = self.shared.registry.get_named(org) else { return };
        let common = &self.shared.common;
        let lines = OrgLines::of(lines, &common.config);
        let Todo { outcome, commands } = channel.apply(&lines, mark, now);
        let counters = self.shard_counters();
        match outcome {
            Some(Outcome::Held(_, closes)) => {
                metrics::add(&counters.coalesced, 1);
                // One thread applies all records: the windows are shared out by name.
                let bits = StreamHash::of_members(org).bits();
                let shard = u16::try_from(bits % common.shards.len() as u64).expect("a shard");
                common.push_window(ShardId(shard), closes, &channel, now);
            }
            Some(Outcome::Joined(_)) => metrics::add(&counters.coalesced, 1),
            Some(Outcome::Appended(_)) | None => {}
        }
        for Reached { passes, .. } in commands {
            for (shard, view) in passes {
                common.shard(shard).push_command(&channel, view);
            }
        }
        common.schedule(&channel);
    }
}

// ===== impl OrgLines =====

impl<'l> OrgLines<'l> {
    pub(super) fn of<'p: 'l>(
        lines: impl Iterator<Item = &'l Line<'p>>,
        limits: &HubConfig,
    ) -> Self {
        let mut all = Self::default();
        for line in lines {
            match line {
                Line::Keys(_, texts) => {
                    let texts = texts.iter().map(|key| Cow::Borrowed(&**key));
                    match Keys::new(texts, limits) {
                        Ok(keys) => all.keys.push(keys),
                        Err(_) => all.too_much = true,
                    }
                }
                Line::TooMuch(_) => all.too_much = true,
                Line::Reread(_) => all.reread = true,
                Line::End(_) => all.end = true,
                Line::Topic(..) => {}
            }
        }
        all
    }

    /// All keys, as a burst of several publishes is one event.
    fn union(&self, channel: &Channel) -> Option<Burst> {
        let mut union = Coalescer::default();
        self.hold(&mut union, channel);
        union.release()
    }

    /// Adds all keys to what a burst window holds.
    fn hold(&self, coalescer: &mut Coalescer, channel: &Channel) -> bool {
        let mut first = false;
        for keys in &self.keys {
            first |= coalescer.hold(keys, channel.common.config.keys_max, |key| channel.shows(key));
        }
        if self.too_much {
            first |= coalescer.hold_too_much();
        }
        first
    }

    fn has_keys(&self) -> bool {
        self.too_much || !self.keys.is_empty()
    }
}

// ===== impl Channel =====

impl Channel {
    /// Applies what a record has for the org, unless the channel was filled with it.
    fn apply(&self, lines: &OrgLines<'_>, mark: Mark, now: Time) -> Todo {
        let mut todo = Todo::default();
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.removed || !state.feeds.org_mut().member.history.is_before(mark) {
            return todo;
        }
        let log = self.common.log.as_ref().expect("a record is of a log");
        for (_, feed) in state.feeds.org_mut().iter_mut() {
            feed.history.follow(mark);
        }
        if lines.reread {
            let reached = self.command_reread_in(state, log.window(now), true, Some(mark));
            todo.commands.push(reached);
        }
        if lines.has_keys() {
            let outcome = self.publish_lines(state, lines, now);
            if !matches!(outcome, Outcome::Appended(_)) {
                // The one before this record, which is applied everywhere only later.
                let before = self.common.applied().unwrap_or(Mark::NONE);
                state.feeds.org_mut().hold(before);
            }
            todo.outcome = Some(outcome);
        }
        if lines.end {
            todo.commands.push(self.command_end_in(state, log.window(now)));
        }
        todo
    }

    /// Appends the keys of a record, or adds them to what the burst window holds.
    fn publish_lines(&self, state: &mut State, lines: &OrgLines<'_>, now: Time) -> Outcome {
        if let ([keys], false) = (&lines.keys[..], lines.too_much) {
            return self.publish_in(state, keys, now);
        }
        state.count_publishes(lines.keys.len() + usize::from(lines.too_much));
        let id = state.feeds.org_mut().member.history.next_id();
        let coalesce = self.common.config.coalesce;
        if coalesce.is_zero() || !state.coalescer.is_open(now) {
            state.coalescer.open(now.after(coalesce));
            if let Some(burst) = lines.union(self) {
                self.append_burst(state.feeds.org_mut(), &burst, now);
            }
            return Outcome::Appended(id);
        }
        let first = lines.hold(&mut state.coalescer, self);
        if first { Outcome::Held(id, state.coalescer.closes()) } else { Outcome::Joined(id) }
    }

    /// Fills the feed of a view, which has just been created, with what the tail has for it. What is added to the tail
    /// from now on is applied to it.
    pub(in crate::hub) fn fill(&self, state: &mut State, view: View, now: Time) {
        let Some(log) = &self.common.log else { return };
        let config = &self.common.config;
        let oldest = now.before(config.history_age).unwrap_or_default();
        let (records, bytes) = (config.history_events.max(1), config.history_bytes);
        let members = StreamHash::of_members(self.org.as_str());
        let chain = log.chain(members, Extent { records, bytes, oldest });
        let lines: Vec<_> = chain.records.iter().map(|link| self.lines_of(link)).collect();
        let links = chain.records.iter().zip(&lines);
        let links = links.map(|(link, lines)| (link, OrgLines::of(lines.iter(), config)));
        let links: Vec<_> = links.collect();
        // What was before a command to re-read is of no use to any client.
        let reread = links.iter().rposition(|(_, lines)| lines.reread);
        let base = reread.map_or(chain.base, |index| links[index].0.mark);
        let feeds = state.feeds.org_mut();
        feeds.get_mut(view).expect(CREATED).history.begin_in_log(base);
        for (link, lines) in &links[reread.map_or(0, |index| index + 1)..] {
            feeds.get_mut(view).expect(CREATED).history.follow(link.mark);
            if let Some(burst) = lines.union(self) {
                self.append_burst_to(feeds, view, &burst, link.at);
            }
        }
        feeds.get_mut(view).expect(CREATED).history.end_fill(chain.head);
    }

    /// The lines of the org in a record of its chain. Those of another one may be in it, whose name has the same hash.
    fn lines_of<'l>(&self, link: &'l Link) -> Vec<Line<'l>> {
        let lines = link.lines().filter_map(|line| Line::parse(line, &self.common.config));
        lines.filter(|line| line.org() == Some(self.org.as_str())).collect()
    }

    /// Appends what is left of a burst to one feed, if it shows it.
    fn append_burst_to(&self, feeds: &mut OrgFeeds, view: View, burst: &Burst, now: Time) {
        let keys = burst.keys.iter().map(AsRef::as_ref);
        match (view, burst.kept) {
            (View::Member, Kept::All) => _ = self.append_to(feeds, view, keys, now),
            (View::Public, Kept::All | Kept::Public) => self.append_public(feeds, keys, now),
            _ => feeds.get_mut(view).expect(CREATED).lose(),
        }
    }

    /// Fills the feeds of a channel that has just been created.
    pub(in crate::hub) fn fill_new(&self, now: Time) {
        if self.common.log.is_some() {
            self.fill(&mut self.state.lock(), View::Member, now);
        }
    }

    /// The log begins anew with this record: every stream re-reads everything. `None` if the channel has left the
    /// registry.
    pub(in crate::hub) fn cut(
        self: &Arc<Self>,
        window: Window,
        mark: Mark,
        now: Time,
    ) -> Option<Reached> {
        let mut state = self.state.lock();
        if state.removed {
            return None;
        }
        // What is held is of the log from before.
        let held = state.coalescer.is_holding();
        self.release_in(&mut state, now);
        let feeds = state.feeds.org_mut();
        let news = feeds.iter_mut().map(|(_, feed)| feed.history.restart_in_log(mark));
        let is_news = news.fold(false, std::ops::BitOr::bitor);
        let reached =
            is_news.then(|| self.command_reread_in(&mut state, window, false, Some(mark)));
        drop(state);
        if held {
            self.common.schedule(self);
        }
        reached
    }
}

const CREATED: &str = "it has just been created";
