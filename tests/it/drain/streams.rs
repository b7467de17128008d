//! What streams receive before their end, and in which order they end. The pace is tested in virtual time
//! (`src/hub/drain.rs`).

use std::net::TcpStream;

use super::{begin_publish, server};
use crate::support::server::Signal;
use crate::support::{Stream, Transport, eventually};

/// Some are still open when the first has ended.
#[test]
fn streams_end_one_after_the_other_and_each_with_its_own_retry() {
    const STREAMS: usize = 100;
    for transport in Transport::all() {
        let mut server = server(transport, &["--workers", "2", "--drain-window", "2s"]);
        let orgs = ["a", "b", "c"];
        let mut streams: Vec<_> = (0..STREAMS).map(|n| server.stream(orgs[n % 3])).collect();
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        server.signal(Signal::TERM);
        let is_open = |stream: &Stream| stream.client.is_silent();
        eventually("one ends", || !streams.iter().all(is_open));
        assert!(streams.iter().rev().any(is_open), "they ended all at once: {transport:?}");

        let mut retries: Vec<_> = streams.iter_mut().map(Stream::farewell).collect();
        assert_eq!(server.wait(), Some(0));
        assert!(retries.iter().all(|retry| (1_000..=5_000).contains(retry)), "{retries:?}");
        retries.sort_unstable();
        retries.dedup();
        assert!(retries.len() > STREAMS / 2, "not drawn for each stream: {retries:?}");
    }
}

/// A publish that has begun is finished, and delivered to the streams that have not ended.
#[test]
fn a_stream_is_served_until_it_is_ended() {
    let mut server = server(Transport::Http1, &["--workers", "1", "--drain-window", "3s"]);
    let mut streams = server.streams("acme", 4);
    // A publish that begins before the server stops accepting.
    let mut publish = server.connect();
    begin_publish(&mut publish);
    publish.send("{\"keys\"");
    server.signal(Signal::TERM);
    let mut rest = streams.split_off(1);
    streams[0].farewell();
    eventually("nothing more is accepted", || TcpStream::connect(server.address()).is_err());
    publish.send(":[\"a\"]}");
    assert_eq!(publish.read_answer().status(), 202);
    let last = rest.last_mut().expect("three");
    assert!(last.next().contains("[\"a\"]"));
    last.farewell();
    assert_eq!(server.wait(), Some(0));
}

/// The burst window would end long after the server.
#[test]
fn the_rest_of_a_burst_is_delivered_before_the_end() {
    for transport in Transport::all() {
        let mut server = server(transport, &["--coalesce", "50s", "--drain-window", "100ms"]);
        let mut streams = server.streams("acme", 2);
        let ids = ["first", "held"].map(|key| server.publish("acme", &[key]).expect("an id"));
        server.signal(Signal::TERM);
        for stream in &mut streams {
            stream.expect_invalidate(&ids[0], &["first"]);
            stream.expect_invalidate(&ids[1], &["held"]);
            stream.farewell();
        }
        assert_eq!(server.wait(), Some(0));
    }
}

/// A browser never reconnects after a 503. So the response to a late request, on a connection accepted before the
/// drain, is a reconnection time.
#[test]
fn a_stream_requested_while_draining_gets_a_reconnection_time() {
    let mut server = server(Transport::Http1, &["--workers", "1", "--drain-window", "3s"]);
    let mut streams = server.streams("acme", 2);
    // A request that has begun keeps its connection open.
    let mut late = server.connect();
    late.send("GET /api/acme/events HTTP/1.1\r\nhost: t\r\n");
    server.settle();
    server.signal(Signal::TERM);
    streams[0].farewell();
    late.send("accept: text/event-stream\r\n\r\n");
    let answer = late.read_answer();
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert!(answer.body.starts_with("retry: ") && !answer.body.contains("\n\n"), "{answer:?}");
    assert_eq!(server.wait(), Some(0));
}
