//! The server under soak, with its metrics, memory and descriptors.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use nudged::bench::Cost;

use super::client::get;
use crate::shared::process::{NUDGED, Process, guarded};

/// A running server, stopped when this is dropped.
pub(crate) struct Server {
    process: Process,
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
    /// Organisations with a channel.
    pub(crate) channels: u64,
    /// Topics that are kept.
    pub(crate) topics: u64,
    /// Streams that ended, by cause.
    pub(crate) closed: BTreeMap<String, u64>,
    /// Open descriptors.
    pub(crate) fds: usize,
    /// Its whole memory, in bytes (PSS). Shared libraries are divided among the programs that map them, so that this
    /// changes when another program starts.
    pub(crate) pss: u64,
    /// Its anonymous memory: heap and stacks.
    pub(crate) anonymous: u64,
    /// Processor time since it started.
    pub(crate) cpu: Duration,
}

/// Short times, so that timeouts and expiries happen often.
#[rustfmt::skip]
pub(crate) const SETTINGS: [&str; 22] = [
    "--listen", "127.0.0.1:0", "--workers", "2", "--keepalive", "10s", "--stall-timeout", "3s",
    "--peer-timeout", "3s", "--history-events", "64", "--history-age", "10s", "--history-bytes",
    "131072", "--idle-channels", "64", "--topic-age", "5s", "--topic-events", "16",
];

/// That of the settings.
pub(crate) const TOPIC_EVENTS: u64 = 16;

// ===== impl Server =====

impl Server {
    pub(crate) fn start() -> io::Result<Self> {
        let process = Process::start(guarded(NUDGED)?.arg("serve").args(SETTINGS))?;
        let address =
            process.url.trim_start_matches("http://").parse().map_err(io::Error::other)?;
        Ok(Self { process, address })
    }

    pub(crate) fn fds(&self) -> io::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.process.id()))?.count())
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
        let cost = Cost::of(&[self.process.id()])?;
        Ok(Sample {
            at: 0.0,
            seats: value("nudged_seats")?,
            opened: value("nudged_streams_opened_total")?,
            delivered: value("nudged_events_delivered_total")?,
            channels: value("nudged_channels")?,
            topics: value("nudged_topics")?,
            closed: closed.collect(),
            fds: self.fds()?,
            pss: cost.pss,
            anonymous: self.anonymous()?,
            cpu: cost.cpu,
        })
    }

    fn anonymous(&self) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.ok_or(io::ErrorKind::InvalidData)? * 1024)
    }

    pub(crate) fn stop(&mut self) -> io::Result<ExitStatus> {
        self.process.stop()
    }
}

// ===== impl Sample =====

impl Sample {
    /// Streams that ended, of all causes.
    pub(crate) fn closed(&self) -> u64 {
        self.closed.values().sum()
    }
}
