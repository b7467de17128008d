//! nudged beside other servers that do its job, on one machine, in one run, with one load generator:
//!
//! ```text
//! cargo bench --bench compare                        everything, about half an hour
//! cargo bench --bench compare -- --short             a look, a few minutes
//! cargo bench --bench compare -- flood --only raw,nudged --subscribers 5000
//! ```
//!
//! The servers take turns, so that a machine that slows down slows all of them. Each figure is the
//! median over the runs. The record goes to `benches/record/`.

mod peers {
    pub(crate) mod axum;
    pub(crate) mod origin;
    pub(crate) mod raw;
}
mod support;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use support::measure::{Outcome, Plan, run};
use support::record::{Record, Runs, write_text};
use support::servers::Peer;
use support::{churn, fairness};

/// Compares nudged with other servers; writes benches/record/<date>-<mode>.{md,csv,svg}
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure
    #[arg(value_enum, default_value = "compare")]
    mode: Mode,
    /// Servers to compare [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Peer>,
    /// Streams to open on each
    #[arg(long, default_value_t = 15_000)]
    subscribers: usize,
    /// Turns that each server gets
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Events one at a time, in a run; with `fairness`, events of the neighbour
    #[arg(long)]
    rounds: Option<u32>,
    /// Events back to back, in a run
    #[arg(long, default_value_t = 60)]
    flood: u32,
    /// Seconds to hold the streams with nothing published; with `idle`, 60
    #[arg(long)]
    idle: Option<u64>,
    /// Waves of connects and RSTs, with `churn`
    #[arg(long, default_value_t = 14)]
    waves: usize,
    /// Worker threads or processes of servers that can be told
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// 3,000 subscribers, one run, few rounds: a look, not a record
    #[arg(long)]
    short: bool,
    /// Where to write the record [default: benches/record; with --short, nowhere]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Mode {
    /// connect, memory, delivery and flood of every server
    Compare,
    /// memory, and CPU of held streams
    Idle,
    /// CPU of connects
    Connect,
    /// CPU and latency of one event at a time
    Fanout,
    /// CPU of events back to back
    Flood,
    /// what a large org does to its neighbour's latency
    Fairness,
    /// memory after waves of connects and RSTs
    Churn,
    #[value(skip)]
    ServeRaw,
}

fn main() -> ExitCode {
    let role = std::env::args().nth(1).unwrap_or_default();
    let result = match role.as_str() {
        "serve-raw" => peers::raw::serve().map(|()| true).map_err(Into::into),
        "serve-origin" => peers::origin::serve().map(|()| true).map_err(Into::into),
        "serve-axum" => serve_axum().map(|()| true),
        _ => Arguments::parse().compare(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("compare: {why}");
            ExitCode::FAILURE
        }
    }
}

fn serve_axum() -> Outcome<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let workers = std::env::args().nth(3).ok_or("serve-axum --workers N")?;
    Ok(peers::axum::serve(workers.parse()?)?)
}

// ===== impl Arguments =====

impl Arguments {
    /// Whether every subscriber got every event.
    fn compare(self) -> Outcome<bool> {
        let (present, absent) = self.peers();
        match self.mode {
            Mode::Fairness => self.each(&present, |peer, plan, progress| {
                fairness::run(peer, plan, progress)
            }).and_then(|(all, clean)| {
                self.keep(&fairness::markdown(&self.plan(), &all, &absent)).map(|()| clean)
            }),
            Mode::Churn => self.each(&present, |peer, plan, progress| {
                churn::run(peer, plan, self.waves, progress)
            }).and_then(|(all, clean)| {
                self.keep(&churn::markdown(&all, &absent)).map(|()| clean)
            }),
            _ => self.alternate(present, absent),
        }
    }
}
