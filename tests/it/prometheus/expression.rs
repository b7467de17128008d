//! What an expression of PromQL names: metrics, labels, and values of labels.

use std::collections::{BTreeMap, BTreeSet};

/// The label sets of the series that exist, by the name of their metric.
pub(super) type Known = BTreeMap<String, Vec<BTreeMap<String, String>>>;

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) metrics: BTreeSet<String>,
    /// Metric, label, and the value that it is compared with.
    values: Vec<(String, String, String)>,
    /// Labels by which is grouped or matched.
    labels: BTreeSet<String>,
}

/// Words that are neither a metric nor a function.
const WORDS: [&str; 12] = [
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "sum",
    "min",
    "max",
    "avg",
    "count",
    "group_left",
    "group_right",
];

/// Words before labels in parentheses.
const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

// ===== impl Names =====

impl Names {
    pub(super) fn of(expression: &str) -> Self {
        let mut names = Self::default();
        let mut rest = expression;
        while let Some(first) = rest.chars().next() {
            let word = word(rest);
            if !word.is_empty() {
                rest = &rest[word.len()..];
                // 0.99, 86400
                if !word.starts_with(|c: char| c.is_ascii_digit()) {
                    rest = names.word(word, rest);
                }
            } else if first == '[' {
                rest = after(rest, ']');
            } else {
                assert!(!"\"'`{}".contains(first), "not understood: {rest}");
                rest = &rest[first.len_utf8()..];
            }
        }
        names
    }

    /// Takes a word, and what belongs to it of what follows. Returns the rest.
    fn word<'a>(&mut self, word: &str, rest: &'a str) -> &'a str {
        let next = rest.trim_start();
        if let (true, Some(labels)) = (GROUPINGS.contains(&word), next.strip_prefix('(')) {
            let (labels, rest) = labels.split_once(')').expect("a parenthesis");
            let labels = labels.split(',').map(str::trim).filter(|label| !label.is_empty());
            self.labels.extend(labels.map(str::to_owned));
            return rest;
        }
        if WORDS.contains(&word) || next.starts_with('(') {
            return rest;
        }
        self.metrics.insert(word.to_owned());
        let Some(matchers) = next.strip_prefix('{') else { return rest };
        // No value in our expressions has a brace.
        let (matchers, rest) = matchers.split_once('}').expect("a brace");
        for matcher in matchers.split(',').map(str::trim).filter(|matcher| !matcher.is_empty()) {
            let (label, value) = matcher.split_once(['=', '!']).expect("a matcher");
            let value = value.trim_start_matches(['=', '~', '!']);
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            for value in value.expect("quotes").split('|') {
                self.values.push((word.to_owned(), label.trim().to_owned(), value.to_owned()));
            }
        }
        rest
    }

    /// What of it does not exist.
    pub(super) fn unknown(&self, known: &Known) -> Vec<String> {
        let series = |metric: &String| known.get(metric).map_or(&[][..], Vec::as_slice);
        let metrics = self.metrics.iter().filter(|metric| series(metric).is_empty());
        let mut unknown: Vec<_> = metrics.cloned().collect();
        for (metric, label, value) in &self.values {
            let mut values = series(metric).iter().filter_map(|labels| labels.get(label));
            if !values.any(|of| of == value || value == ".*") {
                unknown.push(format!("{metric}{{{label}={value:?}}}"));
            }
        }
        for label in &self.labels {
            let mut all = self.metrics.iter().flat_map(series);
            if !all.any(|labels| labels.contains_key(label)) {
                unknown.push(format!("{label} in {:?}", self.metrics));
            }
        }
        unknown
    }
}

/// The name or number at the start.
fn word(text: &str) -> &str {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_:.".contains(c);
    &text[..text.find(|c| !is_part(c)).unwrap_or(text.len())]
}

fn after(text: &str, end: char) -> &str {
    text.split_once(end).expect("an end").1
}

fn one(metric: &str, labels: &[(&str, &str)]) -> Known {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    [(metric.to_owned(), vec![labels.collect()])].into()
}

#[test]
fn names_of_an_expression_are_found() {
    let storm = "sum by (job, le) (rate(a_total{x=\"1\", y=~\"b|c\"}[2m])) > 5 * avg_over_time(b[1h:1m]) and \
                 ignoring(kind) c_seconds - time() < 14 * 86400";
    let names = Names::of(storm);
    assert_eq!(names.metrics, ["a_total", "b", "c_seconds"].map(String::from).into());
    assert_eq!(names.labels, ["job", "kind", "le"].map(String::from).into());
    let values = [("x", "1"), ("y", "b"), ("y", "c")];
    let values = values.map(|(label, value)| ("a_total".to_owned(), label.into(), value.into()));
    assert_eq!(names.values, values);
}

#[test]
fn metrics_labels_and_values_that_do_not_exist_are_found() {
    let known = one("a_total", &[("job", "nudged"), ("reason", "stalled")]);
    let unknown = |expression: &str| Names::of(expression).unknown(&known);
    assert_eq!(unknown("sum by (job) (rate(a_total{reason=\"stalled\"}[1m])) > 0"), [""; 0]);
    assert_eq!(unknown("sum by (reason) (a_total{job=~\".*\"})"), [""; 0]);
    assert_eq!(unknown("rate(b_total[1m]) > 0"), ["b_total"]);
    assert_eq!(unknown("a_total / ignoring(reason) b"), ["b"]);
    assert_eq!(unknown("a_total{cause=\"stalled\"}"), ["a_total{cause=\"stalled\"}"]);
    assert_eq!(unknown("a_total{reason=~\"stalled|slow\"}"), ["a_total{reason=\"slow\"}"]);
    assert_eq!(unknown("a_total{reason!~\"slow\"}"), ["a_total{reason=\"slow\"}"]);
    assert_eq!(unknown("sum without (cause) (a_total)"), ["cause in {\"a_total\"}"]);
}
