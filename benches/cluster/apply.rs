//! What a server does with the log, in the hub alone: applying lines while 100,000 channels are held, resuming from the
//! tail, and taking everything for unknown.

use std::time::Duration;

use bytes::Bytes;
use nudged::bench::Cost;
use nudged::config::HubConfig;
use nudged::hub::{Hub, View};
use nudged::ids::{Mark, OrgName};
use nudged::stream::{Clock, EventStream};

use super::direct::runtime;
use super::figures::{Samples, Section, Target};
use super::{Outcome, Plan};
use crate::shared::process::now;

/// A hub with one stream of each of many orgs, and a tail that is full.
struct Held {
    hub: Hub,
    clock: Clock,
    streams: Vec<EventStream>,
    position: u64,
}

/// Orgs with a channel, and as many without one that the log has lines of too.
const CHANNELS: usize = 100_000;
const TAIL: usize = 64 << 20;
/// Lines of a record: alone, as a few publishes are collected, and as a batch.
const SIZES: [usize; 3] = [1, 20, 1_000];
/// Lines that are timed, in groups.
const LINES: usize = 200_000;
const GROUPS: usize = 20;
const TARGET_US: f64 = 1.5;

pub(crate) fn run(plan: &Plan) -> Outcome<Section> {
    let channels = if plan.short { CHANNELS / 10 } else { CHANNELS };
    let mut section = Section::new(
        "apply",
        format!(
            "In this process, on one thread: a hub with {channels} streams, each of an org of its own, and a full tail of \
             {} MiB. Lines of about 75 bytes of {channels} other orgs, which have no channel; medians of {GROUPS} \
             groups.",
            TAIL >> 20
        ),
    );
    let runtime = runtime()?;
    let _guard = runtime.enter();
    let before = Cost::of(&[std::process::id()])?.pss;
    let mut held = Held::new(channels);
    let opened = Cost::of(&[std::process::id()])?.pss;
    let lines = held.fill(20, "nobody");
    let filled = Cost::of(&[std::process::id()])?.pss;
    let each = |bytes: u64, count: usize| bytes as f64 / count as f64;
    section.add("a stream and its channel (PSS)", each(opened - before, channels), "B");
    section.add("a line of the tail (PSS)", each(filled.saturating_sub(opened), lines), "B");
    section.add(
        "a line of the tail, as it is counted",
        held.hub.tail().bytes as f64 / lines as f64,
        "B",
    );
    for size in SIZES {
        let took = held.time(size, "nobody");
        let name = format!("a line of a record of {size}, no channel");
        section.add_with(name, took, "µs", Target::AtMost(TARGET_US));
    }
    let took = held.time(20, "held");
    section.add("a line of a record of 20, a channel with one stream", took, "µs");
    section.add("a stream resumes, of an org without a channel", held.resume(), "µs");
    let start = now();
    let cut = held.hub.cut(Mark { tag: 1, position: held.position }, held.clock.now());
    section.add(
        format!("a cut of {cut} streams and channels"),
        start.elapsed().as_secs_f64() * 1e3,
        "ms",
    );
    drop(held.streams);
    Ok(section)
}

// ===== impl Held =====

impl Held {
    fn new(channels: usize) -> Self {
        let config = HubConfig { coalesce: Duration::ZERO, ..HubConfig::default() };
        let hub = Hub::with_log(config, 1, TAIL, Duration::from_secs(5));
        let clock = Clock::start();
        hub.begin_log(1);
        let open = |number| {
            let org = name("held", number);
            EventStream::open(&hub, &org, View::Member, None, clock.now()).expect("not closing")
        };
        let streams = (0..channels).map(open).collect();
        Self { hub, clock, streams, position: 0 }
    }

    /// Applies records until the oldest ones leave the tail. Returns its lines.
    fn fill(&mut self, size: usize, prefix: &str) -> usize {
        let (mut applied, mut number) = (0, 0);
        while self.hub.tail().records as u64 == self.position {
            applied += self.apply(record(prefix, &mut number, size, self.streams.len()));
        }
        debug_assert!(applied > 0, "a record is in the tail");
        self.hub.tail().records * size
    }

    fn apply(&mut self, record: Bytes) -> usize {
        self.position += 1;
        let mark = Mark { tag: fastrand::u64(1..), position: self.position };
        self.hub.apply(mark, &record, self.clock.now()).lines
    }

    /// Microseconds of a line.
    fn time(&mut self, size: usize, prefix: &str) -> f64 {
        let (mut samples, mut number) = (Samples::default(), fastrand::usize(..CHANNELS));
        let records = (LINES / GROUPS).div_ceil(size);
        for _ in 0..GROUPS {
            let group: Vec<_> = (0..records)
                .map(|_| record(prefix, &mut number, size, self.streams.len()))
                .collect();
            let start = now();
            for record in group {
                self.apply(record);
            }
            samples.add(start.elapsed().as_secs_f64() * 1e6 / (records * size) as f64);
        }
        samples.quantile(0.5)
    }

    /// Microseconds of a stream that opens with the id of the record before the newest one, of an org that has lines in
    /// the tail and no channel yet.
    fn resume(&mut self) -> f64 {
        let count = self.streams.len();
        let mark = self.hub.applied().expect("the tail is full");
        let mut number = 0;
        self.apply(record("nobody", &mut number, count, count));
        let mut samples = Samples::default();
        let mut streams = Vec::new();
        for number in 0..count.min(10_000) {
            let org = name("nobody", number);
            let id = Hub::member_id(&org, mark).to_string();
            let start = now();
            let time = self.clock.now();
            let open = EventStream::open(&self.hub, &org, View::Member, Some(&id), time);
            streams.push(open.expect("not closing"));
            samples.add(start.elapsed().as_secs_f64() * 1e6);
        }
        samples.quantile(0.5)
    }
}

/// A record of the next lines.
fn record(prefix: &str, number: &mut usize, size: usize, orgs: usize) -> Bytes {
    let mut text = String::new();
    for _ in 0..size {
        // Steps, so that neighbours in the log are none in memory.
        *number = (*number + 7_919) % orgs;
        let org = name(prefix, *number);
        let feed = *number % 1_000;
        text += &format!("{{\"org\":\"{org}\",\"keys\":[\"posts\",\"feed:{feed}\",\"users\"]}}\n");
    }
    text.into()
}

fn name(prefix: &str, number: usize) -> OrgName {
    format!("{prefix}-{number:09}").parse().expect("a name")
}
