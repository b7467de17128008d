//! What an upgrade of a server does to its clients, and what a restart does.
//!
//! ```text
//! cargo bench --features full --bench upgrade                  both, a minute or two
//! cargo bench --features full --bench upgrade -- upgrade       ten upgrades in a row
//! cargo bench --features full --bench upgrade -- restart       restarts with --state, and without
//! cargo bench --features full --bench upgrade -- --short       a look, no record
//! ```
//!
//! The clients are a process of their own, so that each process has the limit of open files to itself. They check every
//! byte. It fails if a client of an upgraded server notices anything, or if a stream is `connected` after a restart with
//! `--state`; a figure beyond its target is only marked, since it depends on the machine.

mod clients;
#[path = "../cluster/figures.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod figures;
mod memory;
#[path = "../cluster/pages.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod pages;
#[path = "../cluster/response.rs"]
mod response;
mod restarts;
mod server;
#[path = "../shared"]
#[allow(dead_code, reason = "other programs use the rest")]
mod shared {
    pub(crate) mod crowd;
    pub(crate) mod exit;
    pub(crate) mod group;
    pub(crate) mod http;
    pub(crate) mod process;
    pub(crate) mod record;
    pub(crate) mod traffic;
}
mod upgrades;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use figures::{Section, report};
use shared::exit::exit_code;
use shared::process::{become_guarded, end_with_parent};
use shared::record::{Files, check_reproducible};

/// Replaces a server while its clients look; writes benches/record/<date>-upgrade[-<mode>…].{md,csv}
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure [default: everything]
    #[arg(value_enum)]
    modes: Vec<Mode>,
    /// Streams
    #[arg(long, default_value_t = 15_000)]
    streams: usize,
    /// Organisations that they are of
    #[arg(long, default_value_t = 50)]
    orgs: usize,
    /// Upgrades in a row
    #[arg(long, default_value_t = 10)]
    upgrades: usize,
    /// Fewer streams and upgrades: a look, not a record
    #[arg(long)]
    short: bool,
    /// Folder of the record [default: benches/record; with --short, none is written]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Mode {
    /// upgrades in a row, while events flow
    Upgrade,
    /// a restart with --state and one without, of clients that reconnect
    Restart,
}

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) streams: usize,
    pub(crate) orgs: Vec<String>,
    pub(crate) upgrades: usize,
}

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    exit_code("upgrade", run())
}

fn run() -> Outcome<bool> {
    become_guarded()?;
    // Processes that this program starts inherit it.
    rlimit::increase_nofile_limit(u64::MAX)?;
    if clients::become_clients()? {
        return Ok(true);
    }
    Arguments::parse().measure()
}

// ===== impl Arguments =====

impl Arguments {
    /// Returns whether no client has noticed what it must not.
    fn measure(&self) -> Outcome<bool> {
        if self.bench {
            end_with_parent()?;
        }
        if self.is_recorded() {
            check_reproducible(self.out.as_deref())?;
        }
        let plan = self.plan();
        let (mut sections, mut is_clean) = (Vec::new(), true);
        for mode in self.modes() {
            let section = match mode {
                Mode::Upgrade => upgrades::run(&plan)?,
                Mode::Restart => restarts::run(&plan)?,
            };
            for fault in &section.faults {
                eprintln!("FAULT: {fault}");
                is_clean = false;
            }
            sections.push(section);
        }
        self.report(&sections)?;
        Ok(is_clean)
    }

    fn report(&self, sections: &[Section]) -> Outcome<()> {
        let only = match self.modes[..] {
            [Mode::Upgrade] => "-upgrade",
            [Mode::Restart] => "-restart",
            _ => "",
        };
        let name = format!("upgrade{only}");
        let record = self.is_recorded().then(|| Files::new(self.out.as_deref(), &name));
        Ok(report(&name, sections, record)?)
    }

    fn plan(&self) -> Plan {
        let (streams, upgrades) = match self.short {
            true => (self.streams.min(2_000), self.upgrades.min(3)),
            false => (self.streams, self.upgrades),
        };
        let orgs = (0..self.orgs).map(|org| format!("org-{org}")).collect();
        Plan { streams, orgs, upgrades }
    }

    fn modes(&self) -> Vec<Mode> {
        let is_asked = |mode: &Mode| self.modes.is_empty() || self.modes.contains(mode);
        Mode::value_variants().iter().copied().filter(is_asked).collect()
    }

    fn is_recorded(&self) -> bool {
        self.out.is_some() || !self.short
    }
}
