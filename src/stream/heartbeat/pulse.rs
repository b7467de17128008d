//! What all heartbeats of a runtime share: [`Pulse`], with one wheel and one task.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::hub::wheel::Wheel;
use crate::stream::driver::yield_now;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering::Relaxed};
use crate::time::Tick;

/// The period of heartbeats, and the one task that notices when they are due, for any number of streams. Clones are
/// handles of the same pulse. A runtime needs one. [`Heartbeat`](super::Heartbeat) has an example.
#[derive(Clone, Debug)]
pub struct Pulse {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tick_length: Duration,
    /// The pulse's time, which the task sets. Streams read it in place of a clock.
    tick: AtomicU32,
    open: AtomicUsize,
    pings: AtomicU64,
    cancelled: AtomicU64,
    state: Mutex<State>,
}

/// Every open stream is in one of the two, except while the task looks at it.
#[derive(Debug)]
struct State {
    /// The streams, each at the tick at which it has to be looked at.
    wheel: Wheel<Weak<Beat>>,
    /// Those whose tick has come.
    due: Vec<Weak<Beat>>,
}

/// What the task and one open stream share.
#[derive(Debug)]
pub(super) struct Beat {
    pulse: Arc<Shared>,
    /// The tick of the last byte.
    touched: AtomicU32,
    /// The task that polls the stream, if it waits where a ping may be put.
    waker: Mutex<Option<Waker>>,
}

/// Ticks in a period. Bytes count as of the last tick, so that a ping comes up to one tick early, and never late.
const TICKS: u32 = 8;

/// Streams that the task looks at before it gives way to the others of its thread.
const LOOKS_PER_TURN: usize = if cfg!(nudged_loom) { 1 } else { 256 };

// ===== impl Pulse =====

impl Pulse {
    /// The shortest period; one that is shorter counts as this. Ticks have a 32-bit number, and at this period the pulse
    /// would end after 1.7 years, at one of a second after 17.
    pub const PERIOD_MIN: Duration = Duration::from_millis(100);

    /// The longest period; one that is longer counts as this.
    pub const PERIOD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

    /// A pulse that pings streams that have been silent for 7/8 of `period` up to `period`. Choose half of the shortest
    /// idle timeout on the way, or less: 15 s suits most. Nothing is sent before [`drive`](Self::drive) runs.
    pub fn new(period: Duration) -> Self {
        let period = period.clamp(Self::PERIOD_MIN, Self::PERIOD_MAX);
        let shared = Shared {
            tick_length: period / TICKS,
            tick: AtomicU32::new(0),
            open: AtomicUsize::new(0),
            pings: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            state: Mutex::new(State { wheel: Wheel::new(), due: Vec::new() }),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The task of this pulse, which the application spawns once: it sleeps from tick to tick, eight a period. It ends
    /// once every handle of the pulse and every heartbeat has been dropped. If it is dropped earlier, there are no
    /// pings until there is another.
    #[expect(clippy::disallowed_methods, reason = "the one task that sleeps for all heartbeats")]
    pub fn drive(&self) -> impl Future<Output = ()> + Send + use<> {
        let pulse = Arc::downgrade(&self.shared);
        let tick_length = self.shared.tick_length;
        async move {
            let begin = Instant::now();
            let first = pulse.upgrade().map_or(Tick(0), |pulse| pulse.tick());
            let mut sleep = pin!(sleep_until(begin));
            while let Some(pulse) = pulse.upgrade() {
                let ticks = ticks_in(begin.elapsed(), tick_length);
                pulse.advance(first.after(ticks));
                while pulse.turn() {
                    yield_now().await;
                }
                drop(pulse);
                sleep.as_mut().reset(begin + tick_length * ticks.saturating_add(1));
                sleep.as_mut().await;
            }
        }
    }

    /// The heartbeats whose streams are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Relaxed)
    }

    /// The pings that were sent, of all streams.
    pub fn pings(&self) -> u64 {
        self.shared.pings.load(Relaxed)
    }

    /// The inner bodies that were dropped before their end, because their clients had gone or did not read.
    pub fn cancelled(&self) -> u64 {
        self.shared.cancelled.load(Relaxed)
    }

    /// Enters a stream, whose silence begins now.
    pub(super) fn beat(&self) -> Arc<Beat> {
        let pulse = self.shared.clone();
        let open = pulse.open.fetch_add(1, Relaxed) + 1;
        let tick = pulse.tick();
        let beat = Beat { pulse, touched: AtomicU32::new(tick.0), waker: Mutex::new(None) };
        let beat = Arc::new(beat);
        let mut state = self.shared.state.lock();
        state.wheel.purge(open, 1, |beat| beat.strong_count() > 0);
        state.wheel.insert(tick.after(TICKS), Arc::downgrade(&beat));
        beat
    }
}

fn ticks_in(elapsed: Duration, tick_length: Duration) -> u32 {
    u32::try_from(elapsed.as_nanos() / tick_length.as_nanos()).unwrap_or(u32::MAX)
}

// ===== impl Shared =====

impl Shared {
    fn tick(&self) -> Tick {
        Tick(self.tick.load(Relaxed))
    }

    fn advance(&self, tick: Tick) {
        // Before the wakers are taken: a stream looks at the tick again after it has left one.
        self.tick.store(tick.0, Relaxed);
        let State { wheel, due } = &mut *self.state.lock();
        wheel.advance(tick, |beat| due.push(beat));
    }

    /// Looks at some of the streams whose tick has come. Returns whether there may be more.
    fn turn(&self) -> bool {
        for _ in 0..LOOKS_PER_TURN {
            let Some(entry) = self.next_due() else { return false };
            if let Some(beat) = entry.upgrade() {
                let at = beat.look(self.tick());
                self.state.lock().wheel.insert(at, entry);
            }
        }
        true
    }

    fn next_due(&self) -> Option<Weak<Beat>> {
        let due = &mut self.state.lock().due;
        let next = due.pop();
        if next.is_none() {
            due.shrink_to(self.open.load(Relaxed));
        }
        next
    }
}

// ===== impl Beat =====

impl Beat {
    /// Wakes the stream's task if a ping is due. Returns when to look again. Called without a lock.
    fn look(&self, tick: Tick) -> Tick {
        let touched = Tick(self.touched.load(Relaxed));
        if tick.since(touched) < TICKS {
            return touched.after(TICKS);
        }
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
        // A byte that comes meanwhile may still count as of the tick before.
        tick.after(TICKS - 1)
    }

    /// The stream has bytes, or ended a silence otherwise.
    pub(super) fn touch(&self) {
        self.touched.store(self.pulse.tick().0, Relaxed);
    }

    /// Whether the stream, which is between events, has been silent for long enough; a ping is sent then. If not, it
    /// wakes the task as soon as it has.
    pub(super) fn poll_due(&self, waker: &Waker) -> bool {
        if !self.is_due() {
            self.leave(waker);
            // The tick may have come before the waker.
            if !self.is_due() {
                return false;
            }
        }
        self.touch();
        self.pulse.pings.fetch_add(1, Relaxed);
        true
    }

    fn is_due(&self) -> bool {
        self.pulse.tick().since(Tick(self.touched.load(Relaxed))) >= TICKS
    }

    fn leave(&self, waker: &Waker) {
        let mut left = self.waker.lock();
        if !left.as_ref().is_some_and(|left| left.will_wake(waker)) {
            let former = left.replace(waker.clone());
            drop(left);
            drop(former);
        }
    }

    /// The stream is over, by itself or not.
    pub(super) fn end(&self, cancelled: bool) {
        self.pulse.open.fetch_sub(1, Relaxed);
        if cancelled {
            self.pulse.cancelled.fetch_add(1, Relaxed);
        }
    }
}
