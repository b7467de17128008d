//! The record of the counts, with those of an earlier record.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::shared::record::{FOLDER, Files, heading, today};

/// One figure.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) instructions: f64,
}

/// All figures of a run.
pub(crate) struct Record {
    pub(crate) rows: Vec<Row>,
    pub(crate) earlier: Option<Earlier>,
    /// Versions of valgrind, and of nats-server if there is one.
    pub(crate) tools: Vec<String>,
}

/// The figures of an earlier record.
pub(crate) struct Earlier {
    /// Its date, and its commit if it names one.
    title: String,
    rows: Vec<(String, f64)>,
}

const MODE: &str = "micro";
const CSV: &str = "-micro.csv";

// ===== impl Record =====

impl Record {
    pub(crate) fn markdown(&self) -> String {
        let mut text = heading(MODE);
        let earlier = self.earlier.as_ref().map_or("–", |earlier| &earlier.title);
        let _ = write!(
            text,
            "Instructions in user space, counted by {}; what the kernel does for a system call is \
             not among them. Seeds of hash tables and jitter move them by some tenths of a per \
             cent.\n\n| | {earlier} | now | change |\n|---|---:|---:|---:|\n",
            self.tools.join(", of servers with a log beside ")
        );
        for Row { name, what, instructions } in &self.rows {
            let before = self.earlier.as_ref().and_then(|earlier| earlier.get(name));
            let change = |before: f64| format!("{:+.1} %", (instructions / before - 1.0) * 100.0);
            let change = before.map_or_else(|| "–".into(), change);
            let before = before.map_or_else(|| "–".into(), |before| format!("{before:.0}"));
            let _ =
                writeln!(text, "| `{name}`: {what} | {before} | {instructions:.0} | {change} |");
        }
        text
    }

    /// Writes both files and returns their paths.
    pub(crate) fn write(&self, folder: Option<&Path>) -> io::Result<Vec<PathBuf>> {
        let mut csv = String::from("name,instructions\n");
        for Row { name, instructions, .. } in &self.rows {
            let _ = writeln!(csv, "{name},{instructions:.1}");
        }
        let mut files = Files::new(folder, MODE);
        files.add(".md", self.markdown());
        files.add(".csv", csv);
        files.write()
    }
}

// ===== impl Earlier =====

impl Earlier {
    /// The latest record of another day: today's is replaced by the one that is being made.
    pub(crate) fn latest() -> io::Result<Option<Self>> {
        let names = fs::read_dir(FOLDER)?.map(|entry| Ok(entry?.file_name()));
        let names: Vec<_> = names.collect::<io::Result<_>>()?;
        let names = names.iter().filter_map(|name| name.to_str());
        let todays = format!("{}{CSV}", today());
        let latest = names.filter(|name| name.ends_with(CSV) && **name != todays).max();
        latest.map(|name| Self::read(&Path::new(FOLDER).join(name))).transpose()
    }

    /// Reads a record's CSV, and its commit from the text next to it.
    pub(crate) fn read(csv: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(csv)?;
        let row = |line: &str| {
            let (name, instructions) = line.split_once(',')?;
            Some((name.to_owned(), instructions.parse().ok()?))
        };
        let name = csv.file_name().unwrap_or_default().to_string_lossy();
        let date = name.trim_end_matches(CSV).to_owned();
        let markdown = fs::read_to_string(csv.with_extension("md")).unwrap_or_default();
        let nudged = markdown.lines().find_map(|line| line.strip_prefix("* nudged: "));
        let commit = nudged.and_then(|nudged| nudged.split_once(' '));
        let title = commit.map_or_else(|| date.clone(), |(_, commit)| format!("{date} {commit}"));
        Ok(Self { title, rows: text.lines().filter_map(row).collect() })
    }

    fn get(&self, name: &str) -> Option<f64> {
        self.rows.iter().find(|(known, _)| known == name).map(|(_, instructions)| *instructions)
    }
}
