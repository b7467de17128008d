//! The start of a server that has to load the log before it is ready, and the memory that it then has in use.

use std::time::Duration;

use bytes::Bytes;

use super::direct::{Direct, runtime};
use super::figures::{Section, Target};
use super::node::{Log, Node};
use super::servers::{Broker, about};
use super::{Outcome, Plan};
use crate::shared::process::now;

/// Bytes of memory for the tail, the default.
const TAIL: usize = 64 << 20;
/// The log has somewhat more than a tail can hold.
const FILL: usize = TAIL + TAIL / 8;
/// What is assumed of a record and a line beside its bytes, to know when a log is long enough.
const RECORD: usize = 130;
const LINE: usize = 30;
/// Orgs that the lines are of, in turn.
const ORGS: usize = 100_000;
/// Lines of a record.
const SIZES: [usize; 3] = [1, 20, 3_000];
const LIMIT: Duration = Duration::from_secs(30);
const TARGET_MS: f64 = 2_000.0;

pub(crate) fn run(plan: &Plan) -> Outcome<Section> {
    let mut section = Section::new(
        "load",
        format!(
            "A log that fills a tail of {} MiB, and a second server that starts: from the start of its process until \
             `/readyz` answers 200. Lines of about 75 bytes, of {ORGS} orgs. The first server runs on and has applied \
             the same. {}; what they write is in the page cache.",
            TAIL >> 20,
            about(&plan.brokers)?
        ),
    );
    for kind in &plan.brokers {
        load(&mut section, &kind.start()?, plan)?;
    }
    Ok(section)
}

fn load(section: &mut Section, broker: &Broker, plan: &Plan) -> Outcome<()> {
    let empty = Log { broker, name: "empty", linger: "5ms" };
    let _first = Node::start(Some(empty), &SETTINGS)?;
    let start = now();
    let second = Node::start(Some(empty), &SETTINGS)?;
    let name = format!("{}, an empty log: ready after", broker.name());
    section.add(name, start.elapsed().as_secs_f64() * 1e3, "ms");
    let base = second.cost()?.pss;
    drop(second);
    let sizes = if plan.short { &SIZES[1..2] } else { &SIZES[..] };
    for lines in sizes {
        measure(section, broker, *lines, base)?;
    }
    Ok(())
}

const SETTINGS: [&str; 2] = ["--workers", "1"];

fn measure(section: &mut Section, broker: &Broker, lines: usize, base: u64) -> Outcome<()> {
    let name = format!("load-{lines}");
    let log = Log { broker, name: &name, linger: "5ms" };
    // It makes the stream.
    let first = Node::start(Some(log), &SETTINGS)?;
    let runtime = runtime()?;
    let filled = runtime.block_on(async {
        let direct = Direct::open(broker, &name).await?;
        direct.append_all(records(lines), LIMIT).await
    })?;
    let before = broker.cpu()?;
    let start = now();
    let second = Node::start(Some(log), &SETTINGS)?;
    let ready = start.elapsed().as_secs_f64() * 1e3;
    let used = (broker.cpu()? - before).as_secs_f64() * 1e3;
    let cost = second.cost()?;
    let name = format!("{}, {filled} records of {lines} lines", broker.name());
    section.add_with(format!("{name}: ready after"), ready, "ms", Target::AtMost(TARGET_MS));
    section.add(format!("{name}: the server's CPU"), cost.cpu.as_secs_f64() * 1e3, "ms");
    section.add(format!("{name}: the broker's CPU"), used, "ms");
    let tail = second.metric("nudged_backplane_tail_bytes")?;
    let records = second.metric("nudged_backplane_tail_records")?;
    section.add(format!("{name}: the tail then"), tail / f64::from(1 << 20), "MiB");
    section.add(format!("{name}: records in it"), records, "");
    let held = records * lines as f64;
    section.add(format!("{name}: its bytes of a line"), tail / held, "B");
    let memory = cost.pss.saturating_sub(base) as f64;
    section.add(format!("{name}: memory of the process for a line (PSS)"), memory / held, "B");
    if tail < (TAIL / 2) as f64 {
        section.faults.push(format!("{name}: the tail is not full: {}", second.log()));
    }
    drop(first);
    Ok(())
}

/// Records of so many lines, until a tail is full.
fn records(lines: usize) -> impl Iterator<Item = Bytes> {
    let (mut bytes, mut number) = (0, 0);
    std::iter::from_fn(move || {
        if bytes > FILL {
            return None;
        }
        let mut record = String::new();
        for _ in 0..lines {
            number += 1;
            let org = format!("organisation-{}", number % ORGS);
            let line = format!(
                "{{\"org\":\"{org}\",\"keys\":[\"posts\",\"feed:{}\",\"users\"]}}\n",
                number % 10_000
            );
            record.push_str(&line);
        }
        bytes += record.len() + RECORD + lines * LINE;
        Some(Bytes::from(record))
    })
}
