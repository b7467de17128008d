//! When a draining server ends: after the delay and the requests that have begun, and never later than its hard limit.
//!
//! Some tests set a limit of an hour: if the server ends within the test at all, it has not waited for that limit.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::Stdio;

use super::{begin_publish, server};
use crate::support::server::Signal;
use crate::support::{Server, Transport, eventually};

fn is_ready(server: &Server) -> bool {
    server.get("/readyz").status() == 200
}

#[test]
fn during_the_delay_the_server_is_not_ready_but_serves() {
    let mut server = server(Transport::Http1, &["--drain-delay", "3s", "--drain-window", "100ms"]);
    assert!(is_ready(&server));
    let mut before = server.stream("acme");
    before.connected();
    server.signal(Signal::TERM);
    eventually("not ready", || !is_ready(&server));
    let answer = server.get("/readyz");
    assert_eq!(answer.status(), 503);
    assert!(answer.problem().contains("shutting down"));

    let mut during = server.stream("acme");
    during.connected();
    let id = server.publish("acme", &["a"]).expect("an id");
    for stream in [&mut before, &mut during] {
        stream.expect_invalidate(&id, &["a"]);
        stream.farewell();
    }
    assert_eq!(server.wait(), Some(0));
    assert!(TcpStream::connect(server.address()).is_err(), "the server has ended");
}

/// The open request is the only thing that keeps the server from ending.
#[test]
fn a_publish_in_flight_is_finished() {
    let mut server = server(Transport::Http1, &["--drain-window", "100ms"]);
    let mut stream = server.streams("acme", 1).remove(0);
    let mut publish = server.connect();
    begin_publish(&mut publish);
    publish.send("{\"keys\"");
    server.signal(Signal::TERM);
    stream.farewell();
    eventually("nothing more is accepted", || TcpStream::connect(server.address()).is_err());
    publish.send(":[\"a\"]}");
    assert_eq!(publish.read_answer().status(), 202);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn without_streams_the_server_does_not_wait_for_the_window() {
    let args = ["--drain-window", "50m", "--drain-timeout", "1h"];
    let mut server = server(Transport::Http1, &args);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
}

/// A publish whose body never arrives keeps the server until its hard limit.
#[test]
fn the_hard_limit_closes_open_connections_and_logs_it() {
    let mut command = Server::command();
    command.stderr(Stdio::piped());
    let args = ["--drain-window", "100ms", "--drain-timeout", "1s", "--body-timeout", "1h"];
    let mut server = Server::start_as(command, Transport::Http1, &args);
    let mut log = server.take_stderr();
    let mut publish = server.connect();
    begin_publish(&mut publish);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    let mut text = String::new();
    log.read_to_string(&mut text).expect("text");
    assert!(text.contains("some connections did not end in time and were cut"), "{text}");
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::QUIT, 131)] {
        let args = ["--workers", "1", "--drain-window", "50m", "--drain-timeout", "1h"];
        let mut server = server(Transport::Http1, &args);
        let _streams = server.streams("acme", 4);
        server.signal(Signal::TERM);
        eventually("the server drains", || TcpStream::connect(server.address()).is_err());
        server.signal(second);
        assert_eq!(server.wait(), Some(code));
    }
}

/// SCENARIO: a container is stopped by SIGQUIT, as those are that were nginx, or a rotation of logs sends SIGUSR1.
/// BUG: the process ended at once, and cut every stream.
/// FIX: SIGQUIT drains, SIGUSR1 is ignored with a line in the log. (SIGUSR2 is an upgrade.)
#[test]
fn no_signal_cuts_the_streams() {
    let drains = [Signal::TERM, Signal::INT, Signal::QUIT].map(Some);
    for drain in drains.into_iter().chain([None]) {
        let mut command = Server::command();
        command.stderr(Stdio::piped());
        let args = ["--drain-window", "100ms"];
        let mut server = Server::start_as(command, Transport::Http1, &args);
        let mut log = BufReader::new(server.take_stderr()).lines().map(|line| line.expect("text"));
        let mut stream = server.stream("acme");
        stream.connected();
        if let Some(signal) = drain {
            server.signal(signal);
            stream.farewell();
            assert_eq!(server.wait(), Some(0), "{signal:?}");
            continue;
        }
        server.signal(Signal::USR1);
        let line = log.next().expect("a line");
        assert!(line.contains("SIGUSR1") && line.contains("is ignored"), "{line}");
        // httpd's images stop by it; its default is to be ignored.
        server.signal(Signal::WINCH);
        let id = server.publish("acme", &["posts"]).expect("an id");
        stream.expect_invalidate(&id, &["posts"]);
    }
}

#[test]
fn a_hard_limit_that_would_cut_streams_is_refused() {
    let args = ["--drain-delay", "10s", "--drain-window", "25s"];
    let (code, message) = Server::refuses_to_start(&args);
    assert_eq!(code, Some(2));
    assert!(message.contains("--drain-delay 10s and --drain-window 25s together"), "{message}");
    assert!(message.contains("--drain-timeout 30s"), "{message}");
}
