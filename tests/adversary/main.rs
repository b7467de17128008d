//! A hostile client beside honest ones: every attack of issue 13 at once, while subscribers, publishers and probes use
//! the same server.
//!
//! ```text
//! cargo test --all-features --test adversary                                            a look, 10 s
//! cargo test --all-features --test adversary -- --duration 60s --subscribers 5000       as in .ci/run
//! cargo test --all-features --test adversary -- --each --only silence,key-updates       one after the other
//! ```
//!
//! It fails, and reports why, when an event is lost or late, when an honest stream is cut or an honest request is not
//! answered, when anything of the attackers remains once they have left, and when they hold up the end of the server.
//! Late is relative: the same clients are measured before the attacks, in the same run (`adversary/verdict.rs`).

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the real clock, and loom does not replace their locks"
)]

mod attacks;
mod honest;
mod prober;
mod report;
mod run;
#[path = "../../benches/shared"]
#[allow(dead_code, reason = "the benchmarks use the rest")]
mod shared {
    pub(crate) mod http;
    pub(crate) mod process;
    pub(crate) mod record;
}
mod stage;
#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "this binary uses a part of the support of tests/it"
)]
#[path = "../it/support/mod.rs"]
mod support;
mod tokens;
mod verdict;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use attacks::{ATTACKS, Attack};
use clap::Parser;
use run::Plan;
use shared::process::become_guarded;
use shared::record::{FOLDER, Files, check_reproducible};
use stage::Sizes;
use support::programs::OPENSSL;

/// Attacks a server beside its honest clients; fails if they notice more than they may
#[derive(Debug, Parser)]
struct Arguments {
    /// How long the attacks run; with --each, each of them
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    duration: Duration,
    /// Honest streams
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(100..=8_000))]
    subscribers: u32,
    /// One attack after the other, instead of all at once
    #[arg(long)]
    each: bool,
    /// Without an internal address: backends publish where the attackers are
    #[arg(long)]
    public_only: bool,
    /// These attacks [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = attack)]
    only: Vec<Attack>,
    /// Write a record to this folder, such as benches/record
    #[arg(long, value_name = "FOLDER")]
    record: Option<PathBuf>,
    /// Ignored: what cargo passes to every test
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    names: Vec<String>,
}

fn main() -> ExitCode {
    if let Err(why) = become_guarded() {
        eprintln!("{why}");
        return ExitCode::FAILURE;
    }
    let arguments = Arguments::parse();
    if arguments.is_for_others() || !OPENSSL.is_available_for("the adversary in ") {
        return ExitCode::SUCCESS;
    }
    let faults = arguments.run().unwrap_or_else(|why| vec![why.to_string()]);
    faults.iter().for_each(|fault| eprintln!("FAULT: {fault}"));
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn attack(name: &str) -> Result<Attack, String> {
    let all = || ATTACKS.map(|attack| attack.name).join(", ");
    let found = ATTACKS.into_iter().find(|attack| attack.name == name);
    found.ok_or_else(|| format!("the attacks are {}", all()))
}

// ===== impl Arguments =====

impl Arguments {
    /// Whether this is `cargo test NAME` or `cargo test -- FLAG`, whose arguments each test binary gets: this one is
    /// not a test of that name.
    fn is_for_others(&self) -> bool {
        let named = self.names.iter().find(|name| !name.starts_with('-'));
        self.names.iter().any(|name| name == "--list")
            || named.is_some_and(|name| !"adversary".contains(name.as_str()))
    }

    fn run(&self) -> Result<Vec<String>, Box<dyn Error>> {
        let is_ours = |folder: &Path| folder.canonicalize().is_ok_and(|it| it == Path::new(FOLDER));
        if let Some(folder) = &self.record {
            check_reproducible((!is_ours(folder)).then_some(folder))?;
        }
        let attacks = if self.only.is_empty() { ATTACKS.to_vec() } else { self.only.clone() };
        let sizes = Sizes::of(self.subscribers as usize);
        let Self { duration, each, public_only, .. } = *self;
        let plan = Plan { sizes, duration, each, public_only, attacks };
        let outcome = run::run(plan, |line| eprintln!("{line}"))?;
        println!("{}", report::tables(&outcome));
        if let Some(folder) = &self.record {
            let mut files = Files::new(Some(folder), report::MODE);
            files.add(".md", report::markdown(&outcome));
            files.write()?.iter().for_each(|file| eprintln!("wrote {}", file.display()));
        }
        Ok(outcome.faults)
    }
}
