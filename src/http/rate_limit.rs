//! The rate limit of publishes per org: GCRA, the generic cell rate algorithm of ATM. The state of an org is
//! one number, the time at which its whole burst is available again. An org without one has its whole burst.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::PublishRate;
use crate::ids::OrgName;
use crate::sync::Mutex;
use crate::time::Time;

/// The rate, and the orgs that do not have their whole burst.
#[derive(Debug)]
pub(super) struct RateLimiter {
    rate: PublishRate,
    buckets: Mutex<Buckets>,
    /// When requests about all orgs at once have their whole burst again, in the same unit.
    all_full_at: Mutex<u64>,
}

/// A publish beyond the rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateLimited {
    pub(crate) rate: PublishRate,
    /// The time after which it is allowed; `None` if it never is, because it exceeds the burst by itself.
    pub(crate) wait: Option<Duration>,
}

#[derive(Debug, Default)]
struct Buckets {
    /// The time at which each org has its whole burst again, in microseconds of [`Time`].
    full_at: HashMap<OrgName, u64>,
    /// The number of orgs at which the next eviction runs.
    evict_at: usize,
}

/// The most orgs in the map. At the bound, those that would have their whole burst first are evicted.
const ORGS_MAX: usize = 65_536;

/// The number of orgs below which none is evicted.
const ORGS_MIN: usize = 1_024;

// ===== impl RateLimiter =====

impl RateLimiter {
    pub(super) fn new(rate: PublishRate) -> Self {
        Self { rate, buckets: Mutex::default(), all_full_at: Mutex::new(0) }
    }

    /// Counts one publish to each of these orgs, if all of them are allowed now.
    ///
    /// # Errors
    /// The index of the first that is not allowed. None is counted then.
    pub(super) fn try_acquire<'a>(
        &self,
        orgs: impl Iterator<Item = &'a OrgName>,
        now: Time,
    ) -> Result<(), (usize, RateLimited)> {
        let now = now.0.saturating_mul(1_000);
        let mut buckets = self.buckets.lock();
        let mut acquired: HashMap<&OrgName, u64> = HashMap::new();
        for (index, org) in orgs.enumerate() {
            let count = acquired.entry(org).or_default();
            *count += 1;
            self.check(buckets.full_at(org, now), *count, now).map_err(|why| (index, why))?;
        }
        for (org, count) in acquired {
            let full_at = buckets.full_at(org, now) + count * self.interval();
            buckets.set(org, full_at, now);
        }
        Ok(())
    }

    /// Counts one request about all orgs at once, if it is allowed now. These have a burst of their own.
    pub(super) fn try_acquire_all(&self, now: Time) -> Result<(), RateLimited> {
        let now = now.0.saturating_mul(1_000);
        let mut full_at = self.all_full_at.lock();
        self.check((*full_at).max(now), 1, now)?;
        *full_at = (*full_at).max(now) + self.interval();
        Ok(())
    }

    fn check(&self, full_at: u64, count: u64, now: u64) -> Result<(), RateLimited> {
        let PublishRate { burst, .. } = self.rate;
        let allowed = now + u64::from(burst.max(1)) * self.interval();
        let early = (full_at + count * self.interval()).saturating_sub(allowed);
        let wait = (count <= u64::from(burst)).then_some(Duration::from_micros(early));
        if early == 0 { Ok(()) } else { Err(RateLimited { rate: self.rate, wait }) }
    }

    /// Microseconds from one publish to the next.
    fn interval(&self) -> u64 {
        (1_000_000 / u64::from(self.rate.per_second.max(1))).max(1)
    }
}

// ===== impl Buckets =====

impl Buckets {
    fn full_at(&self, org: &OrgName, now: u64) -> u64 {
        self.full_at.get(org).copied().unwrap_or_default().max(now)
    }

    fn set(&mut self, org: &OrgName, full_at: u64, now: u64) {
        if let Some(known) = self.full_at.get_mut(org) {
            *known = full_at;
            return;
        }
        if self.full_at.len() >= self.evict_at.max(ORGS_MIN) {
            self.evict(now);
        }
        self.full_at.insert(org.clone(), full_at);
    }

    /// Evicts the orgs that have their whole burst and, if more than 3/4 of the bound are left, the surplus.
    /// Amortised: the next eviction runs when the map has doubled, or has grown by a quarter of the bound.
    fn evict(&mut self, now: u64) {
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() > ORGS_MAX * 3 / 4 {
            let mut times: Vec<_> = self.full_at.values().copied().collect();
            let surplus = times.len() - ORGS_MAX * 3 / 4;
            let (_, last, _) = times.select_nth_unstable(surplus);
            let (last, mut surplus) = (*last, surplus);
            self.full_at.retain(|_, full_at| {
                let goes = surplus > 0 && *full_at <= last;
                surplus -= usize::from(goes);
                !goes
            });
        }
        self.evict_at = (self.full_at.len() * 2).clamp(ORGS_MIN, ORGS_MAX);
        self.full_at.shrink_to(self.evict_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_second: u32, burst: u32) -> RateLimiter {
        RateLimiter::new(PublishRate { per_second, burst })
    }

    fn org(n: usize) -> OrgName {
        format!("org-{n}").parse().expect("a name")
    }

    fn take(limiter: &RateLimiter, orgs: &[usize], now: u64) -> Result<(), (usize, Option<u64>)> {
        let orgs: Vec<_> = orgs.iter().map(|n| org(*n)).collect();
        let millis = |wait: Duration| u64::try_from(wait.as_millis()).expect("short");
        limiter
            .try_acquire(orgs.iter(), Time(now))
            .map_err(|(index, why)| (index, why.wait.map(millis)))
    }

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let limiter = limiter(10, 3);
        for _ in 0..3 {
            assert_eq!(take(&limiter, &[1], 5_000), Ok(()));
        }
        assert_eq!(take(&limiter, &[1], 5_000), Err((0, Some(100))));
        assert_eq!(take(&limiter, &[1], 5_099), Err((0, Some(1))), "a refusal costs nothing");
        assert_eq!(take(&limiter, &[2], 5_000), Ok(()), "another org has its own");
        assert_eq!(take(&limiter, &[1], 5_100), Ok(()));
        assert_eq!(take(&limiter, &[1], 5_199), Err((0, Some(1))));
        // A pause restores one burst, not more.
        for n in 0..4 {
            assert_eq!(take(&limiter, &[1], 100_000).is_ok(), n < 3);
        }
    }

    #[test]
    fn requests_about_all_orgs_have_a_rate_of_their_own() {
        let limiter = limiter(10, 3);
        let all = |now| limiter.try_acquire_all(Time(now)).is_ok();
        assert!((0..3).all(|_| all(5_000)) && !all(5_000) && !all(5_099));
        assert_eq!(take(&limiter, &[1], 5_000), Ok(()));
        assert!(all(5_100) && !all(5_100));
    }

    #[test]
    fn a_batch_is_counted_completely_or_not_at_all() {
        let limiter = limiter(1, 2);
        assert_eq!(
            take(&limiter, &[1, 2, 1, 2, 3, 2], 0),
            Err((5, None)),
            "a burst of three is never allowed"
        );
        assert_eq!(take(&limiter, &[1, 2, 1, 2], 0), Ok(()), "nothing was counted before");
        assert_eq!(take(&limiter, &[3, 1], 0), Err((1, Some(1_000))));
    }

    #[test]
    fn the_number_of_orgs_in_the_map_is_bounded() {
        let limiter = limiter(1, 10);
        // An org with many publishes is not evicted for others with one.
        (0..10).for_each(|_| assert_eq!(take(&limiter, &[0], 0), Ok(())));
        let mut most = 0;
        for n in 1..=200_000 {
            assert_eq!(take(&limiter, &[n], 0), Ok(()));
            most = most.max(limiter.buckets.lock().full_at.len());
        }
        assert!(most <= ORGS_MAX, "{most}");
        assert!(most > ORGS_MAX / 2, "{most}");
        assert_eq!(take(&limiter, &[0], 0), Err((0, Some(1_000))));
        // Orgs that have their whole burst are evicted within the next few publishes, and their memory is freed.
        (0..100_000).for_each(|n| _ = take(&limiter, &[n], 3_600_000 + n as u64 * 10_000));
        let buckets = limiter.buckets.lock();
        assert!(buckets.full_at.capacity() <= 8 * ORGS_MIN, "{}", buckets.full_at.capacity());
    }
}
