//! The one task of a lane. It closes windows, sweeps dirty channels, and ticks the wheel; nothing else
//! in the serving path sleeps, and no connection has a timer.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::time::Sleep;

use super::clock::{Clock, TICK};
use crate::hub::{Hub, SeatRef, Sweep};
use crate::ids::Time;

/// Drives the lane of this handle, for as long as the future is polled. Every lane needs one driver;
/// without it nothing that is published on it arrives.
#[expect(clippy::disallowed_methods, reason = "this is the task that may sleep")]
pub async fn drive(hub: Hub, clock: Clock) {
    let mut sleep = pin!(tokio::time::sleep_until(clock.instant(clock.now())));
    let mut driver = Driver { hub, clock, tick: 0, sweeps: VecDeque::new(), silent: Vec::new() };
    loop {
        if driver.turn() {
            give_way().await;
        } else {
            driver.wait(sleep.as_mut()).await;
        }
    }
}

#[derive(Debug)]
struct Driver {
    hub: Hub,
    clock: Clock,
    tick: u32,
    /// Walks that are under way, each a turn at a time.
    sweeps: VecDeque<Sweep>,
    /// Seats that the wheel found, to be looked at some at a time.
    silent: Vec<SeatRef>,
}

/// Silent seats that are looked at in one turn.
const SILENT_A_TURN: usize = 32;

// ===== impl Driver =====

impl Driver {
    /// Does a bounded part of the work, of every kind. Returns whether there may be more: every task
    /// of the runtime has its turn in between, so that an org with very many subscribers holds up
    /// neither the others nor the accepts.
    fn turn(&mut self) -> bool {
        let now = self.clock.now();
        self.hub.close_windows(now);
        self.advance(now);
        let rest = self.silent.len().saturating_sub(SILENT_A_TURN);
        self.hub.keep_alive(&self.silent[rest..]);
        self.silent.truncate(rest);

        while let Some(sweep) = self.hub.next_sweep() {
            self.sweeps.push_back(sweep);
        }
        if let Some(mut sweep) = self.sweeps.pop_front()
            && sweep.turn()
        {
            self.sweeps.push_back(sweep);
        }
        !self.silent.is_empty() || !self.sweeps.is_empty()
    }

    /// Ticks the wheel if a second has passed.
    fn advance(&mut self, now: Time) {
        let tick = u32::try_from(now.0 / TICK_MS).unwrap_or(u32::MAX);
        if tick > self.tick {
            self.tick = tick;
            self.hub.tick(tick, &mut self.silent);
            self.hub.tidy(tick, now);
        }
    }

    /// Waits for work, for the end of a window, or for the next tick.
    async fn wait(&self, mut sleep: Pin<&mut Sleep>) {
        poll_fn(|cx| {
            let (dirty, window) = self.hub.register(cx.waker());
            let tick = Time((u64::from(self.tick) + 1) * TICK_MS);
            sleep
                .as_mut()
                .reset(self.clock.instant(window.map_or(tick, |closes| closes.min(tick))));
            if dirty { Poll::Ready(()) } else { sleep.as_mut().poll(cx) }
        })
        .await;
    }
}

const TICK_MS: u64 = TICK.as_millis() as u64;

/// Lets every other task of this runtime run once, whichever runtime it is.
async fn give_way() {
    let mut given = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
