//! The record of a comparison: a table, a CSV, and charts for the README.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use super::bars::{self, Bar};
use super::measure::{Plan, Sample};
use super::metric::{METRICS, Metric, median};
use super::peer::Peer;
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
    /// A metric of each run; with `raw`, as multiples of the raw loop's in the same run.
    fn values(&self, metric: &Metric, raw: Option<&Self>) -> Vec<f64> {
        let read = |runs: &Self, at: usize| {
            runs.samples.get(at)?.as_ref().ok().and_then(|sample| (metric.read)(sample))
        };
        (0..self.samples.len())
            .filter_map(|at| match raw {
                None => read(self, at),
                Some(raw) => Some(read(self, at)? / read(raw, at)?),
            })
            .collect()
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
        METRICS
            .iter()
            .filter(|metric| self.runs.iter().any(|runs| !runs.values(metric, None).is_empty()))
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
        self.table(&mut text);
        self.notes(&mut text);
        text
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
        let Some(value) = median(&runs.values(metric, None)) else { return "–".into() };
        let raw = self.raw().filter(|_| metric.ratio);
        let ratio = raw.and_then(|raw| median(&runs.values(metric, Some(raw))));
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
            value: median(&runs.values(metric, None))?,
            label: self.cell(metric, runs),
            ours: runs.peer == Peer::Nudged,
        })
    }
}
