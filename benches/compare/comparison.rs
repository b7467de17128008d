//! The record of a comparison: a table, a CSV, and charts for the README.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use super::bars::{self, Bar};
use super::measure::{Plan, Sample};
use super::metric::{METRICS, Metric};
use super::peer::Peer;
use super::ratios;
use super::spread::{median, multiples};
use crate::shared::record::{Files, heading, machine, today};

/// All runs of one server.
pub(crate) struct Runs {
    pub(crate) peer: Peer,
    pub(crate) version: String,
    /// In the order of the runs; `Err` has the reason why a run has no figures.
    pub(crate) samples: Vec<Result<Sample, String>>,
}

/// A comparison, filled run by run.
pub(crate) struct Record {
    pub(crate) mode: String,
    pub(crate) plan: Plan,
    pub(crate) runs: Vec<Runs>,
    /// Servers that this machine does not have, and how to get them.
    pub(crate) absent: Vec<(Peer, String)>,
}

// ===== impl Runs =====

impl Runs {
    /// A metric of each run, in their order.
    pub(crate) fn values(&self, metric: &Metric) -> Vec<Option<f64>> {
        let read = |sample: &Result<Sample, String>| (metric.read)(sample.as_ref().ok()?);
        self.samples.iter().map(read).collect()
    }

    fn median(&self, metric: &Metric) -> Option<f64> {
        median(&self.values(metric).into_iter().flatten().collect::<Vec<_>>())
    }

    fn faults(&self) -> Vec<String> {
        let fault = |sample: &Result<Sample, String>| match sample {
            Ok(sample) => sample.fault(),
            Err(why) => Some(why.clone()),
        };
        let named = |(at, sample)| Some(format!("run {}: {}", at + 1, fault(sample)?));
        self.samples.iter().enumerate().filter_map(named).collect()
    }
}

// ===== impl Record =====

impl Record {
    /// Whether every subscriber of every server received every event exactly once.
    pub(crate) fn is_clean(&self) -> bool {
        self.runs.iter().all(|runs| runs.faults().is_empty())
    }

    fn raw(&self) -> Option<&Runs> {
        self.runs.iter().find(|runs| runs.peer == Peer::Raw)
    }

    /// The metrics that this plan measured.
    fn metrics(&self) -> impl Iterator<Item = &'static Metric> {
        METRICS.iter().filter(|metric| self.runs.iter().any(|runs| runs.median(metric).is_some()))
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = heading(&self.mode);
        let Plan { subscribers, workers, rounds, flood, .. } = &self.plan;
        let runs = self.runs.iter().map(|runs| runs.samples.len()).max().unwrap_or(0);
        let _ = write!(
            text,
            "{subscribers} subscribers of one org, {runs} alternated runs (medians), {rounds} \
             events one at a time, then {flood} back to back. Servers with a \
             setting for it use {workers} worker(s). In brackets: multiples of the raw loop's in the same run \
             (medians of the ratios). Memory is PSS, which leaves out the kernel's for sockets.\n\n"
        );
        self.parts(&mut text);
        self.table(&mut text);
        text.push_str(&ratios::table(&self.runs));
        self.notes(&mut text);
        text
    }

    /// How the parts with a server of their own are measured, or why one is not.
    fn parts(&self, text: &mut String) {
        if self.plan.singles > 0 {
            let _ = write!(
                text,
                "Connects one at a time: a connection, its response, then the next one, on a fresh server, {} held at \
                 the end. With TLS each has a full handshake; with HTTP/2 each is a stream.\n\n",
                self.plan.singles
            );
        }
        if self.plan.rounds > 0 {
            text.push_str(
                "The receive path on the other core: the server has a processor of its own, and what it sends over \
                 loopback is received on the generator's (`rps_cpus` of `lo`), in whose time the receivers' half of \
                 TCP is then. Without that it is in the server's.\n\n",
            );
        }
        for why in self.other_core_reasons() {
            let _ = writeln!(text, "The receive path on the other core: not measured: {why}\n");
        }
    }

    fn other_core_reasons(&self) -> Vec<String> {
        let samples = self.runs.iter().flat_map(|runs| &runs.samples);
        let reason =
            |sample: &Result<Sample, String>| sample.as_ref().ok()?.other_core.clone()?.err();
        let mut all: Vec<_> = samples.filter_map(reason).collect();
        all.sort();
        all.dedup();
        all
    }

    fn table(&self, text: &mut String) {
        let mut rule = String::from("|---|");
        text.push_str("| |");
        for runs in &self.runs {
            let _ = write!(text, " {} |", runs.peer.name());
            rule.push_str("---:|");
        }
        let _ = write!(text, "\n{rule}\n");
        for metric in self.metrics() {
            let _ = write!(text, "| {} ({}) |", metric.title, metric.unit);
            for runs in &self.runs {
                let _ = write!(text, " {} |", self.cell(metric, runs));
            }
            text.push('\n');
        }
    }

    fn cell(&self, metric: &Metric, runs: &Runs) -> String {
        let Some(value) = runs.median(metric) else { return "–".into() };
        let raw = self.raw().filter(|_| metric.ratio);
        let ratio =
            raw.and_then(|raw| median(&multiples(&runs.values(metric), &raw.values(metric))));
        let ratio = ratio.map_or(String::new(), |ratio| format!(" ({ratio:.2}×)"));
        format!("{value:.*}{ratio}", metric.digits)
    }

    fn notes(&self, text: &mut String) {
        text.push_str("\nServers:\n");
        for runs in &self.runs {
            let _ = writeln!(text, "* {}: {}", runs.peer.name(), runs.version);
        }
        for (peer, why) in &self.absent {
            let _ = writeln!(text, "* {}: not measured: {why}", peer.name());
        }
        if self.is_clean() {
            text.push_str("\nEvery subscriber of every server got every event exactly once.\n");
            return;
        }
        text.push_str("\n**Not every subscriber got every event exactly once:**\n");
        for runs in &self.runs {
            for fault in runs.faults() {
                let _ = writeln!(text, "* {}, {fault}", runs.peer.name());
            }
        }
    }

    /// One row for each run.
    fn csv(&self) -> String {
        let mut text = String::from("server,run");
        METRICS.iter().for_each(|metric| text.extend([",", metric.key]));
        text.push_str(",missed,duplicates,disconnects,failed\n");
        for runs in &self.runs {
            for (at, sample) in runs.samples.iter().enumerate() {
                let Ok(sample) = sample else { continue };
                let _ = write!(text, "{},{}", runs.peer.name(), at + 1);
                for metric in &METRICS {
                    let value = (metric.read)(sample);
                    text.push(',');
                    value.iter().for_each(|value| text.push_str(&format!("{value:.4}")));
                }
                let tally = sample.tally;
                let counts = [tally.missed, tally.duplicates, tally.disconnects, tally.failed];
                counts.iter().for_each(|count| text.push_str(&format!(",{count}")));
                text.push('\n');
            }
        }
        text
    }

    /// Writes all files and returns their paths.
    pub(crate) fn write(&self, folder: Option<&Path>) -> io::Result<Vec<PathBuf>> {
        let mut files = Files::new(folder, &self.mode);
        files.add(".md", self.markdown());
        files.add(".csv", self.csv());
        for metric in self.metrics() {
            let subtitle = format!(
                "{} subscribers, {}, {}",
                self.plan.subscribers,
                today(),
                machine().split(',').next().unwrap_or_default()
            );
            let bars: Vec<Bar> =
                self.runs.iter().filter_map(|runs| self.bar(metric, runs)).collect();
            let svg = bars::svg(&format!("{} ({})", metric.title, metric.unit), &subtitle, &bars);
            files.add(&format!("-{}.svg", metric.key), svg);
        }
        files.write()
    }

    fn bar(&self, metric: &Metric, runs: &Runs) -> Option<Bar> {
        Some(Bar {
            name: runs.peer.name().to_owned(),
            value: runs.median(metric)?,
            label: self.cell(metric, runs),
            ours: runs.peer == Peer::Nudged,
        })
    }
}
