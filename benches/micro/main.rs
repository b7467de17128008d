//! The cost of nudged's parts, in instructions of user space, whose number is the same on a busy machine:
//!
//! ```text
//! cargo bench --features bench --bench micro                          all of them, about a minute
//! cargo bench --features bench --bench micro -- publish sweep         those whose names contain these
//! cargo bench --features bench --bench micro -- --since FILE.csv      with an earlier record of your choice
//! cargo bench --features bench --bench micro -- sweep skip --time     also the time of each, on a quiet machine
//! ```
//!
//! Valgrind's callgrind counts them, in this program for the library and in `nudged serve` for work
//! on a socket. The record goes to `benches/record/`, with the figures of the last one.

mod callgrind;
mod library;
mod record;
mod server;
#[path = "../shared"]
mod shared {
    pub(crate) mod exit;
    pub(crate) mod http;
    pub(crate) mod nats;
    pub(crate) mod process;
    pub(crate) mod record;
}

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use record::{Earlier, Record, Row};
use shared::exit::exit_code;
use shared::process::{become_guarded, end_with_parent};
use shared::record::check_reproducible;

/// Counts instructions; writes benches/record/<date>-micro.{md,csv}
#[derive(Debug, Parser)]
struct Arguments {
    /// Only operations whose names contain one of these [default: all]
    only: Vec<String>,
    /// The CSV of the record to compare with [default: the latest of another day in benches/record]
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// Folder of the record [default: benches/record; of some operations only, none is written]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Also print the time of each operation of the library, without valgrind
    #[arg(long)]
    time: bool,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    exit_code("micro", run().map(|()| true))
}

fn run() -> Outcome<()> {
    become_guarded()?;
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some(library::ROLE), Some(name)) => library::run(&name),
        _ => Arguments::parse().count(),
    }
}

// ===== impl Arguments =====

impl Arguments {
    fn count(&self) -> Outcome<()> {
        if self.bench {
            end_with_parent()?;
        }
        if self.is_recorded() {
            check_reproducible(self.out.as_deref())?;
        }
        let valgrind = callgrind::find()?;
        let earlier = match &self.since {
            Some(csv) => {
                Some(Earlier::read(csv).map_err(|why| format!("{}: {why}", csv.display()))?)
            }
            None => Earlier::latest()?,
        };
        let mut rows = Vec::new();
        for case in library::CASES.iter().filter(|case| self.includes(case.name)) {
            eprintln!("{}", case.name);
            if self.time {
                eprintln!("  {}", callgrind::time_ours(library::ROLE, case.name)?);
            }
            let instructions = callgrind::count_ours(library::ROLE, case.name)?;
            rows.push(Row { name: case.name, what: case.what, instructions });
        }
        let broker = shared::nats::version();
        if let Err(why) = &broker {
            eprintln!("what needs a log is left out: {why}");
        }
        let is_possible = |case: &&server::Case| broker.is_ok() || !case.needs_log();
        let cases = server::CASES.iter().filter(|case| self.includes(case.name));
        for case in cases.filter(is_possible) {
            eprintln!("{}", case.name);
            let instructions = (case.count)()?;
            rows.push(Row { name: case.name, what: case.what, instructions });
        }
        let tools = [Some(valgrind), broker.ok()].into_iter().flatten().collect();
        let record = Record { rows, earlier, tools };
        println!("{}", record.markdown());
        if self.is_recorded() {
            for file in record.write(self.out.as_deref())? {
                eprintln!("wrote {}", file.display());
            }
        }
        Ok(())
    }

    fn is_recorded(&self) -> bool {
        self.only.is_empty() || self.out.is_some()
    }

    fn includes(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
    }
}
