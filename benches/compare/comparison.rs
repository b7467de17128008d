//! The record of a comparison: tables, a CSV, and a chart.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use super::bars::{Bar, Kind, Panel, Width, svg};
use super::measure::{Plan, Sample};
use super::metric::{METRICS, Metric, Place};
use super::peer::Peer;
use super::ratios;
use super::spread::{median, multiples};
use super::table::{Table, csv_figure, csv_name, grouped};
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

/// In place of a figure that was not measured.
pub(crate) const NONE: &str = "–";

/// How its bars are drawn.
pub(crate) fn kind(peer: Peer) -> Kind {
    // Over TLS and with a backplane too.
    let is_nudged = peer.name().split(',').next() == Some(Peer::Nudged.name());
    match peer {
        Peer::Raw => Kind::Reference,
        _ if is_nudged && !peer.is_before() => Kind::Ours,
        _ => Kind::Other,
    }
}

/// The second line of a chart.
pub(crate) fn subtitle(mode: &str) -> String {
    let machine = machine();
    let processor = machine.split(',').next().unwrap_or_default();
    format!("{mode}, {}, {processor}", today())
}

/// Writes a record with its tables, its figures run by run, and its chart for pages and for phones; returns the paths.
pub(crate) fn write(
    mut files: Files,
    tables: String,
    csv: String,
    chart: impl Fn(Width) -> String,
) -> io::Result<Vec<PathBuf>> {
    files.add(".md", tables);
    files.add(".csv", csv);
    files.add(".svg", chart(Width::Page));
    files.add("-narrow.svg", chart(Width::Phone));
    files.write()
}

// ===== impl Runs =====

impl Runs {
    /// A metric of each run, in their order.
    pub(crate) fn values(&self, metric: &Metric) -> Vec<Option<f64>> {
        let read = |sample: &Result<Sample, String>| (metric.read)(sample.as_ref().ok()?);
        self.samples.iter().map(read).collect()
    }

    /// The name, marked if there were faults.
    fn title(&self) -> String {
        let mark = if self.faults().is_empty() { "" } else { " †" };
        format!("{}{mark}", self.peer.name())
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
        let Plan { workers, rounds, flood, .. } = &self.plan;
        let runs = self.runs.iter().map(|runs| runs.samples.len()).max().unwrap_or(0);
        let _ = write!(
            text,
            "{} of one org, {runs} alternated runs (medians), {rounds} events one at a time, then \
             {flood} back to back. Servers with a setting for it use {workers} worker(s). In \
             brackets: multiples of the raw loop's in the same run (medians of the ratios). Memory \
             is PSS, which leaves out the kernel's for sockets.\n\n",
            self.subscribers()
        );
        self.parts(&mut text);
        let _ =
            writeln!(text, "![The figures of the first table]({}-{}.svg)\n", today(), self.mode);
        for place in [Place::First, Place::Second] {
            self.table(place, &mut text);
        }
        self.legend(&mut text);
        text.push_str(&ratios::table(&self.runs));
        self.notes(&mut text);
        text
    }

    fn subscribers(&self) -> String {
        format!("{} subscribers", grouped(self.plan.subscribers as f64, 0))
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

    fn table(&self, place: Place, text: &mut String) {
        let metrics: Vec<_> = self.metrics().filter(|metric| metric.place == place).collect();
        if metrics.is_empty() {
            return;
        }
        let row = |runs: &Runs| {
            let cells = metrics.iter().map(|metric| self.cell(metric, runs)).collect();
            (runs.title(), cells)
        };
        let columns = metrics.iter().map(|metric| metric.heading()).collect();
        let rows = self.runs.iter().map(row).collect();
        let _ = writeln!(text, "{}", Table { columns, rows });
    }

    fn cell(&self, metric: &Metric, runs: &Runs) -> String {
        let Some(value) = runs.median(metric) else { return NONE.into() };
        let raw = self.raw().filter(|raw| metric.ratio && raw.peer != runs.peer);
        let ratio =
            raw.and_then(|raw| median(&multiples(&runs.values(metric), &raw.values(metric))));
        let ratio = ratio.map_or(String::new(), |ratio| format!(" ({ratio:.2}×)"));
        grouped(value, metric.digits) + &ratio
    }

    fn legend(&self, text: &mut String) {
        for metric in self.metrics() {
            let _ = writeln!(text, "* {}: {}", metric.title, metric.meaning);
        }
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
        text.push_str("\n† **Not every subscriber got every event exactly once:**\n");
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
                let _ = write!(text, "{},{}", csv_name(runs.peer.name()), at + 1);
                for metric in &METRICS {
                    text.extend([",", &csv_figure((metric.read)(sample))]);
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
        let files = Files::new(folder, &self.mode);
        write(files, self.markdown(), self.csv(), |width| self.chart(width))
    }

    fn chart(&self, width: Width) -> String {
        let workers = self.plan.workers;
        let workers = if workers == 1 { "1 worker".into() } else { format!("{workers} workers") };
        let title = format!("{}, {workers}", self.subscribers());
        let line = self.raw().map_or("", |_| " Dashed: raw loop.");
        let mark = if self.is_clean() { "" } else { " †: see the record." };
        let note = format!("Less is better.{line}{mark}");
        let panels = self.metrics().filter(|metric| metric.place == Place::First);
        let panels: Vec<_> = panels.map(|metric| self.panel(metric)).collect();
        svg(&title, &subtitle(&self.mode), &note, &panels, width)
    }

    fn panel(&self, metric: &Metric) -> Panel {
        let bar = |runs: &Runs| {
            let value = runs.median(metric)?;
            let label = grouped(value, metric.digits);
            Some(Bar { name: runs.title(), value, label, kind: kind(runs.peer) })
        };
        let bars = self.runs.iter().filter_map(bar).collect();
        Panel { title: metric.heading(), bars, has_line: metric.ratio }
    }
}
