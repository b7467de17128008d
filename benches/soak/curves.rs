//! Curves over time, one panel below the other.

use std::fmt::Write as _;

use crate::shared::chart::{TOP, WIDTH, card, escape};

/// One curve, from zero upwards.
pub(crate) struct Panel {
    pub(crate) title: String,
    /// Seconds and values.
    pub(crate) points: Vec<(f64, f64)>,
    /// The ends of a straight line on top of it.
    pub(crate) fit: Option<[(f64, f64); 2]>,
}

/// The scale of one panel.
struct Scale {
    top: usize,
    last: f64,
    most: f64,
}

const LEFT: usize = 70;
const RIGHT: usize = 20;
const PANEL: usize = 120;
/// The curve's height in a panel; the rest is the title.
const PLOT: usize = 84;
/// Most points of a curve; neighbours beyond that are averaged.
const POINTS: usize = 600;

/// Panels that share the axis of time.
pub(crate) fn svg(title: &str, subtitle: &str, panels: &[Panel]) -> String {
    let mut text = String::new();
    for (number, panel) in panels.iter().enumerate() {
        draw(&mut text, TOP + number * PANEL, panel);
    }
    let height = TOP + panels.len() * PANEL + 20;
    let last = panels.iter().filter_map(|panel| panel.points.last()).map(|(x, _)| *x);
    let minutes = last.fold(0.0, f64::max) / 60.0;
    let _ = writeln!(
        text,
        "<text class=\"small\" x=\"{LEFT}\" y=\"{0}\">0</text>\
         <text class=\"small\" x=\"{1}\" y=\"{0}\" text-anchor=\"end\">{minutes:.1} min</text>",
        height - 14,
        WIDTH - RIGHT
    );
    card(title, subtitle, [WIDTH, height], text)
}

fn draw(text: &mut String, top: usize, panel: &Panel) {
    let points = thinned(&panel.points);
    let most = points.iter().map(|(_, y)| *y).fold(f64::MIN_POSITIVE, f64::max) * 1.05;
    let last = points.last().map_or(1.0, |(x, _)| x.max(1.0));
    let scale = Scale { top: top + PANEL - PLOT - 12, last, most };
    let base = scale.top + PLOT;
    let _ = write!(
        text,
        "<text class=\"small\" x=\"{LEFT}\" y=\"{}\">{}</text>\
         <text class=\"small\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
         <text class=\"small\" x=\"{2}\" y=\"{base}\" text-anchor=\"end\">0</text>\
         <path class=\"axis\" d=\"M{LEFT} {base}H{}M{LEFT} {6}H{5}\"/><path class=\"line\" d=\"",
        scale.top - 6,
        escape(&panel.title),
        LEFT - 8,
        scale.top + 10,
        rounded(most),
        WIDTH - RIGHT,
        scale.top
    );
    scale.path(text, &points);
    text.push_str("\"/>\n");
    if let Some(fit) = &panel.fit {
        text.push_str("<path class=\"fit\" d=\"");
        scale.path(text, fit);
        text.push_str("\"/>\n");
    }
}

fn rounded(value: f64) -> String {
    let digits = if value < 10.0 { 2 } else { 0 };
    format!("{value:.digits$}")
}

fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(POINTS).max(1);
    let mean = |some: &[(f64, f64)]| {
        let sum = some.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / some.len() as f64, sum.1 / some.len() as f64)
    };
    points.chunks(size).map(mean).collect()
}

// ===== impl Scale =====

impl Scale {
    fn path(&self, text: &mut String, points: &[(f64, f64)]) {
        let width = (WIDTH - LEFT - RIGHT) as f64;
        for (number, (x, y)) in points.iter().enumerate() {
            let command = if number == 0 { 'M' } else { 'L' };
            let x = LEFT as f64 + x / self.last * width;
            let y = (self.top + PLOT) as f64 - y / self.most * PLOT as f64;
            let _ = write!(text, "{command}{x:.1} {y:.1}");
        }
    }
}
