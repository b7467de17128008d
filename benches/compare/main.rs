//! Compares nudged with other servers for the same job, on one machine, in one run, with one load generator:
//!
//! ```text
//! cargo bench --features bench --bench compare                  everything, more than an hour
//! cargo bench --features bench --bench compare -- --short       a look, a few minutes
//! cargo bench --features bench --bench compare -- compare --only nudged,nudged-tls,nudged-h2,nchan-tls
//! cargo bench --features bench --bench compare -- flood --only raw,nudged --subscribers 5000
//! cargo bench --features bench --bench compare -- compare --only raw,nudged --nudged-before PROGRAM
//! cargo bench --features bench --bench compare -- connect --only raw,nudged
//! cargo bench --features bench --bench compare -- fanout --only nudged,nudged-tls --subscribers 5000
//! cargo bench --features bench --bench compare -- reconnect --only nudged,nchan
//! cargo bench --features bench --bench compare -- reliability --only nudged,mercure --ask disconnect
//! ```
//!
//! The runs of the servers alternate, in the reverse order every second time, so that a machine that slows down affects
//! all of them. Each figure is the median over the runs. The record goes to `benches/record/`.

mod bars;
mod churn;
mod clients;
mod comparison;
mod configuration;
mod fairness;
mod find;
mod measure;
mod metric;
mod numbered;
mod parts;
mod peer;
#[path = "../peers"]
mod peers {
    pub(crate) mod axum;
    pub(crate) mod hyper;
    pub(crate) mod origin;
    pub(crate) mod raw;
}
mod processors;
mod program;
mod protocol;
mod publishing;
mod ratios;
mod receive_path;
mod reconnect;
mod reliability;
mod requests;
mod response;
mod rps;
mod servers;
#[path = "../shared"]
mod shared {
    pub(crate) mod chart;
    pub(crate) mod exit;
    pub(crate) mod http;
    #[expect(dead_code, reason = "tests vanish in another way, too")]
    pub(crate) mod machine;
    pub(crate) mod nats;
    pub(crate) mod process;
    pub(crate) mod record;
    pub(crate) mod redis;
}
mod spread;
mod table;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};
use comparison::{Record, Runs};
use measure::{Outcome, Plan, run};
use peer::Peer;
use reconnect::Herd;
use shared::exit::exit_code;
use shared::process::{become_guarded, end_with_parent};
use shared::record::{Files, check_reproducible};

/// Compares nudged with other servers; writes benches/record/<date>-<mode>.{md,csv,svg}
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure
    #[arg(value_enum, default_value = "compare")]
    mode: Mode,
    /// Servers to compare [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Peer>,
    /// Another build of nudged, as an additional row beside each of nudged: before and after a change
    #[arg(long, value_name = "PROGRAM")]
    nudged_before: Option<PathBuf>,
    /// Streams to open on each [default: 15000; with `reconnect`, 5000; with `requests`, 2000]
    #[arg(long)]
    subscribers: Option<usize>,
    /// Runs of each server [default: 5; with `reconnect`, 3]
    #[arg(long)]
    runs: Option<usize>,
    /// Events one at a time, in a run [default: 20; with `fairness`, 300 of the neighbour; with `requests`, 100]
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
    /// Events that are published while no subscriber is connected, with `reconnect`
    #[arg(long, default_value_t = 20)]
    absent: usize,
    /// Connects that wait for their response at once, with `reconnect` [default: as in the other modes]
    #[arg(long)]
    at_once: Option<usize>,
    /// Questions of `reliability` [default: all]
    #[arg(long, value_name = "QUESTION", value_delimiter = ',', value_parser = question_keys())]
    ask: Vec<String>,
    /// Worker threads or processes, of servers with a setting for it
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// By default 3,000 subscribers (with `reconnect`, 1,000), one run, few rounds: a look, not a record
    #[arg(long)]
    short: bool,
    /// Folder of the record [default: benches/record; with --short, none is written]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Added to the names of the record's files, as in <date>-connect-tls.md: a second record of a day and a mode
    #[arg(long, value_name = "NAME")]
    suffix: Option<String>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Mode {
    /// connect, memory, delivery and flood of every server
    Compare,
    /// memory, and CPU of held streams
    Idle,
    /// memory, and CPU of connects, in a burst and one at a time
    Connect,
    /// CPU and latency of one event at a time, and the CPU with the receive path on the other core
    Fanout,
    /// CPU of events back to back
    Flood,
    /// what a large org adds to its neighbour's latency
    Fairness,
    /// what a flood of requests adds to the latency of deliveries
    Requests,
    /// memory after waves of connects and RSTs
    Churn,
    /// publishes accepted in a flood of repeated keys (nudged only)
    Publish,
    /// what subscribers miss that are all cut off and come back at once, and what that costs
    Reconnect,
    /// what becomes of clients and events when something goes wrong: a table in words
    Reliability,
}

/// Streams that are opened one at a time, at most.
const SINGLES_MAX: usize = 15_000;

const NEVER_CLOSES: &str = "it never closes a stream";
const IN_CLEARTEXT: &str = "the clients of this mode have no TLS";
const ENDS_WITH_STREAM: &str = "it ends once a stream has ended";
const ONLY_STREAMS: &str = "it has no response but a stream";

/// Servers, each with its version, or with the reason why it is left out.
type Noted = Vec<(Peer, String)>;

fn main() -> ExitCode {
    exit_code("compare", run_role())
}

/// Compares, or runs as one of the servers. Returns whether every subscriber of every server received every event
/// exactly once.
fn run_role() -> Outcome<bool> {
    become_guarded()?;
    // Servers that this program starts inherit it.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("serve-raw") => peers::raw::serve()?,
        Some("serve-origin") => peers::origin::serve()?,
        Some("serve-hyper") => peers::hyper::serve()?,
        Some("serve-axum") => {
            let workers = arguments.next().ok_or("serve-axum WORKERS")?;
            peers::axum::serve(workers.parse()?)?;
        }
        Some(receive_path::HOLD) => {
            receive_path::serve(&arguments.next().ok_or("hold-receive-path MASK")?)?;
        }
        _ => return Arguments::parse().compare(),
    }
    Ok(true)
}

// ===== impl Arguments =====

impl Arguments {
    fn compare(&self) -> Outcome<bool> {
        if self.bench {
            end_with_parent()?;
        }
        if self.is_recorded() {
            check_reproducible(self.out.as_deref())?;
        }
        let (present, absent) = self.peers();
        let plan = self.plan();
        let peers = || present.iter().map(|(peer, _)| *peer);
        match self.mode {
            Mode::Fairness => {
                let (all, clean) = each(peers(), |peer, log| fairness::run(peer, &plan, log));
                self.keep(&fairness::markdown(&plan, &all, &absent))?;
                Ok(clean)
            }
            Mode::Requests => {
                let (all, clean) = each(peers(), |peer, log| requests::run(peer, &plan, log));
                self.keep(&requests::markdown(&plan, &all, &absent))?;
                Ok(clean)
            }
            Mode::Churn => {
                let (all, clean) =
                    each(peers(), |peer, log| churn::run(peer, &plan, self.waves, log));
                self.keep(&churn::markdown(&all, &absent))?;
                Ok(clean)
            }
            Mode::Publish => {
                let runs = [1, 100, 1_000].map(publishing::run);
                let runs = runs.into_iter().collect::<Outcome<Vec<_>>>()?;
                self.keep(&publishing::markdown(&runs))?;
                Ok(true)
            }
            Mode::Reconnect => self.reconnect(&present, absent),
            Mode::Reliability => self.ask_all(&present, &absent),
            _ => self.alternate(present, absent),
        }
    }

    /// Whether every run has come to its end: what was missed is a figure.
    fn reconnect(&self, present: &[(Peer, String)], absent: Noted) -> Outcome<bool> {
        let herd = Herd { plan: self.plan(), absent: self.absent, at_once: self.at_once };
        let turns = self.runs.unwrap_or(if self.short { 1 } else { 3 });
        let runs = reconnect::alternate(present, &herd, turns, |what| eprintln!("{what}"));
        let record = reconnect::Record { mode: self.mode_name(), herd, runs, absent };
        self.finish(&record.markdown(), || record.write(self.out.as_deref()))?;
        Ok(record.is_clean())
    }

    /// Asks every server every question. Returns whether all were answered.
    fn ask_all(&self, present: &[(Peer, String)], absent: &[(Peer, String)]) -> Outcome<bool> {
        let plan = self.plan();
        let peers: Vec<_> = present.iter().map(|(peer, _)| *peer).collect();
        let questions = reliability::questions(&self.ask);
        let all: Vec<_> = questions.map(|asked| reliability::ask(asked, &peers, &plan)).collect();
        self.keep(&reliability::table::markdown(&self.mode_name(), present, &all, absent))?;
        Ok(all.iter().all(reliability::Answers::is_complete))
    }

    /// The servers that this machine has, with their versions, and the others with the reason.
    fn peers(&self) -> (Noted, Noted) {
        let (mut present, mut absent) = (Vec::new(), Vec::new());
        for peer in Peer::ALL {
            let is_asked_for = peer.is_asked_for(&self.only, self.nudged_before.is_some());
            // What is missed, and the answers, do not depend on TLS.
            let is_beside = peer.is_secure()
                && match self.mode {
                    Mode::Reconnect => !self.only.contains(&peer),
                    mode => mode == Mode::Reliability,
                };
            if !is_asked_for || is_beside {
                continue;
            }
            let before = self.nudged_before.as_deref();
            let found = match (self.mode, peer) {
                (Mode::Churn | Mode::Reconnect, Peer::Raw) => Err(NEVER_CLOSES.into()),
                (Mode::Reconnect, peer) if peer.is_secure() => Err(IN_CLEARTEXT.into()),
                (Mode::Requests, Peer::Raw) => Err(ONLY_STREAMS.into()),
                (Mode::Reliability, Peer::Raw) => Err(ENDS_WITH_STREAM.into()),
                _ => peer.find(before),
            };
            match found {
                Ok(version) => present.push((peer, version)),
                Err(why) => {
                    eprintln!("{} is left out: {why}", peer.name());
                    absent.push((peer, why));
                }
            }
        }
        (present, absent)
    }

    fn plan(&self) -> Plan {
        let measures = |mode| self.mode == Mode::Compare || self.mode == mode;
        let is_latency = matches!(self.mode, Mode::Fairness | Mode::Requests);
        let rounds = self.rounds.unwrap_or(match (self.mode, self.short) {
            (Mode::Fairness, _) => 300,
            (Mode::Requests, _) => 100,
            (_, true) => 5,
            (_, false) => 20,
        });
        let idle = self.idle.unwrap_or(if self.mode == Mode::Idle { 60 } else { 0 });
        let subscribers = self.subscribers.unwrap_or(match (self.mode, self.short) {
            (Mode::Requests, _) => 2_000,
            (Mode::Reconnect, true) => 1_000,
            (Mode::Reconnect, false) => 5_000,
            (_, true) => 3_000,
            (_, false) => 15_000,
        });
        Plan {
            subscribers,
            singles: if measures(Mode::Connect) { subscribers.min(SINGLES_MAX) } else { 0 },
            workers: if is_latency { 1 } else { self.workers },
            rounds: if measures(Mode::Fanout) || is_latency { rounds } else { 0 },
            flood: if measures(Mode::Flood) { self.flood } else { 0 },
            idle: Duration::from_secs(idle),
            nudged_before: self.nudged_before.clone(),
            history: None,
            connections: None,
        }
    }

    fn alternate(&self, present: Noted, absent: Noted) -> Outcome<bool> {
        let plan = self.plan();
        let empty = |(peer, version)| Runs { peer, version, samples: Vec::new() };
        let runs = present.into_iter().map(empty).collect();
        let mut record = Record { mode: self.mode_name(), plan: plan.clone(), runs, absent };
        let turns = self.runs.unwrap_or(if self.short { 1 } else { 5 });
        for turn in 1..=turns {
            for at in order(turn, record.runs.len()) {
                let runs = &mut record.runs[at];
                let name = runs.peer.name();
                let log = |what: &str| eprintln!("run {turn} of {turns}: {name}: {what}");
                let sample = run(runs.peer, &plan, log).map_err(|why| why.to_string());
                let fault = match &sample {
                    Ok(sample) => sample.fault(),
                    Err(why) => Some(why.clone()),
                };
                if let Some(fault) = fault {
                    eprintln!("FAULT: {name}: {fault}");
                }
                runs.samples.push(sample);
            }
        }
        self.finish(&record.markdown(), || record.write(self.out.as_deref()))?;
        Ok(record.is_clean())
    }

    /// Finishes a record that is one text.
    fn keep(&self, text: &str) -> Outcome<()> {
        self.finish(text, || {
            let mut files = Files::new(self.out.as_deref(), &self.mode_name());
            files.add(".md", text.to_owned());
            files.write()
        })
    }

    /// Prints a record, and writes its files unless this is only a look.
    fn finish(&self, text: &str, write: impl FnOnce() -> io::Result<Vec<PathBuf>>) -> Outcome<()> {
        println!("{text}");
        if self.is_recorded() {
            write()?.iter().for_each(|file| eprintln!("wrote {}", file.display()));
        }
        Ok(())
    }

    fn is_recorded(&self) -> bool {
        self.out.is_some() || !self.short
    }

    fn mode_name(&self) -> String {
        let value = self.mode.to_possible_value().expect("no mode is skipped");
        let suffix = self.suffix.iter().map(|suffix| format!("-{suffix}"));
        value.get_name().to_owned() + &suffix.collect::<String>()
    }
}

fn question_keys() -> PossibleValuesParser {
    reliability::QUESTIONS.map(|question| question.key).into()
}

/// The servers of a turn: backwards in every second one.
fn order(turn: usize, servers: usize) -> Vec<usize> {
    match turn.is_multiple_of(2) {
        true => (0..servers).rev().collect(),
        false => (0..servers).collect(),
    }
}

/// Runs every server once; false if one of them failed.
fn each<T>(
    peers: impl Iterator<Item = Peer>,
    mut run: impl FnMut(Peer, &dyn Fn(&str)) -> Outcome<T>,
) -> (Vec<T>, bool) {
    let (mut all, mut clean) = (Vec::new(), true);
    for peer in peers {
        let log = |what: &str| eprintln!("{}: {what}", peer.name());
        match run(peer, &log) {
            Ok(one) => all.push(one),
            Err(why) => {
                eprintln!("FAULT: {}: {why}", peer.name());
                clean = false;
            }
        }
    }
    (all, clean)
}
