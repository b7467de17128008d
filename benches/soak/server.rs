//! The server under soak, and what it shows of itself.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{self, Child, ChildStdout, Command, ExitStatus};
use std::time::Duration;

use nudged::client::bench::Cost;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::client::get;
use crate::shared::process::{NUDGED, end, spawn_talking};

/// A running server, ended when this is dropped.
pub(crate) struct Server {
    child: Child,
    /// Open, so that it does not die of printing.
    _output: ChildStdout,
    pub(crate) address: SocketAddr,
}

/// The server at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Seconds since the start.
    pub(crate) at: f64,
    pub(crate) seats: u64,
    pub(crate) opened: u64,
    pub(crate) delivered: u64,
    /// Organisations that are remembered.
    pub(crate) channels: u64,
    /// Streams that ended, by cause.
    pub(crate) closed: BTreeMap<String, u64>,
    /// Open descriptors.
    pub(crate) fds: usize,
    /// All of its memory, in bytes. Libraries are divided among the programs that use them, so that
    /// this moves when others start.
    pub(crate) pss: u64,
    /// What is its own: heap and stacks.
    pub(crate) anonymous: u64,
    /// Processor time since it started.
    pub(crate) cpu: Duration,
}

/// As which this program becomes the server: `soak serve PARENT ARGUMENTS`.
pub(crate) const SERVE: &str = "serve";

/// How the server is set up. Short times, so that what they bound happens often.
#[rustfmt::skip]
pub(crate) const SETTINGS: [&str; 18] = [
    "--listen", "127.0.0.1:0", "--workers", "2", "--keepalive", "10s", "--stall-timeout", "3s",
    "--peer-timeout", "3s", "--history-events", "64", "--history-age", "10s", "--history-bytes",
    "131072", "--idle-channels", "64",
];

// ===== impl Server =====

impl Server {
    pub(crate) fn start(park: &str) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(SERVE).arg(process::id().to_string()).args(SETTINGS).args(["--park", park]);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NUDGED_")) {
            command.env_remove(name);
        }
        let (child, _output, base) = spawn_talking(&mut command)?;
        let address = base.trim_start_matches("http://").parse().map_err(io::Error::other)?;
        Ok(Self { child, _output, address })
    }

    pub(crate) fn fds(&self) -> io::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    pub(crate) fn sample(&self) -> io::Result<Sample> {
        let metrics = get(self.address, "/metrics")?;
        let values: BTreeMap<&str, u64> = metrics
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
            .collect();
        let value = |name: &str| {
            values.get(name).copied().ok_or_else(|| io::Error::other(format!("no {name}")))
        };
        let closed = values.iter().filter_map(|(name, count)| {
            let cause = name.strip_prefix("nudged_streams_closed_total{reason=\"")?;
            Some((cause.strip_suffix("\"}")?.to_owned(), *count))
        });
        let cost = Cost::of(&[self.child.id()])?;
        Ok(Sample {
            at: 0.0,
            seats: value("nudged_seats")?,
            opened: value("nudged_streams_opened_total")?,
            delivered: value("nudged_events_delivered_total")?,
            channels: value("nudged_channels")?,
            closed: closed.collect(),
            fds: self.fds()?,
            pss: cost.pss,
            anonymous: self.anonymous()?,
            cpu: cost.cpu,
        })
    }

    fn anonymous(&self) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.ok_or(io::ErrorKind::InvalidData)? * 1024)
    }

    /// Asks it to end.
    pub(crate) fn end(&mut self) -> io::Result<ExitStatus> {
        end(&mut self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone by now, which is as well.
        end(&mut self.child).ok();
    }
}

/// Becomes the server, which ends with the soak that started it, even one that was killed.
pub(crate) fn serve(parent: &str, arguments: impl Iterator<Item = String>) -> io::Error {
    if let Err(why) = end_with_parent() {
        return why;
    }
    // Who went before that was asked for is not heard of.
    if getppid().map(Pid::as_raw_pid).map(|id| id.to_string()).as_deref() != Some(parent) {
        return io::Error::other("who started this server is gone");
    }
    Command::new(NUDGED).arg("serve").args(arguments).exec()
}

/// Has the kernel end this process when its parent is gone.
pub(crate) fn end_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::TERM))?)
}

// ===== impl Sample =====

impl Sample {
    /// Streams that ended, of all causes.
    pub(crate) fn closed(&self) -> u64 {
        self.closed.values().sum()
    }
}
