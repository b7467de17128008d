//! What was measured, as tables for readers and one for programs.

use std::fmt::Write as _;
use std::io;

use crate::chart::{Panel, svg};
use crate::measure::Measured;
use crate::shared::record::{Files, heading};
use crate::times::{counts, length, most};
use crate::{Event, HIDDEN_OF_TEN, Outcome, Plan, RULES, Rules};

/// All runs of one event with the same rules.
pub(crate) struct Row {
    pub(crate) event: Event,
    pub(crate) rules: Rules,
    pub(crate) runs: Vec<Measured>,
}

/// A figure of one run.
struct Figure {
    name: &'static str,
    unit: &'static str,
    of: fn(&Measured) -> f64,
}

const EVENTS: [Event; 4] = [Event::Kill, Event::Terminate, Event::KillFixed, Event::Publish];
const FIGURES: [Figure; 9] = [
    Figure { name: "re-reads", unit: "", of: |run| run.reads.len() as f64 },
    Figure { name: "in any second", unit: "", of: |run| most(&run.reads, 1.0) as f64 },
    Figure { name: "in any 100 ms", unit: "", of: |run| most(&run.reads, 0.1) as f64 },
    Figure { name: "first to last", unit: "s", of: |run| length(&run.reads) },
    Figure { name: "when looked at", unit: "", of: |run| run.late as f64 },
    Figure {
        name: "reconnects in any second",
        unit: "",
        of: |run| most(&run.openings, 1.0) as f64,
    },
    Figure { name: "refused before", unit: "", of: Measured::refused },
    Figure { name: "Node", unit: "%", of: |run| run.node * 100.0 },
    Figure { name: "its longest delay", unit: "ms", of: |run| run.delay_ms },
];
/// Within which each user looks at a hidden page, in seconds: the time that is modelled.
const LOOKED_AT: f64 = 600.0;
const BROWSERS: f64 = 100_000.0;
/// The delay beyond which the peaks are in doubt.
const DELAY_MS: f64 = 500.0;
/// In the chart.
const BUCKET: f64 = 0.1;

/// Prints the tables, and writes the files of a record, if there is one.
pub(crate) fn report(plan: &Plan, node: &str, rows: &[Row], record: Option<Files>) -> Outcome<()> {
    let text = markdown(plan, node, rows);
    println!("{text}");
    if let Some(mut files) = record {
        files.add(".md", text);
        files.add(".csv", csv(rows));
        files.add(".svg", chart(plan, rows));
        write(files)?;
    }
    Ok(())
}

fn write(files: Files) -> io::Result<()> {
    for file in files.write()? {
        eprintln!("wrote {}", file.display());
    }
    Ok(())
}

fn markdown(plan: &Plan, node: &str, rows: &[Row]) -> String {
    let mut text = heading("herd");
    about(&mut text, plan, node);
    for event in EVENTS {
        let _ = write!(text, "\n## {}\n\n{}\n\n| client |", event.name(), event.about());
        for figure in &FIGURES {
            let unit =
                if figure.unit.is_empty() { String::new() } else { format!(", {}", figure.unit) };
            let _ = write!(text, " {}{unit} |", figure.name);
        }
        let _ = writeln!(text, "\n|---|{}", "---:|".repeat(FIGURES.len()));
        for row in of(rows, event) {
            let _ = write!(text, "| {} |", row.rules.name());
            for figure in &FIGURES {
                let _ = write!(text, " {} |", row.text(figure));
            }
            text.push('\n');
        }
    }
    many(&mut text, plan, rows);
    text.push_str(LIMITS);
    let delays = rows.iter().flat_map(|row| row.runs.iter().map(|run| run.delay_ms));
    let delay = delays.fold(0.0, f64::max);
    if delay > DELAY_MS {
        let _ = writeln!(
            text,
            "\n**The pages were late by up to {delay:.0} ms: repeat this on a quiet machine.**"
        );
    }
    let faults: Vec<_> =
        rows.iter().flat_map(|row| &row.runs).flat_map(|run| &run.faults).collect();
    if !faults.is_empty() {
        text.push_str("\n## Faults\n\n");
    }
    for fault in faults {
        let _ = writeln!(text, "* **{fault}**");
    }
    text
}

fn about(text: &mut String, plan: &Plan, node: &str) {
    let _ = writeln!(
        text,
        "{} pages with `src/browser/nudged.js` in {} processes of Node {node}, each with a document, a stream (`share: \
         false`, as pages of as many browsers have it) and a connection to a backend of its own. {HIDDEN_OF_TEN} of 10 \
         are hidden. Whenever a page is called, `connected` or `invalidate`, it sends one GET to the backend, a thread \
         of the benchmark, which counts. {} runs, in turn; medians, and in brackets the lowest and the highest.\n\n\
         * *Re-reads* are those of pages that do not wait to be looked at; those of the hidden pages come *when looked \
         at*. Here each is looked at once, within {} s. If each user looks at a hidden page within ten minutes, they are \
         spread over these: {} pages make {:.1} a second.\n\
         * *Reconnects* are streams that the pages had again; *refused before* are their requests that found no server.\n\
         * *Node* is the share of a processor that the busiest process of the pages had in its busiest second, and \
         *its longest delay* the longest time for which it did not return to its event loop, because it was busy or other \
         processes were. Where the share comes near 100 % or the delay near a second, the pages were late: they came \
         together where browsers would not, or the other way round.\n\
         * `hidden: true, spread: 0` re-reads when `EventSource` does: at once, hidden or not. It is the same client: \
         its pauses are 75 to 125 % of `retry:`, which `EventSource` takes as it is.\n\
         * Server, backend, pages and benchmark share the processors of this machine.",
        plan.pages,
        plan.processes,
        plan.runs,
        plan.look.as_secs(),
        plan.hidden(),
        plan.hidden() as f64 / LOOKED_AT
    );
}

/// The same for many browsers, by arithmetic.
fn many(text: &mut String, plan: &Plan, rows: &[Row]) {
    let factor = BROWSERS / plan.pages as f64;
    let _ = write!(
        text,
        "\n## 100,000 browsers, by arithmetic\n\nThe medians above × {factor:.0}: each `retry:`, each pause and each part \
         of `spread` is drawn for itself, and none of these times depends on how many there are. A peak of few is higher \
         against its mean than a peak of many, so that these are upper bounds. A publish is not in the table: all \
         that need not be looked at re-read while the server writes to them, 100,000 with `hidden: true`, and 20,000 \
         otherwise.\n\n\
         | | client | re-reads in any second | reconnects in any second | when looked at, a second |\n\
         |---|---|---:|---:|---:|\n"
    );
    let scaled = |row: &Row, number: usize| row.median(FIGURES[number].of) * factor;
    for event in EVENTS.into_iter().filter(|event| *event != Event::Publish) {
        for row in of(rows, event) {
            let _ = writeln!(
                text,
                "| {} | {} | {:.0} | {:.0} | {:.0} |",
                event.name(),
                row.rules.name(),
                scaled(row, 1),
                scaled(row, 5),
                scaled(row, 4) / LOOKED_AT
            );
        }
    }
    text.push_str(WINDOWS);
}

const WINDOWS: &str = "\nWithout a measurement: streams that come back evenly within the 4 s between `--retry-min` and \
    `--retry-max` make a quarter of their pages re-read in a second, 25,000, or 5,000 if 8 of 10 are hidden. `spread` of \
    2 s adds slopes before and after that, and leaves the middle as it is: where the server draws `retry:` for each stream, \
    `hidden` is what counts. Where all have one `retry:` of a second, they come back within 0.5 s, and `spread` makes that \
    2.5 s: at most 50,000 in a second instead of 100,000, and at most 50 in a millisecond instead of 200; with hidden pages \
    a fifth of each. To have at most R re-reads a second, pages that are seen / R has to be the time between `--retry-min` \
    and `--retry-max` for a server that may be killed, and `--drain-window` for one that is stopped.\n";

const LIMITS: &str = "\n## What a simulated page does not show\n\n\
    * A browser that shares one stream between its tabs (`share`, the default) opens one stream for all of them, and each \
    visible tab re-reads for itself. Here a page is a browser with one tab.\n\
    * A page's re-read is as many requests as the page has queries; here it is one, and the backend's answer costs \
    nothing, so that no re-read waits for another.\n\
    * Timers of hidden tabs are throttled by browsers, and tabs are frozen or discarded: they re-read later than here, or \
    as they are loaded again.\n\
    * How many pages are hidden, and when they are looked at, is assumed. What happens to a page twice before it is looked \
    at makes one re-read, not two.\n\
    * Networks, TLS, proxies and their limits. All pages lose their stream in the same moment when a server is killed; \
    over networks that takes longer.\n";

fn csv(rows: &[Row]) -> String {
    let mut text = String::from("event,hidden,spread_ms,run,figure,value,unit\n");
    for row in rows {
        let Rules { hidden, spread_ms } = row.rules;
        for (number, run) in row.runs.iter().enumerate() {
            for Figure { name, unit, of } in &FIGURES {
                let (event, number) = (row.event.name().replace(['`', ','], ""), number + 1);
                let _ = writeln!(
                    text,
                    "{event},{hidden},{spread_ms},{number},{name},{:.4},{unit}",
                    of(run)
                );
            }
        }
    }
    text
}

/// The re-reads of the first run after the server was killed.
fn chart(plan: &Plan, rows: &[Row]) -> String {
    let panel = |row: &Row| Panel {
        title: row.rules.name().replace('`', ""),
        counts: counts(&row.runs[0].reads, BUCKET),
    };
    let panels: Vec<_> = of(rows, Event::Kill).map(panel).collect();
    let title = format!("Re-reads after a restart, {} pages", plan.pages);
    svg(
        &title,
        "per 100 ms, since the server was killed; hidden pages re-read when they are looked at",
        &panels,
    )
}

fn of(rows: &[Row], event: Event) -> impl Iterator<Item = &Row> {
    let of = move |rules: &Rules| rows.iter().find(|row| row.event == event && row.rules == *rules);
    RULES.iter().filter_map(of)
}

fn number(value: f64) -> String {
    match value {
        value if value >= 10.0 || value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

// ===== impl Row =====

impl Row {
    fn values(&self, of: fn(&Measured) -> f64) -> Vec<f64> {
        let mut values: Vec<_> = self.runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn median(&self, of: fn(&Measured) -> f64) -> f64 {
        let values = self.values(of);
        values[values.len() / 2]
    }

    /// The median, and the range if there is one.
    fn text(&self, figure: &Figure) -> String {
        let values = self.values(figure.of).into_iter().map(number).collect::<Vec<_>>();
        let (lowest, highest) = (&values[0], &values[values.len() - 1]);
        let median = &values[values.len() / 2];
        match lowest == highest {
            true => median.clone(),
            false => format!("{median} ({lowest}–{highest})"),
        }
    }
}

// ===== impl Rules =====

impl Rules {
    fn name(self) -> String {
        let Self { hidden, spread_ms } = self;
        let which = match RULES.iter().position(|rules| *rules == self) {
            Some(0) => ", as `EventSource`",
            Some(3) => ", the default",
            _ => "",
        };
        format!("`hidden: {hidden}, spread: {spread_ms}`{which}")
    }
}

// ===== impl Event =====

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL and a start",
            Self::Terminate => "SIGTERM and a start",
            Self::KillFixed => "SIGKILL and a start, one `retry:` for all",
            Self::Publish => "a publish of one key",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Kill => {
                "The server is killed and started again at once, on the same port, without `--state` and without a log: \
                 all pages get `connected`. They come back after the `retry:` of their greeting, 1 to 5 s \
                 (`--retry-min`, `--retry-max`), ±25 %."
            }
            Self::Terminate => {
                "It is stopped (`--drain-delay 0`), and started when it has ended. The streams end over \
                 `--drain-window`, 5 s, each with a new `retry:` of 1 to 5 s. Pages that come back before the end of \
                 that find no listening socket, and wait twice as long before the next attempt."
            }
            Self::KillFixed => {
                "As above, of a server that gives one second to all (`--retry-min 1s --retry-max 1s`), as many servers \
                 do, so that only the client's ±25 % and `spread` are left."
            }
            Self::Publish => {
                "All pages get `invalidate`. `spread` is not in force, since keys are handed over at once: its two rows \
                 are the same measurement twice."
            }
        }
    }
}
