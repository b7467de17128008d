//! What a server says of its log: metrics, and lines of its own log.

use super::{NDJSON, logging, publish_keys, ready};
use crate::support::log::Log;
use crate::support::nats::NatsServer;
use crate::support::programs::{NATS_SERVER, requires};
use crate::support::{Server, eventually};

#[test]
fn there_are_metrics_of_the_log_where_there_is_one() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let server = ready(&nats, &[]);
    assert_eq!(publish_keys(&server, "acme", "a").status(), 202);
    let lines = "{\"org\":\"acme\",\"keys\":[\"a\"]}\n{\"org\":\"other\",\"keys\":[\"b\"]}\n";
    assert_eq!(server.post("/api/events", NDJSON, lines).status(), 202);
    for (name, least) in [
        ("nudged_backplane_connected", 1),
        ("nudged_backplane_appends_total{result=\"ok\"}", 2),
        ("nudged_backplane_append_seconds_count", 2),
        ("nudged_backplane_records_total{kind=\"lines\"}", 2),
        ("nudged_backplane_lines_total", 3),
        ("nudged_backplane_tail_bytes", 1),
        ("nudged_backplane_tail_records", 3),
    ] {
        assert!(server.metric(name) >= least, "{name}: {}", server.metric(name));
    }
    // A publish counts at the server that accepted it.
    let other = ready(&nats, &[]);
    assert_eq!([&server, &other].map(|s| s.metric("nudged_events_published_total")), [3, 0]);
    let text = server.get("/metrics").body;
    for line in [
        "nudged_backplane_lag_seconds ",
        "nudged_backplane_append_seconds_sum ",
        "nudged_backplane_appends_total{result=\"unavailable\"} 0",
        "nudged_backplane_appends_total{result=\"too_large\"} 0",
        "nudged_backplane_records_total{kind=\"barrier\"} ",
        "nudged_backplane_records_total{kind=\"beat\"} ",
        "nudged_backplane_lines_skipped_total 0",
        "nudged_backplane_cuts_total{reason=\"gap\"} 0",
        "nudged_backplane_tail_seconds ",
    ] {
        assert!(text.lines().any(|known| known.starts_with(line)), "{line}:\n{text}");
    }
    let open =
        "GET /metrics HTTP/1.1\r\nhost: test\r\naccept: application/openmetrics-text\r\n\r\n";
    let open = server.request(open).body;
    for line in [
        "# TYPE nudged_backplane_append_seconds histogram",
        "# TYPE nudged_backplane_appends counter",
        "nudged_backplane_append_seconds_bucket{le=\"+Inf\"} ",
    ] {
        assert!(open.lines().any(|known| known.starts_with(line)), "{line}:\n{open}");
    }
    let alone = Server::start(&[]);
    assert!(!alone.get("/metrics").body.contains("backplane"));
}

/// A line of the log for each change, and none in between.
#[test]
fn the_log_has_a_line_for_each_change() {
    requires!(NATS_SERVER);
    let mut nats = NatsServer::start();
    let mut server = logging(&nats, &["--log", "info", "--backplane-trust-disk"]);
    let log = Log::of(&mut server);
    log.line(&["INFO", "the log is loaded"]);
    for _ in 0..2 {
        nats.kill();
        let lost = log.line(&["WARN", "the log"]);
        assert!(!lost.contains("hunter2"), "{lost}");
        eventually("it is noticed", || server.metric("nudged_backplane_connected") == 0);
        nats.start_again();
        log.line(&["WARN", "the log is followed"]);
    }
}

/// What is accepted with a broker and does not do what its flag says is named, once.
#[test]
fn what_the_broker_cannot_do_is_warned_of() {
    requires!(NATS_SERVER);
    let mut nats = NatsServer::start_with("max_payload: 10000");
    let mut server = logging(&nats, &["--log", "info", "--backplane-trust-disk"]);
    let log = Log::of(&mut server);
    let seen = log.until("the log is followed");
    let records = "its records have at most 9744 bytes, and --publish-bytes allows 65536: what is larger is answered 413";
    assert!(seen.contains(records), "{seen}");
    let lines = "{\"org\":\"acme\",\"keys\":[\"a\"]}\n".repeat(400);
    let answer = server.post("/api/events", NDJSON, &lines);
    assert_eq!(answer.status(), 413, "{answer:?}");
    let power = "a power cut may lose some in spite of --backplane-trust-disk";
    let is_old = nats.client().version().starts_with("2.9.");
    assert_eq!(seen.contains(power), is_old, "{seen}");
    nats.kill();
    nats.start_again();
    let again = log.until("the log is followed");
    assert!(!again.contains("--publish-bytes"), "{again}");

    let nats = NatsServer::start();
    let mut server = logging(&nats, &["--log", "info"]);
    let seen = Log::of(&mut server).until("the log is loaded");
    assert!(!seen.contains("is used as it is"), "{seen}");
}

#[test]
fn no_line_shows_the_password() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start_with_password("me", "hunter2");
    let mut command = Server::command();
    command.stderr(std::process::Stdio::piped());
    let wrong = nats.url().replace("hunter2", "hunter2-wrong");
    let args = ["--backplane", &wrong, "--log", "debug"];
    let mut server = Server::start_as(command, crate::support::Transport::Http1, &args);
    let mut seen = String::new();
    eventually("it says why", || {
        seen = server.get("/readyz").body;
        seen.contains("not loaded: ") && !seen.contains("connecting to the broker")
    });
    assert!(!seen.contains("hunter2"), "{seen}");
    let mut log = server.take_stderr();
    server.signal(crate::support::server::Signal::TERM);
    server.wait();
    let log = std::io::read_to_string(&mut log).expect("text");
    assert!(!log.contains("hunter2"), "{log}");
    assert!(!log.is_empty());
}
