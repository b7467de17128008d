//! Resumption: whatever happens between two streams of one client, it receives every event once and in order, or a
//! `connected` that makes it reread everything.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::server::Signal;
use crate::support::{Server, Stream, Transport, after, eventually};

fn server(transport: Transport, more: &[&str]) -> Server {
    Server::start_on(transport, &[&["--coalesce", "0"][..], more].concat())
}

/// Opens the member stream of acme with this `last-event-id`.
fn reconnect(server: &Server, id: &str) -> Stream {
    server.stream_with("/api/acme/events", &format!("last-event-id: {id}\r\n"))
}

fn resumed(mut stream: Stream, id: &str) -> Stream {
    let (_, greeted, name) = stream.greeting();
    assert_eq!((&*name, &*greeted), ("resumed", id));
    stream
}

#[test]
fn an_event_published_without_subscribers_is_resumed() {
    for transport in Transport::all() {
        let server = server(transport, &[]);
        let mut stream = server.stream("acme");
        let last = stream.connected();
        stream.client.reset();
        eventually("the seat is free", || server.seats() == 0);

        let missed = ["a", "b"].map(|key| server.publish("acme", &[key]).expect("remembered"));
        let mut stream = resumed(reconnect(&server, &last), &last);
        stream.expect_invalidate(&missed[0], &["a"]);
        stream.expect_invalidate(&missed[1], &["b"]);
        let live = server.publish("acme", &["c"]).expect("subscribed");
        stream.expect_invalidate(&live, &["c"]);
    }
}

#[test]
fn http_1_0_resumes_without_chunks() {
    for transport in Transport::all() {
        let server = server(transport, &[]);
        let last = server.stream("acme").connected();
        let missed = server.publish("acme", &["a"]).expect("remembered");
        let mut client = server.connect();
        client.send(&format!("GET /api/acme/events HTTP/1.0\r\nlast-event-id: {last}\r\n\r\n"));
        client.read_head();
        let retry = client.read_until(b"\n");
        assert!(retry.starts_with(b"retry: "));
        let rest = format!(
            "id: {last}\nevent: resumed\ndata: {{\"keepalive\":20}}\n\n\
             id: {missed}\nevent: invalidate\ndata: {{\"keys\":[\"a\"]}}\n\n"
        );
        assert_eq!(String::from_utf8(client.read_exact(rest.len())).expect("UTF-8"), rest);
    }
}

/// Resuming must not reveal a key that the public stream would not have shown live.
#[test]
fn the_public_stream_resumes_with_public_keys_only() {
    for transport in Transport::all() {
        let server = server(transport, &["--public-keys", "posts"]);
        let public = |headers: &str| server.stream_with("/api/acme/public/events", headers);
        let last = public("").connected();
        let [mixed, live] = [1, 2].map(|count| after(&last, count));
        for keys in [&["secret"][..], &["secret", "posts"], &["secret"]] {
            server.publish("acme", keys);
        }

        let by_header = public(&format!("last-event-id: {last}\r\n"));
        let path = format!("/api/acme/public/events?last_event_id={last}");
        let by_query = server.stream_with(&path, "");
        let nothing_missed = public(&format!("last-event-id: {mixed}\r\n"));
        let mut streams =
            [resumed(by_header, &last), resumed(by_query, &last), resumed(nothing_missed, &mixed)];
        streams[..2].iter_mut().for_each(|stream| stream.expect_invalidate(&mixed, &["posts"]));
        server.publish("acme", &["posts"]);
        streams.iter_mut().for_each(|stream| stream.expect_invalidate(&live, &["posts"]));
    }
}

/// A page sets the query once; on reconnecting, the browser's own header is newer.
#[test]
fn the_header_takes_precedence_over_the_query() {
    for transport in Transport::all() {
        let server = server(transport, &[]);
        let old = server.stream("acme").connected();
        let new = server.publish("acme", &["a"]).expect("remembered");
        let with = |query: &str, header: &str| {
            let path = format!("/api/acme/events?last_event_id={query}");
            server.stream_with(&path, &format!("last-event-id: {header}\r\n"))
        };
        let mut streams = [resumed(with(&old, &new), &new), resumed(with("garbage", &new), &new)];
        let live = server.publish("acme", &["b"]).expect("subscribed");
        streams.iter_mut().for_each(|stream| stream.expect_invalidate(&live, &["b"]));
        assert_eq!(with(&new, "garbage").connected(), live);
        // A query is percent-encoded (WHATWG URL, application/x-www-form-urlencoded).
        let escaped = format!("/api/acme/events?last_event_id={}", live.replace('-', "%2D"));
        resumed(server.stream_with(&escaped, ""), &live);
    }
}

/// An id belongs to one org: an id of another org resumes nothing.
#[test]
fn the_id_of_another_org_is_not_covered() {
    for transport in Transport::all() {
        let server = server(transport, &[]);
        let other = server.stream("other").connected();
        let ours = server.stream("acme").connected();
        assert_ne!(other, ours, "each org has its own epoch");
        assert_eq!(reconnect(&server, &other).connected(), ours);
    }
}

/// The drain ends the burst window, which is longer than any test.
#[test]
fn a_client_that_reconnects_within_a_burst_receives_its_union_once() {
    for transport in Transport::all() {
        let args = ["--coalesce", "50s", "--drain-window", "100ms"];
        let mut server = Server::start_on(transport, &args);
        let mut stayed = server.stream("acme");
        let start = stayed.connected();
        let first = server.publish("acme", &["a"]).expect("subscribed");
        let union = server.publish("acme", &["b"]).expect("subscribed");
        let mut late = resumed(reconnect(&server, &start), &start);
        server.publish("acme", &["c"]);
        server.signal(Signal::TERM);
        for stream in [&mut stayed, &mut late] {
            stream.expect_invalidate(&first, &["a"]);
            stream.expect_invalidate(&union, &["b", "c"]);
            stream.farewell();
        }
        assert_eq!(server.wait(), Some(0));
    }
}

/// A client that reconnects again and again during a series of events misses none and receives none twice.
#[test]
fn no_event_is_lost_between_two_streams() {
    const EVENTS: u64 = 400;
    for transport in Transport::all() {
        let server = server(transport, &["--workers", "2", "--history-events", "1000"]);
        let mut stream = server.stream("acme");
        let mut last = stream.connected();
        let reconnects = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=EVENTS {
                    server.publish("acme", &[&format!("key-{n}")]);
                    // The second half waits until the client has reconnected at least once.
                    if n == EVENTS / 2 {
                        let what = "the client reconnects";
                        eventually(what, || reconnects.load(Ordering::Relaxed));
                    }
                }
            });
            let epoch = last.split_once('-').expect("epoch-seq").0.to_owned();
            for n in 1..=EVENTS {
                let id = format!("{epoch}-{n}");
                stream.expect_invalidate(&id, &[&format!("key-{n}")]);
                last = id;
                if n % 7 == 0 {
                    stream.client.reset();
                    stream = resumed(reconnect(&server, &last), &last);
                    reconnects.store(true, Ordering::Relaxed);
                }
            }
        });
        assert_eq!(server.metric("nudged_rereads_total"), 0);
    }
}
