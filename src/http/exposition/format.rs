//! The two text formats of metrics, and which of them a client gets.

use http::HeaderMap;

use crate::http::accept::accepted;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// That of Prometheus, 0.0.4, which every collector reads.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

// ===== impl Format =====

impl Format {
    pub(super) const COUNT: usize = 2;

    /// OpenMetrics if the fields of the request name it, and do not prefer plain text.
    pub(crate) fn accepted_by(headers: &HeaderMap) -> Self {
        let asked = accepted(headers, "application/openmetrics-text", &[("version", "1.0.0")]);
        let plain = accepted(headers, "text/plain", &[("version", "0.0.4")]);
        if asked.by_name && asked.quality > 0 && asked.quality >= plain.quality {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// This format of a text of OpenMetrics.
    pub(super) fn convert(self, text: String) -> String {
        match self {
            Self::Prometheus => to_prometheus(&text),
            Self::OpenMetrics => text,
        }
    }
}

/// The formats differ, for what we expose (counters, gauges and histograms), in the names under which a counter is
/// described, and in the last line. The bounds of buckets are written as OpenMetrics has them (`1.0`) in both, so that a
/// series stays the same where a collector changes the format.
fn to_prometheus(text: &str) -> String {
    let mut plain = String::with_capacity(text.len() + text.len() / 8);
    let mut lines = text.lines().filter(|line| *line != "# EOF").peekable();
    while let Some(line) = lines.next() {
        // The description of a family comes before its type.
        let typed = if line.starts_with("# HELP ") { lines.peek().copied() } else { Some(line) };
        let is_counter =
            typed.is_some_and(|line| line.starts_with("# TYPE ") && line.ends_with(" counter"));
        match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
            ["#", keyword, name, rest] if is_counter => {
                plain.extend(["# ", keyword, " ", name, "_total ", rest]);
            }
            _ => plain.push_str(line),
        }
        plain.push('\n');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, header};

    #[test]
    fn a_text_is_converted_by_its_types() {
        let open = "# HELP a_seconds One. # TYPE x counter\n# TYPE a_seconds histogram\n\
            a_seconds_sum 1.5\na_seconds_count 2\na_seconds_bucket{le=\"1.0\"} 1\n\
            a_seconds_bucket{le=\"+Inf\"} 2\n\
            # HELP b A counter\n# TYPE b counter\nb_total{c=\"# EOF\"} 1\n\
            # HELP c counter\n# TYPE c gauge\nc 0.0\n# EOF\n";
        let classic = open.replace(" b A counter", " b_total A counter");
        let classic = classic.replace(" b counter", " b_total counter");
        let classic = classic.strip_suffix("# EOF\n").expect("the end");
        assert_eq!(Format::Prometheus.convert(open.into()), classic);
        assert_eq!(Format::OpenMetrics.convert(open.into()), open);
    }

    fn format(accept: Option<&str>) -> Format {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept).expect("text"));
        }
        Format::accepted_by(&headers)
    }

    #[test]
    fn openmetrics_is_for_those_that_ask_for_it() {
        // What Prometheus 2.5, 2.40 and 3 send, in this order.
        for asking in [
            "application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
             q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,\
             */*;q=0.2",
            "application/openmetrics-text",
            "text/plain, application/openmetrics-text",
            "*/*, APPLICATION/OpenMetrics-Text",
        ] {
            assert_eq!(format(Some(asking)), Format::OpenMetrics, "{asking}");
        }
        for other in [
            None,
            Some("*/*"),
            Some("application/*"),
            Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            Some("text/plain"),
            Some("text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.5"),
            Some("application/openmetrics-text;q=0, text/plain;q=0.1"),
            Some("application/openmetrics-text;q=0"),
            // Another version than the one that we have.
            Some("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5"),
            Some("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily"),
        ] {
            assert_eq!(format(other), Format::Prometheus, "{other:?}");
        }
    }
}
