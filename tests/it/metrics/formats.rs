//! The formats, and which of them a client gets.

use super::text::Metrics;
use super::{metrics, scrape};
use crate::support::{Server, Transport};

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
            ("accept: application/openmetrics-text\r\n", OPENMETRICS),
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
            assert_eq!(metrics.samples["nudged_streams_opened_total"], 2.0);
            assert_eq!(metrics.samples["nudged_streams_open{kind=\"member\"}"], 2.0);
            assert_eq!(metrics.samples["nudged_seats"], 2.0);
        }
    }
}

#[test]
fn both_formats_say_the_same() {
    let server = Server::start(&["--workers", "1"]);
    let classic = metrics(&server);
    let asking = "accept: application/openmetrics-text\r\n";
    let open = Metrics::parse(&scrape(&server, asking).body, true);
    assert_eq!(classic.families(), open.families());
    assert!(classic.samples.keys().eq(open.samples.keys()));
    assert_eq!(classic.labels, open.labels);
    assert_eq!(classic.families()["nudged_streams_closed_total"], "counter");
    assert_eq!(classic.families()["process_cpu_seconds_total"], "counter");
    assert_eq!(classic.families()["nudged_connections"], "gauge");
    assert_eq!(classic.families()["nudged_sweep_seconds"], "histogram");
}
