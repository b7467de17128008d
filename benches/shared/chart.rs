//! The card on which every chart is drawn, legible on light and dark pages.

use std::fmt::Display;

pub(crate) const WIDTH: usize = 760;
/// Height of title and subtitle.
pub(crate) const TOP: usize = 74;

const STYLE: &str = "\
    text{font:14px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}\
    .title{font-size:16px;font-weight:600}.small{font-size:12px;fill:#59636e}\
    .card{fill:#fff;stroke:#d1d9e0}.bar{fill:#8c959f}.ours{fill:#0969da}\
    .line{fill:none;stroke:#0969da;stroke-width:1.3}.fit{stroke:#cf222e;stroke-width:1.5}\
    .axis{stroke:#d1d9e0}\
    @media(prefers-color-scheme:dark){text{fill:#f0f6fc}.small{fill:#9198a1}\
    .card{fill:#0d1117;stroke:#3d444d}.bar{fill:#656c76}.ours{fill:#4493f8}\
    .line{stroke:#4493f8}.fit{stroke:#f85149}.axis{stroke:#3d444d}}";

/// An SVG of this height with a title, and `body` below [`TOP`].
pub(crate) fn card(title: &str, subtitle: &str, height: usize, body: impl Display) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"card\" x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n\
         <text class=\"title\" x=\"20\" y=\"32\">{title}</text>\n\
         <text class=\"small\" x=\"20\" y=\"52\">{subtitle}</text>\n{body}</svg>\n",
        WIDTH - 1,
        height - 1,
        title = escape(title),
        subtitle = escape(subtitle)
    )
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
