//! Commands to the open streams of a channel, to end or to re-read everything, which are spread over a window.
//!
//! A reread is a new epoch of the feed, so that no id from before it is covered. A stream that has not re-read yet must
//! not receive an id of the new epoch: it gets what is published meanwhile under ids that no history covers, until its
//! `connected`. The passes of the shards' drivers carry commands out, at their pace.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use smallvec::SmallVec;

use super::Hub;
use super::batch::{Batch, VISITS_PER_TURN};
use super::channel::{Channel, State};
use super::driver::ShardDriver;
use super::feed::{Feed, View};
use super::history::History;
use super::pass::{Aim, Pace, Pass, Window};
use super::seats::Seats;
use super::shard::{Common, ShardId};
use crate::ids::{Mark, Seq};
use crate::sync::Ordering;
use crate::time::Time;
use crate::wire::Frame;

/// The commands to the streams of a feed, until they are carried out.
#[derive(Debug)]
pub(crate) struct Commands {
    /// Counts the commands.
    serial: u64,
    window: Window,
    /// Every event up to this one has an id from before the last command to re-read; `None` if there was none, and then
    /// a stream that has still to re-read, since a command that is forgotten, gets no event.
    barrier: Option<Seq>,
    /// Events after it as they are for streams that have not re-read, at most as many as the history has: consecutive
    /// ones, up to `newest`.
    uncovered: VecDeque<Frame>,
    newest: Seq,
}

/// How many streams a command is for, and where a pass has to begin for it.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    pub(crate) streams: usize,
    pub(crate) passes: SmallVec<[(ShardId, View); 8]>,
}

/// A pass that carries commands out: on a channel's streams for one view, or on all streams of a shard.
#[derive(Debug)]
pub(crate) struct CommandPass {
    pass: Pass,
    of: Option<(Arc<Channel>, View)>,
    /// The last command that it knows of; 0 before the first.
    serial: u64,
    /// It has visited seats before that command, and visits all again: so many, evenly over this time.
    again: Option<(Duration, usize)>,
    shard: ShardId,
    driver_goes_on: bool,
}

/// A command to all streams to re-read everything, given to some orgs at a time: there may be very many of them, and the
/// caller's thread has streams to serve. What it has reached by the time it is dropped is done.
#[derive(Debug)]
pub(crate) struct RereadAll<'h> {
    hub: &'h Hub,
    window: Window,
    /// The record with which the log begins anew, if that is why.
    cut: Option<(Mark, Time)>,
    /// The next partition of the registry.
    partition: usize,
    /// Channels of the partition before it that have not been reached.
    channels: vec::IntoIter<Arc<Channel>>,
    streams: usize,
}

/// How much later than its window a pass of a driver that is in time may be over.
const SLACK: Duration = Duration::from_secs(1);

/// The window of a pass until it knows of its first command.
const UNPACED: Window = Window { from: Time(0), to: Time(0) };

// ===== impl Feed =====

impl Feed {
    /// Has every stream re-read everything, where ids are of a log because of this record.
    fn command_reread(&mut self, common: &Common, window: Window, since: Option<Mark>) {
        let epoch = match since {
            None => common.new_epoch(),
            Some(mark) => self.history.renew_in_log(mark),
        };
        self.history.renew(epoch, self.seats() > 0);
        self.trim_uncovered();
        self.shards.iter_mut().for_each(Seats::begin_round);
        let barrier = self.history.head();
        if let Some(commands) = self.command(window) {
            (commands.barrier, commands.newest) = (Some(barrier), barrier);
            commands.uncovered = VecDeque::new();
        }
    }

    /// Has every stream end.
    fn command_end(&mut self, window: Window) {
        self.shards.iter_mut().for_each(Seats::command_end);
        self.command(window);
    }

    /// Notes a command to the streams, if there are any.
    fn command(&mut self, window: Window) -> Option<&mut Commands> {
        if self.seats() == 0 {
            return None;
        }
        let newest = self.history.head();
        let commands = self.commands.get_or_insert_with(|| {
            let uncovered = VecDeque::new();
            Box::new(Commands { serial: 0, window, barrier: None, uncovered, newest })
        });
        commands.serial += 1;
        commands.window = window;
        Some(commands)
    }

    /// The shards on which a pass has to begin.
    fn begin_passes(&mut self, view: View, passes: &mut SmallVec<[(ShardId, View); 8]>) {
        let shards = (0..).map(ShardId).zip(&mut self.shards);
        passes.extend(
            shards.filter_map(|(shard, seats)| seats.begin_pass().then_some((shard, view))),
        );
    }

    /// Keeps an event that was appended for the streams that have not re-read yet, if there may be any by now.
    pub(super) fn keep_uncovered(&mut self, now: Time) {
        let Some(commands) = &mut self.commands else { return };
        if commands.barrier.is_none() {
            return;
        }
        if commands.is_over(now) {
            commands.uncovered = VecDeque::new();
            return;
        }
        let head = self.history.head();
        let Some(event) = self.history.get(head) else { return };
        if commands.newest + 1 != head {
            // What lies between is lost.
            commands.uncovered.clear();
        }
        commands.newest = head;
        commands.uncovered.push_back(event.frame.uncovered(self.history.memory()));
        self.trim_uncovered();
    }

    /// Removes of these what the history has no more: no stream gets it.
    pub(super) fn trim_uncovered(&mut self) {
        let Some(commands) = &mut self.commands else { return };
        let beyond = commands.uncovered.len().saturating_sub(self.history.len());
        commands.uncovered.drain(..beyond);
    }

    /// Forgets the commands, once they are carried out, and what the history has forgotten.
    pub(super) fn expire_commands(&mut self, now: Time) {
        self.trim_uncovered();
        let is_done = self.shards.iter().all(|seats| !seats.is_passing());
        self.commands.take_if(|commands| is_done && commands.is_over(now));
    }

    /// Whether a stream has still to carry out a command, or a pass visits them.
    #[cfg(feature = "server")]
    fn has_commands(&self) -> bool {
        self.shards.iter().any(|seats| {
            let has_to = |index| seats.has_to_reread(index) || seats.has_to_end(index);
            seats.is_passing() || (0..seats.end()).any(has_to)
        })
    }

    /// Bytes of memory that it keeps for streams that have not re-read.
    #[cfg(all(any(test, fuzzing), not(nudged_loom)))]
    pub(crate) fn uncovered_bytes(&self) -> usize {
        let frames = self.commands.iter().flat_map(|commands| &commands.uncovered);
        frames.map(Frame::cost).sum()
    }
}

// ===== impl Commands =====

impl Commands {
    /// The event with this number for a stream that has not re-read; `None` if it has to do so instead.
    pub(super) fn event(&self, seq: Seq, history: &History) -> Option<Frame> {
        let event = history.get(seq)?;
        if seq <= self.barrier? {
            return Some(event.frame.clone());
        }
        let behind = usize::try_from(self.newest.0.checked_sub(seq.0)?).ok()?;
        let index = self.uncovered.len().checked_sub(behind + 1)?;
        self.uncovered.get(index).cloned()
    }

    /// Whether no driver that is in time has anything left to do.
    fn is_over(&self, now: Time) -> bool {
        // A pass may have gone on for a window when the last command came.
        now > self.window.to.after(self.window.length()).after(SLACK)
    }
}

// ===== impl Channel =====

impl Channel {
    /// Has every stream re-read everything: the shards' own passes over all channels do it, or, with `begin`, those
    /// that begin for this one. `None` if the channel has left the registry.
    pub(super) fn command_reread(&self, window: Window, begin: bool) -> Option<Reached> {
        let mut state = self.state.lock();
        (!state.removed).then(|| self.command_reread_in(&mut state, window, begin, None))
    }

    /// The same. Where ids are of a log, none from before the record `since` resumes.
    pub(super) fn command_reread_in(
        &self,
        state: &mut State,
        window: Window,
        begin: bool,
        since: Option<Mark>,
    ) -> Reached {
        let mut reached = Reached { streams: state.seats(), ..Reached::default() };
        for (view, feed) in state.feeds.org_mut().iter_mut() {
            feed.command_reread(&self.common, window, since);
            if begin {
                feed.begin_passes(view, &mut reached.passes);
            }
        }
        reached
    }

    /// Whether streams have still to carry out a command, to all orgs too if there were `rereads` of these.
    #[cfg(feature = "server")]
    pub(super) fn has_commands(&self, rereads: bool) -> bool {
        let mut state = self.state.lock();
        let mut feeds = state.feeds.org_mut().iter_mut();
        feeds.any(|(_, feed)| (rereads || feed.commands.is_some()) && feed.has_commands())
    }

    /// Has every member stream end. `None` if the channel has left the registry.
    pub(super) fn command_end(&self, window: Window) -> Option<Reached> {
        let mut state = self.state.lock();
        (!state.removed).then(|| self.command_end_in(&mut state, window))
    }

    pub(super) fn command_end_in(&self, state: &mut State, window: Window) -> Reached {
        let feed = &mut state.feeds.org_mut().member;
        let mut reached = Reached { streams: feed.seats(), ..Reached::default() };
        feed.command_end(window);
        feed.begin_passes(View::Member, &mut reached.passes);
        reached
    }
}

// ===== impl RereadAll =====

impl<'h> RereadAll<'h> {
    pub(super) fn new(hub: &'h Hub, window: Window) -> Self {
        Self::since(hub, window, None)
    }

    /// The same, since the log begins anew with this record, now.
    pub(super) fn since(hub: &'h Hub, window: Window, cut: Option<(Mark, Time)>) -> Self {
        Self { hub, window, cut, partition: 0, channels: Vec::new().into_iter(), streams: 0 }
    }

    /// Goes on with some of the orgs. Returns whether there may be more.
    pub(crate) fn step(&mut self) -> bool {
        for _ in 0..VISITS_PER_TURN {
            let Some(channel) = self.channels.next() else {
                let Some(channels) = self.hub.shared.registry.channels_of(self.partition) else {
                    return false;
                };
                (self.partition, self.channels) = (self.partition + 1, channels.into_iter());
                continue;
            };
            // One that has left the registry has no streams, and none will resume there.
            let reached = match self.cut {
                None => channel.command_reread(self.window, false),
                Some((mark, now)) => channel.cut(self.window, mark, now),
            };
            self.streams += reached.map_or(0, |reached| reached.streams);
        }
        true
    }

    /// Streams that it has reached.
    pub(crate) fn streams(&self) -> usize {
        self.streams
    }
}

impl Drop for RereadAll<'_> {
    /// Has the shards' drivers do it.
    fn drop(&mut self) {
        let shared = &self.hub.shared;
        {
            let mut last = shared.reread.lock();
            let serial = last.map_or(1, |(serial, _)| serial + 1);
            *last = Some((serial, self.window));
            shared.rereads.store(serial, Ordering::Release);
        }
        shared.wake_drivers();
    }
}

// ===== impl CommandPass =====

impl CommandPass {
    /// A pass of this shard's driver over the streams of a channel for one view.
    pub(super) fn of_channel(channel: Arc<Channel>, view: View, shard: ShardId) -> Self {
        let pass = Pass::over_channel(channel.clone(), view, UNPACED, 0);
        Self::new(pass, Some((channel, view)), shard)
    }

    /// A pass over all streams of the shard.
    pub(super) fn of_shard(shard: ShardId) -> Self {
        Self::new(Pass::over_shard(Aim::Commands, UNPACED, 0), None, shard)
    }

    fn new(pass: Pass, of: Option<(Arc<Channel>, View)>, shard: ShardId) -> Self {
        Self { pass, of, serial: 0, again: None, shard, driver_goes_on: true }
    }

    /// Whether it is over all streams of the shard.
    pub(crate) fn is_of_shard(&self) -> bool {
        self.of.is_none()
    }

    /// Collects what some of the streams need that are due.
    pub(crate) fn collect(&mut self, driver: &ShardDriver, now: Time, batch: &mut Batch) -> Pace {
        self.follow(driver);
        let pace = self.pass.collect(driver, now, batch);
        if pace != Pace::Over {
            return pace;
        }
        if let Some((length, seats)) = self.again.take() {
            // A driver that is late does not delay the next window.
            let window = Window::from(now.min(self.pass.window_to()), length);
            self.pass.restart(self.of.clone());
            self.pass.set_pace(window, seats);
            return Pace::Now;
        }
        if !self.end() {
            return Pace::Now;
        }
        self.driver_goes_on = false;
        Pace::Over
    }

    /// Goes at the pace of the first command, and once more over all streams if there are others since: a new pace now
    /// would delay the streams that are left with each of them.
    fn follow(&mut self, driver: &ShardDriver) {
        let last = match &self.of {
            Some((channel, view)) => {
                let mut state = channel.state.lock();
                let feed = state.feeds.org_mut().get(*view);
                let seats = feed.and_then(|feed| feed.shards.get(self.shard.index()));
                let commands = feed.and_then(|feed| feed.commands.as_ref());
                commands.zip(seats).map(|(last, seats)| (last.serial, last.window, seats.len()))
            }
            None => driver.reread_of_all(),
        };
        if let Some((serial, window, seats)) = last
            && serial != self.serial
        {
            match self.serial {
                0 => self.pass.set_pace(window, seats),
                _ => self.again = Some((window.length(), seats)),
            }
            self.serial = serial;
        }
    }

    /// Ends it, unless there is a command that it has not carried out. Returns whether it has ended.
    fn end(&self) -> bool {
        let Some((channel, view)) = &self.of else { return true };
        let mut state = channel.state.lock();
        let Some(feed) = state.feeds.org_mut().get_mut(*view) else { return true };
        let is_done = feed.commands.as_ref().is_none_or(|last| last.serial == self.serial);
        if is_done && let Some(seats) = feed.shards.get_mut(self.shard.index()) {
            seats.end_pass();
        }
        is_done
    }
}

impl Drop for CommandPass {
    /// A pass over a channel that is not over is left to the next driver. One over the shard begins anew.
    fn drop(&mut self) {
        if self.driver_goes_on
            && let Some((channel, view)) = &self.of
        {
            channel.common.shard(self.shard).push_command(channel, *view);
        }
    }
}

// ===== impl ShardDriver =====

impl ShardDriver {
    /// The next pass to begin. `seen` is the last command to all streams that the driver knows of.
    pub(crate) fn next_command(&self, seen: &mut u64) -> Option<CommandPass> {
        let last = self.shared().rereads.load(Ordering::Acquire);
        if mem::replace(seen, last) != last {
            return Some(CommandPass::of_shard(self.shard_id()));
        }
        let (channel, view) = self.pop_command()?;
        Some(CommandPass::of_channel(channel, view, self.shard_id()))
    }

    /// Whether there is a command to all streams that is newer than this one.
    pub(crate) fn has_reread_of_all(&self, seen: u64) -> bool {
        self.shared().rereads.load(Ordering::Acquire) != seen
    }

    fn reread_of_all(&self) -> Option<(u64, Window, usize)> {
        let (serial, window) = (*self.shared().reread.lock())?;
        Some((serial, window, self.seats()))
    }
}
