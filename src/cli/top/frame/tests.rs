use tokio::time::Instant;

use super::*;
use crate::cli::top::exposition::Exposition;

const NOW: u64 = 1_000_000;

/// What is shown after these two texts, ten seconds apart.
fn shown(before: &str, after: &str, height: usize) -> String {
    let (mut view, start) = (View { names_max: 20, ..View::default() }, Instant::now());
    for (seconds, text) in [(0, before), (10, after)] {
        let numbers = Exposition::parse(text, is_shown);
        view.history.push(start + Duration::from_secs(seconds), numbers);
    }
    let mut text = String::new();
    for line in view.lines(UNIX_EPOCH + Duration::from_secs(NOW), height) {
        line.write(&mut text, 200, false);
        text.push('\n');
    }
    text
}

#[test]
fn what_may_need_an_operator_is_in_words() {
    for (before, after, words) in [
        ("", "nudged_open 1", "! no key is configured: every client"),
        (
            "",
            "nudged_draining 1\nnudged_drain_end_timestamp_seconds 1000061",
            "draining, at most 1m 1s left",
        ),
        ("", "nudged_connections 91\nnudged_connections_max 100", "! connections: 91 % of those"),
        ("", "process_open_fds 95\nprocess_max_fds 100", "! open files: 95 % of those"),
        ("", "nudged_backplane_connected 0", "! the shared log cannot be used"),
        ("", "nudged_outbox_connected 0", "! the outbox is not drained"),
        (
            "nudged_greetings_total{kind=\"resumed\"} 100\nnudged_greetings_total{kind=\"reread\"} 0",
            "nudged_greetings_total{kind=\"resumed\"} 110\nnudged_greetings_total{kind=\"reread\"} 30",
            "! 25 % of the streams that came back in a minute resumed",
        ),
        (
            "nudged_streams_closed_total{reason=\"stalled\"} 3",
            "nudged_streams_closed_total{reason=\"stalled\"} 5",
            "! 2 streams ended in a minute because they were not read",
        ),
        (
            "nudged_refused_total{limit=\"org\"} 1",
            "nudged_refused_total{limit=\"org\"} 8",
            "! refused in a minute, by limit: org 7",
        ),
        (
            "nudged_proxy_protocol_refused_total{reason=\"v1\"} 1",
            "nudged_proxy_protocol_refused_total{reason=\"v1\"} 4",
            "! headers of the PROXY protocol refused in a minute: v1 3",
        ),
        (
            "nudged_backplane_cuts_total{reason=\"gap\"} 1",
            "nudged_backplane_cuts_total{reason=\"gap\"} 2",
            "! cuts of the shared log in a minute: 1; all clients",
        ),
        (
            "",
            "nudged_backplane_lag_seconds 1.5",
            "! the shared log is slow: its last record took 1.5 s",
        ),
        (
            "nudged_log_lines_dropped_total 1",
            "nudged_log_lines_dropped_total 2",
            "! log lines are dropped",
        ),
        (
            "",
            "nudged_tls_certificate_expiry_timestamp_seconds 1086400",
            "! the certificate expires in 1d 0h",
        ),
        ("", "nudged_tls_certificate_expiry_timestamp_seconds 1", "! the certificate has expired"),
    ] {
        let text = shown(before, after, 24);
        assert!(text.contains(words), "{words}:\n{text}");
    }
    let calm = "nudged_open 0\nnudged_draining 0\nnudged_connections 1\nnudged_connections_max 100\n\
                nudged_streams_closed_total{reason=\"stalled\"} 3\nnudged_backplane_connected 1\n\
                nudged_tls_certificate_expiry_timestamp_seconds 9000000\nnudged_streams_max 0\n\
                nudged_greetings_total{kind=\"reread\"} 900";
    let text = shown(calm, calm, 24);
    assert!(text.contains("serving") && !text.contains('!'), "{text}");
}

#[test]
fn the_numbers_are_those_between_two_looks() {
    let before = "nudged_events_published_total 0\nnudged_events_coalesced_total 0\n\
                  nudged_events_delivered_total 10\nprocess_cpu_seconds_total 1\n\
                  nudged_streams_opened_total 0";
    let after = "nudged_events_published_total 100\nnudged_events_coalesced_total 25\n\
                 nudged_events_delivered_total 1000010\nprocess_cpu_seconds_total 6\n\
                 nudged_streams_opened_total 5\nnudged_backplane_lag_seconds 0.0012\n\
                 nudged_outbox_rows 12\nnudged_outbox_oldest_seconds 3\n\
                 nudged_streams_open{kind=\"member\"} 1200\nnudged_streams_open{kind=\"topic\"} 34\n\
                 process_resident_memory_bytes 1263616\nprocess_start_time_seconds 900000";
    let text = shown(&format!("{before}\nprocess_start_time_seconds 900000"), after, 24);
    // One blank in place of several.
    let text: Vec<_> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "nudged serving up 1d 3h",
        "streams 1,234 member 1,200 public 0 topic 34",
        "publishes/s 10.0 25 % joined into one event",
        "deliveries/s 100,000",
        "connects/s 0.5",
        "memory 1.2 MiB 1.0 KiB a stream, all included, CPU 50 %",
        "streams ended - in 10s",
        "backplane lag 1.2 ms 0 cuts",
        "outbox rows 12 the oldest waits for 3.0 s",
    ] {
        assert!(text.iter().any(|shown| shown == line), "{line:?}: {text:#?}");
    }
}

#[test]
fn what_has_no_room_gives_way_to_the_numbers() {
    let many = "nudged_open 1\nnudged_outbox_connected 0\nnudged_backplane_connected 0\n\
                nudged_connections 99\nnudged_connections_max 100";
    for (height, warnings) in [(24, 4), (14, 3), (12, 1), (3, 1)] {
        let text = shown("", many, height);
        assert!(text.lines().count() <= height, "{height}:\n{text}");
        assert_eq!(
            text.lines().filter(|line| line.starts_with('!')).count(),
            warnings,
            "{height}:\n{text}"
        );
        assert_eq!(text.contains("more\n"), warnings < 4, "{height}:\n{text}");
    }
}
