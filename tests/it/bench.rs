//! The load generator detects the faults of a server: lost, repeated, reordered and split events, streams that end,
//! failed responses.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nudged::bench::{Load, Options, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::Server;
use crate::support::bench_server::{
    CREDENTIAL, MISSED_AFTER, assert_all_delivered, event, load, load_with, options, server,
    server_with, to_all, until,
};
use crate::support::markdown::blocks;
use crate::support::port::ReservedPort;

#[test]
fn a_server_without_faults_gets_a_clean_summary() {
    let options = options(&server(to_all), 20);
    let summary = run(&options, Arc::default(), |_| {}).unwrap();
    assert!(summary.is_clean(), "{summary}");
    assert_all_delivered(&summary, 20);
    assert!(summary.server.unwrap().pss_before > 0);
}

/// Over HTTP/1.1 and HTTP/2: each stream of an org of its own, which one publish reaches.
#[test]
fn the_url_of_a_stream_may_contain_its_number() {
    let server = Server::start(&["--coalesce", "0"]);
    let base = format!("http://{}", server.address());
    let line = |n: usize| format!("{{\"org\":\"one-{n}\",\"keys\":[\"{{n}}\"]}}\n");
    for http2 in [None, Some(3)] {
        let mut options = options(&base, 7);
        options.url = format!("{base}/api/one-{{s}}/events");
        options.http2 = http2;
        let publish = options.publish.as_mut().unwrap();
        publish.url = format!("{base}/api/events");
        publish.content_type = "application/x-ndjson".into();
        publish.body = (0..7).map(line).collect();
        let summary = run(&options, Arc::default(), |_| {}).unwrap();
        assert!(summary.is_clean(), "{summary}");
        assert_eq!(summary.tally.delivered, 70, "{summary}");
    }
}

#[test]
fn a_lost_event_counts_as_missed_even_if_it_is_the_last() {
    let base =
        server(|streams, text| match text.contains("0000000001") || text.contains("0000000003") {
            true => to_all(&mut streams[1..], text),
            false => to_all(streams, text),
        });
    let mut load = load_with(&Options { drain_timeout: MISSED_AFTER, ..options(&base, 3) });
    load.publish(4, Duration::ZERO).unwrap();
    let tally = load.tally();
    assert_eq!((tally.delivered, tally.missed, tally.duplicates), (10, 2, 0), "{tally:?}");
    assert!(!tally.is_clean());
}

#[test]
fn a_repeated_event_counts_as_a_duplicate() {
    let mut load = load(
        &server(|streams, text| {
            to_all(&mut streams[..1], text);
            to_all(streams, text);
        }),
        3,
    );
    load.publish(2, Duration::ZERO).unwrap();
    until(&mut load, |load| load.tally().duplicates == 2);
    let tally = load.tally();
    assert_eq!((tally.delivered, tally.missed, tally.duplicates), (6, 0, 2), "{tally:?}");
    assert!(!tally.is_clean());
}

#[test]
fn an_event_after_a_later_one_counts_as_reordered_and_not_as_missed() {
    let mut load = load(
        &server(|streams, text| {
            if !text.contains("0000000000") {
                to_all(streams, text);
                to_all(streams, &text.replace("0000000001", "0000000000"));
            }
        }),
        2,
    );
    load.publish(2, Duration::ZERO).unwrap();
    let tally = load.tally();
    assert_eq!((tally.delivered, tally.missed, tally.reordered), (4, 0, 2), "{tally:?}");
}

#[test]
fn events_that_arrive_byte_by_byte_are_assembled() {
    let mut load = load(
        &server(|streams, text| {
            for byte in event(text) {
                streams.iter_mut().for_each(|stream| stream.write_all(&[byte]).unwrap());
            }
        }),
        2,
    );
    load.publish(3, Duration::ZERO).unwrap();
    assert!(load.tally().is_clean(), "{:?}", load.tally());
    assert_eq!(load.tally().delivered, 6);
}

#[test]
fn a_stream_that_ends_counts_as_a_disconnect_and_misses_nothing_afterwards() {
    let mut load = load(
        &server(|streams, text| {
            to_all(streams, text);
            if text.contains("0000000000") {
                // One is closed; one ends with its last chunk on an open connection.
                streams[0].shutdown(std::net::Shutdown::Both).unwrap();
                streams[1].write_all(b"0\r\n\r\n").unwrap();
            }
        }),
        3,
    );
    load.publish(1, Duration::ZERO).unwrap();
    until(&mut load, |load| load.subscribers() == 1);
    let tally = load.tally();
    assert_eq!((tally.delivered, tally.missed, tally.disconnects), (3, 0, 2), "{tally:?}");
}

/// SCENARIO: one of three streams receives four events and ends; the last event reaches the others late.
/// BUG: the events of the lost stream counted towards what the other two had to receive, so that the series ended
/// early; the late events counted as missed, and then as duplicates.
/// FIX: a series ends when every open stream has received all its events.
#[test]
fn events_of_a_lost_stream_do_not_count_for_the_others() {
    let mut load = load(
        &server(|streams, text| {
            if !text.contains("0000000003") {
                return to_all(streams, text);
            }
            to_all(&mut streams[..1], text);
            streams[0].shutdown(std::net::Shutdown::Both).unwrap();
            let (mut rest, text) = (Vec::new(), text.to_owned());
            rest.extend(streams[1..].iter().map(|stream| stream.try_clone().unwrap()));
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(200));
                to_all(&mut rest, &text);
            });
        }),
        3,
    );
    load.publish(4, Duration::ZERO).unwrap();
    let tally = load.tally();
    assert_eq!((tally.delivered, tally.missed, tally.disconnects), (12, 0, 1), "{tally:?}");
    assert_eq!(tally.duplicates, 0, "{tally:?}");
}

#[test]
fn a_status_other_than_200_counts_as_a_failed_stream() {
    let base = server(to_all);
    let mut options = options(&base, 4);
    options.url = format!("{base}/full");
    let summary = run(&options, Arc::default(), |_| {}).unwrap();
    assert_eq!((summary.tally.failed, summary.tally.failed_status), (4, Some(503)), "{summary}");
    assert!(!summary.is_clean());
    assert!(summary.to_string().contains("4 failed (HTTP 503)"), "{summary}");
}

#[test]
fn a_refused_publish_is_reported_with_its_reason() {
    let mut options = options(&server(to_all), 1);
    let closed = ReservedPort::new();
    options.publish.as_mut().unwrap().url = format!("http://{}/", closed.address);
    let stop = Arc::default();
    let mut load = Load::new(&options, stop).unwrap();
    load.publish(2, Duration::ZERO).unwrap();
    let (count, why) = load.refusals().unwrap();
    assert_eq!(count, 2);
    assert!(why.contains("refused"), "{why}");
}

#[test]
fn a_header_of_publishes_is_sent_with_them_and_with_no_stream() {
    let bench = |headers: &[[&str; 2]], publish_headers: &[[&str; 2]]| {
        let fields =
            |fields: &[[&str; 2]]| fields.iter().map(|f| f.map(str::to_owned).into()).collect();
        let base = server(to_all);
        let mut options = options(&base, 3);
        let publish = options.publish.as_mut().unwrap();
        publish.url = format!("{base}/private");
        publish.headers = fields(publish_headers);
        options.headers = fields(headers);
        options
    };
    let summary = run(&bench(&[], &[CREDENTIAL]), Arc::default(), |_| {}).unwrap();
    assert!(summary.is_clean(), "{summary}");
    assert_all_delivered(&summary, 3);
    let with_streams = run(&bench(&[CREDENTIAL], &[]), Arc::default(), |_| {}).unwrap();
    assert_eq!(with_streams.tally.failed_status, Some(401), "{with_streams}");
    let mut without = Load::new(&bench(&[], &[]), Arc::default()).unwrap();
    without.publish(1, Duration::ZERO).unwrap();
    assert!(without.refusals().unwrap().1.contains("401"));
}

#[test]
fn a_publish_connection_that_the_server_closed_is_reopened() {
    const IDLE: Duration = Duration::from_millis(400);
    let mut load = load(&server_with(IDLE, to_all), 1);
    for _ in 0..2 {
        load.publish(1, Duration::ZERO).unwrap();
        // Longer than the server keeps an idle connection.
        load.wait(Some(2 * IDLE)).unwrap();
    }
    assert_eq!(load.refusals(), None);
    assert_eq!(load.tally().delivered, 2);
}

#[test]
fn more_streams_than_descriptors_are_refused_with_the_possible_number() {
    let most = |http2| {
        let subscribers = 1_000_000_000_000;
        let options = Options { http2, ..options("http://127.0.0.1:1", subscribers) };
        let why = Load::new(&options, Arc::default()).unwrap_err().to_string();
        let rest = why.split("at most ").nth(1).expect(&why);
        rest.split(' ').next().unwrap().parse::<usize>().expect(&why)
    };
    // With HTTP/2, two descriptors carry ten streams.
    assert_eq!(most(Some(10)), most(None) / 2 * 10);
}

#[test]
fn a_body_without_a_placeholder_for_the_number_is_refused() {
    let mut options = options("http://127.0.0.1:1", 1);
    options.publish.as_mut().unwrap().body = "{}".into();
    let why = Load::new(&options, Arc::default()).unwrap_err().to_string();
    assert!(why.contains("{n}"), "{why}");
}

// ===== the command, against nudged itself =====

/// SCENARIO: on a busy machine, the first ^C arrives early.
/// BUG: the thread that waits for it had not started yet, so the signal killed the program without a summary.
/// FIX: the handler is installed before anything is measured.
#[test]
fn the_command_ends_at_the_first_interrupt_with_the_summary_so_far() {
    let server = Server::start(&[]);
    for transport in [&[][..], &["--http2", "--streams-per-connection", "7"]] {
        let mut command = Server::command();
        command.args(["bench", &format!("http://{}", server.address()), "--json", "-n", "30"]);
        command
            .args(["--every", "20ms", "--duration", "1m"])
            .args(transport)
            .stderr(Stdio::piped());
        let mut bench = command.spawn().unwrap();
        let mut lines = BufReader::new(bench.stderr.take().unwrap()).lines().map(Result::unwrap);
        let all = lines.find(|line| line.starts_with("30 streams open after"));
        assert!(all.is_some(), "it ended before all were open");
        kill_process(Pid::from_child(&bench), Signal::INT).unwrap();

        let output = bench.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(summary["seconds"].as_f64().unwrap() < 60.0, "{summary}");
        assert_eq!(summary["subscribers"], 30, "{summary}");
        let published = summary["published"].as_u64().unwrap();
        assert_eq!(summary["delivered"].as_u64().unwrap(), 30 * published, "{summary}");
    }
}

/// As for another server of its log: a URL without a path is that of a nudged server here too.
#[test]
fn the_command_publishes_to_another_server() {
    let server = Server::start(&["--coalesce", "0"]);
    let url = format!("http://{}", server.address());
    let mut command = Server::command();
    command.args(["bench", &url, "--publish-url", &url, "-n", "3", "--json"]);
    command.args(["--every", "20ms", "--duration", "500ms"]);
    let output = command.output().unwrap();
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let published = summary["published"].as_u64().unwrap();
    assert_eq!((summary["delivered"].as_u64(), published > 1), (Some(3 * published), true));
    assert_eq!(summary["refusal"], Value::Null, "{summary}");
}

#[test]
fn the_command_publishes_with_the_key_of_a_server() {
    const KEY: &str = "a-key-of-the-publisher";
    let public = ["--public-orgs", "bench", "--public-keys", "*"];
    let flags = [&["--coalesce", "0", "--publish-key", KEY][..], &public].concat();
    let server = Server::start(&flags);
    let url = |path: &str| format!("http://{}/api/bench/{path}", server.address());
    let bench = |more: &[&str]| {
        let mut command = Server::command();
        command.args(["bench", &url("public/events"), "--publish-url", &url("events")]);
        command.args(["-n", "3", "--json", "--every", "20ms"]);
        let output = command.args(["--duration", "200ms"]).args(more).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let header = format!("Authorization: Bearer {KEY}");
    let summary = bench(&["--publish-header", &header]);
    let published = summary["published"].as_u64().unwrap();
    assert_eq!(summary["delivered"], 3 * published, "{summary}");
    assert_eq!(summary["refusal"], Value::Null, "{summary}");
    let refused = bench(&[]);
    assert!(refused["refusal"].as_str().unwrap().contains("401"), "{refused}");
}

/// As they stand in the README, but for the addresses, against a server that takes them all.
#[test]
fn the_commands_that_measure_other_servers_reach_them() {
    let readme = include_str!("../../README.md");
    let block = blocks(readme, "sh").into_iter().find(|block| block.contains("--publish-header"));
    let block = block.unwrap().replace("\\\n", "");
    let commands: Vec<_> = block.lines().filter(|line| line.starts_with("nudged bench ")).collect();
    assert_eq!(commands.len(), 3);
    for (command, port) in commands.into_iter().zip([3000, 8000, 8080]) {
        let base = server(to_all);
        let here = command.replace(&format!("http://localhost:{port}"), &base);
        let here = here.replacen("nudged", env!("CARGO_BIN_EXE_nudged"), 1);
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg(format!("{here} -n 3 --every 20ms --duration 200ms --json"));
        let output = shell.env("TOKEN", "t").env("KEY", "k").output().unwrap();
        assert!(output.status.success(), "{here}: {output:?}");
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        let published = summary["published"].as_u64().unwrap();
        assert_eq!((summary["delivered"].as_u64(), published > 1), (Some(3 * published), true));
    }
}

#[test]
fn the_command_reports_which_flag_is_wrong() {
    for (args, wrong) in [
        (&["https://localhost", "--ca", "/nowhere"][..], "No such file"),
        (&["https://localhost", "--ca", "Cargo.toml"], "no certificate in PEM"),
        (&["https://localhost", "--streams-per-connection", "7"], "--http2"),
        (&["ftp://localhost"], "expected http://host:port or https://host"),
        (&["http://127.0.0.1:1", "--publish-header", "x-api-key"], "--publish-header: "),
        (&["http://127.0.0.1:1", "--publish-header", "a b: c"], "--publish-header: "),
        (&["http://127.0.0.1:1", "--header", "x-api-key"], "--header: "),
        (&["http://127.0.0.1:1/x", "--publish-header", "a: b"], "needs --publish-url"),
    ] {
        let output = Server::command().arg("bench").args(args).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && message.contains(wrong), "{args:?}: {message}");
    }
}
