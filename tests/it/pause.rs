//! The process is stopped for longer than all of its limits, as on a suspended machine or in a container without CPU:
//! what its clients did meanwhile counts, and the time does not count against them.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::post;
use crate::support::http2_client::{Http2Client, WIDE};
use crate::support::large::{LARGE, keys};
use crate::support::{Client, Server, Stream, Transport};

/// Every limit of these tests, and a pause that is longer.
const LIMIT: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_secs(10);

/// Connections of each kind.
const EACH: usize = 10;

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: test\r\n\r\n";
const STREAM: &str = "GET /api/acme/events HTTP/1.1\r\nhost: test\r\n\r\n";

/// Runs a test on these transports at once, because of its pause.
fn on_each(transports: impl Iterator<Item = Transport>, test: fn(Transport)) {
    thread::scope(|scope| {
        transports.for_each(|transport| _ = scope.spawn(move || test(transport)));
    });
}

/// What `prepare` returns if it did not take so long that a limit may have passed before the pause.
fn in_time<T>(prepare: impl Fn() -> T) -> T {
    for _ in 0..10 {
        let begun = Instant::now();
        let prepared = prepare();
        if begun.elapsed() < LIMIT / 2 {
            return prepared;
        }
    }
    panic!("the machine is too slow for this test");
}

/// Connections that are in the middle of something, by what they send during the pause.
fn connections(server: &Server) -> Vec<(&'static str, Client)> {
    let publish = post("/api/acme/events", "application/json", "{\"keys\":[\"a\"]}");
    let (head, body) = publish.split_at(publish.len() - 3);
    assert_eq!(body, "\"]}");
    let mut all = Vec::new();
    for _ in 0..EACH {
        // Nothing was sent on it, or a part of a request head or body.
        all.push((LIVEZ, server.connect()));
        all.push((STREAM, server.connect()));
        let mut client = server.connect();
        client.send(&LIVEZ[..10]);
        all.push((&LIVEZ[10..], client));
        let mut client = server.connect();
        client.send(head);
        all.push(("\"]}", client));
        // It was answered before.
        for next in [LIVEZ, STREAM] {
            let mut client = server.connect();
            client.send(LIVEZ);
            assert_eq!(client.read_answer().status(), 200);
            all.push((next, client));
        }
    }
    server.settle();
    all
}

/// SCENARIO: the process is stopped; its clients, which are connected, send requests, or the rest of them; it goes on
/// when their time is over.
/// BUG: the clock was looked at before the sockets: 50 of 50 connections that had asked were closed unanswered.
/// FIX: what was sent meanwhile is read first, and the limits count from the end of the pause.
#[test]
fn connections_that_asked_during_a_pause_are_answered() {
    on_each(Transport::all(), |transport| {
        let limit = format!("{}s", LIMIT.as_secs());
        let flags = ["--head-timeout", &limit, "--body-timeout", &limit, "--idle-timeout", &limit];
        let server = Server::start_on(transport, &[&flags[..], &["--workers", "1"]].concat());
        let mut all = in_time(|| connections(&server));
        server.pause(PAUSE, || all.iter_mut().for_each(|(rest, client)| client.send(rest)));
        let mut unanswered = Vec::new();
        for (n, (rest, client)) in all.iter_mut().enumerate() {
            let head = client.try_read_until(b"\r\n\r\n").unwrap_or_default();
            if !head.starts_with(b"HTTP/1.1 20") {
                unanswered.push((n % 6, *rest, String::from_utf8_lossy(&head).into_owned()));
            }
        }
        let count = unanswered.len();
        assert!(unanswered.is_empty(), "{transport:?}: {count} of {}: {unanswered:?}", all.len());
    });
}

/// Reads up to the event with this number.
fn read_to(stream: &mut Stream, last: u64) {
    let end = format!("-{last}\nevent: invalidate\n");
    while !stream.next().contains(&end) {}
}

/// SCENARIO: streams have a full socket when the process is stopped; their clients read all the time.
/// BUG: when it went on, the time since their sockets were full was over: 172 of 300 were reset as stalled.
/// FIX: a stream has stalled if its client takes nothing for that long while the process runs.
#[test]
fn a_stream_that_is_read_during_a_pause_has_not_stalled() {
    const EVENTS: u64 = 4;
    on_each(Transport::http1(), |transport| {
        let limit = format!("{}s", LIMIT.as_secs());
        let limits = ["--stall-timeout", &limit, "--peer-timeout", "10m"];
        let more = ["--history-bytes", "100000000", "--workers", "1"];
        let server = Server::start_on(transport, &[LARGE, &limits, &more].concat());
        let mut late = in_time(|| {
            let late = server.streams("acme", 6);
            for n in 0..EVENTS {
                let keys = keys(n);
                server.publish("acme", &keys.iter().map(String::as_str).collect::<Vec<_>>());
            }
            late
        });
        let published = server.metric("nudged_events_published_total");
        thread::scope(|scope| {
            let mut reading = Vec::new();
            server.pause(PAUSE, || {
                for stream in &mut late {
                    reading.push(scope.spawn(move || read_to(stream, published)));
                }
            });
            let cut = reading.into_iter().filter_map(|reading| reading.join().err());
            assert_eq!(cut.count(), 0, "{transport:?}: {:?}", server.closed());
        });
        assert_eq!(server.closed().get("stalled"), None, "{transport:?}");
    });
}

/// The same over HTTP/2, where the window of each stream is shut before the pause, and opens during it.
#[test]
fn a_window_that_opens_during_a_pause_has_not_stalled() {
    const STREAMS: usize = 20;
    let limit = format!("{}s", LIMIT.as_secs());
    let server = Server::start(&["--stall-timeout", &limit, "--workers", "1", "--coalesce", "0"]);
    let key = "k".repeat(400);
    let (mut client, streams) = in_time(|| {
        let mut client = Http2Client::connect(server.address(), 200);
        let streams: Vec<_> = (0..STREAMS).map(|_| client.get("/api/acme/events")).collect();
        for stream in &streams {
            assert!(client.event(*stream).contains("event: connected\n"));
        }
        server.publish("acme", &[&key]);
        client.until("the windows are shut", |client| {
            streams.iter().all(|stream| client.received(*stream) > 0).then_some(())
        });
        (client, streams)
    });
    server.pause(PAUSE, || streams.iter().for_each(|stream| client.grant(*stream, 1 << 20)));
    for stream in &streams {
        assert!(client.event(*stream).contains(&key));
    }
    let id = server.publish("acme", &["live"]).expect("subscribed");
    for stream in streams {
        assert!(client.event(stream).contains(&id));
    }
    assert_eq!(server.closed().get("stalled"), None);
}

/// SCENARIO: over HTTP/2, a client has answered a ping, and the process is stopped before it has read that.
/// BUG: the ping timed out, and the connection was closed with all of its streams.
/// FIX: the answer is read first.
#[test]
fn a_ping_that_was_answered_during_a_pause_is_answered() {
    let server = Server::start(&["--keepalive", "1s", "--peer-timeout", "8s"]);
    let mut client = in_time(|| {
        let mut client = Http2Client::connect(server.address(), WIDE);
        let stream = client.get("/api/acme/events");
        assert!(client.event(stream).contains("event: connected\n"));
        client.hold_ping();
        client
    });
    server.pause(PAUSE, || client.answer_ping());
    let livez = client.get("/livez");
    assert_eq!(client.outcome(livez), Ok(200));
    assert_eq!((client.goaway, server.seats()), (None, 1));
}
