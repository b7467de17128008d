//! Time as the hub knows it: [`Time`] in milliseconds, and ticks in whole seconds, in which its wheels count.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Milliseconds since an arbitrary start. The hub reads no clock: its callers pass this in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

/// Converts the runtime's time, which tests can pause, to the hub's.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// Its time at the start.
    begins: Duration,
}

/// Whole seconds since the same start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(pub(crate) u32);

const TICK_MS: u64 = 1_000;

/// How long before its expiry a token counts as expired for a stream: the driver looks once a second, and may be late.
const EXPIRY_AHEAD: Duration = Duration::from_millis(1_200);

// ===== impl Time =====

impl Time {
    /// This time less `duration`; `None` before the start of time.
    pub(crate) fn before(self, duration: Duration) -> Option<Self> {
        self.0.checked_sub(u64::try_from(duration.as_millis()).ok()?).map(Self)
    }

    /// This time and `duration` more, rounded down to whole milliseconds.
    pub fn after(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// The time from `earlier` to this one, zero if it is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The last tick that is not after it.
    pub(crate) fn tick(self) -> Tick {
        Tick(u32::try_from(self.0 / TICK_MS).unwrap_or(u32::MAX))
    }

    /// The first tick that is not before it.
    pub(crate) fn next_tick(self) -> Tick {
        Tick(u32::try_from(self.0.div_ceil(TICK_MS)).unwrap_or(u32::MAX))
    }
}

// ===== impl Tick =====

impl Tick {
    /// The last tick, which never comes.
    pub(crate) const NEVER: Self = Self(u32::MAX);

    /// So many ticks later.
    pub(crate) fn after(self, ticks: u32) -> Self {
        Self(self.0.saturating_add(ticks))
    }

    /// The ticks from `earlier` to this one, 0 if it is later.
    pub(crate) fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }

    /// The whole seconds of the wall clock since 1970.
    pub(crate) fn of_wall(wall: SystemTime) -> Self {
        let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u32::try_from(since.as_secs()).unwrap_or(u32::MAX - 1))
    }

    /// The streams end now whose tokens expire at this tick of the wall clock or earlier.
    pub(crate) fn expiring(wall: SystemTime) -> Self {
        Self::of_wall(wall + EXPIRY_AHEAD)
    }

    pub(crate) fn time(self) -> Time {
        Time(u64::from(self.0) * TICK_MS)
    }
}

// ===== impl Clock =====

impl Clock {
    /// A clock that starts now. A hub and its drivers use one clock.
    pub fn start() -> Self {
        Self { start: Instant::now(), begins: Duration::ZERO }
    }

    /// A clock that starts now, at a time by which at least `history` has passed: what happened before the process
    /// began has a time, too.
    #[cfg(feature = "server")]
    pub(crate) fn start_after(history: Duration) -> Self {
        Self { begins: history.clamp(DAY, HISTORY_MAX), ..Self::start() }
    }

    /// The time since the beginning of its time.
    pub fn now(&self) -> Time {
        Time(0).after(self.elapsed())
    }

    /// The same, not rounded.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begins + self.start.elapsed()
    }

    /// When it is that time; the start, if that was before.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        self.start + Duration::from_millis(time.0).saturating_sub(self.begins)
    }
}

#[cfg(feature = "server")]
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Ticks are 32 bits, and have to last for the run of the process.
#[cfg(feature = "server")]
const HISTORY_MAX: Duration = DAY.saturating_mul(10 * 365);

#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_begins_late_goes_on_from_there() {
        let (week, before) = (Duration::from_secs(7 * 86_400), Instant::now());
        let clock = Clock::start_after(week);
        let now = clock.now();
        assert!(now.before(week).is_some(), "{now:?}");
        let at = clock.instant(Time(now.0 + 1_000));
        assert!(at >= before + Duration::from_secs(1) - Duration::from_millis(1), "{at:?}");
        assert!(clock.instant(Time(0)) >= before, "there is no earlier moment");
        assert!(Clock::start_after(Duration::ZERO).now().before(DAY).is_some());
        assert!(Clock::start_after(Duration::MAX).now().tick() < Tick(u32::MAX / 4));
    }
}
