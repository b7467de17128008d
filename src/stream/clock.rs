//! The clock, which the hub does not have.

use std::time::Duration;

use tokio::time::Instant;

use crate::ids::Time;

/// Converts the runtime's time, which tests can pause, to the hub's.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

/// The wheel's tick.
pub(crate) const TICK: Duration = Duration::from_secs(1);

// ===== impl Clock =====

impl Clock {
    /// A clock that starts now. A hub and its drivers use one clock.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The time since the start.
    pub fn now(&self) -> Time {
        Time(0).after(self.start.elapsed())
    }

    pub(crate) fn instant(&self, time: Time) -> Instant {
        self.start + Duration::from_millis(time.0)
    }
}
