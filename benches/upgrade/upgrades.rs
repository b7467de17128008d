//! Upgrades in a row, while events flow and clients connect.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::clients::{Clients, Kind};
use crate::figures::{Samples, Section, Target};
use crate::memory::{Memory, cpu};
use crate::server::Server;
use crate::shared::traffic::{Probed, Prober, Published, Publisher};
use crate::{Outcome, Plan};

/// What was measured of each upgrade.
#[derive(Default)]
struct Measured {
    stopped: Samples,
    took: Samples,
    until_end: Samples,
    cpu: Samples,
    gap: Samples,
    latency: Samples,
    /// Memory of the new process, against that of the old one before.
    rss: Samples,
    pss: Samples,
    anonymous: Samples,
    /// Upgrades that failed, and were repeated.
    failed: u32,
    /// In MiB.
    rss_before: Samples,
    rss_after: Samples,
}

const SETTINGS: [&str; 6] = ["--workers", "2", "--drain-delay", "0", "--log", "info"];
/// Of a burst to each organisation.
const PUBLISHES: Duration = Duration::from_secs(1);
const CONNECTS: Duration = Duration::from_millis(2);
const FAILED_MAX: u32 = 20;
/// Before the first upgrade, and after each.
const REST: Duration = Duration::from_secs(3);

pub(crate) fn run(plan: &Plan) -> Outcome<Section> {
    let (streams, orgs) = (plan.streams, plan.orgs.len());
    let mut section = Section::new(
        "upgrade",
        format!(
            "{streams} streams of {orgs} organisations, in a process of their own, which check every byte; three publishes \
             a second to each organisation, of which the last two fall into the coalescing window of the first; a client \
             that connects, sends a request and reads the response, again and again. {} upgrades in a row (SIGUSR2), with \
             {} s between two. Medians of all upgrades. Clients and server share this machine's cores.",
            plan.upgrades,
            REST.as_secs()
        ),
    );
    let mut server = Server::start("127.0.0.1:0", &SETTINGS)?;
    let (mut clients, _) = Clients::start(Kind::Crowd, server.address, streams, &plan.orgs)?;
    let publisher = Publisher::start(server.address, 0, plan.orgs.clone(), PUBLISHES);
    let prober = Prober::start(server.address, CONNECTS);
    thread::sleep(REST);
    clients.tally()?;
    let used = cpu(server.pid)?;
    thread::sleep(REST);
    let used = (cpu(server.pid)? - used).as_secs_f64() / REST.as_secs_f64();
    let quiet = clients.tally()?;
    let mut measured = Measured::default();
    for number in 1..=plan.upgrades {
        eprintln!("upgrade {number}");
        measured.upgrade(&mut server, &mut clients)?;
    }
    let (published, probed) = (publisher.stop(), prober.stop());
    let seen = clients.finish(&published.accepted)?;
    measured.report(&mut section, &quiet, used);
    report_clients(&mut section, streams, &seen);
    report_traffic(&mut section, &published, &probed);
    Ok(section)
}

fn report_clients(section: &mut Section, streams: usize, seen: &Value) {
    let count = |name: &str| seen[name].as_u64().unwrap_or(u64::MAX);
    section.add("events received", count("events") as f64, "");
    section.expect_none("streams that ended", count("ends"));
    section.expect_none("greetings but the first", count("connected").abs_diff(streams as u64));
    section.expect_none("`resumed`", count("resumed"));
    section.expect_none("events lost, by their ids", count("lost"));
    section.expect_none("publishes lost", count("missing"));
    section.expect_none("events that not all streams have", count("behind"));
    section.expect_none("events doubled", count("doubled"));
    section.expect_none("other faults of the bytes", count("wrong"));
    for fault in seen["faults"].as_array().into_iter().flatten() {
        section.faults.push(fault.to_string());
    }
}

fn report_traffic(section: &mut Section, published: &Published, probed: &Probed) {
    let accepted: usize = published.accepted.iter().map(Vec::len).sum();
    section.add("publishes accepted", accepted as f64, "");
    section.expect_none("publishes failed", published.failed);
    section.add("connections of the publisher closed in good order", published.closed as f64, "");
    section.add("the longest publish", ms(published.longest), "ms");
    section.add("connects answered", probed.answered as f64, "");
    section.expect_none("connects refused", probed.refused);
    section.expect_none("requests of these without a response", probed.failed);
    section.add("the longest connect with its request", ms(probed.longest), "ms");
    let why = [&published.failure, &probed.failure];
    section.faults.extend(why.into_iter().flatten().cloned());
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

// ===== impl Measured =====

impl Measured {
    fn upgrade(&mut self, server: &mut Server, clients: &mut Clients) -> Outcome<()> {
        let before = Memory::of(server.pid)?;
        clients.tally()?;
        let done = loop {
            match server.upgrade()? {
                Some(done) => break done,
                None if self.failed < FAILED_MAX => self.failed += 1,
                None => return Err("the upgrades fail".into()),
            }
        };
        thread::sleep(REST);
        let seen = clients.tally()?;
        let after = Memory::of(server.pid)?;
        self.stopped.add(ms(done.stopped));
        self.took.add(ms(done.took));
        self.until_end.add(ms(done.until_end));
        self.cpu.add(ms(done.cpu));
        self.gap.add(seen["gap_ms"].as_f64().unwrap_or(f64::NAN));
        self.latency.add(seen["latency_ms"].as_f64().unwrap_or(f64::NAN));
        self.rss.add(after.rss / before.rss);
        self.pss.add(after.pss / before.pss);
        self.anonymous.add(after.anonymous / before.anonymous);
        self.rss_before.add(before.rss);
        self.rss_after.add(after.rss);
        eprintln!("  stopped for {} ms; {seen}", done.stopped.as_millis());
        Ok(())
    }

    fn report(&self, section: &mut Section, quiet: &Value, used: f64) {
        let value = |name: &str| quiet[name].as_f64().unwrap_or(f64::NAN);
        let median = |samples: &Samples| samples.quantile(0.5);
        section.add_with(
            "all streams stopped for",
            median(&self.stopped),
            "ms",
            Target::AtMost(50.0),
        );
        section.add("… the longest", self.stopped.quantile(1.0), "ms");
        section.add("upgrades that failed and were repeated", f64::from(self.failed), "");
        section.add("from the signal until the new process serves", median(&self.took), "ms");
        section.add(
            "from the signal until the old process has ended",
            median(&self.until_end),
            "ms",
        );
        section.add("processor time of both meanwhile", median(&self.cpu), "ms");
        section.add("processor time a second without an upgrade", used * 1e3, "ms");
        section.add("the longest from a publish to an arrival", median(&self.latency), "ms");
        section.add("… of all upgrades", self.latency.quantile(1.0), "ms");
        section.add("… without an upgrade", value("latency_ms"), "ms");
        section.add("the longest between two reads of a stream", median(&self.gap), "ms");
        section.add("… of all upgrades", self.gap.quantile(1.0), "ms");
        section.add("… without an upgrade", value("gap_ms"), "ms");
        let target = Target::AtMost(1.1);
        section.add_with("resident memory, new against old", median(&self.rss), "×", target);
        section.add_with("… PSS", median(&self.pss), "×", target);
        section.add_with("… anonymous", median(&self.anonymous), "×", target);
        section.add(
            "resident memory of the first process",
            self.rss_before.iter().next().unwrap_or(f64::NAN),
            "MiB",
        );
        section.add(
            "resident memory of the last one",
            self.rss_after.iter().last().unwrap_or(f64::NAN),
            "MiB",
        );
    }
}
