//! Bursts: publishes to one org within its burst window become two events.

use crate::support::server::Signal;
use crate::support::{Server, Stream, Transport, after, eventually};

/// The drain ends the burst window, which is longer than any test.
#[test]
fn a_burst_becomes_its_first_event_and_one_union() {
    for transport in Transport::all() {
        let args = ["--coalesce", "50s", "--drain-window", "100ms"];
        let mut server = Server::start_on(transport, &args);
        let mut stream = server.streams("acme", 1).remove(0);
        let first = server.publish("acme", &["a"]).expect("an id");
        stream.expect_invalidate(&first, &["a"]);
        let second = server.publish("acme", &["b", "c"]).expect("an id");
        assert_eq!(server.publish("acme", &["c", "a"]), Some(second.clone()));
        assert_eq!(server.publish("acme", &["d", "b"]), Some(second.clone()));
        assert_eq!(server.metric("nudged_events_published_total"), 4);
        assert_eq!(server.metric("nudged_events_coalesced_total"), 3);
        server.signal(Signal::TERM);
        stream.expect_invalidate(&second, &["b", "c", "a", "d"]);
        stream.farewell();
        assert_eq!(server.wait(), Some(0));
    }
}

/// Publishes to acme in one request, and so within one burst window. Returns the ids of the two events that result:
/// the first publish, and the union of the others.
fn burst(server: &Server, start: &str, publishes: &[&[&str]]) -> [String; 2] {
    let line = |keys: &&[&str]| serde_json::json!({ "org": "acme", "keys": keys }).to_string();
    let lines: Vec<_> = publishes.iter().map(line).collect();
    let answer = server.post("/api/events", "application/x-ndjson", &lines.join("\n"));
    assert_eq!(answer.status(), 202, "{answer:?}");
    [1, 2].map(|n| after(start, n))
}

#[test]
fn a_union_may_reach_the_key_limit() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &["--coalesce", "1s", "--keys", "3"]);
        let mut stream = server.stream("acme");
        let start = stream.connected();
        // A key that is already in the union does not count again.
        let publishes: [&[&str]; 3] = [&["first"], &["b", "c"], &["c", "d", "b"]];
        let [first, union] = burst(&server, &start, &publishes);
        stream.expect_invalidate(&first, &["first"]);
        stream.expect_invalidate(&union, &["b", "c", "d"]);
        assert_eq!(server.metric("nudged_rereads_total"), 0);
    }
}

#[test]
fn each_org_has_its_own_burst_window() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &["--coalesce", "1m"]);
        for org in ["acme", "other"] {
            let mut stream = server.stream(org);
            stream.connected();
            let id = server.publish(org, &["a"]).expect("an id");
            stream.expect_invalidate(&id, &["a"]);
        }
    }
}

#[test]
fn a_union_beyond_the_key_limit_becomes_connected() {
    for transport in Transport::all() {
        let flags = ["--coalesce", "1s", "--keys", "3", "--public-keys", "p*"];
        let server = Server::start_on(transport, &flags);
        let paths = ["/api/acme/events", "/api/acme/public/events"];
        let mut streams = paths.map(|path| server.stream_with(path, ""));
        let starts = streams.each_mut().map(Stream::connected);
        let publishes: [&[&str]; 3] = [&["p0"], &["p1", "p2"], &["p3", "p4"]];
        burst(&server, &starts[0], &publishes);
        for (stream, start) in streams.iter_mut().zip(&starts) {
            let (first, union) = (after(start, 1), after(start, 2));
            stream.expect_invalidate(&first, &["p0"]);
            let connected = "event: connected\ndata: {\"keepalive\":20}\n\n";
            assert_eq!(stream.next(), format!("id: {union}\n{connected}"));
        }
        // Each worker counts after the write.
        eventually("both are counted", || server.metric("nudged_rereads_total") == 2);
        // Earlier events are lost: a client with an earlier id must reread everything too.
        for (path, start) in paths.iter().zip(&starts) {
            let header = format!("last-event-id: {}\r\n", after(start, 1));
            assert_eq!(server.stream_with(path, &header).connected(), after(start, 2));
        }
    }
}
