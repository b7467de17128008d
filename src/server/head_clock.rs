//! Times the request heads of one HTTP/1 connection. hyper has one time-out, which runs from before the first byte of
//! a head to its end. This splits it: a connection may be idle for longer before a head than the head may take. Only
//! the first head has to begin within its time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::admission::Closer;
use crate::config::Config;
use crate::http::{Sleep, Timer};
use crate::sync::{AtomicBool, AtomicU32, Ordering};

/// The timer that hyper reads heads with, shared with the socket, which notes in it what arrives.
#[derive(Clone, Debug)]
pub(super) struct HeadClock(Arc<State>);

#[derive(Debug)]
struct State {
    closer: Arc<Closer>,
    timer: Timer,
    head_timeout: Duration,
    idle_timeout: Duration,
    /// The first head has been waited for.
    had_first: AtomicBool,
    /// Bytes have arrived since the wait for this head began.
    has_begun: AtomicBool,
    /// Heads that are waited for: one, or none while a request is in flight.
    heads: AtomicU32,
}

/// The time-out of one head.
struct HeadSleep {
    clock: HeadClock,
    phase: Phase,
    sleep: Sleep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between a response and the next head, which may be there already.
    Between,
    /// There is no byte of a head.
    Idle,
    /// A head is on its way, or is the first.
    Head,
}

// ===== impl HeadClock =====

impl HeadClock {
    pub(super) fn new(closer: Arc<Closer>, timer: Timer, config: &Config) -> Self {
        let Config { head_timeout, idle_timeout, .. } = *config;
        Self(Arc::new(State {
            closer,
            timer,
            head_timeout,
            idle_timeout,
            had_first: AtomicBool::new(false),
            has_begun: AtomicBool::new(false),
            heads: AtomicU32::new(0),
        }))
    }

    /// Whether hyper waits for a head, or for the rest of one: the request before is over.
    pub(super) fn waits(&self) -> bool {
        self.0.heads.load(Ordering::Relaxed) > 0
    }

    fn time_head(&self) -> HeadSleep {
        self.0.heads.fetch_add(1, Ordering::Relaxed);
        let State { timer, head_timeout, had_first, has_begun, .. } = &*self.0;
        let phase = if had_first.swap(true, Ordering::Relaxed) {
            has_begun.store(false, Ordering::Relaxed);
            Phase::Between
        } else {
            Phase::Head
        };
        HeadSleep { clock: self.clone(), phase, sleep: timer.sleep(*head_timeout) }
    }

    /// Notes that the socket was read from.
    ///
    /// # Errors
    /// The connection was closed to make room, while it was idle: what arrived is not to be served.
    pub(super) fn note_read(&self) -> io::Result<()> {
        self.0.has_begun.store(true, Ordering::Relaxed);
        match self.0.closer.note_busy() {
            true => Ok(()),
            false => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

/// hyper has no other use for it than one time-out for each head, which it asks for before it reads.
impl hyper::rt::Timer for HeadClock {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(self.time_head())
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(self.time_head())
    }

    fn now(&self) -> Instant {
        self.0.timer.now()
    }
}

// ===== impl HeadSleep =====

impl Future for HeadSleep {
    type Output = ();

    /// hyper polls it when there is nothing more to read.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { clock, phase, sleep } = &mut *self;
        let State { closer, head_timeout, idle_timeout, has_begun, .. } = &*clock.0;
        match (*phase, has_begun.load(Ordering::Relaxed)) {
            (Phase::Head, _) | (Phase::Idle, false) => {}
            (Phase::Between | Phase::Idle, true) => {
                *phase = Phase::Head;
                sleep.restart(*head_timeout);
            }
            (Phase::Between, false) => {
                *phase = Phase::Idle;
                sleep.restart(*idle_timeout);
                closer.note_idle();
            }
        }
        Pin::new(sleep).poll(cx)
    }
}

impl hyper::rt::Sleep for HeadSleep {}

impl Drop for HeadSleep {
    fn drop(&mut self) {
        self.clock.0.heads.fetch_sub(1, Ordering::Relaxed);
    }
}
