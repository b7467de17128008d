//! What an attack may do to the honest clients, and what it may leave behind.

use std::time::Duration;

use crate::run::{Phase, Remains};
use crate::stage::DRAIN_TIMEOUT;

/// A latency under attack may be this many times that of the quiet phase,
const FACTOR: f64 = 25.0;

/// and this much more. Deliveries get as much of a worker's time as requests, in turns, and a publish waits for its
/// turn among the requests; an unoptimized server takes several times as long for a turn.
const DELIVERY_MS: f64 = if cfg!(debug_assertions) { 2_500.0 } else { 500.0 };

/// The same for a probe, which in a burst of connects may have to send its SYN again, after a second.
const PROBE_MS: f64 = DELIVERY_MS + 1_000.0;

/// Probes of a public address that may not fail one after the other, as orchestrators count them: in a flood of
/// connects the server may have to close one before its request arrives.
const IN_A_ROW: u32 = 3;

/// What the server's allocator may keep of the attacks, in bytes: of each place that is not a subscriber's as much as
/// half a handshake takes, and of all attackers over HTTP/2 the responses that they did not read.
const KEPT_OF_A_PLACE: u64 = 24 << 10;
const KEPT: u64 = 32 << 20;

/// Descriptors that may come after the first count: the connection that reads the metrics, and that on which keys are
/// fetched.
const DESCRIPTORS: usize = 3;

/// One latency at its 99th percentile, in milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    pub(crate) name: &'static str,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    pub(crate) count: u64,
    /// What is always allowed, in milliseconds.
    floor: f64,
    /// What went wrong besides.
    pub(crate) failed: Option<String>,
    /// Whether that is more than may go wrong under attack.
    too_often: bool,
}

/// All latencies of a phase, deliveries first.
pub(crate) fn latencies(phase: &Phase) -> Vec<Latency> {
    let received = phase.received.iter().map(|group| {
        let [p50, p99, max] = group.latency.map_or([0.0; 3], |all| [all.p50, all.p99, all.max]);
        let count = group.latency.map_or(0, |all| all.count);
        let (failed, too_often) = (group.faults.clone(), group.faults.is_some());
        let (name, floor) = (group.name, DELIVERY_MS);
        Latency { name, p50, p99, max, count, floor, failed, too_often }
    });
    let probed = phase.probed.iter().map(|probes| {
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        let all = &probes.nanoseconds;
        let [p50, p99] = [0.5, 0.99].map(|quantile| ms(all.value_at_quantile(quantile)));
        let [failed, row] = [probes.failed, probes.in_a_row];
        let why = probes.why.as_ref();
        let failed = why.map(|why| format!("{failed} failed, {row} in a row; the first: {why}"));
        let too_often = row >= if probes.may_fail { IN_A_ROW } else { 1 };
        let (name, max, count) = (probes.name, ms(all.max()), all.len());
        Latency { name, p50, p99, max, count, floor: PROBE_MS, failed, too_often }
    });
    received.chain(probed).collect()
}

/// The most that the 99th percentile may be, in milliseconds.
pub(crate) fn bound(quiet: &Latency) -> f64 {
    quiet.p99 * FACTOR + quiet.floor
}

pub(crate) fn faults(quiet: &Phase, phase: &Phase) -> Vec<String> {
    let mut faults = Vec::new();
    for (quiet, now) in latencies(quiet).iter().zip(latencies(phase)) {
        let Latency { name, p99, failed, too_often, .. } = &now;
        let failed = failed.as_ref().filter(|_| *too_often || phase.attacks.is_empty());
        faults.extend(failed.map(|why| format!("{}: {name}: {why}", phase.name)));
        let bound = bound(quiet);
        if *p99 > bound {
            faults.push(format!("{}: {name}: p99 {p99:.1} ms, at most {bound:.1}", phase.name));
        }
        if now.count == 0 {
            faults.push(format!("{}: {name}: nothing arrived", phase.name));
        }
    }
    faults
}

/// What has become of the quiet latencies, and the memory, for a line of progress.
pub(crate) fn summary(quiet: &Phase, phase: &Phase) -> String {
    let all = latencies(quiet).into_iter().zip(latencies(phase));
    let all = all.map(|(quiet, now)| {
        let mark = if now.too_often || now.p99 > bound(&quiet) { " (!)" } else { "" };
        format!("{} {:.1}→{:.1} ms{mark}", now.name, quiet.p99, now.p99)
    });
    format!("{}, memory {} MiB", all.collect::<Vec<_>>().join(", "), phase.memory >> 20)
}

pub(crate) fn left(remains: &Remains) -> Vec<String> {
    let Remains { descriptors, seats, streams, connections, memory, places } = remains;
    let mut faults = Vec::new();
    for (count, what) in [(*seats, "seats"), (*streams, "streams"), (*connections, "connections")] {
        if count > 0 {
            faults.push(format!("{count} {what} remain"));
        }
    }
    if descriptors.1 > descriptors.0 + DESCRIPTORS {
        faults.push(format!("{} descriptors remain of {}", descriptors.1, descriptors.0));
    }
    if memory.1 > memory.0 + KEPT + KEPT_OF_A_PLACE * *places as u64 {
        faults.push(format!(
            "{} MiB remain, where all subscribers took {}",
            memory.1 >> 20,
            memory.0 >> 20
        ));
    }
    faults
}

pub(crate) fn drained((took, code): (Duration, Option<i32>)) -> Vec<String> {
    let mut faults = Vec::new();
    if code != Some(0) {
        faults.push(format!("the server ended with {code:?} on SIGTERM"));
    }
    if took >= DRAIN_TIMEOUT {
        faults.push(format!("clients held the drain for {took:?}, all of its time"));
    }
    faults
}
