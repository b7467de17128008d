//! The exact bytes of streams, on every way by which they reach a client.

use crate::support::server::Signal;
use crate::support::{Server, Stream, Transport, header};
use crate::wire::decoders::HttpxSse;

/// How a stream reaches its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is the first request of a cleartext connection, which hyper never sees.
    Direct,
    /// It follows another request, which hyper has parsed, and leaves hyper.
    AfterAnother,
    /// The same by another transport.
    Over(Transport),
}

// ===== impl Way =====

impl Way {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let others = Transport::all().filter(|transport| *transport != Transport::Http1);
        [Self::Direct, Self::AfterAnother].into_iter().chain(others.map(Self::Over))
    }

    pub(crate) fn start(self, args: &[&str]) -> Server {
        let transport = match self {
            Self::Direct | Self::AfterAnother => Transport::Http1,
            Self::Over(transport) => transport,
        };
        Server::start_on(transport, args)
    }

    pub(crate) fn open(self, server: &Server, path: &str) -> Stream {
        let mut client = server.connect();
        if self == Self::AfterAnother {
            client.send("GET /livez HTTP/1.1\r\nhost: test\r\n\r\n");
            assert_eq!(client.read_answer().status(), 200);
        }
        Stream::open(client, path, "")
    }
}

/// A comment and a last `retry:` are lines, see [`HttpxSse`]. The standard takes a `retry:` as soon as its line has
/// ended (WHATWG HTML, 9.2.6).
#[test]
fn a_keepalive_and_a_farewell_are_one_line_each() {
    for way in Way::all() {
        let mut server =
            way.start(&["--keepalive", "1s", "--retry-min", "2s", "--retry-max", "2s"]);
        let mut stream = way.open(&server, "/api/acme/events");
        let mut text = stream.next();
        for _ in 0..2 {
            let keepalive = stream.next();
            assert_eq!(keepalive, ": keepalive\n", "{way:?}");
            text += &keepalive;
        }
        server.signal(Signal::TERM);
        let last = stream.next_event();
        assert_eq!(last, "retry: 2000\n", "{way:?}");
        assert_eq!(stream.client.read_to_end(), b"0\r\n\r\n");
        assert_eq!(HttpxSse::default().decode(&(text + &last)).len(), 1, "{way:?}");
        assert_eq!(server.wait(), Some(0));
    }
}

/// Over HTTP/1.0 there are no chunks, and the same bytes.
#[test]
fn a_keepalive_and_a_farewell_are_one_line_each_over_http_1_0() {
    for transport in Transport::http1() {
        let mut server = Server::start_on(
            transport,
            &["--keepalive", "1s", "--retry-min", "2s", "--retry-max", "2s"],
        );
        let mut client = server.connect();
        client.send("GET /api/acme/events HTTP/1.0\r\n\r\n");
        client.read_head();
        client.read_until(b"\n\n");
        let two = b": keepalive\n: keepalive\n";
        assert_eq!(client.read_exact(two.len()), two, "{transport:?}");
        server.signal(Signal::TERM);
        let end = String::from_utf8(client.read_to_end()).expect("UTF-8");
        assert_eq!(end.trim_start_matches(": keepalive\n"), "retry: 2000\n", "{transport:?}");
        assert_eq!(server.wait(), Some(0));
    }
}

/// The end of the first line of a greeting, and of any `connected`.
fn tail(name: &str, seconds: u32) -> String {
    format!("event: {name}\ndata: {{\"keepalive\":{seconds}}}\n\n")
}

/// SCENARIO: a client wants to know when silence means that its connection is dead.
/// BUG: it had to know the server's settings.
/// FIX: `connected`, on a new stream and on a live one, and `resumed` have the period in their data.
#[test]
fn a_greeting_says_how_long_a_stream_may_be_silent() {
    for way in Way::all() {
        // Held keys that are too many for one event become `connected`.
        let server = way.start(&["--keepalive", "25s", "--keys", "1"]);
        let mut stream = way.open(&server, "/api/acme/events");
        let greeting = stream.next();
        let (retry, rest) = greeting.split_once('\n').expect("lines");
        let (id, rest) = rest.split_once('\n').expect("lines");
        assert!(retry.starts_with("retry: ") && id.starts_with("id: "), "{greeting:?}");
        assert_eq!(rest, tail("connected", 25), "{way:?}");

        let lines = ["a", "b", "c"].map(|key| format!(r#"{{"org":"acme","keys":["{key}"]}}"#));
        let published = server.post("/api/events", "application/x-ndjson", &lines.join("\n"));
        assert_eq!(published.status(), 202, "{published:?}");
        let mut again = stream.next();
        // On a busy machine the rest may be there before the first is sent, which it makes superfluous.
        if again.ends_with("data: {\"keys\":[\"a\"]}\n\n") {
            again = stream.next();
        }
        let (id, rest) = again.split_once('\n').expect("lines");
        assert_eq!(rest, tail("connected", 25), "{way:?}");

        let id = id.strip_prefix("id: ").expect("an id");
        let mut stream = way.open(&server, &format!("/api/acme/events?last_event_id={id}"));
        assert!(stream.next().ends_with(&format!("id: {id}\n{}", tail("resumed", 25))), "{way:?}");
    }
}

/// SCENARIO: a page behind a proxy that keeps its connection although the server is gone sees no comments, and waits
/// for ever.
/// BUG: there was nothing else to see while nothing happens.
/// FIX: `?ping=event` has an event in place of the comment. It has no id, so that it changes no last event id.
#[test]
fn a_stream_with_ping_events_gets_no_comments() {
    for way in Way::all() {
        let server = way.start(&["--keepalive", "1s"]);
        for route in ["/api/acme/events", "/api/acme/public/events"] {
            let mut stream = way.open(&server, &format!("{route}?ping=event"));
            let mut text = stream.next();
            for _ in 0..2 {
                let ping = stream.next();
                assert_eq!(ping, "event: ping\ndata: {}\n\n", "{way:?}");
                text += &ping;
            }
            let [[_, _, id], .., [name, data, at_last]] = &HttpxSse::default().decode(&text)[..]
            else {
                panic!("{text}")
            };
            assert_eq!((name.as_str(), data.as_str(), id), ("ping", "{}", at_last));
            let mut other = way.open(&server, route);
            other.next();
            assert_eq!(other.next(), ": keepalive\n", "{way:?}");
        }
    }
}

#[test]
fn another_value_of_ping_is_refused() {
    for way in Way::all() {
        let server = way.start(&[]);
        for query in ["ping=comment", "ping", "ping=Event", "a=b&ping=1&ping=event"] {
            let path = format!("/api/acme/events?{query}");
            let refused = server.get(&path);
            assert_eq!(refused.status(), 400, "{way:?} {query}");
            assert!(
                refused.problem().starts_with("the parameter ping may be event"),
                "{refused:?}"
            );
            let mut client = server.connect();
            client.send(&format!("HEAD {path} HTTP/1.1\r\nhost: t\r\n\r\n"));
            assert!(client.read_head().starts_with("HTTP/1.1 400 "), "{way:?} {query}");
        }
        assert_eq!(server.metric("nudged_streams_opened_total"), 0);
    }
}

/// SCENARIO: a publish of 30 KB, within every limit, whose keys are threefold on the wire; or several publishes that
/// become one event.
/// BUG: the event was sent, in one line of 90 KB, and broke clients that read at most 64 KiB.
/// FIX: an event of more than 60 KiB becomes `connected`.
#[test]
fn an_event_of_more_than_60_kib_becomes_connected() {
    let keys = |first: u32, bytes: &str, count: u32| -> Vec<String> {
        (first..first + count).map(|n| format!("posts:{n}:{bytes}")).collect()
    };
    let line = |keys: &[String]| serde_json::json!({ "org": "acme", "keys": keys }).to_string();
    let escaped = line(&keys(0, &"\u{fc}".repeat(200), 60));
    // A body of less than 64 KiB.
    let lines = [(0, 1), (100, 63), (200, 63)];
    let union = lines.map(|(first, count)| line(&keys(first, &"x".repeat(480), count))).join("\n");
    for way in Way::all() {
        let server = way.start(&["--public-keys", "posts:*"]);
        for body in [&escaped, &union] {
            let routes = ["/api/acme/events", "/api/acme/public/events"];
            let mut streams = routes.map(|route| way.open(&server, route));
            streams.iter_mut().for_each(|stream| _ = stream.next());
            let published = server.post("/api/events", "application/x-ndjson", body);
            assert_eq!(published.status(), 202, "{published:?}");
            for mut stream in streams {
                let mut event = stream.next();
                // The first publish of several is an event of its own.
                while event.contains("\nevent: invalidate\n") {
                    assert!(event.len() <= 60 * 1024, "{way:?} {}", event.len());
                    event = stream.next();
                }
                assert!(event.ends_with(&tail("connected", 20)), "{way:?} {event}");
            }
        }
    }
}

/// The characters at which clients in use end a line, and those that a wrong charset changes.
#[test]
fn keys_are_ascii_on_the_wire() {
    for way in Way::all() {
        let server = way.start(&[]);
        let mut stream = way.open(&server, "/api/acme/events");
        stream.next();
        let key = "\u{85}\u{2028}\u{2029}\u{fc}\u{1f600}";
        let id = server.publish("acme", &[key]).expect("subscribed");
        let data = r#"{"keys":["\u0085\u2028\u2029\u00fc\ud83d\ude00"]}"#;
        assert_eq!(
            stream.next(),
            format!("id: {id}\nevent: invalidate\ndata: {data}\n\n"),
            "{way:?}"
        );
    }
}

/// SCENARIO: a proxy keeps connections to its upstream, and a stream ends.
/// BUG: the head did not say that the connection ends with it, so the proxy sent the next request into it.
/// FIX: over HTTP/1.1 it says so. Over HTTP/2 there is no such field, and over HTTP/1.0 it is the rule.
#[test]
fn the_head_of_a_stream_says_that_its_connection_closes() {
    for way in Way::all() {
        let server = way.start(&[]);
        for route in ["/api/acme/events", "/api/acme/public/events"] {
            let Stream { head, .. } = way.open(&server, route);
            let over_http2 = matches!(way, Way::Over(Transport::H2 | Transport::H2c));
            let connection = (!over_http2).then_some("close");
            assert_eq!(header(&head, "connection"), connection, "{way:?}: {head}");
            assert_eq!(header(&head, "x-content-type-options"), Some("nosniff"), "{way:?}: {head}");
        }
        let mut client = server.connect();
        client.send("HEAD /api/acme/events HTTP/1.1\r\nhost: test\r\n\r\n");
        let head = client.read_head();
        assert_eq!(header(&head, "x-content-type-options"), Some("nosniff"), "{head}");
        assert_eq!(header(&head, "connection"), None, "the connection goes on: {head}");
    }
}

/// SCENARIO: a browser is asked to come back by a stream that ends at once, behind a proxy that compresses.
/// BUG: its `cache-control` was that of an error, so that the proxy transformed and held it.
/// FIX: it has the fields of a stream.
#[test]
fn the_answer_that_asks_to_come_back_has_the_fields_of_a_stream() {
    for way in Way::all() {
        let server = way.start(&["--streams", "1"]);
        let mut stream = way.open(&server, "/api/acme/events");
        stream.next();
        let answer = server.request(
            "GET /api/acme/events HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n\r\n",
        );
        assert_eq!(answer.status(), 200, "{answer:?}");
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-cache, no-store, no-transform"),
            ("x-accel-buffering", "no"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{way:?}: {answer:?}");
        }
        let text = &answer.body;
        assert!(
            text.starts_with("retry: ") && text.contains("\n: the server has as many"),
            "{text}"
        );
        assert!(HttpxSse::default().decode(text).is_empty(), "{way:?}: {text}");
    }
}
