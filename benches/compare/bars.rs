//! Bar charts.

use std::fmt::Write as _;

use crate::shared::chart::{TOP, WIDTH, card, escape};

/// One server's bar.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) label: String,
    pub(crate) ours: bool,
}

const ROW: usize = 34;
const NAMES: usize = 170;
/// Width kept free for the label of the longest bar.
const LABELS: usize = 130;

/// Horizontal bars from zero, in the order given.
pub(crate) fn svg(title: &str, subtitle: &str, bars: &[Bar]) -> String {
    let height = TOP + bars.len() * ROW + 16;
    let most = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let mut text = String::new();
    for (at, bar) in bars.iter().enumerate() {
        let room = (WIDTH - NAMES - LABELS - 20) as f64;
        let length = (bar.value.max(0.0) / most * room).max(2.0);
        let y = TOP + at * ROW;
        let class = if bar.ours { "ours" } else { "bar" };
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{class}\" x=\"{NAMES}\" y=\"{}\" width=\"{length:.1}\" height=\"20\" \
             rx=\"3\"/><text x=\"{:.1}\" y=\"{}\">{}</text>",
            NAMES - 10,
            y + 17,
            escape(&bar.name),
            y + 2,
            NAMES as f64 + length + 8.0,
            y + 17,
            escape(&bar.label)
        );
    }
    card(title, subtitle, height, text)
}
