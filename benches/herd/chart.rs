//! Counts over time, one panel below the other, all on one scale.

use std::fmt::Write as _;

use crate::shared::chart::{TOP, WIDTH, card, escape};

/// Bars of one width, from zero upwards.
pub(crate) struct Panel {
    pub(crate) title: String,
    /// Ten of them are a second.
    pub(crate) counts: Vec<usize>,
}

const LEFT: usize = 60;
const RIGHT: usize = 20;
const PANEL: usize = 100;
/// The bars' height in a panel; the rest is the title.
const PLOT: usize = 66;
const PER_SECOND: usize = 10;

pub(crate) fn svg(title: &str, subtitle: &str, panels: &[Panel]) -> String {
    let all = || panels.iter().flat_map(|panel| &panel.counts);
    let most = all().copied().max().unwrap_or(0).max(1);
    let longest = panels.iter().map(|panel| panel.counts.len()).max().unwrap_or(0);
    let seconds = longest.div_ceil(PER_SECOND).max(1);
    let width = (WIDTH - LEFT - RIGHT) as f64 / (seconds * PER_SECOND) as f64;
    let mut text = String::new();
    for (number, panel) in panels.iter().enumerate() {
        let base = TOP + (number + 1) * PANEL - 14;
        let _ = write!(
            text,
            "<text class=\"small\" x=\"{LEFT}\" y=\"{}\">{}</text>\
             <text class=\"small\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{most}</text>\
             <path class=\"axis\" d=\"M{LEFT} {base}H{}\"/>",
            base - PLOT - 6,
            escape(&panel.title),
            LEFT - 8,
            base - PLOT + 10,
            WIDTH - RIGHT
        );
        for (at, count) in panel.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let height = *count as f64 / most as f64 * PLOT as f64;
            let _ = write!(
                text,
                "<rect class=\"ours\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
                LEFT as f64 + at as f64 * width,
                base as f64 - height,
                width * 0.9
            );
        }
        text.push('\n');
    }
    let height = TOP + panels.len() * PANEL + 20;
    let _ = writeln!(
        text,
        "<text class=\"small\" x=\"{LEFT}\" y=\"{0}\">0</text>\
         <text class=\"small\" x=\"{1}\" y=\"{0}\" text-anchor=\"end\">{seconds} s</text>",
        height - 14,
        WIDTH - RIGHT
    );
    card(title, subtitle, [WIDTH, height], text)
}
