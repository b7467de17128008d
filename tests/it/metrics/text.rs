//! A strict parser of both text formats.

use std::collections::{BTreeMap, BTreeSet};

/// What a text says: the types of its families, and its samples.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Metrics {
    types: BTreeMap<String, String>,
    helps: BTreeSet<String>,
    /// By their series, as it is written.
    pub(super) samples: BTreeMap<String, f64>,
    /// The values of labels, by the series' name and the label's.
    pub(super) labels: BTreeMap<(String, String), BTreeSet<String>>,
}

// ===== impl Metrics =====

impl Metrics {
    /// Parses a text in the format of Prometheus 0.0.4, or of OpenMetrics 1.0, as far as there are counters, gauges and
    /// histograms.
    pub(super) fn parse(text: &str, openmetrics: bool) -> Self {
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
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
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
        metrics.check_histograms();
        metrics
    }

    fn sample(&mut self, line: &str, family: &str, openmetrics: bool) {
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("a brace")),
            None => (series, ""),
        };
        let suffixes: &[&str] = match self.types.get(family).expect("its type comes first").as_str()
        {
            "counter" if openmetrics => &["_total"],
            "histogram" => &["_bucket", "_count", "_sum"],
            _ => &[""],
        };
        let suffix = name.strip_prefix(family).expect("of its family");
        assert!(is_name(name) && suffixes.contains(&suffix), "{line} under {family}");
        // A label's value may have commas.
        for label in labels.split_inclusive("\",").filter(|label| !label.is_empty()) {
            let (label, value) = label.trim_end_matches(',').split_once('=').expect("a label");
            let text = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            let text = text.expect("quotes");
            assert!(is_name(label) && !text.contains(['"', '\\', '\n']), "{line}");
            let key = (name.to_owned(), label.to_owned());
            self.labels.entry(key).or_default().insert(text.to_owned());
        }
        let value: f64 = value.parse().expect("a number");
        assert!(value.is_finite(), "{line}");
        assert!(self.samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }

    /// The buckets of a histogram add up, and the last one has all.
    fn check_histograms(&self) {
        let histograms = self.types.iter().filter(|(_, kind)| *kind == "histogram");
        for (family, _) in histograms {
            let mut buckets = self.buckets(family);
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{family}: {buckets:?}");
            let (bound, all) = buckets.pop().expect("it has buckets");
            assert!(bound.is_infinite(), "{family}");
            assert_eq!(all, self.samples[&format!("{family}_count")], "{family}");
            assert!(self.samples[&format!("{family}_sum")] >= 0.0, "{family}");
        }
    }

    /// The buckets of a histogram, by their bounds.
    pub(super) fn buckets(&self, family: &str) -> Vec<(f64, f64)> {
        let start = format!("{family}_bucket{{le=\"");
        let buckets = self.samples.iter().filter_map(|(series, count)| {
            let bound = series.strip_prefix(&start)?.strip_suffix("\"}").expect("one label");
            Some((bound.parse::<f64>().expect("a bound"), *count))
        });
        let mut buckets: Vec<_> = buckets.collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }

    /// The families by the names of their series, with their types.
    pub(super) fn families(&self) -> BTreeMap<String, String> {
        let name = |name: &String, kind: &String| match kind.as_str() {
            "counter" => format!("{}_total", name.trim_end_matches("_total")),
            _ => name.clone(),
        };
        self.types.iter().map(|(n, kind)| (name(n, kind), kind.clone())).collect()
    }

    /// The labels of a family, `le` aside.
    pub(super) fn labels_of(&self, family: &str) -> Vec<&str> {
        let of_family = self.labels.keys().filter(|(name, _)| name == family);
        of_family.map(|(_, label)| label.as_str()).collect()
    }
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
