//! A server of nudged, alone or with a log.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{self, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nudged::bench::Cost;

use super::servers::Broker;
use crate::Outcome;
use crate::shared::http::{Connection, get};
use crate::shared::process::{NUDGED, Process, guarded, now};

/// A running server, stopped when this is dropped.
pub(crate) struct Node {
    process: Process,
    pub(crate) address: SocketAddr,
    /// What it writes to standard error.
    log: PathBuf,
}

/// The log that nodes share.
#[derive(Clone, Copy)]
pub(crate) struct Log<'a> {
    pub(crate) broker: &'a Broker,
    pub(crate) name: &'a str,
    pub(crate) linger: &'a str,
}

/// How long a node may take until it is ready.
const READY: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);

// ===== impl Node =====

impl Node {
    /// Starts a node, and waits until it is ready.
    pub(crate) fn start(log: Option<Log<'_>>, settings: &[&str]) -> Outcome<Self> {
        Self::start_on("127.0.0.1:0", log, settings)
    }

    pub(crate) fn start_on(listen: &str, log: Option<Log<'_>>, settings: &[&str]) -> Outcome<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("nudged-node-{}-{number}", process::id()));
        let mut command = guarded(NUDGED)?;
        command.args(["serve", "--listen", listen]).args(settings);
        if let Some(log) = log {
            command.args(["--backplane", log.broker.url(), "--backplane-log", log.name]);
            command.args(["--backplane-linger", log.linger]);
        }
        let process = Process::start(command.stderr(File::create(&file)?));
        let process = process.map_err(|why| format!("{why}\n{}", tail(&file)))?;
        let address = process.url.trim_start_matches("http://").parse()?;
        let node = Self { process, address, log: file };
        node.wait_until_ready()?;
        Ok(node)
    }

    fn wait_until_ready(&self) -> Outcome<()> {
        let start = now();
        let mut last = None;
        while start.elapsed() < READY {
            let asked = Connection::open(self.address)
                .and_then(|mut c| c.exchange(&get("/readyz", "connection: close\r\n"), 200));
            match asked {
                Ok(_) => return Ok(()),
                Err(why) => last = Some(why),
            }
            thread::sleep(PAUSE);
        }
        Err(format!("a node is not ready: {last:?}\n{}", tail(&self.log)).into())
    }

    pub(crate) fn cost(&self) -> io::Result<Cost> {
        Cost::of(&[self.process.id()])
    }

    /// The sum of a metric over its labels; 0 if there is none of this name.
    pub(crate) fn metric(&self, name: &str) -> Outcome<f64> {
        let request = get("/metrics", "connection: close\r\n");
        let text = Connection::open(self.address)?.exchange(&request, 200)?;
        let is_it = |rest: &str| rest.starts_with([' ', '{']);
        let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(is_it));
        let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        Ok(values.sum())
    }

    pub(crate) fn url(&self) -> &str {
        &self.process.url
    }

    /// Sends SIGTERM, and waits for the end of its drain.
    pub(crate) fn stop(&mut self) -> io::Result<ExitStatus> {
        self.process.stop()
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Killed, because a drain would only take time. It may have ended already.
        self.process.child.kill().ok();
        fs::remove_file(&self.log).ok();
    }
}

fn tail(file: &PathBuf) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// An address that nothing listens on.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
