//! Bar charts as SVG, on a card of their own so that they read on any background.

use std::fmt::Write as _;

/// One server's bar.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) label: String,
    pub(crate) ours: bool,
}

const WIDTH: usize = 760;
const TOP: usize = 74;
const ROW: usize = 34;
const NAMES: usize = 170;
/// Room for the figure behind the longest bar.
const LABELS: usize = 130;
const STYLE: &str = "\
    text{font:14px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}\
    .title{font-size:16px;font-weight:600}.small{font-size:12px;fill:#59636e}\
    .card{fill:#fff;stroke:#d1d9e0}.bar{fill:#8c959f}.ours{fill:#0969da}\
    @media(prefers-color-scheme:dark){text{fill:#f0f6fc}.small{fill:#9198a1}\
    .card{fill:#0d1117;stroke:#3d444d}.bar{fill:#656c76}.ours{fill:#4493f8}}";

/// Horizontal bars from zero, in the order given; less is better unless the title says otherwise.
pub(crate) fn svg(title: &str, subtitle: &str, bars: &[Bar]) -> String {
    let height = TOP + bars.len() * ROW + 16;
    let most = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"card\" x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n\
         <text class=\"title\" x=\"20\" y=\"32\">{title}</text>\n\
         <text class=\"small\" x=\"20\" y=\"52\">{subtitle}</text>\n",
        WIDTH - 1,
        height - 1,
        title = escape(title),
        subtitle = escape(subtitle)
    );
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
    text.push_str("</svg>\n");
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
