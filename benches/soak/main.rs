//! A server under every way that clients end, for as long as wanted:
//!
//! ```text
//! cargo bench --features bench --bench soak                       30 minutes, with a record
//! cargo bench --features bench --bench soak -- --duration 8h
//! cargo bench --features bench --bench soak -- --short            90 s with fewer subscribers, no record
//! ```
//!
//! It fails, and reports why, when memory rises over the second half (`soak/trend.rs` has the test), when seats,
//! streams and descriptors disagree, when a subscriber misses an event without a `connected`, or when the server does
//! not end with 0. The record goes to `benches/record/`.

mod checker;
mod churn;
mod client;
mod curves;
mod phase;
mod publisher;
mod report;
mod run;
mod server;
#[path = "../shared"]
mod shared {
    pub(crate) mod chart;
    pub(crate) mod http;
    pub(crate) mod process;
    pub(crate) mod record;
}
mod subscribers;
mod topics;
mod trend;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use churn::{HOLD, hold};
use clap::Parser;
use report::{MODE, Memory};
use run::{Plan, Soak};
use shared::process::{become_guarded, end_with_parent};
use shared::record::{Files, check_reproducible};

/// Holds subscribers while other clients end in every way; fails if anything leaks or is lost
#[derive(Debug, Parser)]
struct Arguments {
    /// How long, such as 30m or 8h
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30m")]
    duration: Duration,
    /// Steady streams
    #[arg(long, default_value_t = 2_000)]
    subscribers: usize,
    /// 90 s with 600 subscribers: a look, not a record
    #[arg(long)]
    short: bool,
    /// Folder of the record [default: benches/record; with --short, none is written]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let faults = run_role().unwrap_or_else(|why| vec![why.to_string()]);
    faults.iter().for_each(|fault| eprintln!("FAULT: {fault}"));
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Soaks, or is one of the soak's processes. Returns the faults.
fn run_role() -> Result<Vec<String>, Box<dyn Error>> {
    become_guarded()?;
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some(HOLD), Some(address)) => Ok(hold(address.parse()?).map(|()| Vec::new())?),
        _ => Arguments::parse().soak(),
    }
}

// ===== impl Arguments =====

impl Arguments {
    fn soak(&self) -> Result<Vec<String>, Box<dyn Error>> {
        if self.bench {
            end_with_parent()?;
        }
        if self.is_recorded() {
            check_reproducible(self.out.as_deref())?;
        }
        let mut soak = Soak::start(self.plan())?;
        let ran = soak.run(|line| eprintln!("{line}"));
        let memory = Memory::of(&soak);
        let mut faults: Vec<_> = ran.err().map(|why| why.to_string()).into_iter().collect();
        if faults.is_empty() {
            let fault = memory.as_ref().map(Memory::fault);
            let too_short = || Some("too short for a verdict on memory".into());
            faults.extend(fault.unwrap_or_else(too_short));
        }
        println!("{}", report::markdown(&soak, memory.as_ref(), &faults));
        if self.is_recorded() {
            let files = Files::new(self.out.as_deref(), MODE);
            for file in report::files(&soak, files, &faults).write()? {
                eprintln!("wrote {}", file.display());
            }
        }
        Ok(faults)
    }

    fn is_recorded(&self) -> bool {
        self.out.is_some() || !self.short
    }

    fn plan(&self) -> Plan {
        let (subscribers, duration) = match self.short {
            true => (600, Duration::from_secs(90)),
            false => (self.subscribers, self.duration),
        };
        Plan { subscribers, duration }
    }
}
