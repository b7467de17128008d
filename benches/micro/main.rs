//! What nudged's parts cost, in instructions of user space, which are the same on a busy machine:
//!
//! ```text
//! cargo bench --bench micro                          all of them, about a minute
//! cargo bench --bench micro -- publish sweep         those with these words in their names
//! ```
//!
//! Valgrind's callgrind counts them, in this program for the library and in `nudged serve` for what
//! takes a socket. The record goes to `benches/record/`, beside the changes since the last one.

mod callgrind;
mod library;
mod record;
mod server;
#[path = "../shared"]
mod shared {
    pub(crate) mod record;
}

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use record::{Record, Row};

/// Counts instructions; writes benches/record/<date>-micro.{md,csv}
#[derive(Debug, Parser)]
struct Arguments {
    /// Only what has one of these words in its name [default: all]
    only: Vec<String>,
    /// Where to write the record [default: benches/record; of a part, nowhere]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut given = std::env::args().skip(1);
    let result = match (given.next().as_deref(), given.next()) {
        (Some(library::ROLE), Some(name)) => library::run(&name),
        _ => Arguments::parse().count(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("micro: {why}");
            ExitCode::FAILURE
        }
    }
}

// ===== impl Arguments =====

impl Arguments {
    fn count(&self) -> Outcome<()> {
        let version = callgrind::find()?;
        let last = Record::last()?;
        let mut rows = Vec::new();
        for case in library::CASES.iter().filter(|case| self.is_asked_for(case.name)) {
            eprintln!("{}", case.name);
            let instructions = callgrind::count_ours(library::ROLE, case.name)?;
            rows.push(Row { name: case.name, what: case.what, instructions });
        }
        for case in server::CASES.iter().filter(|case| self.is_asked_for(case.name)) {
            eprintln!("{}", case.name);
            let instructions = (case.count)()?;
            rows.push(Row { name: case.name, what: case.what, instructions });
        }
        let record = Record { rows, last, valgrind: version };
        println!("{}", record.markdown());
        if self.only.is_empty() || self.out.is_some() {
            for file in record.write(self.out.as_deref())? {
                eprintln!("wrote {}", file.display());
            }
        }
        Ok(())
    }

    fn is_asked_for(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word))
    }
}
