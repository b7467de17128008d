//! The record of the counts, and how they changed since the last one.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::shared::record::{FOLDER, Files, heading};

/// One figure.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) instructions: f64,
}

/// All of them.
pub(crate) struct Record {
    pub(crate) rows: Vec<Row>,
    pub(crate) last: Option<Last>,
    pub(crate) valgrind: String,
}

/// What the last record says.
pub(crate) struct Last {
    date: String,
    rows: Vec<(String, f64)>,
}

const MODE: &str = "micro";
const CSV: &str = "-micro.csv";

// ===== impl Record =====

impl Record {
    /// The latest that there is.
    pub(crate) fn last() -> io::Result<Option<Last>> {
        let names = fs::read_dir(FOLDER)?.map(|entry| Ok(entry?.file_name()));
        let names: Vec<_> = names.collect::<io::Result<_>>()?;
        let names = names.iter().filter_map(|name| name.to_str());
        let Some(name) = names.filter(|name| name.ends_with(CSV)).max() else { return Ok(None) };
        let text = fs::read_to_string(Path::new(FOLDER).join(name))?;
        let row = |line: &str| {
            let (name, instructions) = line.split_once(',')?;
            Some((name.to_owned(), instructions.parse().ok()?))
        };
        let date = name.trim_end_matches(CSV).to_owned();
        Ok(Some(Last { date, rows: text.lines().filter_map(row).collect() }))
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = heading(MODE);
        let since = self.last.as_ref().map_or("–", |last| &last.date);
        let _ = write!(
            text,
            "Instructions in user space, counted by {}; what the kernel does for a system call is \
             not among them. Seeds of hash tables and jitter move them by some tenths of a per \
             cent.\n\n| | instructions | since {since} |\n|---|---:|---:|\n",
            self.valgrind
        );
        for Row { name, what, instructions } in &self.rows {
            let change = self.last.as_ref().and_then(|last| last.change(name, *instructions));
            let change = change.map_or_else(|| "–".into(), |change| format!("{change:+.1} %"));
            let _ = writeln!(text, "| `{name}`: {what} | {instructions:.0} | {change} |");
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

// ===== impl Last =====

impl Last {
    /// In per cent.
    fn change(&self, name: &str, instructions: f64) -> Option<f64> {
        let (_, before) = self.rows.iter().find(|(known, _)| known == name)?;
        Some((instructions / before - 1.0) * 100.0)
    }
}
