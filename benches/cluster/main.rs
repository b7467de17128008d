//! Several servers that share a log in NATS JetStream or Redis: what that costs, what a rolling deploy does to
//! browsers, and what an outbox in PostgreSQL adds.
//!
//! ```text
//! cargo bench --features full --bench cluster                     everything, about twenty minutes
//! cargo bench --features full --bench cluster -- latency load     some of it
//! cargo bench --features full --bench cluster -- --short          a look, about five minutes, no record
//! cargo bench --features full --bench cluster -- cut --broker redis    with one broker
//! cargo bench --features full --bench cluster -- cut --without-log     what a server alone does
//! ```
//!
//! It starts `nats-server`, `redis-server`, PostgreSQL, `haproxy` and the servers itself, on free ports of 127.0.0.1,
//! with files in a temporary folder, and ends them. It fails when something is lost, refused or re-read that must not
//! be; a figure beyond its target is only marked, since it depends on the machine. The record goes to `benches/record/`.

mod apply;
mod broker;
mod cpu;
mod cut;
mod deploy;
mod direct;
mod figures;
mod latency;
mod load;
mod node;
mod outbox;
mod pages;
mod postgres;
mod proxy;
mod publish;
mod response;
mod servers;
#[path = "../shared"]
mod shared {
    pub(crate) mod exit;
    pub(crate) mod http;
    pub(crate) mod nats;
    pub(crate) mod process;
    pub(crate) mod record;
    pub(crate) mod redis;
}

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use figures::{Section, report};
use servers::BrokerKind;
use shared::exit::exit_code;
use shared::process::{become_guarded, end_with_parent};
use shared::record::{Files, check_reproducible};

/// Measures servers that share a log; writes benches/record/<date>-cluster[-<mode>…].{md,csv}
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure [default: everything]
    #[arg(value_enum)]
    modes: Vec<Mode>,
    /// The broker of the log [default: each, or NATS where one is enough]
    #[arg(long, value_enum)]
    broker: Option<BrokerKind>,
    /// Only what needs no log, for comparison: a server alone, and with `deploy` three of them
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
    /// the broker alone: appends, and up to 100 readers of one log
    Broker,
    /// rows of an outbox that two servers publish a second
    OutboxRows,
    /// from the COMMIT of a row to its arrival at a stream
    OutboxLatency,
    /// what nudge() costs the transaction that calls it
    OutboxCost,
}

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// At least one.
    pub(crate) brokers: Vec<BrokerKind>,
    pub(crate) with_log: bool,
    pub(crate) short: bool,
}

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    exit_code("cluster", run())
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
        let all = || BrokerKind::value_variants().to_vec();
        let brokers = self.broker.map_or_else(all, |broker| vec![broker]);
        let plan = Plan { brokers, with_log: !self.without_log, short: self.short };
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
        let asked = self.modes.iter().map(|mode| format!("-{}", mode.name()));
        let name = format!("cluster{}", asked.collect::<String>());
        let record = self.is_recorded().then(|| Files::new(self.out.as_deref(), &name));
        report(&name, &sections, record)?;
        Ok(is_clean)
    }

    fn modes(&self) -> Vec<Mode> {
        let is_asked = |mode: &Mode| self.modes.is_empty() || self.modes.contains(mode);
        let all = Mode::value_variants().iter().copied().filter(is_asked);
        all.filter(|mode| !self.without_log || !mode.needs_log()).collect()
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
            Self::Broker => broker::run(plan),
            Self::OutboxRows => outbox::rows::run(plan),
            Self::OutboxLatency => outbox::latency::run(plan),
            Self::OutboxCost => outbox::cost::run(plan),
        }
    }

    fn needs_log(self) -> bool {
        !matches!(self, Self::Latency | Self::Publish | Self::Cut | Self::Deploy)
    }
}
