//! The record of the returns: tables with a row for each server and kind of client, and a CSV with one for each run.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use super::figures::{COLUMNS, Column, Figures, Part};
use super::{FIRST, Herd, REST, SAMPLE};
use crate::bars::{Bar, Panel, Width, svg};
use crate::comparison::{NONE, kind, subtitle, write};
use crate::measure::Plan;
use crate::peer::Peer;
use crate::protocol::Client;
use crate::shared::record::{Files, heading, today};
use crate::spread::median;
use crate::table::{Table, csv_figure, csv_name, grouped};

/// All runs of one server with one kind of client.
pub(crate) struct Runs {
    pub(crate) peer: Peer,
    pub(crate) version: String,
    pub(crate) client: Client,
    /// `Err` has what kept a run from its end.
    pub(crate) all: Vec<Result<Figures, String>>,
}

pub(crate) struct Record {
    pub(crate) mode: String,
    pub(crate) herd: Herd,
    pub(crate) runs: Vec<Runs>,
    /// Servers without figures, and why.
    pub(crate) absent: Vec<(Peer, String)>,
}

/// The columns of the chart.
const CHARTED: [&str; 4] = ["served_s", "missed", "cpu_us", "pss_peak_mib"];

// ===== impl Record =====

impl Record {
    /// Whether every run has come to its end.
    pub(crate) fn is_clean(&self) -> bool {
        self.runs.iter().flat_map(|runs| &runs.all).all(Result::is_ok)
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = heading(&self.mode);
        self.explain(&mut text);
        let chart =
            format!("![What is missed, and what the return costs]({}-{}.svg)", today(), self.mode);
        let _ = writeln!(text, "{chart}\n");
        for part in [Part::Events, Part::Time, Part::Memory] {
            let _ = writeln!(text, "{}", self.table(part));
        }
        self.notes(&mut text);
        text
    }

    fn table(&self, part: Part) -> Table {
        let columns = || COLUMNS.iter().filter(|column| column.part == part);
        let row = |runs: &Runs| {
            let cells = columns().map(|column| runs.cell(column)).collect();
            (format!("{}, {}", runs.peer.name(), runs.client_name()), cells)
        };
        let titles = columns().map(|column| column.title.to_owned()).collect();
        Table { columns: titles, rows: self.runs.iter().map(row).collect() }
    }

    fn explain(&self, text: &mut String) {
        let Herd { plan: Plan { subscribers, workers, .. }, absent, at_once } = &self.herd;
        let runs = self.runs.iter().map(|runs| runs.all.len()).max().unwrap_or(0);
        let grouped = |count: usize| grouped(count as f64, 0);
        let (all, subscribers) = (grouped(subscribers * absent), grouped(*subscribers));
        let (rest, sample) = (REST.as_secs(), SAMPLE.as_secs_f64());
        let pace = match at_once {
            Some(at_once) => format!("up to {at_once} connects wait for their response at once"),
            None => "up to 128 connects (with Pushpin 16) wait for their response at once".into(),
        };
        let _ = write!(
            text,
            "{subscribers} subscribers of one org have received {FIRST} events. All are cut off at once by a RST, \
             {absent} events are published, and all come back: {pace}. Once all have a response, one more event is \
             published, and another one if it does not reach all. {runs} alternated runs (medians). Servers with a \
             setting for it use {workers} worker(s).\n\n\
             An `EventSource` requests the URL of before, with `Last-Event-ID`. The server's own client also sends the \
             position that the server has named in its data, and reads the head of the response. Events missed are of \
             {all}. What is stated is in an event at the beginning of a stream, or in the head for the server's own \
             client. CPU is that of the server from the return until it is quiet again, with the events after it. No \
             client waits before it returns, unlike a browser (`retry`). Memory is PSS, which leaves out the kernel's \
             for sockets; it is measured {rest} s after the server is quiet, and every {sample} s for the peak; what a \
             garbage collector returns later is not seen. A share of the clients' thread near 1 would mean that they \
             limit the times.\n\n"
        );
    }

    fn notes(&self, text: &mut String) {
        text.push_str("\nServers:\n");
        let mut named = BTreeSet::new();
        for runs in self.runs.iter().filter(|runs| named.insert(runs.peer.name())) {
            let _ = writeln!(text, "* {}: {}", runs.peer.name(), runs.version);
        }
        for (peer, why) in &self.absent {
            let _ = writeln!(text, "* {}: not measured: {why}", peer.name());
        }
        for runs in &self.runs {
            for note in runs.notes() {
                let _ = writeln!(text, "\n{}, {}: {note}", runs.peer.name(), runs.client_name());
            }
        }
    }

    fn csv(&self) -> String {
        let mut text = String::from("server,client,run");
        COLUMNS.iter().for_each(|column| text.extend([",", column.key]));
        text.push('\n');
        for runs in &self.runs {
            for (at, run) in runs.all.iter().enumerate() {
                let Ok(run) = run else { continue };
                let (name, client) = (csv_name(runs.peer.name()), runs.client_name());
                let _ = write!(text, "{name},{client},{}", at + 1);
                for column in &COLUMNS {
                    text.extend([",", &csv_figure((column.read)(run))]);
                }
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

    /// What `EventSource` has of it.
    fn chart(&self, width: Width) -> String {
        let Herd { plan, absent, .. } = &self.herd;
        let subscribers = grouped(plan.subscribers as f64, 0);
        let title = format!("{subscribers} clients come back at once");
        let note =
            format!("EventSource; {absent} events were published meanwhile. Less is better.");
        let columns = COLUMNS.iter().filter(|column| CHARTED.contains(&column.key));
        let panels: Vec<_> = columns.map(|column| self.panel(column)).collect();
        svg(&title, &subtitle(&self.mode), &note, &panels, width)
    }

    fn panel(&self, column: &Column) -> Panel {
        let bar = |runs: &Runs| {
            let (name, value) = (runs.peer.name().to_owned(), runs.median(column)?);
            let label = grouped(value, column.digits);
            Some(Bar { name, value, label, kind: kind(runs.peer) })
        };
        let runs = self.runs.iter().filter(|runs| runs.client == Client::EventSource);
        let bars = runs.filter_map(bar).collect();
        Panel { title: column.title.to_owned(), bars, has_line: false }
    }
}

// ===== impl Runs =====

impl Runs {
    pub(crate) fn new(peer: Peer, version: &str, client: Client) -> Self {
        Self { peer, version: version.to_owned(), client, all: Vec::new() }
    }

    pub(crate) fn client_name(&self) -> &'static str {
        match self.client {
            Client::EventSource => "EventSource",
            Client::Own => "its own",
        }
    }

    fn cell(&self, column: &Column) -> String {
        self.median(column).map_or_else(|| NONE.into(), |value| grouped(value, column.digits))
    }

    fn median(&self, column: &Column) -> Option<f64> {
        median(&self.all.iter().flatten().filter_map(column.read).collect::<Vec<_>>())
    }

    /// What kept runs from their ends, and why connects were retried.
    fn notes(&self) -> Vec<String> {
        let faults = self.all.iter().enumerate().filter_map(|(at, run)| {
            Some(format!("**run {} has no figures: {}**", at + 1, run.as_ref().err()?))
        });
        let reasons: BTreeSet<_> = self.all.iter().flatten().flat_map(|run| &run.reasons).collect();
        let retried = reasons.into_iter().map(|why| format!("retried after: {why}"));
        faults.chain(retried).collect()
    }
}
