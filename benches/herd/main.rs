//! The herd: many pages with the browser client, and how often they re-read from their backend when a server is
//! restarted, or one key is published.
//!
//! ```text
//! cargo bench --features bench --bench herd                    2,000 pages, three runs, a quarter of an hour
//! cargo bench --features bench --bench herd -- --short         a look, no record
//! ```
//!
//! The pages are in processes of Node, with the client as it is served, `src/browser/nudged.js`; the backend is a
//! thread of this program. It fails if a page does not re-read exactly once for each event.

mod backend;
mod chart;
mod measure;
#[path = "../upgrade/memory.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod memory;
mod pages;
mod report;
#[path = "../shared"]
#[allow(dead_code, reason = "other programs use the rest")]
mod shared {
    pub(crate) mod chart;
    pub(crate) mod exit;
    pub(crate) mod http;
    pub(crate) mod process;
    pub(crate) mod record;
}
mod times;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use backend::Backend;
use clap::Parser;
use measure::{Measured, Session};
use report::{Row, report};
use shared::exit::exit_code;
use shared::process::{become_guarded, end_with_parent};
use shared::record::{Files, check_reproducible};

/// Restarts a server under many pages; writes benches/record/<date>-herd.{md,csv,svg}
#[derive(Debug, Parser)]
struct Arguments {
    /// Pages
    #[arg(long, default_value_t = 2_000)]
    pages: usize,
    /// Processes of Node that they are in
    #[arg(long, default_value_t = 2)]
    processes: usize,
    /// Runs, of which the medians are taken
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Fewer pages and one run: a look, not a record
    #[arg(long)]
    short: bool,
    /// Folder of the record [default: benches/record; with --short, none is written]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) pages: usize,
    pub(crate) processes: usize,
    pub(crate) runs: usize,
    /// The time in which all hidden pages are looked at.
    pub(crate) look: Duration,
}

/// The options of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Whether hidden pages re-read at once.
    pub(crate) hidden: bool,
    pub(crate) spread_ms: u32,
}

/// What happens to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Publish,
    Kill,
    Terminate,
    /// The same as [`Event::Kill`], with one `retry:` for all.
    KillFixed,
}

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Of ten pages, so many are hidden.
const HIDDEN_OF_TEN: usize = 8;
/// The first is what `EventSource` does, the last the default.
pub(crate) const RULES: [Rules; 4] = [
    Rules { hidden: true, spread_ms: 0 },
    Rules { hidden: true, spread_ms: 2_000 },
    Rules { hidden: false, spread_ms: 0 },
    Rules { hidden: false, spread_ms: 2_000 },
];
/// The settings of a server, and what happens to it, one after the other.
const SESSIONS: [(&[&str], &[Event]); 2] = [
    (&["--drain-delay", "0"], &[Event::Publish, Event::Kill, Event::Terminate]),
    (&["--retry-min", "1s", "--retry-max", "1s"], &[Event::KillFixed]),
];
const LOOK: Duration = Duration::from_secs(3);
const LOOK_SHORT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    exit_code("herd", run())
}

fn run() -> Outcome<bool> {
    become_guarded()?;
    // Processes that this program starts inherit it.
    rlimit::increase_nofile_limit(u64::MAX)?;
    Arguments::parse().measure()
}

// ===== impl Arguments =====

impl Arguments {
    /// Returns whether each page has done what it has to.
    fn measure(&self) -> Outcome<bool> {
        if self.bench {
            end_with_parent()?;
        }
        if self.is_recorded() {
            check_reproducible(self.out.as_deref())?;
        }
        let plan = self.plan();
        let backend = Backend::start()?;
        let (mut rows, mut node) = (Vec::<Row>::new(), String::new());
        for run in 0..plan.runs {
            for number in 0..RULES.len() {
                // Backwards every second time.
                let rules = RULES[if run % 2 == 0 { number } else { RULES.len() - 1 - number }];
                node = sessions(&plan, rules, run, &backend, &mut rows)?;
            }
        }
        let faults = rows.iter().flat_map(|row| &row.runs).flat_map(|run| &run.faults);
        let faults: Vec<_> = faults.collect();
        for fault in &faults {
            eprintln!("FAULT: {fault}");
        }
        let record = self.is_recorded().then(|| Files::new(self.out.as_deref(), "herd"));
        report(&plan, &node, &rows, record)?;
        Ok(faults.is_empty())
    }

    fn plan(&self) -> Plan {
        let (pages, runs, look) = match self.short {
            true => (self.pages.min(200), 1, LOOK_SHORT),
            false => (self.pages, self.runs, LOOK),
        };
        Plan { pages, processes: self.processes, runs, look }
    }

    fn is_recorded(&self) -> bool {
        self.out.is_some() || !self.short
    }
}

/// Measures each event once with these rules. Returns the version of Node.
fn sessions(
    plan: &Plan,
    rules: Rules,
    run: usize,
    backend: &Backend,
    rows: &mut Vec<Row>,
) -> Outcome<String> {
    let mut node = String::new();
    for (settings, events) in SESSIONS {
        let mut session = Session::start(plan, rules, settings, backend)?;
        node.clone_from(&session.pages.version);
        for event in events {
            eprintln!("run {}: {rules:?} {event:?}", run + 1);
            let mut measured = session.measure(*event)?;
            for fault in &mut measured.faults {
                *fault = format!("{rules:?} {event:?}, run {}: {fault}", run + 1);
            }
            add(rows, *event, rules, measured);
        }
    }
    Ok(node)
}

fn add(rows: &mut Vec<Row>, event: Event, rules: Rules, measured: Measured) {
    let is_of = |row: &&mut Row| row.event == event && row.rules == rules;
    match rows.iter_mut().find(is_of) {
        Some(row) => row.runs.push(measured),
        None => rows.push(Row { event, rules, runs: vec![measured] }),
    }
}

// ===== impl Plan =====

impl Plan {
    /// Pages, and how many of them are hidden, by process.
    pub(crate) fn by_process(&self) -> Vec<(usize, usize)> {
        let part = |all: usize, number: usize| {
            all * (number + 1) / self.processes - all * number / self.processes
        };
        (0..self.processes)
            .map(|number| (part(self.pages, number), part(self.hidden(), number)))
            .collect()
    }

    pub(crate) fn hidden(&self) -> usize {
        self.pages * HIDDEN_OF_TEN / 10
    }
}
