//! The driver: the one task of a shard. It closes coalescing windows, sweeps dirty channels, and ticks the wheels;
//! nothing else in the serving path sleeps, and no connection has a timer.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::time::Sleep;

use super::share::TimeShare;
use crate::hub::{
    Batch, CommandPasses, Drain, Hub, Pace, SEATS_PER_TURN, SeatRef, ShardDriver, Sweep, Timer,
};
use crate::time::{Clock, Tick, Time};

/// Drives the shard of this handle. Every shard needs one driver; without it nothing that is published on
/// the shard arrives. It ends once the hub was closed or drained and the shard's last stream has ended.
pub async fn drive(hub: Hub, clock: Clock) {
    drive_with(hub, clock, ()).await;
}

/// Drives a shard some of whose streams are written through these sockets.
#[expect(clippy::disallowed_methods, reason = "this is the task that may sleep")]
pub(crate) async fn drive_with(hub: Hub, clock: Clock, sockets: impl Sockets) {
    let mut sleep = pin!(tokio::time::sleep_until(clock.instant(clock.now())));
    let mut driver = Driver::new(hub, clock, sockets);
    let mut share = TimeShare::begin(clock.elapsed());
    while !driver.hub.is_over() {
        if !driver.turn() && driver.wait(sleep.as_mut()).await {
            share = TimeShare::begin(clock.elapsed());
            continue;
        }
        let now = clock.elapsed();
        if share.is_over(now) {
            yield_now().await;
            share = TimeShare::after_yield(now, clock.elapsed());
        }
    }
    driver.hub.end(clock.now());
    driver.sockets.drain();
}

/// Sockets that the driver of a shard writes to. Each call does a bounded part of the work.
pub(crate) trait Sockets {
    /// Does what does not come from the hub: registers connections, and handles readiness. Returns whether
    /// there may be more.
    fn turn(&mut self, now: Time) -> bool;

    /// Does what a turn of the hub's sweeps and wheels found. Called without a lock.
    fn apply(&mut self, batch: &mut Batch);

    /// Called once a second.
    fn tick(&mut self, now: Time);

    /// Resolves when [`Self::turn`] has something to do.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Gives up what has no stream yet. The shard has none left, and the driver ends.
    fn drain(&mut self);

    /// Whether the worker is to stop for a while.
    fn is_to_stop(&self) -> bool {
        false
    }

    /// Stops, with all tasks of the worker, which is between two turns: blocks the thread.
    fn stop(&mut self, _: Time) {}
}

/// No sockets: every stream is a body that is polled by a task of its own.
impl Sockets for () {
    fn turn(&mut self, _: Time) -> bool {
        false
    }

    fn apply(&mut self, _: &mut Batch) {}

    fn tick(&mut self, _: Time) {}

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn drain(&mut self) {}
}

/// What [`drive`] does, a turn at a time.
#[derive(Debug)]
pub(crate) struct Driver<S> {
    hub: ShardDriver,
    clock: Clock,
    /// The wall clock, which the expiries of tokens are of.
    wall: fn() -> SystemTime,
    /// The tick of the wall clock up to which the expiries were enforced.
    expired: Tick,
    sockets: S,
    /// Sweeps under way, each a turn at a time.
    sweeps: VecDeque<Sweep>,
    tick: Tick,
    /// Seats that the keepalive wheel gave out and that have not been checked yet.
    silent: Vec<SeatRef>,
    /// Timers that have expired and have not fired yet.
    ending: Vec<Timer>,
    batch: Batch,
    /// Carry out commands to streams, spread over time.
    passes: CommandPasses,
    /// Once the hub drains: the sweep that ends the streams, and when it continues.
    drain: Option<(Drain, Pace)>,
}

// ===== impl Driver =====

impl<S: Sockets> Driver<S> {
    pub(crate) fn new(hub: Hub, clock: Clock, sockets: S) -> Self {
        let hub = hub.driver();
        Self {
            // What has passed since is a pause.
            tick: hub.tick_now(),
            hub,
            clock,
            wall: SystemTime::now,
            expired: Tick(0),
            sockets,
            sweeps: VecDeque::new(),
            silent: Vec::new(),
            ending: Vec::new(),
            batch: Batch::default(),
            passes: CommandPasses::default(),
            drain: None,
        }
    }

    #[cfg(all(test, feature = "server"))]
    pub(crate) fn set_wall(&mut self, wall: fn() -> SystemTime) {
        self.wall = wall;
    }

    /// Does a bounded part of the work, of every kind. Returns whether there may be more. All tasks of the runtime
    /// run now and then in between, see [`TimeShare`], so that an org with very many subscribers does not delay
    /// the accepts.
    pub(crate) fn turn(&mut self) -> bool {
        if self.sockets.is_to_stop() {
            // What may be given away meanwhile is in the wheels, whole.
            self.put_back();
            self.sockets.stop(self.clock.now());
        }
        let now = self.clock.now();
        let mut more = self.hub.close_windows(now);
        self.advance(now);
        more |= self.sockets.turn(now);

        let rest = self.silent.len().saturating_sub(SEATS_PER_TURN);
        if rest < self.silent.len() {
            self.hub.keep_alive(&self.silent[rest..], &mut self.batch);
            self.silent.truncate(rest);
            self.serve();
        }
        let rest = self.ending.len().saturating_sub(SEATS_PER_TURN);
        if rest < self.ending.len() {
            self.hub.fire(&self.ending[rest..], &mut self.batch);
            self.ending.truncate(rest);
            self.serve();
        }
        self.sweep();
        more |= self.passes.turn(&self.hub, now, &mut self.batch, |batch| {
            serve(batch, &mut self.sockets);
        });
        more |= self.end_some(now);
        more |= !self.silent.is_empty() || !self.ending.is_empty() || !self.sweeps.is_empty();
        more
    }

    /// Sweeps one channel after the other until enough subscribers were notified for one turn, or a channel has
    /// more than that.
    fn sweep(&mut self) {
        while let Some(sweep) = self.hub.next_sweep() {
            self.sweeps.push_back(sweep);
        }
        let mut seats = 0;
        while seats < SEATS_PER_TURN
            && let Some(mut sweep) = self.sweeps.pop_front()
        {
            let goes_on = sweep.collect(&mut self.batch);
            // A channel without a subscriber that is behind costs about as much as one with one.
            seats += self.batch.seats().max(1);
            self.serve();
            if let Some(since) = sweep.take_passed() {
                self.hub.count_sweep(since, self.clock.now());
            }
            if goes_on {
                self.sweeps.push_back(sweep);
                break;
            }
        }
    }

    /// Ends the streams that are due, if the hub drains. Returns whether more are due already.
    fn end_some(&mut self, now: Time) -> bool {
        if self.drain.is_none() && self.hub.is_closing() {
            self.drain = self.hub.begin_drain().map(|drain| (drain, Pace::Now));
        }
        let Some((drain, pace)) = &mut self.drain else { return false };
        match *pace {
            Pace::Now => {}
            Pace::At(due) if due <= now => {}
            Pace::At(_) | Pace::Over => return false,
        }
        *pace = drain.collect(&self.hub, now, &mut self.batch);
        let more = *pace == Pace::Now;
        self.serve();
        more
    }

    /// The time at which the next stream is due to end in a drain.
    fn next_end(&self) -> Option<Time> {
        match &self.drain {
            Some((_, Pace::At(due))) => Some(*due),
            Some((_, Pace::Now)) => Some(Time(0)),
            Some((_, Pace::Over)) => None,
            // The drain began after this turn looked for one.
            None => (self.hub.is_closing() && self.hub.begin_drain().is_some()).then_some(Time(0)),
        }
    }

    /// Performs what was collected, now that no lock is held.
    fn serve(&mut self) {
        serve(&mut self.batch, &mut self.sockets);
    }

    /// Ticks the wheels if a second has passed.
    fn advance(&mut self, now: Time) {
        let tick = now.tick();
        if tick > self.tick {
            // A late tick follows a pause: the machine was suspended, the process stopped, or without a CPU.
            let late = now.0.saturating_sub(self.tick.after(1).time().0);
            self.hub.resume(now, Duration::from_millis(late));
            self.tick = tick;
            self.hub.tick(tick, &mut self.silent);
            self.hub.timers(tick, &mut self.ending);
            self.hub.tidy(tick, now);
            self.sockets.tick(now);
        }
        // Every time, because an event may be the first thing after a suspend.
        let expired = Tick::expiring((self.wall)());
        if expired != self.expired {
            self.expired = expired;
            self.hub.expire(expired, &mut self.ending);
        }
    }

    /// Waits for work, the end of a coalescing window, or the next tick. Returns whether it had to wait.
    async fn wait(&self, mut sleep: Pin<&mut Sleep>) -> bool {
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            let (work, window) = self.hub.register(cx.waker());
            let ready = self.sockets.poll_ready(cx).is_ready();
            let tick = self.tick.after(1).time();
            // Computed after the registration, so that a drain or a command in between wakes the driver.
            let until = [window, self.next_end(), self.passes.next(&self.hub)]
                .into_iter()
                .flatten()
                .fold(tick, Time::min);
            let until = self.clock.instant(until);
            if sleep.deadline() != until {
                sleep.as_mut().reset(until);
            }
            if work || ready { Poll::Ready(()) } else { sleep.as_mut().poll(cx) }
        })
        .await;
        polls > 1
    }
}

impl<S> Driver<S> {
    /// Puts back into the wheels what they gave out and was not looked at.
    fn put_back(&mut self) {
        self.hub.put_back(mem::take(&mut self.silent), mem::take(&mut self.ending));
    }
}

impl<S> Drop for Driver<S> {
    /// A driver may be dropped in the middle of its work, and another take its slot.
    fn drop(&mut self) {
        self.put_back();
    }
}

/// Performs what was collected, and empties the batch.
fn serve(batch: &mut Batch, sockets: &mut impl Sockets) {
    batch.wake();
    sockets.apply(batch);
    batch.clear();
}

/// Lets the other tasks of the runtime run once, in any runtime.
pub(super) async fn yield_now() {
    let mut given = false;
    poll_fn(|cx| {
        if mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(all(test, not(nudged_loom)))]
mod tests;
