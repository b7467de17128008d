//! What a mode found out, as a table for readers and one for programs.

use std::fmt::Write as _;
use std::io;

use crate::shared::record::{Files, heading};

/// The result of one mode.
#[derive(Debug, Default)]
pub(crate) struct Section {
    pub(crate) mode: &'static str,
    /// What was done, in Markdown.
    pub(crate) about: String,
    pub(crate) figures: Vec<Figure>,
    /// What was lost, refused or re-read and must not be.
    pub(crate) faults: Vec<String>,
}

/// One figure.
#[derive(Debug)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    target: Option<Target>,
}

/// What a figure has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// Measurements of one thing, in any unit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

/// Prints the sections, and writes them to the files of a record, if there is one.
pub(crate) fn report(name: &str, sections: &[Section], record: Option<Files>) -> io::Result<()> {
    let text = markdown(name, sections);
    println!("{text}");
    if let Some(mut files) = record {
        files.add(".md", text);
        files.add(".csv", csv(sections));
        for file in files.write()? {
            eprintln!("wrote {}", file.display());
        }
    }
    Ok(())
}

fn markdown(name: &str, sections: &[Section]) -> String {
    let mut text = heading(name);
    for section in sections {
        let _ = write!(
            text,
            "## {}\n\n{}\n\n| | figure | unit | target |\n|---|---:|---|---|\n",
            section.mode, section.about
        );
        for figure in &section.figures {
            let target = figure.target.map_or_else(String::new, |target| {
                format!("{target}{}", if target.is_met(figure.value) { "" } else { ", **missed**" })
            });
            let value = number(figure.value);
            let _ = writeln!(text, "| {} | {value} | {} | {target} |", figure.name, figure.unit);
        }
        text.push('\n');
        for fault in &section.faults {
            let _ = writeln!(text, "* **{fault}**");
        }
    }
    text.trim_end().to_owned() + "\n"
}

fn csv(sections: &[Section]) -> String {
    let mut text = String::from("mode,name,value,unit\n");
    for section in sections {
        for Figure { name, value, unit, .. } in &section.figures {
            let name = name.replace(',', ";");
            let _ = writeln!(text, "{},{name},{value:.4},{unit}", section.mode);
        }
    }
    text
}

/// With at least three digits that count, and no false precision.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

// ===== impl Section =====

impl Section {
    pub(crate) fn new(mode: &'static str, about: impl Into<String>) -> Self {
        Self { mode, about: about.into(), ..Self::default() }
    }

    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit, target: None });
    }

    pub(crate) fn add_with(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        target: Target,
    ) {
        self.figures.push(Figure { name: name.into(), value, unit, target: Some(target) });
    }

    /// A count that has to be 0.
    pub(crate) fn expect_none(&mut self, name: &str, count: u64) {
        self.add_with(name, count as f64, "", Target::AtMost(0.0));
        if count > 0 {
            self.faults.push(format!("{name}: {count}"));
        }
    }
}

// ===== impl Target =====

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
        }
    }
}

// ===== impl Samples =====

impl Samples {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = f64> {
        self.0.iter().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest value that this share of them does not exceed; NaN if there is none.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}
