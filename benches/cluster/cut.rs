//! Everything is to be re-read: how evenly the streams get `connected`, and what a publish to another org notices.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::figures::{Samples, Section, Target};
use super::latency::{Listener, numbered};
use super::node::{Log, Node};
use super::pages::Pages;
use super::{Outcome, Plan};
use crate::shared::http::Connection;
use crate::shared::process::{NUDGED, now};

/// What happened to the streams and to the neighbour.
struct Cut {
    /// Milliseconds from the command to each `connected`.
    arrivals: Samples,
    /// Streams with another number of `connected` than one.
    wrong: u64,
    /// The neighbour's latencies in milliseconds, before and meanwhile.
    quiet: Samples,
    busy: Samples,
}

/// Publishes to an org of its own, and takes the time until each arrives.
struct Neighbour {
    publisher: Connection,
    listener: Listener,
    number: u64,
}

const WINDOW: Duration = Duration::from_secs(5);
/// How long after the window the last stream may come.
const LATE: Duration = Duration::from_secs(5);
const TURN: Duration = Duration::from_millis(10);
/// Orgs of the streams.
const ORGS: usize = 150;
const GAP_MS: std::ops::Range<u64> = 2..12;
const ROUNDS: usize = 500;
const TENTHS: usize = 10;

pub(crate) fn run(plan: &Plan) -> Outcome<Section> {
    let streams = if plan.short { 3_000 } else { 15_000 };
    let mut section = Section::new(
        "cut",
        format!(
            "{streams} streams of {ORGS} orgs on one server of one worker, `--reread-window {}s`, and `nudged reread`, \
             with a log on a second server. *Other work*: publishes to an org of one stream, {} to {} ms apart, \
             from the publish to the arrival, without coalescing and linger. The generator shares this \
             machine's cores.",
            WINDOW.as_secs(),
            GAP_MS.start,
            GAP_MS.end
        ),
    );
    let node = Node::start(None, &SETTINGS)?;
    report(&mut section, "a server alone", &measure(&node, &node, streams)?);
    drop(node);
    if plan.with_log {
        let kind = plan.brokers[0];
        section.about += &format!(" {}.", kind.about()?);
        let broker = kind.start()?;
        let log = Log { broker: &broker, name: "cut", linger: "0ms" };
        let (node, other) =
            (Node::start(Some(log), &SETTINGS)?, Node::start(Some(log), &SETTINGS)?);
        report(&mut section, "a barrier in the log", &measure(&node, &other, streams)?);
    }
    Ok(section)
}

const SETTINGS: [&str; 6] = ["--workers", "1", "--coalesce", "0ms", "--reread-window", "5s"];

/// Opens the streams on `node`, and has everything re-read through `other`.
fn measure(node: &Node, other: &Node, streams: usize) -> Outcome<Cut> {
    let orgs = (0..ORGS).map(|n| format!("org-{n}")).collect();
    let mut pages = Pages::new(node.address, orgs)?;
    pages.open(streams, |_| {})?;
    let mut neighbour = Neighbour {
        publisher: Connection::open(node.address)?,
        listener: Listener::start(node, "neighbour")?,
        number: 0,
    };
    let mut quiet = Samples::default();
    for _ in 0..ROUNDS {
        quiet.add(neighbour.round()?);
    }
    let done = Arc::new(AtomicBool::new(false));
    let is_done = Arc::clone(&done);
    let probe = thread::spawn(move || {
        let mut busy = Samples::default();
        while !is_done.load(Ordering::Relaxed) {
            busy.add(neighbour.round().map_err(|why| why.to_string())?);
        }
        Ok::<_, String>(busy)
    });
    let start = now();
    let mut reread = Command::new(NUDGED);
    reread.args(["reread", "--retry-for", "0s", "--url", other.url()]).stdout(Stdio::null());
    let mut reread = reread.spawn()?;
    let arrivals = collect(&mut pages, streams, start);
    done.store(true, Ordering::Relaxed);
    let busy = probe.join().expect("the neighbour does not panic")?;
    let status = reread.wait()?;
    if !status.success() {
        return Err(format!("nudged reread: {status}\n{}", other.log()).into());
    }
    let (arrivals, wrong) = arrivals?;
    Ok(Cut { arrivals, wrong, quiet, busy })
}

/// Reads until the window is over and every stream has had a `connected`.
fn collect(pages: &mut Pages, streams: usize, start: Instant) -> Outcome<(Samples, u64)> {
    let (mut arrivals, mut counts) = (Samples::default(), vec![0_u32; streams]);
    while start.elapsed() < WINDOW || arrivals.len() < streams && start.elapsed() < WINDOW + LATE {
        pages.turn(TURN, |received| {
            if received.event.name == "connected" {
                counts[received.page] += 1;
                let after = received.at.saturating_duration_since(start);
                arrivals.add(after.as_secs_f64() * 1e3);
            }
        })?;
    }
    let wrong = counts.iter().filter(|count| **count != 1).count() as u64;
    Ok((arrivals, wrong))
}

fn report(section: &mut Section, name: &str, cut: &Cut) {
    let (first, last) = (cut.arrivals.quantile(0.0), cut.arrivals.quantile(1.0));
    section.add(format!("{name}: first `connected` after"), first, "ms");
    section.add(format!("{name}: last `connected` after"), last, "ms");
    let (fewest, most) = tenths(&cut.arrivals, first);
    let even = 100.0 / TENTHS as f64;
    let furthest = (most - even).max(even - fewest) / even * 100.0;
    section.add(format!("{name}: streams in the emptiest tenth of the window"), fewest, "%");
    section.add(format!("{name}: streams in the fullest tenth of the window"), most, "%");
    section.add_with(
        format!("{name}: that is off an even spread by"),
        furthest,
        "%",
        Target::AtMost(10.0),
    );
    section.expect_none(&format!("{name}: streams without exactly one `connected`"), cut.wrong);
    let quantiles = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)];
    for (which, share) in quantiles {
        section.add(format!("{name}: other work before, {which}"), cut.quiet.quantile(share), "ms");
        section.add(format!("{name}: … meanwhile, {which}"), cut.busy.quantile(share), "ms");
    }
    section.add_with(
        format!("{name}: other work is delayed, p99"),
        cut.busy.quantile(0.99) - cut.quiet.quantile(0.99),
        "ms",
        Target::AtMost(3.0),
    );
}

/// The smallest and the largest share of the streams in a tenth of the window, which begins with the first of them.
fn tenths(arrivals: &Samples, first: f64) -> (f64, f64) {
    let mut counts = [0_u32; TENTHS];
    let tenth = WINDOW.as_secs_f64() * 1e3 / TENTHS as f64;
    for arrival in arrivals.iter() {
        // What comes later than the window counts to its last tenth.
        counts[(((arrival - first) / tenth) as usize).min(TENTHS - 1)] += 1;
    }
    let share =
        |count: Option<&u32>| f64::from(*count.expect("not empty")) * 100.0 / arrivals.len() as f64;
    (share(counts.iter().min()), share(counts.iter().max()))
}

// ===== impl Neighbour =====

impl Neighbour {
    /// Milliseconds from one publish to its arrival, after a random pause.
    fn round(&mut self) -> Outcome<f64> {
        thread::sleep(Duration::from_millis(fastrand::u64(GAP_MS)));
        self.number += 1;
        let start = now();
        self.publisher.exchange(&numbered("neighbour", self.number), 202)?;
        let received = self.listener.wait_for(self.number)?;
        Ok(received.saturating_duration_since(start).as_secs_f64() * 1e3)
    }
}
