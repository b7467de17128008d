//! How fast each org is published to. An org is one number, the time at which all that it was allowed
//! at once is allowed again (GCRA, the leaky bucket of ATM as a meter); who has none has not published
//! for long enough.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::PublishRate;
use crate::ids::{OrgName, Time};
use crate::sync::Mutex;

/// The orgs that were published to lately.
#[derive(Debug)]
pub(super) struct Rates {
    rate: PublishRate,
    buckets: Mutex<Buckets>,
}

/// A publish that comes too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooFast {
    pub(crate) rate: PublishRate,
    /// How long until it is allowed; `None` if it never is, being more than one burst.
    pub(crate) wait: Option<Duration>,
}

#[derive(Debug, Default)]
struct Buckets {
    /// When each org has its whole burst again, in microseconds of [`Time`].
    full_at: HashMap<OrgName, u64>,
    /// The number of orgs beyond which those are looked for that can be forgotten.
    look_beyond: usize,
}

/// Orgs that are remembered at once. Beyond it those are forgotten that would be forgiven first.
const ORGS_MAX: usize = 65_536;

/// Orgs below which forgetting is not worth a walk.
const ORGS_MIN: usize = 1_024;

// ===== impl Rates =====

impl Rates {
    pub(super) fn new(rate: PublishRate) -> Self {
        Self { rate, buckets: Mutex::new(Buckets::default()) }
    }

    /// Takes one publish to each of these orgs, if all of them are allowed now.
    ///
    /// # Errors
    /// The index of the first that is not; none is taken then.
    pub(super) fn take<'a>(
        &self,
        orgs: impl Iterator<Item = &'a OrgName>,
        now: Time,
    ) -> Result<(), (usize, TooFast)> {
        let now = now.0.saturating_mul(1_000);
        let mut buckets = self.buckets.lock();
        let mut taken: HashMap<&OrgName, u64> = HashMap::new();
        for (index, org) in orgs.enumerate() {
            let count = taken.entry(org).or_default();
            *count += 1;
            self.check(buckets.full_at(org, now), *count, now).map_err(|why| (index, why))?;
        }
        for (org, count) in taken {
            let full_at = buckets.full_at(org, now) + count * self.interval();
            buckets.set(org, full_at, now);
        }
        Ok(())
    }

    fn check(&self, full_at: u64, count: u64, now: u64) -> Result<(), TooFast> {
        let PublishRate { burst, .. } = self.rate;
        let allowed = now + u64::from(burst.max(1)) * self.interval();
        let early = (full_at + count * self.interval()).saturating_sub(allowed);
        let wait = (count <= u64::from(burst)).then_some(Duration::from_micros(early));
        if early == 0 { Ok(()) } else { Err(TooFast { rate: self.rate, wait }) }
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
        if self.full_at.len() >= self.look_beyond.max(ORGS_MIN) {
            self.forget(now);
        }
        self.full_at.insert(org.clone(), full_at);
    }

    /// Forgets who is forgiven, and beyond the bound a quarter of the others. As many have to come
    /// before the next walk as pay for it.
    fn forget(&mut self, now: u64) {
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
        self.look_beyond = (self.full_at.len() * 2).clamp(ORGS_MIN, ORGS_MAX);
        self.full_at.shrink_to(self.look_beyond);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(per_second: u32, burst: u32) -> Rates {
        Rates::new(PublishRate { per_second, burst })
    }

    fn org(n: usize) -> OrgName {
        format!("org-{n}").parse().expect("a name")
    }

    fn take(rates: &Rates, orgs: &[usize], now: u64) -> Result<(), (usize, Option<u64>)> {
        let orgs: Vec<_> = orgs.iter().map(|n| org(*n)).collect();
        let millis = |wait: Duration| u64::try_from(wait.as_millis()).expect("short");
        rates.take(orgs.iter(), Time(now)).map_err(|(index, why)| (index, why.wait.map(millis)))
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let rates = rates(10, 3);
        for _ in 0..3 {
            assert_eq!(take(&rates, &[1], 5_000), Ok(()));
        }
        assert_eq!(take(&rates, &[1], 5_000), Err((0, Some(100))));
        assert_eq!(take(&rates, &[1], 5_099), Err((0, Some(1))), "asking costs nothing");
        assert_eq!(take(&rates, &[2], 5_000), Ok(()), "another org has its own");
        assert_eq!(take(&rates, &[1], 5_100), Ok(()));
        assert_eq!(take(&rates, &[1], 5_199), Err((0, Some(1))));
        // A silence gives back one burst, not more.
        for n in 0..4 {
            assert_eq!(take(&rates, &[1], 100_000).is_ok(), n < 3);
        }
    }

    #[test]
    fn a_batch_is_taken_whole_or_not() {
        let rates = rates(1, 2);
        assert_eq!(take(&rates, &[1, 2, 1, 2, 3, 2], 0), Err((5, None)), "three are never allowed");
        assert_eq!(take(&rates, &[1, 2, 1, 2], 0), Ok(()), "nothing was taken before");
        assert_eq!(take(&rates, &[3, 1], 0), Err((1, Some(1_000))));
    }

    #[test]
    fn the_number_of_remembered_orgs_is_bounded() {
        let rates = rates(1, 10);
        // One that goes on and on is not forgotten for others that published once.
        (0..10).for_each(|_| assert_eq!(take(&rates, &[0], 0), Ok(())));
        let mut most = 0;
        for n in 1..=200_000 {
            assert_eq!(take(&rates, &[n], 0), Ok(()));
            most = most.max(rates.buckets.lock().full_at.len());
        }
        assert!(most <= ORGS_MAX, "{most}");
        assert!(most > ORGS_MAX / 2, "{most}");
        assert_eq!(take(&rates, &[0], 0), Err((0, Some(1_000))));
        // Those that are forgiven go with the next few that come, and their memory too.
        (0..100_000).for_each(|n| _ = take(&rates, &[n], 3_600_000 + n as u64 * 10_000));
        let buckets = rates.buckets.lock();
        assert!(buckets.full_at.capacity() <= 8 * ORGS_MIN, "{}", buckets.full_at.capacity());
    }
}
