//! What nudged promises where something goes wrong, by the questions that `cargo bench --bench compare -- reliability` asks
//! of every server.

#[path = "../../benches/compare"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod compare {
    pub(crate) mod configuration;
    pub(crate) mod find;
    pub(crate) mod measure;
    pub(crate) mod parts;
    pub(crate) mod peer;
    pub(crate) mod processors;
    pub(crate) mod program;
    pub(crate) mod protocol;
    pub(crate) mod receive_path;
    pub(crate) mod reliability;
    pub(crate) mod response;
    pub(crate) mod rps;
    pub(crate) mod servers;
}
mod promises;
#[path = "../../benches/shared"]
#[allow(dead_code, reason = "the benchmarks use the rest")]
mod shared {
    pub(crate) mod http;
    pub(crate) mod machine;
    pub(crate) mod nats;
    pub(crate) mod process;
    pub(crate) mod record;
    pub(crate) mod redis;
}

use std::env;
use std::process::ExitCode;
use std::thread;

use compare::{
    configuration, find, measure, peer, processors, program, protocol, response, servers,
};
use promises::{PROMISES, Promise};
use shared::process::become_guarded;

/// Checks all promises at once, or those with a name that contains what is given.
fn main() -> ExitCode {
    if let Err(why) = become_guarded() {
        eprintln!("{why}");
        return ExitCode::FAILURE;
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let names: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_asked = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(*part));
    if arguments.iter().any(|argument| argument == "--list") {
        PROMISES.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let asked: Vec<_> = PROMISES.into_iter().filter(|(name, _)| is_asked(name)).collect();
    let kept = thread::scope(|scope| {
        let start = |(name, check): &Promise| (*name, scope.spawn(*check));
        // All are started before the first one is waited for.
        let mut checks = Vec::from_iter(asked.iter().map(start));
        let is_kept = checks.drain(..).map(|(name, check)| {
            let is_kept = check.join().is_ok();
            println!("test {name} ... {}", if is_kept { "ok" } else { "FAILED" });
            is_kept
        });
        is_kept.filter(|is_kept| *is_kept).count()
    });
    println!("{kept} passed, {} failed", asked.len() - kept);
    if kept == asked.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
