//! The clients, a process of their own: commands are lines of its standard input, each answered by a line of JSON.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Outcome;
use crate::pages::{Pages, Tally};
use crate::shared::crowd::Crowd;
use crate::shared::process::{end_with_parent, now};

/// That process, ended when this is dropped.
pub(crate) struct Clients {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// What they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They never reconnect, and check every byte.
    Crowd,
    /// They reconnect as `EventSource` does.
    Pages,
}

/// The first argument that makes this program these clients.
const CLIENTS: &str = "run-clients";

const TURN: Duration = Duration::from_millis(5);
/// How long the last events may take to arrive.
const CATCH_UP: Duration = Duration::from_secs(30);

// ===== impl Clients =====

impl Clients {
    /// Returns once all streams are open, with the seconds that it took.
    pub(crate) fn start(
        kind: Kind,
        server: SocketAddr,
        streams: usize,
        orgs: &[String],
    ) -> Outcome<(Self, f64)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([CLIENTS, &format!("{kind:?}"), &server.to_string(), &streams.to_string()]);
        let mut child = command.args(orgs).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut clients = Self { child, stdin, stdout };
        let seconds = clients.answer()?["seconds"].as_f64().ok_or("no time")?;
        Ok((clients, seconds))
    }

    /// What has happened so far; the longest times are those since the last call.
    pub(crate) fn tally(&mut self) -> Outcome<Value> {
        self.ask("tally")
    }

    /// The same, once everything has arrived: of what was accepted for each organisation, how much has not.
    pub(crate) fn finish(mut self, accepted: &[Vec<u64>]) -> Outcome<Value> {
        self.ask(&json!(accepted).to_string())
    }

    fn ask(&mut self, line: &str) -> Outcome<Value> {
        writeln!(self.stdin, "{line}")?;
        self.answer()
    }

    fn answer(&mut self) -> Outcome<Value> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err(format!("the clients have ended: {}", self.child.wait()?).into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Has to be called first in `main`. In a process that [`Clients::start`] started, runs them, and returns true.
pub(crate) fn become_clients() -> Outcome<bool> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [first, kind, server, streams, orgs @ ..] = &arguments[..] else { return Ok(false) };
    if first != CLIENTS {
        return Ok(false);
    }
    end_with_parent()?;
    let (server, streams) = (server.parse()?, streams.parse()?);
    match kind == "Crowd" {
        true => crowd(server, streams, orgs)?,
        false => pages(server, streams, orgs)?,
    }
    Ok(true)
}

fn crowd(server: SocketAddr, streams: usize, orgs: &[String]) -> Outcome<()> {
    let mut crowd = Crowd::new(server, orgs)?;
    let start = now();
    crowd.open(streams)?;
    _ = crowd.take_longest();
    let commands = commands(start.elapsed())?;
    loop {
        let command = match commands.try_recv() {
            Ok(command) => command,
            Err(TryRecvError::Empty) => {
                crowd.turn(TURN)?;
                continue;
            }
            Err(TryRecvError::Disconnected) => return Ok(()),
        };
        if command == "tally" {
            answer(&of_crowd(&mut crowd, &[]))?;
            continue;
        }
        let accepted: Vec<Vec<u64>> = serde_json::from_str(&command)?;
        let start = now();
        while start.elapsed() < CATCH_UP && missing(&crowd, &accepted) + crowd.behind() > 0 {
            crowd.turn(TURN)?;
        }
        return answer(&of_crowd(&mut crowd, &accepted));
    }
}

fn missing(crowd: &Crowd, accepted: &[Vec<u64>]) -> u64 {
    let by_org = accepted.iter().enumerate();
    by_org.map(|(org, numbers)| crowd.missing(org, numbers.iter().copied())).sum()
}

fn of_crowd(crowd: &mut Crowd, accepted: &[Vec<u64>]) -> Value {
    let (gap, latency) = crowd.take_longest();
    let missing = missing(crowd, accepted);
    let tally = &crowd.tally;
    json!({
        "connected": tally.connected, "resumed": tally.resumed, "events": tally.events,
        "keepalives": tally.keepalives, "ends": tally.ends, "lost": tally.lost, "doubled": tally.doubled,
        "wrong": tally.wrong, "faults": tally.faults, "gap_ms": gap.as_secs_f64() * 1e3,
        "latency_ms": latency.as_secs_f64() * 1e3, "missing": missing, "behind": crowd.behind(),
    })
}

fn pages(server: SocketAddr, streams: usize, orgs: &[String]) -> Outcome<()> {
    let mut pages = Pages::new(server, orgs.to_vec())?;
    let start = now();
    pages.open(streams, |_| {})?;
    pages.tally = Tally::default();
    let commands = commands(start.elapsed())?;
    loop {
        match commands.try_recv() {
            Ok(_) => {
                let Tally { connected, resumed, invalidates, ends, refused, .. } = &pages.tally;
                answer(&json!({
                    "connected": connected, "resumed": resumed, "events": invalidates, "ends": ends,
                    "refused": refused, "open": pages.open_now(),
                }))?;
            }
            Err(TryRecvError::Empty) => pages.turn(TURN, |_| {})?,
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

/// Reports that all streams are open, and receives what is asked from here on.
fn commands(took: Duration) -> Outcome<Receiver<String>> {
    answer(&json!({ "seconds": took.as_secs_f64() }))?;
    let (sender, commands) = channel();
    thread::spawn(move || {
        for line in io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok(commands)
}

fn answer(value: &Value) -> Outcome<()> {
    println!("{value}");
    Ok(io::stdout().flush()?)
}
