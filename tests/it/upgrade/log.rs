//! Upgrades of servers that share a log, and of those that keep their histories in a file.

use std::time::Duration;

use super::checker::Checker;
use super::shared::traffic::Publisher;
use super::upgradable::Upgradable;
use crate::support::nats::NatsServer;
use crate::support::programs::{NATS_SERVER, requires};
use crate::support::server::Signal;
use crate::support::temp_dir::TempDir;
use crate::support::{Server, Stream, eventually};

const STREAMS: usize = 100;
const FEW: usize = 20;
const PUBLISHERS: usize = 3;
/// Between the numbers of two publishers.
const APART: u64 = 1_000_000;
const PERIOD: Duration = Duration::from_millis(7);

fn is_ready(server: &Server) -> bool {
    server.get("/readyz").status() == 200
}

/// Ids are marks of the log, so that a gap does not show; each key has to be there once, and in one order for all.
#[test]
fn streams_go_on_where_they_were_in_a_log() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let flags = ["--backplane-linger", "0", "--coalesce", "30ms", "--workers", "2"];
    let mut server = Upgradable::start(&[&["--backplane", &nats.url()], &flags[..]].concat());
    eventually("the log is loaded", || is_ready(&server));
    let mut streams = server.streams("acme", FEW);
    let publishers: [_; PUBLISHERS] = std::array::from_fn(|number| {
        Publisher::start(server.address(), number as u64 * APART, vec!["acme".into()], PERIOD)
    });
    for _ in 0..6 {
        server.upgrade();
    }
    let published = publishers.map(Publisher::stop);
    for published in &published {
        assert_eq!(published.failed, 0, "{:?}", published.failure);
    }
    server.publish("acme", &["last"]);
    let numbers = published.iter().flat_map(|published| &published.accepted[0]);
    let mut numbers: Vec<u64> = numbers.copied().collect();
    numbers.sort_unstable();
    assert!(numbers.len() > 20 * PUBLISHERS, "{}", numbers.len());
    let texts = streams.iter_mut().map(until_last);
    let texts: Vec<_> = texts.collect();
    let mut received: Vec<u64> = texts[0].split('"').filter_map(number).collect();
    received.sort_unstable();
    assert_eq!(received, numbers, "{}", texts[0]);
    assert!(texts.iter().all(|text| *text == texts[0]), "not the same for all streams");
    assert!(is_ready(&server));
}

/// The events of a stream up to the one with the last key.
fn until_last(stream: &mut Stream) -> String {
    let mut text = String::new();
    while !text.contains("\"last\"") {
        let event = stream.next();
        assert!(!event.contains("event: connected") && !event.contains("retry:"), "{event}");
        // Keepalives carry the mark of now, at times that differ.
        if event.contains("event: invalidate") {
            text.push_str(&event);
        }
    }
    text
}

/// That of a key of the publishers.
fn number(key: &str) -> Option<u64> {
    key.strip_prefix("k:")?.split(':').next()?.parse().ok()
}

/// Another server of the same log is not concerned.
#[test]
fn a_log_that_cannot_be_reached_is_no_reason_to_lose_a_stream() {
    requires!(NATS_SERVER);
    let mut nats = NatsServer::start();
    let server = Upgradable::start(&["--backplane", &nats.url()]);
    eventually("the log is loaded", || is_ready(&server));
    let mut streams = server.streams("acme", 4);
    nats.kill();
    server.signal(Signal::USR2);
    // The new process cannot load it, and has a minute to.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(server.get("/livez").status(), 200);
    nats.start_again();
    eventually("one process is left", || server.processes().len() == 1);
    eventually("the log is loaded", || is_ready(&server));
    server.publish("acme", &["a"]);
    for stream in &mut streams {
        // A broker that was killed may have lost records: all re-read.
        while !stream.next().contains("[\"a\"]") {}
    }
}

/// The file is taken at a start, not by a successor; its drain writes it.
#[test]
fn the_state_is_written_by_the_process_that_drains() {
    let dir = TempDir::new();
    let file = dir.file("state");
    let flags = ["--state", &file, "--coalesce", "0", "--workers", "2"];
    let mut server = Upgradable::start(&flags);
    let mut stream = server.stream("acme");
    stream.connected();
    let checker = Checker::start(server.address(), STREAMS);
    for _ in 0..2 {
        server.upgrade();
        assert!(!std::path::Path::new(&file).exists(), "it was written by an old process");
    }
    checker.expect_nothing("two upgrades with a file of state");
    let id = server.publish("acme", &["a"]).expect("subscribed");
    stream.expect_invalidate(&id, &["a"]);
    server.signal(Signal::TERM);
    stream.farewell();
    eventually("it has ended", || server.processes().is_empty());
    assert!(std::path::Path::new(&file).exists(), "it was not written");
    let server = Server::start(&flags);
    let mut back = server.stream_with("/api/acme/events", &format!("last-event-id: {id}\r\n"));
    assert_eq!(back.greeting().2, "resumed");
}
