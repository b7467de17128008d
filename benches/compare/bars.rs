//! One picture of a comparison: a panel of horizontal bars for each of its figures.

use std::fmt::Write as _;

use super::shared::chart::{TOP, WIDTH, card, escape};

/// One server's bar.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// The figure as text.
    pub(crate) label: String,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// nudged: highlighted.
    Ours,
    /// The lower limit, with a line through the other bars.
    Reference,
    Other,
}

/// One figure of all servers.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    /// With the unit.
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
    /// Whether the reference's value has a line.
    pub(crate) has_line: bool,
}

/// The panels of a picture beside each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Width {
    /// Two: for a page.
    Page,
    /// One below the other: for a phone.
    Phone,
}

/// Where a panel is, and how its width is divided.
struct Grid {
    left: usize,
    top: usize,
    names: f64,
    bars: f64,
}

const MARGIN: usize = 20;
/// With the margins about what a phone shows unscaled.
const PANEL: usize = (WIDTH - 3 * MARGIN) / 2;
const ROW: usize = 19;
const BAR: usize = 12;
/// Height of a panel's title.
const HEAD: usize = 26;
/// Between a panel and the next one below.
const GAP: usize = 18;
/// Between a name, its bar, and its label.
const SPACE: f64 = 6.0;
/// So that the smallest value is seen to have a bar.
const HAIR: f64 = 1.0;
/// The widest names take less than half of a panel, and are cut there.
const NAMES_MAX: f64 = 170.0;
/// Width of a letter as part of its size, rounded up: the font is not known here.
const LETTER: f64 = 0.56;
const SMALL: f64 = 12.0;
/// A title of a panel, and a row that is highlighted: bold letters of 12 are about as wide.
const BOLD: f64 = 13.5;

/// Bars from zero on a linear scale, one for each panel, smallest first.
pub(crate) fn svg(
    title: &str,
    subtitle: &str,
    note: &str,
    panels: &[Panel],
    wide: Width,
) -> String {
    let columns = if wide == Width::Page { 2 } else { 1 };
    let width = columns * (PANEL + MARGIN) + MARGIN;
    let room = (width - 2 * MARGIN) as f64;
    let mut text = format!(
        "<text class=\"small\" x=\"{MARGIN}\" y=\"{}\">{}</text>\n",
        TOP - 5,
        escape(&cut(note, room, SMALL))
    );
    let mut top = TOP + GAP;
    for row in panels.chunks(columns) {
        for (column, panel) in row.iter().enumerate() {
            draw(&mut text, panel, [MARGIN + column * (PANEL + MARGIN), top]);
        }
        let longest = row.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
        top += HEAD + longest * ROW + GAP;
    }
    let subtitle = cut(subtitle, room, SMALL);
    card(&cut(title, room, 17.0), &subtitle, [width, top], text)
}

fn draw(text: &mut String, panel: &Panel, at: [usize; 2]) {
    let mut bars: Vec<_> = panel.bars.iter().collect();
    bars.sort_by(|one, other| one.value.total_cmp(&other.value));
    let most = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let grid = Grid::of(&bars, at);
    let _ = writeln!(
        text,
        "<text class=\"panel\" x=\"{}\" y=\"{}\">{}</text>",
        grid.left,
        grid.top + 12,
        escape(&cut(&panel.title, PANEL as f64, BOLD))
    );
    let share = |bar: &Bar| bar.value.max(0.0) / most;
    for (row, bar) in bars.iter().enumerate() {
        grid.bar(text, bar, row, share(bar));
    }
    grid.vertical(text, "axis", grid.zero(), bars.len());
    let reference = bars.iter().find(|bar| panel.has_line && bar.kind == Kind::Reference);
    if let Some(reference) = reference {
        grid.vertical(text, "limit", grid.zero() + grid.length(share(reference)), bars.len());
    }
    // Last, so that the line does not cross them.
    for (row, bar) in bars.iter().enumerate() {
        grid.label(text, bar, row, share(bar));
    }
}

// ===== impl Bar =====

impl Bar {
    /// What its texts have beside their class.
    fn strong(&self) -> &'static str {
        if self.kind == Kind::Ours { " strong" } else { "" }
    }
}

// ===== impl Grid =====

impl Grid {
    fn of(bars: &[&Bar], [left, top]: [usize; 2]) -> Self {
        let widest = |text: fn(&Bar) -> &str| {
            let widths = bars.iter().map(|bar| width(text(bar), BOLD));
            widths.fold(0.0, f64::max)
        };
        let names = widest(|bar| &bar.name).min(NAMES_MAX);
        let labels = widest(|bar| &bar.label);
        Self { left, top, names, bars: PANEL as f64 - names - labels - 2.0 * SPACE }
    }

    /// Where the bars begin.
    fn zero(&self) -> f64 {
        self.left as f64 + self.names + SPACE
    }

    fn length(&self, share: f64) -> f64 {
        (share * self.bars).max(HAIR)
    }

    fn bar(&self, text: &mut String, bar: &Bar, row: usize, share: f64) {
        let class = match bar.kind {
            Kind::Ours => "ours",
            Kind::Reference => "reference",
            Kind::Other => "bar",
        };
        let _ = writeln!(
            text,
            "<text class=\"row{}\" x=\"{:.1}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{class}\" x=\"{:.1}\" y=\"{}\" width=\"{:.1}\" height=\"{BAR}\"/>",
            bar.strong(),
            self.zero() - SPACE,
            self.baseline(row),
            escape(&cut(&bar.name, NAMES_MAX, BOLD)),
            self.zero(),
            self.baseline(row) - BAR + 2,
            self.length(share)
        );
    }

    fn label(&self, text: &mut String, bar: &Bar, row: usize, share: f64) {
        let _ = writeln!(
            text,
            "<text class=\"row halo{}\" x=\"{:.1}\" y=\"{}\">{}</text>",
            bar.strong(),
            self.zero() + self.length(share) + SPACE,
            self.baseline(row),
            escape(&bar.label)
        );
    }

    fn baseline(&self, row: usize) -> usize {
        self.top + HEAD + row * ROW + 11
    }

    /// A line through all bars.
    fn vertical(&self, text: &mut String, class: &str, x: f64, rows: usize) {
        let [top, bottom] = [self.top + HEAD - 2, self.top + HEAD + rows * ROW - 3];
        let _ = writeln!(text, "<path class=\"{class}\" d=\"M{x:.1} {top}V{bottom}\"/>");
    }
}

fn width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * LETTER
}

/// The text, or as much of it as is not wider.
fn cut(text: &str, most: f64, size: f64) -> String {
    if width(text, size) <= most {
        return text.to_owned();
    }
    let letters = (most / (size * LETTER)) as usize;
    let kept: String = text.chars().take(letters.saturating_sub(1)).collect();
    kept.trim_end().to_owned() + "…"
}
