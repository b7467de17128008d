//! What `cargo bench --bench compare` writes into a record: its tables and its charts.

#[path = "../../benches/compare/bars.rs"]
mod bars;
#[path = "../../benches/compare/table.rs"]
mod table;
#[path = "../../benches/shared"]
mod shared {
    pub(crate) mod chart;
}

use bars::{Bar, Kind, Panel, Width, svg};
use table::{Table, csv_figure, csv_name, grouped};

/// An element of a chart, with its text if it has one.
#[derive(Clone, Copy)]
struct Element<'a> {
    tag: &'a str,
    text: &'a str,
}

/// How wide a letter of a font of the system is at most, on average, as part of its size.
const LETTER: f64 = 0.55;
const LONG: &str = "a <server> & its name, for which no panel has the room";

fn bar(name: &str, value: f64, kind: Kind) -> Bar {
    Bar { name: name.into(), value, label: grouped(value, 2), kind }
}

fn panel(title: &str) -> Panel {
    let bars = vec![
        bar("Centrifugo", 50.0, Kind::Other),
        bar("raw write(2) loop", 5.0, Kind::Reference),
        bar("nudged, TLS and HTTP/2", 0.01, Kind::Ours),
        bar(LONG, 1_000_000.0, Kind::Other),
        bar("Mercure", 500_000.0, Kind::Other),
    ];
    Panel { title: title.into(), bars, has_line: true }
}

/// The chart of so many panels.
fn chart(panels: usize, width: Width) -> String {
    let panels: Vec<_> = (0..panels).map(|at| panel(&format!("{LONG}, figure {at}"))).collect();
    svg("5 servers & <more>", &LONG.repeat(4), &LONG.repeat(4), &panels, width)
}

fn elements<'a>(svg: &'a str, name: &str) -> Vec<Element<'a>> {
    let element = |text: &'a str| {
        let (tag, rest) = text.split_once('>').expect("an element that ends");
        Element { tag, text: rest.split('<').next().unwrap_or_default() }
    };
    svg.split(&format!("<{name} ")).skip(1).map(element).collect()
}

#[test]
fn a_chart_has_every_server_in_every_panel_with_its_figure_and_the_smallest_first() {
    for width in [Width::Page, Width::Phone] {
        let svg = chart(3, width);
        let texts: Vec<_> = elements(&svg, "text").iter().map(|element| element.text).collect();
        let panel = [
            "nudged, TLS and HTTP/2",
            "raw write(2) loop",
            "Centrifugo",
            "Mercure",
            "0.01",
            "5.00",
            "50.00",
            "500,000.00",
            "1,000,000.00",
        ];
        let of_panels: Vec<_> = texts.iter().filter(|text| panel.contains(text)).collect();
        assert_eq!(of_panels.len(), 3 * panel.len(), "{texts:?}");
        assert!(of_panels.chunks(panel.len()).all(|texts| texts.iter().eq(&panel.each_ref())));
        assert_eq!(elements(&svg, "rect").len(), 1 + 3 * 5, "the card, and the bars");
    }
}

#[test]
fn bars_begin_at_zero_and_are_as_long_as_their_values_but_never_nothing() {
    let svg = chart(1, Width::Page);
    let widths: Vec<_> =
        elements(&svg, "rect")[1..].iter().map(|bar| bar.number("width")).collect();
    let [smallest, .., half, most] = widths[..] else { panic!("{widths:?}") };
    assert_eq!(smallest, 1.0);
    assert!((most / half - 2.0).abs() < 0.01, "{widths:?}");
}

#[test]
fn the_line_is_where_the_bar_of_the_reference_ends() {
    let mut panel = panel("CPU");
    panel.bars.retain(|bar| bar.value < 100.0);
    let svg = |panel: Panel| svg("", "", "", &[panel], Width::Phone);
    let drawn = svg(panel.clone());
    let line = |svg: &str| {
        let lines = elements(svg, "path");
        let line = lines.iter().find(|line| line.attribute("class") == "limit")?;
        let path = line.attribute("d");
        path.trim_start_matches('M').split(' ').next().unwrap().parse::<f64>().ok()
    };
    let bars = elements(&drawn, "rect");
    let raw = bars.iter().find(|bar| bar.attribute("class") == "reference").unwrap();
    let end = raw.number("x") + raw.number("width");
    assert!((line(&drawn).unwrap() - end).abs() < 0.2, "{drawn}");
    assert_eq!(line(&svg(Panel { has_line: false, ..panel.clone() })), None);
    panel.bars.retain(|bar| bar.kind != Kind::Reference);
    assert_eq!(line(&svg(panel)), None);
}

#[test]
fn everything_in_a_panel_stays_in_it_however_long_the_texts_are() {
    for (width, columns) in [(Width::Page, 2), (Width::Phone, 1)] {
        let svg = chart(5, width);
        let card = elements(&svg, "svg")[0];
        let [right, bottom] = ["width", "height"].map(|name| card.number(name));
        let texts = elements(&svg, "text");
        let bars = elements(&svg, "rect").split_off(1);
        for element in texts.iter().chain(&bars) {
            let [left, end] = element.extent();
            assert!(
                left >= 20.0 - 0.1 && end <= right - 20.0 + 0.1,
                "{}: {left} to {end}",
                element.tag
            );
            assert!((0.0..bottom).contains(&element.number("y")), "{}", element.tag);
            let is_of_card = ["title", "small"].contains(&element.attribute("class"));
            let crosses = left < right / 2.0 && end > right / 2.0;
            assert!(is_of_card || columns == 1 || !crosses, "{}: {left} to {end}", element.tag);
        }
    }
}

#[test]
fn a_chart_is_well_formed_whatever_the_names_are() {
    let svg = chart(1, Width::Page);
    let known =
        ["svg", "/svg", "title", "/title", "style", "/style", "rect", "text", "/text", "path"];
    for tag in svg.split('<').skip(1) {
        let name = tag.split([' ', '>']).next().unwrap();
        assert!(known.contains(&name), "<{tag}");
    }
    assert!(svg.contains("5 servers &amp; &lt;more&gt;"), "{svg}");
    assert!(svg.contains("a &lt;server&gt; &amp; its"), "{svg}");
    assert!(
        svg.split('&')
            .skip(1)
            .all(|entity| { ["amp;", "lt;", "gt;"].iter().any(|known| entity.starts_with(known)) })
    );
}

#[test]
fn a_chart_has_the_colours_of_dark_pages_too_and_loads_nothing() {
    let svg = chart(1, Width::Page);
    assert!(svg.contains("@media(prefers-color-scheme:dark)"));
    let links = svg.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for link in ["http", "href", "url(", "@import", "@font-face"] {
        assert!(!links.contains(link), "{link}");
    }
}

#[test]
fn a_table_has_a_row_for_each_server_in_its_order_and_a_column_for_each_figure() {
    let row = |name: &str| (name.to_owned(), vec!["1".to_owned(), "2 (1.00×)".to_owned()]);
    let table = Table {
        columns: ["memory (KiB)", "a | b"].map(str::to_owned).into(),
        rows: [row("raw"), row("a|b"), row("nudged")].into(),
    };
    let text = table.to_string();
    let lines = [
        "| | memory (KiB) | a \\| b |",
        "|---|---:|---:|",
        "| raw | 1 | 2 (1.00×) |",
        "| a\\|b | 1 | 2 (1.00×) |",
        "| nudged | 1 | 2 (1.00×) |",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), lines);
}

#[test]
fn the_thousands_of_a_figure_are_apart() {
    let figures = [(0.0, 2), (999.4, 0), (1_000.0, 0), (3_709_943.25, 1), (-1_234.5, 1), (-0.5, 1)];
    let texts = figures.map(|(value, digits)| grouped(value, digits));
    assert_eq!(texts, ["0.00", "999", "1,000", "3,709,943.2", "-1,234.5", "-0.5"]);
}

// ===== impl Element =====

impl<'a> Element<'a> {
    fn attribute(self, name: &str) -> &'a str {
        let (_, value) = self.tag.split_once(&format!("{name}=\"")).unwrap_or_default();
        value.split('"').next().unwrap_or_default()
    }

    fn number(self, name: &str) -> f64 {
        self.attribute(name).parse().unwrap_or_else(|why| panic!("{name} of {}: {why}", self.tag))
    }

    /// From its left edge to its right one.
    fn extent(self) -> [f64; 2] {
        let x = self.number("x");
        if self.text.trim().is_empty() {
            return [x, x + self.number("width")];
        }
        let text = self.text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        let size = if self.attribute("class") == "panel" { 13.0 } else { 12.0 };
        let width = text.chars().count() as f64 * size * LETTER;
        if self.attribute("text-anchor") == "end" { [x - width, x] } else { [x, x + width] }
    }
}

#[test]
fn a_name_with_a_comma_is_one_field_of_csv_and_a_missing_figure_an_empty_one() {
    assert_eq!(csv_name("nudged, TLS"), "\"nudged, TLS\"");
    assert_eq!(csv_figure(Some(0.15)), "0.1500");
    assert_eq!(csv_figure(None), "");
}
