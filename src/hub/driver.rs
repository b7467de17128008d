//! All that the driver of a shard asks of the hub. Whatever visits seats collects into a [`Batch`] under a
//! lock; the driver acts on it once no lock is held, a bounded number of seats at a time.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use smallvec::SmallVec;

use super::batch::{Batch, SEATS_PER_TURN, VISITS_PER_TURN};
use super::channel::Channel;
use super::drain::Drain;
use super::feed::View;
use super::seat_ref::SeatRef;
use super::shard::ShardId;
use super::sweep::Sweep;
use super::timers::{self, Timer};
use super::{Hub, Shared};
use crate::sync::Ordering;
use crate::time::{Tick, Time};

/// A shard of a hub, for the one task that drives it.
#[derive(Debug)]
pub(crate) struct ShardDriver {
    hub: Hub,
}

// ===== impl ShardDriver =====

impl ShardDriver {
    pub(super) fn new(hub: Hub) -> Self {
        Self { hub }
    }

    /// Whether the driver may end: the hub is closed or the shard drained, and the shard's last stream has
    /// ended.
    pub(crate) fn is_over(&self) -> bool {
        self.shared().is_over(self.hub.shard())
    }

    /// Has `driver` woken at the next work, or when it may end. Returns whether it has work or may end
    /// already, and when the next burst window closes.
    pub(crate) fn register(&self, driver: &Waker) -> (bool, Option<Time>) {
        let (dirty, closes) = self.hub.shard().register(driver);
        (dirty || self.is_over(), closes)
    }

    /// Closes some of the burst windows whose time has come. Returns whether there may be more.
    pub(crate) fn close_windows(&self, now: Time) -> bool {
        for _ in 0..VISITS_PER_TURN {
            let Some(channel) = self.hub.shard().pop_window(now) else { return false };
            channel.release(now);
            self.shared().common.schedule(&channel);
        }
        true
    }

    /// The driver ends: leaves the burst windows to drivers that have not.
    pub(crate) fn end(&self, now: Time) {
        for (closes, channel) in self.hub.shard().end() {
            self.shared().common.push_window(self.shard_id(), closes, &channel, now);
        }
    }

    /// The next channel to sweep.
    pub(crate) fn next_sweep(&self) -> Option<Sweep> {
        let (channel, dirty) = self.hub.shard().pop_dirty()?;
        Some(Sweep::new(channel, self.shard_id(), dirty))
    }

    /// Counts a pass over seats that has visited the last one of them by now, for events since that time.
    pub(crate) fn count_sweep(&self, since: Time, now: Time) {
        self.hub.shard_counters().sweeps.add(now.since(since));
    }

    /// Goes on after a pause of this length, in which neither sockets nor clocks were looked at.
    pub(crate) fn resume(&self, now: Time, length: Duration) {
        self.hub.shard().pauses.end(now, length);
    }

    /// Moves the shard's time on to `tick`, and adds the seats to `due` that may have been silent for too long.
    pub(crate) fn tick(&self, tick: Tick, due: &mut Vec<SeatRef>) {
        let shard = self.hub.shard();
        shard.set_tick(tick);
        shard.take_keepalives(tick, due);
    }

    /// Has comments sent to those of the subscribers that were silent for long enough, and puts all seats back
    /// into the wheel.
    pub(crate) fn keep_alive(&self, due: &[SeatRef], batch: &mut Batch) {
        let common = &self.shared().common;
        let look = |seat| timers::keep_alive(seat, self.shard_id(), common, batch);
        let again: SmallVec<[Option<Tick>; SEATS_PER_TURN]> = due.iter().map(look).collect();
        let again = again.into_iter().zip(due);
        self.hub
            .shard()
            .put_keepalives(again.filter_map(|(tick, seat)| Some((tick?, seat.clone()))));
    }

    /// Adds the timers to `due` whose tick has come.
    pub(crate) fn timers(&self, tick: Tick, due: &mut Vec<Timer>) {
        self.hub.shard().take_timers(tick, due);
    }

    /// Has the streams take no more whose token expires at this tick of the wall clock, or earlier, and adds their
    /// timers to `due`.
    pub(crate) fn expire(&self, tick: Tick, due: &mut Vec<Timer>) {
        let known = due.len();
        self.hub.shard().take_expiries(tick, due);
        due[known..].iter().for_each(|timer| timer.expire(self.shard_id()));
    }

    /// Has the streams end whose time has come, and sets the timers again that are still needed.
    pub(crate) fn fire(&self, due: &[Timer], batch: &mut Batch) {
        let common = &self.shared().common;
        let fire = |timer: &Timer| timer.fire(self.shard_id(), common, batch);
        let again: SmallVec<[Option<Tick>; SEATS_PER_TURN]> = due.iter().map(fire).collect();
        let again = again.into_iter().zip(due);
        self.hub.shard().put_timers(again.filter_map(|(tick, timer)| Some((tick?, timer.clone()))));
    }

    /// Puts back what the wheels gave out and was not looked at.
    pub(crate) fn put_back(&self, silent: Vec<SeatRef>, due: Vec<Timer>) {
        let shard = self.hub.shard();
        let tick = shard.tick();
        shard.put_keepalives(silent.into_iter().map(|seat| (tick, seat)));
        shard.put_timers(due.into_iter().map(|timer| (tick, timer)));
    }

    /// The shard's time.
    pub(crate) fn tick_now(&self) -> Tick {
        self.hub.shard().tick()
    }

    /// Has a timer fire at `tick`.
    pub(super) fn set_timer(&self, tick: Tick, timer: Timer) {
        self.hub.shard().set_timer(tick, timer);
    }

    /// Tidies one partition of the registry, and some of the topics.
    pub(crate) fn tidy(&self, tick: Tick, now: Time) {
        self.shared().registry.tidy(tick, now);
        self.shared().topics.tidy(now);
    }

    /// Whether the hub closes or drains.
    pub(crate) fn is_closing(&self) -> bool {
        self.hub.is_closing()
    }

    /// The drain of this shard, if the hub drains.
    pub(crate) fn begin_drain(&self) -> Option<Drain> {
        let window = (*self.shared().drain.lock())?;
        Some(Drain::new(window, self.hub.shard().seats()))
    }

    /// The next seats that a command is for.
    pub(super) fn pop_command(&self) -> Option<(Arc<Channel>, View)> {
        self.hub.shard().pop_command()
    }

    /// Seats that are taken on the shard.
    pub(super) fn seats(&self) -> usize {
        self.hub.shard().seats()
    }

    /// Every stream of the shard has been made to end.
    pub(super) fn set_drained(&self) {
        self.hub.shard().drained.store(true, Ordering::Release);
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.hub.shared
    }

    pub(super) fn shard_id(&self) -> ShardId {
        self.hub.shard
    }
}
