//! `/metrics` in both text formats, each read by a strict parser.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Answer, Server, Transport};

/// What a text says: the types of its families, and its samples.
#[derive(Debug, Default, PartialEq)]
struct Metrics {
    types: BTreeMap<String, String>,
    helps: BTreeSet<String>,
    samples: BTreeMap<String, u64>,
}

// ===== impl Metrics =====

impl Metrics {
    /// Parses a text in the format of Prometheus 0.0.4, or of OpenMetrics 1.0, as far as there are counters and gauges.
    fn parse(text: &str, openmetrics: bool) -> Self {
        let mut metrics = Self::default();
        let body = match text.strip_suffix("# EOF\n") {
            Some(body) if openmetrics => body,
            Some(_) => panic!("the mark of OpenMetrics in the other format"),
            None => {
                assert!(!openmetrics && text.ends_with('\n'), "no end");
                text
            }
        };
        let mut family = String::new();
        for line in body.trim_end_matches('\n').split('\n') {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a name and a text");
                assert!(is_name(name) && !help.is_empty(), "{line}");
                assert!(!help.replace("\\n", "").replace("\\\\", "").contains('\\'), "{line}");
                assert!(metrics.helps.insert(name.to_owned()), "twice: {line}");
                family = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                assert!(name == family, "{line} is not of {family}");
                assert!(["counter", "gauge"].contains(&kind), "{line}");
                // A counter's family has the suffix in one format only.
                let has_suffix = name.ends_with("_total");
                assert_eq!(has_suffix, kind == "counter" && !openmetrics, "{line}");
                let twice = metrics.types.insert(name.to_owned(), kind.to_owned());
                assert!(twice.is_none(), "twice: {line}");
            } else {
                metrics.sample(line, &family, openmetrics);
            }
        }
        assert!(metrics.types.keys().eq(&metrics.helps), "each family has both lines");
        metrics
    }

    fn sample(&mut self, line: &str, family: &str, openmetrics: bool) {
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("a brace")),
            None => (series, ""),
        };
        let is_counter = self.types.get(family).expect("its type comes first") == "counter";
        let suffix = if is_counter && openmetrics { "_total" } else { "" };
        assert!(is_name(name) && name == format!("{family}{suffix}"), "{line} under {family}");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once('=').expect("a label");
            let text = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            let text = text.expect("quotes");
            assert!(is_name(name) && !text.contains(['"', '\\', '\n']), "{line}");
        }
        let value = value.parse().expect("a whole number");
        assert!(self.samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }

    /// The families by the names of their series.
    fn families(&self) -> BTreeMap<String, String> {
        let name = |name: &String, kind: &String| match kind.as_str() {
            "counter" => format!("{}_total", name.trim_end_matches("_total")),
            _ => name.clone(),
        };
        self.types.iter().map(|(n, kind)| (name(n, kind), kind.clone())).collect()
    }
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn scrape(server: &Server, accept: &str) -> Answer {
    server.request(&format!("GET /metrics HTTP/1.1\r\nhost: test\r\n{accept}\r\n"))
}

const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// SCENARIO: a collector that reads the classic text format, and says so or nothing.
/// BUG: everybody got OpenMetrics, whose counters such collectors find without a type, and whose last line some refuse.
/// FIX: the classic format, unless the request names OpenMetrics and does not prefer the other.
#[test]
fn metrics_are_in_the_format_that_the_client_asks_for() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &["--workers", "1"]);
        let _streams = server.streams("acme", 2);
        server.publish("acme", &["a"]);
        for (accept, kind) in [
            ("", CLASSIC),
            ("accept: */*\r\n", CLASSIC),
            ("accept: text/plain\r\n", CLASSIC),
            ("accept: application/openmetrics-text;q=0.5,text/plain\r\n", CLASSIC),
            (
                "accept: application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3\r\n",
                OPENMETRICS,
            ),
            ("accept: text/plain;q=0.5\r\naccept: application/openmetrics-text\r\n", OPENMETRICS),
        ] {
            let answer = scrape(&server, accept);
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.header("content-type"), Some(kind), "{accept:?} {transport:?}");
            let metrics = Metrics::parse(&answer.body, kind == OPENMETRICS);
            assert_eq!(metrics.samples["nudged_streams_opened_total"], 2);
            assert_eq!(metrics.samples["nudged_streams_open{kind=\"member\"}"], 2);
            assert_eq!(metrics.samples["nudged_seats"], 2);
        }
    }
}

#[test]
fn both_formats_say_the_same() {
    let server = Server::start(&["--workers", "1"]);
    let classic = Metrics::parse(&scrape(&server, "").body, false);
    let asking = "accept: application/openmetrics-text\r\n";
    let open = Metrics::parse(&scrape(&server, asking).body, true);
    assert_eq!(classic.families(), open.families());
    assert!(classic.samples.keys().eq(open.samples.keys()));
    assert_eq!(classic.families()["nudged_streams_closed_total"], "counter");
    assert_eq!(classic.families()["nudged_connections"], "gauge");
}
