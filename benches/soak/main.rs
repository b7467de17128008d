//! A server under everything that clients do to it, for as long as wanted:
//!
//! ```text
//! cargo bench --bench soak                           30 minutes, with a record
//! cargo bench --bench soak -- --duration 8h
//! cargo bench --bench soak -- --short                90 s with fewer subscribers, no record
//! cargo bench --bench soak -- --park off             streams that hyper serves, 10 minutes or more
//! ```
//!
//! It fails, and says why, when memory rises over the second half (`soak/trend.rs` has the test), when
//! seats, streams and descriptors disagree, when a subscriber misses an event that it is not told of,
//! or when the server does not end well. The record goes to `benches/record/`.

mod churn;
mod client;
mod course;
mod crowd;
mod curves;
mod follower;
mod publisher;
mod report;
mod server;
mod stage;
mod trend;
#[path = "../shared"]
mod shared {
    pub(crate) mod chart;
    pub(crate) mod process;
    pub(crate) mod record;
}

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use churn::{HOLD, hold};
use clap::Parser;
use clap::error::ErrorKind;
use course::{Plan, Soak};
use report::Memory;
use server::{SERVE, end_with_parent, serve};
use shared::record::Files;

/// Holds subscribers while others come and go in every way; fails if anything leaks or is lost
#[derive(Debug, Parser)]
struct Arguments {
    /// How long, such as 30m or 8h
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30m")]
    duration: Duration,
    /// Streams that stay
    #[arg(long, default_value_t = 2_000)]
    subscribers: usize,
    /// Whether streams leave hyper
    #[arg(long, value_parser = ["on", "off"], default_value = "on")]
    park: String,
    /// 90 s with 600 subscribers: a look, not a record; not with --park off
    #[arg(long)]
    short: bool,
    /// Where to write the record [default: benches/record; with --short, nowhere]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long the heap grows under this load where hyper serves the streams, and nothing leaks: by 9 MiB
/// in the first four minutes, by nothing after the fifth. The half that is judged comes after that.
const HYPER_SETTLES: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let mut role = std::env::args().skip(1);
    let result = match (role.next().as_deref(), role.next()) {
        (Some(HOLD), Some(address)) => be_killed(&address).map(|()| Vec::new()),
        (Some(SERVE), Some(parent)) => Err(serve(&parent, role).into()),
        _ => Arguments::parse().soak(),
    };
    let faults = result.unwrap_or_else(|why| vec![why.to_string()]);
    faults.iter().for_each(|fault| eprintln!("FAULT: {fault}"));
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn be_killed(address: &str) -> Result<(), Box<dyn Error>> {
    Ok(hold(address.parse()?)?)
}

// ===== impl Arguments =====

impl Arguments {
    /// What went wrong.
    fn soak(&self) -> Result<Vec<String>, Box<dyn Error>> {
        if self.bench {
            // cargo hands no signal on.
            end_with_parent()?;
        }
        let mut soak = Soak::start(self.plan())?;
        let ran = soak.run(|line| eprintln!("{line}"));
        let memory = Memory::of(&soak);
        let mut faults: Vec<_> = ran.err().map(|why| why.to_string()).into_iter().collect();
        if faults.is_empty() {
            let fault = memory.as_ref().map(Memory::fault);
            faults.extend(fault.unwrap_or_else(|| Some("too short to tell of memory".into())));
        }
        println!("{}", report::markdown(&soak, memory.as_ref(), &faults));
        if self.out.is_some() || !self.short {
            let files = Files::new(self.out.as_deref(), report::mode(&soak));
            for file in report::files(&soak, files, &faults).write()? {
                eprintln!("wrote {}", file.display());
            }
        }
        Ok(faults)
    }

    fn plan(&self) -> Plan {
        let (subscribers, duration) = match self.short {
            true => (600, Duration::from_secs(90)),
            false => (self.subscribers, self.duration),
        };
        if self.park == "off" && duration < 2 * HYPER_SETTLES {
            let why = "with --park off, the heap settles for five minutes, and what it does before \
                       tells nothing of leaks: try --park off --subscribers 600 --duration 10m\n";
            clap::Error::raw(ErrorKind::ArgumentConflict, why).exit();
        }
        Plan { subscribers, duration, park: if self.park == "on" { "on" } else { "off" } }
    }
}
