//! A table of a record: a row for each server, a column for each figure.

use std::fmt::{self, Display};

/// A table in Markdown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    /// The name of each server, and its cells.
    pub(crate) rows: Vec<(String, Vec<String>)>,
}

/// The figure with its thousands apart: 3,709,943.
pub(crate) fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let whole = text.split('.').next().unwrap_or_default();
    let (sign, whole) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut grouped = sign.to_owned();
    for (at, digit) in whole.char_indices() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + &text[sign.len() + whole.len()..]
}

/// A server's name in a row of CSV: quoted, because some have a comma.
pub(crate) fn csv_name(name: &str) -> String {
    format!("\"{name}\"")
}

/// A figure in a row of CSV; empty if there is none.
pub(crate) fn csv_figure(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| format!("{value:.4}"))
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = |cells: &[String]| -> String {
            cells.iter().map(|cell| format!(" {} |", escape(cell))).collect()
        };
        writeln!(f, "| |{}", cells(&self.columns))?;
        writeln!(f, "|---|{}", "---:|".repeat(self.columns.len()))?;
        let mut rows = self.rows.iter();
        rows.try_for_each(|(name, row)| writeln!(f, "| {} |{}", escape(name), cells(row)))
    }
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
