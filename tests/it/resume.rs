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

/// Where a request says its position: parameters of its query, and values of its fields.
type Said<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

/// The greeting of a stream that is opened so: as the first request of its connection, and after another one.
fn greetings(server: &Server, (parameters, fields): Said<'_>) -> [(String, String); 2] {
    let query: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let path = format!("/api/acme/events?x=1&{}", query.join("&"));
    let fields: String = fields.iter().map(|value| format!("last-event-id: {value}\r\n")).collect();
    [false, true].map(|later| {
        let mut client = server.connect();
        if later {
            client.send("GET /livez HTTP/1.1\r\nhost: test\r\n\r\n");
            client.read_answer();
        }
        let (_, id, name) = Stream::open(client, &path, &fields).greeting();
        (name, id)
    })
}

/// SCENARIO: a client cannot set fields, as `EventSource` and its polyfills in a new page, and says its position in the
/// URL, in the spelling of its library. Or it sends an empty `Last-Event-ID` beside it.
/// BUG: only `last_event_id` was understood, and an empty field hid it: `connected` for no reason.
/// FIX: every spelling is understood, and what is empty is no position.
#[test]
fn a_position_is_understood_in_every_spelling() {
    for transport in Transport::all() {
        let server = server(transport, &[]);
        let old = server.stream("acme").connected();
        let new = server.publish("acme", &["a"]).expect("remembered");
        let (old, new) = (&*old, &*new);
        let escaped = new.replace('-', "%2D");
        let resumed = ("resumed".to_owned(), new.to_owned());
        let cases: [Said<'_>; 18] = [
            (&[("last_event_id", new)], &[]),
            (&[("lastEventId", new)], &[]),
            (&[("lastEventID", new)], &[]),
            (&[("last-event-id", new)], &[]),
            (&[("Last-Event-ID", new)], &[]),
            (&[("LastEventId", new)], &[]),
            (&[("last%5Fevent%5Fid", &escaped)], &[]),
            (&[("lastEventId", new)], &[""]),
            (&[("lastEventId", new)], &["", "  "]),
            (&[("lastEventId", ""), ("last_event_id", new)], &[]),
            (&[("last_event_id", "")], &[new]),
            // They agree.
            (&[("lastEventId", new), ("last_event_id", new)], &[]),
            (&[("last_event_id", new), ("last_event_id", &escaped)], &[]),
            (&[], &[new, new]),
            (&[], &["", new]),
            // The field is what an `EventSource` has received since it was made with this URL.
            (&[("last_event_id", old)], &[new]),
            (&[("last_event_id", old), ("lastEventId", new)], &[new]),
            (&[("last_event_id", "garbage")], &[new]),
        ];
        for said in cases {
            for greeting in greetings(&server, said) {
                assert_eq!(greeting, resumed, "{transport:?}: {said:?}");
            }
        }
    }
}

/// SCENARIO: a page adds its position to a URL that has one already, or a proxy adds a field.
/// BUG: the first of the two counted, and where that was the newer one, what lay between them was lost silently.
/// FIX: two positions that differ are none: `connected`.
#[test]
fn two_positions_that_differ_mean_connected() {
    for transport in Transport::all() {
        let server = server(transport, &[]);
        let old = server.stream("acme").connected();
        let new = server.publish("acme", &["a"]).expect("remembered");
        let (old, new) = (&*old, &*new);
        let connected = ("connected".to_owned(), new.to_owned());
        let both = format!("{new}, {old}");
        let cases: [Said<'_>; 10] = [
            (&[("last_event_id", new), ("last_event_id", old)], &[]),
            (&[("last_event_id", old), ("last_event_id", new)], &[]),
            (&[("lastEventId", new), ("Last-Event-ID", old)], &[]),
            (&[("lastEventId", new), ("last_event_id", "garbage")], &[]),
            (&[], &[new, old]),
            (&[], &[old, new]),
            (&[], &[new, "\u{e9}"]),
            (&[("last_event_id", new)], &[new, old]),
            (&[("last_event_id", new)], &["\u{e9}"]),
            (&[], &[&both]),
        ];
        for said in cases {
            for greeting in greetings(&server, said) {
                assert_eq!(greeting, connected, "{transport:?}: {said:?}");
            }
        }
        // Nothing else is a position.
        let others =
            ["lastEvent", "last_event_ids", "event_id", "last__event__id", "last event id"];
        for name in others.map(|name| name.replace(' ', "+")) {
            for greeting in greetings(&server, (&[(&name, new)], &[])) {
                assert_eq!(greeting, connected, "{transport:?}: {name}");
            }
        }
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
