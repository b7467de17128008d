//! The numbers of the last minute, and what follows from two of them: rates, shares, quantiles.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::exposition::Exposition;

/// What a server has shown in the last minute, since its start.
#[derive(Debug, Default)]
pub(super) struct History {
    last: Option<Scrape>,
    previous: Option<Scrape>,
    /// Of the last minute, the oldest first: some of them if the interval is short, at least two if it is long.
    minute: VecDeque<Scrape>,
}

/// The numbers at one time.
type Scrape = (Instant, Exposition);

/// The span of what is said of the last minute.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// Between two that are kept; so there are no more than 64.
const APART: Duration = Duration::from_millis(950);

/// A server that has restarted has another one.
const STARTED: &str = "process_start_time_seconds";

// ===== impl History =====

impl History {
    pub(super) fn push(&mut self, now: Instant, numbers: Exposition) {
        if self.last().is_some_and(|last| has_restarted(last, &numbers)) {
            *self = Self::default();
        }
        let newest = self.minute.back();
        if newest.is_none_or(|(newest, _)| now.duration_since(*newest) >= APART) {
            self.minute.push_back((now, numbers.clone()));
        }
        let is_old = |(then, _): &Scrape| now.duration_since(*then) > MINUTE;
        while self.minute.len() > 2 && self.minute.front().is_some_and(is_old) {
            self.minute.pop_front();
        }
        self.previous = self.last.replace((now, numbers));
    }

    pub(super) fn last(&self) -> Option<&Exposition> {
        self.last.as_ref().map(|(_, numbers)| numbers)
    }

    /// The newest value.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.last()?.sum(name)
    }

    /// By how much a counter grows a second, between the newest two.
    pub(super) fn rate(&self, name: &str) -> Option<f64> {
        let ((then, old), (now, new)) = (self.previous.as_ref()?, self.last.as_ref()?);
        let seconds = now.duration_since(*then).as_secs_f64();
        let grown = new.sum(name)? - old.sum(name).unwrap_or_default();
        (seconds > 0.0).then_some(grown / seconds)
    }

    /// By how much a series has grown in the last minute.
    pub(super) fn growth(&self, name: &str, label: &str, value: &str) -> f64 {
        let (Some((_, old)), Some(new)) = (self.minute.front(), self.last()) else { return 0.0 };
        let at = |numbers: &Exposition| numbers.at(name, label, value).unwrap_or_default();
        at(new) - at(old)
    }

    /// The series of a counter that have grown in the last minute, and by how much, the most first.
    pub(super) fn grown<'a>(&'a self, name: &'a str, label: &'a str) -> Vec<(&'a str, f64)> {
        let series = self.last().into_iter().flat_map(|last| last.by(name, label));
        let mut grown: Vec<_> =
            series.map(|(value, _)| (value, self.growth(name, label, value))).collect();
        grown.retain(|(_, growth)| *growth > 0.0);
        grown.sort_by(|one, other| other.1.total_cmp(&one.1));
        grown
    }

    /// The quantile of a histogram over the last minute, by linear interpolation within a bucket, as Prometheus does;
    /// `None` if nothing was observed.
    pub(super) fn quantile(&self, name: &str, quantile: f64) -> Option<f64> {
        let name = format!("{name}_bucket");
        let mut buckets: Vec<(f64, f64)> = self
            .last()?
            .by(&name, "le")
            .filter_map(|(le, _)| Some((le.parse::<f64>().ok()?, self.growth(&name, "le", le))))
            .filter(|(le, _)| !le.is_nan())
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (_, total) = *buckets.last()?;
        let rank = quantile * total;
        let at = buckets.iter().position(|(_, count)| *count >= rank && total > 0.0)?;
        let (lower, before) = at.checked_sub(1).map_or((0.0, 0.0), |before| buckets[before]);
        let (upper, count) = buckets[at];
        if upper.is_infinite() {
            return Some(lower);
        }
        let share = if count > before { (rank - before) / (count - before) } else { 1.0 };
        Some(lower + (upper - lower) * share)
    }

    /// How much of a minute there is.
    pub(super) fn span(&self) -> Duration {
        let ends = self.minute.front().zip(self.last.as_ref());
        ends.map_or(Duration::ZERO, |((first, _), (last, _))| last.duration_since(*first))
    }
}

/// Whether a counter is less than before, or the process another one: then no difference means anything.
fn has_restarted(old: &Exposition, new: &Exposition) -> bool {
    let is_less = |name: &str| match (old.sum(name), new.sum(name)) {
        (Some(old), Some(new)) => new < old,
        _ => false,
    };
    let is_counter = |name: &&str| name.ends_with("_total") || name.ends_with("_bucket");
    old.sum(STARTED) != new.sum(STARTED) || old.names().filter(is_counter).any(is_less)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Exposition {
        Exposition::parse(text, |_| true)
    }

    /// A history with these texts, each a second after the one before.
    fn history(texts: &[&str]) -> History {
        let (mut history, start) = (History::default(), Instant::now());
        for (second, text) in (0..).zip(texts) {
            history.push(start + Duration::from_secs(second), numbers(text));
        }
        history
    }

    #[test]
    fn a_rate_is_between_the_newest_two() {
        let texts = ["a_total 1", "a_total 5", "a_total 8"];
        for (count, rate) in [(0, None), (1, None), (2, Some(4.0)), (3, Some(3.0))] {
            assert_eq!(history(&texts[..count]).rate("a_total"), rate, "{count}");
        }
        assert_eq!(history(&texts).rate("b_total"), None);
    }

    /// SCENARIO: the server restarts between two scrapes, as with every deploy.
    /// BUG: a rate was negative, or that of another process.
    /// FIX: a counter that is less than before, or another start, begins a new history.
    #[test]
    fn a_server_that_has_restarted_has_no_negative_rate() {
        for texts in [
            ["a_total 100\nb_total 1", "a_total 3\nb_total 5"],
            ["process_start_time_seconds 1\na_total 1", "process_start_time_seconds 2\na_total 9"],
            ["a_bucket{le=\"1\"} 4", "a_bucket{le=\"1\"} 3\na_total 0"],
        ] {
            let both = history(&texts);
            for name in ["a_total", "b_total"] {
                assert_eq!(both.rate(name), None, "{texts:?}");
            }
            assert_eq!(both.span(), Duration::ZERO);
            let after = history(&[texts[0], texts[1], &texts[1].replace("_total ", "_total 1")]);
            assert!(after.rate("a_total").is_some_and(|rate| rate >= 0.0), "{texts:?}");
        }
    }

    #[test]
    fn no_more_than_a_minute_is_kept_and_no_less_than_two_scrapes() {
        for (millis, count, span) in [(100, 2000, 60), (1000, 100, 60), (90_000, 5, 90)] {
            let (mut history, start) = (History::default(), Instant::now());
            for n in 0..count {
                let now = start + Duration::from_millis(millis * n);
                history.push(now, numbers(&format!("a_total{{b=\"c\"}} {n}")));
                assert!(history.minute.len() <= 64, "{}", history.minute.len());
            }
            assert!(history.span().as_secs().abs_diff(span) <= 1, "{millis}: {:?}", history.span());
            let growth = history.growth("a_total", "b", "c");
            assert!((growth - (span * 1000 / millis) as f64).abs() <= 10.0, "{millis}: {growth}");
        }
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let at = |counts: [u64; 4]| {
            let of = |(le, count): (&str, u64)| format!("t_bucket{{le=\"{le}\"}} {count}\n");
            ["0.01", "0.1", "1", "+Inf"].into_iter().zip(counts).map(of).collect::<String>()
        };
        for (counts, quantile, expected) in [
            ([10, 10, 10, 10], 0.5, Some(0.005)),
            ([0, 10, 10, 10], 0.5, Some(0.055)),
            ([0, 90, 100, 100], 0.99, Some(0.91)),
            ([0, 0, 0, 10], 0.5, Some(1.0)),
            ([0, 0, 0, 0], 0.5, None),
        ] {
            let (old, new) = (at([7; 4]), at(counts.map(|count| count + 7)));
            let found = history(&[&old, &new]).quantile("t", quantile);
            let is_near = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() < 1e-9,
                (found, expected) => found == expected,
            };
            assert!(is_near, "{counts:?}: {found:?}");
        }
        assert_eq!(history(&["t_bucket{le=\"x\"} 1", ""]).quantile("t", 0.5), None);
    }
}
