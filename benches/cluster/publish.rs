//! Publishes acknowledged a second, in NDJSON bodies of 100 lines, on several connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::figures::{Section, Target};
use super::node::{Log, Node};
use super::servers::{Broker, about};
use super::{Outcome, Plan};
use crate::shared::http::{Connection, NDJSON, post};
use crate::shared::process::now;

/// Lines of a body.
const LINES: u64 = 100;
/// Orgs that are published to.
const ORGS: u64 = 1_000;
/// Bodies that take turns, so that not every one has the same orgs.
const BODIES: usize = 16;
const CONNECTIONS: [usize; 3] = [8, 32, 64];
const TARGET: f64 = 200_000.0;
const WARM: Duration = Duration::from_secs(1);

/// What was acknowledged in a time, and what it cost.
struct Rate {
    lines: f64,
    node_us: f64,
    broker_us: f64,
}

pub(crate) fn run(plan: &Plan) -> Outcome<Section> {
    let duration = Duration::from_secs(if plan.short { 2 } else { 5 });
    let mut section = Section::new(
        "publish",
        format!(
            "Bodies of {LINES} lines (a record of about 55 bytes each, two keys, of {ORGS} orgs without streams), \
             each connection one after the other, for {} s after {} s; one worker. The generator, the server and the \
             broker share this machine's cores.",
            duration.as_secs(),
            WARM.as_secs()
        ),
    );
    for connections in CONNECTIONS {
        let node = Node::start(None, &SETTINGS)?;
        let rate = measure(&node, None, connections, duration)?;
        let name = format!("a server alone, {connections} connections");
        section.add(format!("{name}: lines acknowledged"), rate.lines, "/s");
        section.add(format!("{name}: its CPU"), rate.node_us, "µs a line");
    }
    if !plan.with_log {
        return Ok(section);
    }
    section.about += &format!(" {}.", about(&plan.brokers)?);
    for kind in &plan.brokers {
        with_log(&mut section, &kind.start()?, duration)?;
    }
    Ok(section)
}

fn with_log(section: &mut Section, broker: &Broker, duration: Duration) -> Outcome<()> {
    for connections in CONNECTIONS {
        let log = format!("publish-{connections}");
        let log = Log { broker, name: &log, linger: "5ms" };
        let node = Node::start(Some(log), &SETTINGS)?;
        let rate = measure(&node, Some(broker), connections, duration)?;
        let name = format!("{}, linger 5 ms, {connections} connections", broker.name());
        let what = format!("{name}: lines acknowledged");
        match CONNECTIONS.last() == Some(&connections) {
            true => section.add_with(what, rate.lines, "/s", Target::AtLeast(TARGET)),
            false => section.add(what, rate.lines, "/s"),
        }
        section.add(format!("{name}: the server's CPU"), rate.node_us, "µs a line");
        section.add(format!("{name}: the broker's CPU"), rate.broker_us, "µs a line");
        let records = node.metric("nudged_backplane_records_total")?;
        let lines = node.metric("nudged_backplane_lines_total")?;
        section.add(format!("{name}: lines of a record"), lines / records, "");
    }
    Ok(())
}

const SETTINGS: [&str; 2] = ["--workers", "1"];

fn measure(
    node: &Node,
    broker: Option<&Broker>,
    connections: usize,
    duration: Duration,
) -> Outcome<Rate> {
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let bodies: Arc<[String]> = (0..BODIES).map(|_| request()).collect();
    let publishers: Vec<_> = (0..connections)
        .map(|number| {
            let mut connection = Connection::open(node.address)?;
            let (stop, count, bodies) =
                (Arc::clone(&stop), Arc::clone(&count), Arc::clone(&bodies));
            Ok(thread::spawn(move || -> std::io::Result<()> {
                for body in bodies.iter().cycle().skip(number % BODIES) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    connection.exchange(body, 202)?;
                    count.fetch_add(LINES, Ordering::Relaxed);
                }
                Ok(())
            }))
        })
        .collect::<std::io::Result<_>>()?;
    thread::sleep(WARM);
    let used = || broker.map_or(Ok(Duration::ZERO), Broker::cpu);
    let before = (node.cost()?.cpu, used()?, count.load(Ordering::Relaxed));
    let start = now();
    thread::sleep(duration);
    let seconds = start.elapsed().as_secs_f64();
    let after = (node.cost()?.cpu, used()?, count.load(Ordering::Relaxed));
    stop.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.join().expect("a publisher does not panic")?;
    }
    let lines = (after.2 - before.2) as f64;
    let each = |after: Duration, before: Duration| (after - before).as_secs_f64() * 1e6 / lines;
    Ok(Rate {
        lines: lines / seconds,
        node_us: each(after.0, before.0),
        broker_us: each(after.1, before.1),
    })
}

fn request() -> String {
    let line = |_| {
        let (org, feed) = (fastrand::u64(..ORGS), fastrand::u64(..100));
        format!("{{\"org\":\"org-{org}\",\"keys\":[\"posts\",\"feed:{feed}\"]}}\n")
    };
    post("/api/events", NDJSON, "", &(0..LINES).map(line).collect::<String>())
}
