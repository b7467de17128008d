//! The verdicts of `cargo bench --bench soak`: whether memory rises, and whether a subscriber received every event.
//! The series and events of these tests are synthetic.

#[path = "../../benches/soak/checker.rs"]
mod checker;
#[path = "../../benches/soak/trend.rs"]
mod trend;

use checker::{Checker, NEVER, Received, key};
use nudged::wire::Event;
use trend::{BLOCKS, Limits, Trend, Verdict};

/// Seconds of the second half of a short run and of a usual one.
const SHORT: usize = 45;
const LONG: usize = 900;
/// Streams that end per second.
const ENDED: f64 = 200.0;

/// A line from 2 MB with this slope, plus noise. Each measurement keeps the fraction `keeps` of the deviation of the
/// one before.
fn series(seconds: usize, slope: f64, noise: f64, keeps: f64, seed: u64) -> Vec<(f64, f64)> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut deviation = 0.0;
    let points = (0..seconds).map(|second| {
        let drawn = random.f64() - 0.5;
        deviation = keeps * deviation + 2.0 * noise * drawn;
        (second as f64, 2e6 + slope * second as f64 + deviation)
    });
    points.collect()
}

fn limits(seconds: usize) -> Limits {
    Limits::of(ENDED, seconds as f64)
}

fn verdict(points: &[(f64, f64)]) -> Verdict {
    Trend::of(points).expect("enough of them").verdict(limits(points.len()))
}

/// How many of 200 series get this verdict.
fn count(verdict_is: Verdict, one: impl Fn(u64) -> Vec<(f64, f64)>) -> usize {
    (0..200).filter(|seed| verdict(&one(*seed)) == verdict_is).count()
}

#[test]
fn noise_is_judged_flat() {
    let flat = count(Verdict::Flat, |seed| series(SHORT, 0.0, 20e3, 0.0, seed));
    assert!(flat >= 195, "{flat} of 200");
}

/// Correlation between successive measurements is no slope.
#[test]
fn correlated_noise_is_not_judged_rising() {
    let rises = count(Verdict::Rises, |seed| series(SHORT, 0.0, 20e3, 0.7, seed));
    assert!(rises <= 10, "{rises} of 200");
    let rises = count(Verdict::Rises, |seed| series(LONG, 0.0, 20e3, 0.9, seed));
    assert!(rises <= 10, "{rises} of 200");
}

#[test]
fn a_leak_of_the_size_to_detect_is_judged_rising() {
    let rises = count(Verdict::Rises, |seed| series(SHORT, limits(SHORT).detect, 20e3, 0.5, seed));
    assert_eq!(rises, 200);
}

/// The smallest block that glibc allocates, leaked by every third stream.
#[test]
fn a_small_leak_is_found_in_a_long_series() {
    let slope = 32.0 / 3.0 * ENDED;
    let rises = count(Verdict::Rises, |seed| series(LONG, slope, 20e3, 0.5, seed));
    assert_eq!(rises, 200);
}

#[test]
fn a_falling_series_is_judged_flat() {
    assert_eq!(verdict(&series(SHORT, -limits(SHORT).detect, 1e3, 0.0, 1)), Verdict::Flat);
}

#[test]
fn a_tolerated_slope_is_not_judged_rising() {
    assert_eq!(verdict(&series(SHORT, limits(SHORT).tolerance * 0.9, 0.0, 0.0, 1)), Verdict::Flat);
}

/// A series that could hide a leak proves nothing.
#[test]
fn too_much_noise_is_not_judged_flat() {
    let flat = count(Verdict::Flat, |seed| series(SHORT, 0.0, 2e6, 0.0, seed));
    assert_eq!(flat, 0);
}

/// Two measurements per block, and blocks that deviate from a line by ±1.
#[test]
fn slope_and_interval_agree_with_a_calculation_by_hand() {
    let zigzag = |n: usize| if (n / 2).is_multiple_of(2) { 1.0 } else { -1.0 };
    let points = (0..2 * BLOCKS).map(|n| (n as f64, 3.0 * n as f64 + zigzag(n)));
    let trend = Trend::of(&points.collect::<Vec<_>>()).expect("enough of them");
    // Σ(x−x̄)² = 4·143 = 572 and Σ(x−x̄)·z = −12, so that b = 3 − 12/572; the squared residuals sum
    // to 12 − 144/572; the residuals alternate, which does not widen the interval.
    assert!((trend.slope - (3.0 - 12.0 / 572.0)).abs() < 1e-9, "{trend:?}");
    let error = ((12.0 - 144.0 / 572.0) / 10.0 / 572.0_f64).sqrt();
    assert!((trend.half_width - 2.228 * error).abs() < 1e-9, "{trend:?}");
    assert!((trend.at(11.5) - 34.5).abs() < 1e-9, "{trend:?}");
    assert!((trend.smallest_found(1.0) - (1.0 + 2.0 * trend.half_width)).abs() < 1e-9);
}

#[test]
fn a_short_series_has_no_trend() {
    assert!(Trend::of(&series(2 * BLOCKS - 1, 0.0, 1.0, 0.0, 1)).is_none());
}

fn event(name: &str, seq: u64, numbers: &[u64]) -> Event {
    let keys: Vec<_> = numbers.iter().map(|number| key(*number)).collect();
    with_keys(name, seq, &keys)
}

fn with_keys(name: &str, seq: u64, keys: &[String]) -> Event {
    let data = serde_json::json!({ "keys": keys }).to_string();
    let data = if name == "invalidate" { data } else { "{}".into() };
    Event { name: name.into(), data, id: format!("00000000000000ab-{seq}") }
}

/// A checker that has received number 7 in event 3.
fn checker() -> Checker {
    let mut checker = Checker::default();
    assert!(!checker.is_greeted());
    assert_eq!(checker.check(&event("connected", 2, &[])), Ok(Received::Connected));
    assert!(checker.is_greeted() && !checker.is_at(7));
    assert_eq!(checker.check(&event("invalidate", 3, &[6, 7])), Ok(Received::Invalidate));
    assert!(checker.is_at(7));
    checker
}

#[test]
fn a_checker_accepts_events_that_keep_the_promise() {
    let mut checker = checker();
    assert_eq!(checker.check(&event("invalidate", 4, &[8, 9, 10])), Ok(Received::Invalidate));
    checker.disconnect();
    assert!(!checker.is_at(10), "not connected");
    assert_eq!(checker.check(&event("resumed", 4, &[])), Ok(Received::Resumed));
    assert_eq!(checker.check(&event("invalidate", 5, &[11])), Ok(Received::Invalidate));
    assert_eq!(checker.check(&event("connected", 9, &[])), Ok(Received::Reread));
    assert_eq!(checker.check(&event("invalidate", 10, &[40])), Ok(Received::Invalidate));
}

#[test]
fn a_checker_refuses_events_that_break_the_promise() {
    let never = with_keys("invalidate", 4, &[NEVER.to_owned()]);
    let other_epoch = Event { id: "00000000000000ac-4".into(), ..event("invalidate", 4, &[8]) };
    for (what, event) in [
        ("a gap of ids", event("invalidate", 5, &[8])),
        ("a repeat", event("invalidate", 3, &[7])),
        ("a lost number", event("invalidate", 4, &[9])),
        ("a lost number within an event", event("invalidate", 4, &[8, 10])),
        ("numbers out of order", event("invalidate", 4, &[9, 8])),
        ("a publish that was cut off", never),
        ("another epoch", other_epoch),
        ("a greeting without a reconnect", event("resumed", 3, &[])),
        ("an earlier id", event("connected", 2, &[])),
        ("no known event", event("message", 4, &[8])),
    ] {
        assert!(checker().check(&event).is_err(), "{what}");
    }
    let mut reconnected = checker();
    reconnected.disconnect();
    assert!(reconnected.check(&event("invalidate", 4, &[8])).is_err(), "no greeting");
    reconnected = checker();
    reconnected.disconnect();
    assert!(reconnected.check(&event("resumed", 2, &[])).is_err(), "resumed from elsewhere");
}
