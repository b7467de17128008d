//! The card on which every chart is drawn, legible on light and dark pages.

use std::fmt::Display;

pub(crate) const WIDTH: usize = 760;
/// Height of title and subtitle.
pub(crate) const TOP: usize = 74;

/// Only fonts of the system and queries within the file: pages show it as an image.
const STYLE: &str = "\
    text{font:14px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}\
    .title{font-size:16px;font-weight:600}.panel{font-size:13px;font-weight:600}\
    .row,.small{font-size:12px}.small{fill:#59636e}.strong{font-weight:600;fill:#0969da}\
    .card{fill:#fff;stroke:#d1d9e0}.bar{fill:#8c959f}.ours{fill:#0969da}\
    .halo{paint-order:stroke;stroke:#fff;stroke-width:4px}\
    .reference{fill:none;stroke:#59636e}.limit{fill:none;stroke:#59636e;stroke-dasharray:3 3}\
    .line{fill:none;stroke:#0969da;stroke-width:1.3}.fit{stroke:#cf222e;stroke-width:1.5}\
    .axis{stroke:#d1d9e0}\
    @media(prefers-color-scheme:dark){text{fill:#f0f6fc}.small{fill:#9198a1}.strong{fill:#4493f8}\
    .card{fill:#0d1117;stroke:#3d444d}.bar{fill:#656c76}.ours{fill:#4493f8}\
    .halo{stroke:#0d1117}.reference,.limit{stroke:#9198a1}\
    .line{stroke:#4493f8}.fit{stroke:#f85149}.axis{stroke:#3d444d}}";

/// An SVG of this width and height with a title, and `body` below [`TOP`].
pub(crate) fn card(
    title: &str,
    subtitle: &str,
    [width, height]: [usize; 2],
    body: impl Display,
) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"card\" x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n\
         <text class=\"title\" x=\"20\" y=\"32\">{title}</text>\n\
         <text class=\"small\" x=\"20\" y=\"52\">{subtitle}</text>\n{body}</svg>\n",
        width - 1,
        height - 1,
        title = escape(title),
        subtitle = escape(subtitle)
    )
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
