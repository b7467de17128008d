//! When the server ends: after the delay and what has begun, and never later than its limit.
//!
//! Where a limit of a server is hours, its end within the time of a test shows that it did not wait for it.

use std::io::Read;
use std::net::TcpStream;
use std::process::Stdio;

use super::{begin_publish, server};
use crate::support::server::Signal;
use crate::support::{Server, Transport, eventually};

fn is_ready(server: &Server) -> bool {
    server.get("/readyz").status() == 200
}

#[test]
fn during_the_delay_it_is_not_ready_and_serves() {
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
    assert!(TcpStream::connect(server.address()).is_err(), "it has gone");
}

/// When the last stream has ended, nothing else keeps the server from ending.
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
fn without_streams_the_window_is_not_waited_for() {
    let args = ["--drain-window", "50m", "--drain-timeout", "1h"];
    let mut server = server(Transport::Http1, &args);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
}

/// It promises a body and never sends it: that holds the server until its limit.
#[test]
fn the_hard_limit_cuts_what_does_not_end_and_logs_it() {
    let mut command = Server::command();
    command.stderr(Stdio::piped());
    let args = ["--drain-window", "100ms", "--drain-timeout", "1s", "--body-timeout", "1h"];
    let mut server = Server::start_as(command, Transport::Http1, &args);
    let mut log = server.take_stderr();
    let mut publish = server.connect();
    begin_publish(&mut publish);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    let mut said = String::new();
    log.read_to_string(&mut said).expect("text");
    assert!(said.contains("some connections did not end in time and were cut"), "{said}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let args = ["--workers", "1", "--drain-window", "50m", "--drain-timeout", "1h"];
        let mut server = server(Transport::Http1, &args);
        let _streams = server.streams("acme", 4);
        server.signal(Signal::TERM);
        eventually("it drains", || TcpStream::connect(server.address()).is_err());
        server.signal(second);
        assert_eq!(server.wait(), Some(code));
    }
}

#[test]
fn a_hard_limit_that_would_cut_streams_is_refused() {
    let args = ["--drain-delay", "10s", "--drain-window", "25s"];
    let (code, said) = Server::refuses_to_start(&args);
    assert_eq!(code, Some(64));
    assert!(said.contains("--drain-delay 10s and --drain-window 25s together"), "{said}");
    assert!(said.contains("--drain-timeout 30s"), "{said}");
}
