//! What there is, and that the guide says what it means and what to do about it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use super::text::Metrics;
use super::{metrics, scrape};
use crate::support::programs::{OPENSSL, PROMTOOL, requires};
use crate::support::{Server, Transport};

const GUIDE: &str = include_str!("../../../src/guide/metrics.md");

/// What alerts, dashboards and the program itself count on: type, name and labels of each metric.
const ALL: &str = "\
histogram nudged_backplane_append_seconds
counter nudged_backplane_appends_total{result}
gauge nudged_backplane_connected
counter nudged_backplane_cuts_total{reason}
gauge nudged_backplane_lag_seconds
counter nudged_backplane_lines_skipped_total
counter nudged_backplane_lines_total
counter nudged_backplane_opens_total
counter nudged_backplane_records_bad_total
counter nudged_backplane_records_total{kind}
gauge nudged_backplane_tail_bytes
gauge nudged_backplane_tail_records
gauge nudged_backplane_tail_seconds
gauge nudged_build_info{version,features}
gauge nudged_channels
gauge nudged_connections
gauge nudged_connections_max
gauge nudged_drain_end_timestamp_seconds
gauge nudged_draining
counter nudged_events_coalesced_total
counter nudged_events_delivered_total
counter nudged_events_published_total
counter nudged_evicted_total{kind}
counter nudged_greetings_total{kind}
gauge nudged_history_bytes
gauge nudged_internal_connections
counter nudged_keepalives_total
counter nudged_log_lines_dropped_total
gauge nudged_open
counter nudged_outbox_batches_total{result}
gauge nudged_outbox_connected
counter nudged_outbox_invalid_total
gauge nudged_outbox_oldest_seconds
counter nudged_outbox_published_total
gauge nudged_outbox_rows
counter nudged_proxy_protocol_refused_total{reason}
counter nudged_refused_total{limit}
counter nudged_rereads_total
gauge nudged_seats
counter nudged_streams_closed_total{reason}
gauge nudged_streams_max
gauge nudged_streams_open{kind}
counter nudged_streams_opened_total
histogram nudged_sweep_seconds
gauge nudged_tls_certificate_expiry_timestamp_seconds
gauge nudged_topics
gauge nudged_topics_bytes
counter process_cpu_seconds_total
gauge process_max_fds
gauge process_open_fds
gauge process_resident_memory_bytes
gauge process_start_time_seconds
gauge process_virtual_memory_bytes
";

/// A server that shows all metrics: it has a certificate, a log and an outbox. Nothing listens where these are.
fn server_with_all() -> Server {
    let nowhere = ["redis://127.0.0.1:9", "postgres://nudged@127.0.0.1:9/app"];
    let log = ["--backplane", nowhere[0], "--outbox", nowhere[1]];
    Server::start_on(Transport::Tls, &[&log[..], &["--workers", "1", "--log", "off"]].concat())
}

/// `type name{labels}` of each metric, in the order of their names.
fn all(metrics: &Metrics) -> String {
    let line = |(name, kind): (&String, &String)| {
        let labels = metrics.labels_of(name);
        // The order in which they are written is not that of the alphabet.
        let labels =
            if labels == ["features", "version"] { vec!["version", "features"] } else { labels };
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        format!("{kind} {name}{labels}\n")
    };
    metrics.families().iter().map(line).collect()
}

/// The cells of each row of the guide's tables.
fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    let rows = GUIDE.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").collect())
}

/// The code in a cell.
fn code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}

/// The values of labels that the guide explains, by the names of metrics.
fn documented_labels() -> BTreeMap<String, BTreeSet<String>> {
    let mut labels = BTreeMap::<_, BTreeSet<_>>::new();
    let mut metric = None;
    for row in rows() {
        let Some(code) = code(row[0]) else { continue };
        if let Some((label, value)) = code.split_once("=\"") {
            let (name, of) = metric.expect("the head of the table names the metric");
            assert_eq!(label, of, "{row:?}");
            let value = value.strip_suffix('"').expect("a quote").to_owned();
            assert!(labels.entry(String::from(name)).or_default().insert(value), "twice: {row:?}");
        } else {
            metric = code.strip_suffix('}').and_then(|code| code.split_once('{'));
        }
    }
    labels
}

#[test]
fn every_metric_is_in_the_guide_and_no_other_is() {
    requires!(OPENSSL);
    let server = server_with_all();
    let metrics = metrics(&server);
    assert_eq!(all(&metrics), ALL);

    let rows = rows().filter(|row| ["counter", "gauge", "histogram"].contains(&row[1]));
    let mut documented = BTreeMap::new();
    for row in rows {
        let [metric, kind, is, unusual] = row[..] else { panic!("{row:?}") };
        let metric = code(metric).unwrap_or_else(|| panic!("{row:?}"));
        // Below is a table of its labels.
        let is_below = metric.contains('{') && unusual.ends_with("See below");
        let is_explained = unusual == "–" || is_below || unusual.len() > 10;
        assert!(is.len() > 10 && is_explained, "{row:?}");
        let name = metric.split('{').next().expect("a name");
        let twice = documented.insert(name, format!("{kind} {metric}\n"));
        assert_eq!(twice, None, "twice");
    }
    assert_eq!(documented.into_values().collect::<String>(), ALL);

    // Every value that a label may have, but for those of the build.
    let values = |(name, _): &(&(String, String), _)| {
        !name.0.ends_with("_bucket") && name.0 != "nudged_build_info"
    };
    let exposed = metrics.labels.iter().filter(values);
    let exposed: BTreeMap<_, _> =
        exposed.map(|(key, values)| (key.0.clone(), values.clone())).collect();
    assert_eq!(documented_labels(), exposed);
}

/// The guide asks for nothing that there is not, and what it asks Prometheus understands.
#[test]
fn what_the_guide_asks_prometheus_can_answer() {
    requires!(OPENSSL, PROMTOOL);
    let server = server_with_all();
    let metrics = metrics(&server);
    let mut words = GUIDE.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let unknown = words.find(|word| {
        let is_metric = word.starts_with("nudged_") || word.starts_with("process_");
        let series = |series: &String| series.split('{').next() == Some(word);
        is_metric && !metrics.families().contains_key(*word) && !metrics.samples.keys().any(series)
    });
    assert_eq!(unknown, None);

    let expressions = GUIDE.replace("\\|", "|");
    let expressions = expressions.split('`').skip(1).step_by(2);
    let is_expression = |text: &&str| text.contains("nudged_") || text.contains("process_");
    // A name with its labels is no expression.
    let expressions = expressions.filter(is_expression).filter(|text| text.contains([' ', '(']));
    let rules: Vec<_> = expressions
        .enumerate()
        .map(|(n, expr)| serde_json::json!({ "record": format!("a:{n}"), "expr": expr }))
        .collect();
    assert!(rules.len() > 12, "{rules:?}");
    let rules = serde_json::json!({ "groups": [{ "name": "guide", "rules": rules }] });
    promtool(&["check", "rules", "/dev/stdin"], &rules.to_string());
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    requires!(OPENSSL, PROMTOOL);
    let server = server_with_all();
    let text = scrape(&server, "").body;
    promtool(&["check", "metrics"], &text);
}

/// Runs promtool with this input, and fails if it complains.
fn promtool(args: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{output:?}\n{input}");
}

/// Without TLS, a log and an outbox there is nothing of them.
#[test]
fn what_a_server_does_not_have_has_no_metrics() {
    let server = Server::start(&["--workers", "1"]);
    let none = |name: &str| {
        ["_backplane_", "_outbox_", "_tls_certificate_"].iter().all(|part| !name.contains(part))
    };
    let expected: String = ALL.split_inclusive('\n').filter(|line| none(line)).collect();
    assert_eq!(all(&metrics(&server)), expected);
}
