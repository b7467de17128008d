//! Several servers that share a log in NATS JetStream: what that costs, and what a rolling deploy does to browsers.
//!
//! ```text
//! cargo bench --features bench --bench cluster                    everything, about eight minutes
//! cargo bench --features bench --bench cluster -- latency         one of latency, publish, cut, load, deploy, apply, engine
//! cargo bench --features bench --bench cluster -- --short         a look, about two minutes, no record
//! cargo bench --features bench --bench cluster -- cut --without-log    what a server alone does
//! ```
//!
//! It starts `nats-server`, `haproxy` and the servers itself, on free ports of 127.0.0.1, with files in a temporary
//! folder, and ends them. It fails when something is lost, refused or re-read that must not be; a figure beyond its
//! target is only marked, since it depends on the machine. The record goes to `benches/record/`.

mod apply;
mod cut;
mod deploy;
mod direct;
mod engine;
mod figures;
mod latency;
mod load;
mod node;
mod pages;
mod proxy;
mod publish;
mod response;
#[path = "../shared"]
mod shared {
    pub(crate) mod http;
    pub(crate) mod nats;
    pub(crate) mod process;
    pub(crate) mod record;
}

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use figures::{Section, csv, markdown};
use shared::process::{become_guarded, end_with_parent};
use shared::record::{Files, check_reproducible};

/// Measures servers that share a log; writes benches/record/<date>-cluster[-<mode>].{md,csv}
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure [default: everything]
    #[arg(value_enum)]
    mode: Option<Mode>,
    /// Only what needs no log, for comparison: servers alone, and with `deploy` three of them
    #[arg(long)]
    without_log: bool,
    /// Fewer streams and rounds: a look, not a record
    #[arg(long)]
    short: bool,
    /// Folder of the record [default: benches/record; with --short or --without-log, none is written]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Mode {
    /// from a publish on one server to its arrival at a stream of another
    Latency,
    /// publishes acknowledged a second
    Publish,
    /// 15,000 streams that have to re-read everything: how evenly, and what others notice
    Cut,
    /// the start of a server that has to load the log
    Load,
    /// a rolling restart of three servers behind HAProxy, with 3,000 browsers
    Deploy,
    /// the hub alone: applying lines with 100,000 channels, resuming, cutting
    Apply,
    /// nats-server alone: appends, and up to 100 readers of one stream
    Engine,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) with_log: bool,
    pub(crate) short: bool,
}

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("cluster: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<bool> {
    become_guarded()?;
    // Servers that this program starts inherit it.
    rlimit::increase_nofile_limit(u64::MAX)?;
    Arguments::parse().measure()
}

// ===== impl Arguments =====

impl Arguments {
    /// Returns whether nothing was lost, refused or re-read that must not be.
    fn measure(&self) -> Outcome<bool> {
        if self.bench {
            end_with_parent()?;
        }
        if self.is_recorded() {
            check_reproducible(self.out.as_deref())?;
        }
        let plan = Plan { with_log: !self.without_log, short: self.short };
        let (mut sections, mut is_clean) = (Vec::new(), true);
        for mode in self.modes() {
            eprintln!("{}", mode.name());
            let section = mode.run(&plan).map_err(|why| format!("{}: {why}", mode.name()))?;
            for fault in &section.faults {
                eprintln!("FAULT: {}: {fault}", mode.name());
                is_clean = false;
            }
            sections.push(section);
        }
        let name =
            self.mode.map_or_else(|| "cluster".into(), |mode| format!("cluster-{}", mode.name()));
        let text = markdown(&name, &sections);
        println!("{text}");
        if self.is_recorded() {
            let mut files = Files::new(self.out.as_deref(), &name);
            files.add(".md", text);
            files.add(".csv", csv(&sections));
            for file in files.write()? {
                eprintln!("wrote {}", file.display());
            }
        }
        Ok(is_clean)
    }

    fn modes(&self) -> Vec<Mode> {
        let needs_log = |mode: &Mode| matches!(mode, Mode::Load | Mode::Apply | Mode::Engine);
        let all = Mode::value_variants().iter().copied();
        all.filter(|mode| self.mode.is_none_or(|asked| asked == *mode))
            .filter(|mode| !self.without_log || !needs_log(mode))
            .collect()
    }

    fn is_recorded(&self) -> bool {
        self.out.is_some() || !self.short && !self.without_log
    }
}

// ===== impl Mode =====

impl Mode {
    fn name(self) -> String {
        let value = self.to_possible_value().expect("no mode is skipped");
        value.get_name().to_owned()
    }

    fn run(self, plan: &Plan) -> Outcome<Section> {
        match self {
            Self::Latency => latency::run(plan),
            Self::Publish => publish::run(plan),
            Self::Cut => cut::run(plan),
            Self::Load => load::run(plan),
            Self::Deploy => deploy::run(plan),
            Self::Apply => apply::run(plan),
            Self::Engine => engine::run(plan),
        }
    }
}
