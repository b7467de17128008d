//! When the server ends: after its notice and what it has begun, and never later than its limit.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::{begin_publish, server};
use crate::support::server::Signal;
use crate::support::{Server, Transport, eventually};

fn is_ready(server: &Server) -> bool {
    server.get("/readyz").status() == 200
}

#[test]
fn during_the_delay_it_is_not_ready_and_serves() {
    let mut server = server(Transport::Http1, &["--drain-delay", "2s", "--drain-window", "100ms"]);
    assert!(is_ready(&server));
    let mut before = server.stream("acme");
    before.connected();
    server.signal(Signal::TERM);
    eventually("not ready", || !is_ready(&server));
    let answer = server.get("/readyz");
    assert_eq!(answer.status(), 503);
    assert!(answer.problem().contains("shutting down"));

    // Most of the delay: what was accepted at its beginning proves nothing.
    thread::sleep(Duration::from_secs(1));
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

/// Nothing else keeps the server from ending here.
#[test]
fn a_publish_in_flight_is_finished() {
    let mut server = server(Transport::Http1, &[]);
    let mut publish = server.connect();
    begin_publish(&mut publish);
    publish.send("{\"keys\"");
    server.signal(Signal::TERM);
    eventually("nothing more is accepted", || TcpStream::connect(server.address()).is_err());
    thread::sleep(Duration::from_millis(500));
    publish.send(":[\"a\"]}");
    assert_eq!(publish.read_answer().status(), 202);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn without_streams_the_end_is_soon() {
    let mut server = server(Transport::Http1, &["--drain-window", "30s"]);
    let start = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn the_hard_limit_ends_what_does_not_end() {
    let mut server =
        server(Transport::Http1, &["--drain-window", "100ms", "--drain-timeout", "1s"]);
    // It promises a body and never sends it: that holds the server, and no longer than this.
    let mut publish = server.connect();
    begin_publish(&mut publish);
    let start = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    let took = start.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(8)).contains(&took), "{took:?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let args = ["--workers", "1", "--drain-window", "30s", "--drain-delay", "0s"];
        let mut server = server(Transport::Http1, &args);
        let _streams = server.streams("acme", 4);
        server.signal(Signal::TERM);
        eventually("it drains", || TcpStream::connect(server.address()).is_err());
        let start = Instant::now();
        server.signal(second);
        assert_eq!(server.wait(), Some(code));
        assert!(start.elapsed() < Duration::from_secs(5));
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
