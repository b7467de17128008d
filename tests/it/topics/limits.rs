//! Limits of topics, and the answers at them.

use super::{JSON, NDJSON, RUN, before, numbered, numbered_frame, publish, publish_some};
use crate::bytes::Way;
use crate::support::{Server, Transport, eventually};

#[test]
fn the_streams_of_a_topic_are_limited() {
    for way in Way::all() {
        let server = way.start(&["--topic-streams", "2"]);
        let mut streams = [RUN, RUN].map(|path| way.open(&server, path));
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        let because = "this topic has as many streams as it may, 2; come back later";
        let ask = |fields: &str| {
            server.request(&format!("GET {RUN} HTTP/1.1\r\nhost: t\r\n{fields}\r\n"))
        };
        let browser = ask("accept: text/event-stream\r\n");
        assert_eq!(browser.status(), 200, "{browser:?}");
        assert_eq!(browser.header("content-type"), Some("text/event-stream"));
        assert!(browser.body.starts_with("retry: "), "{browser:?}");
        assert!(browser.body.ends_with(&format!("\n: {because}\n")), "{browser:?}");
        let other = ask("");
        assert_eq!(other.status(), 503, "{other:?}");
        assert!(other.header("retry-after").is_some(), "{other:?}");
        assert_eq!(other.problem(), because);
        assert_eq!(server.metric("nudged_refused_total{limit=\"topic\"}"), 2, "{way:?}");

        // Other topics, and the org's own streams, have limits of their own.
        way.open(&server, "/api/acme/topics/run-8/events").connected();
        way.open(&server, "/api/other/topics/run-7/events").connected();
        way.open(&server, "/api/acme/events").connected();
        let [first, mut second] = streams;
        first.client.reset();
        eventually("there is room", || ask_is_stream(&server));
        let id = publish(&server, RUN, &numbered(1));
        assert_eq!(second.next(), numbered_frame(&id, 1), "{way:?}: what is open stays");
    }
}

fn ask_is_stream(server: &Server) -> bool {
    let mut client = server.connect();
    client.send(&format!("GET {RUN} HTTP/1.1\r\nhost: t\r\n\r\n"));
    client.read_head().starts_with("HTTP/1.1 200 ")
}

#[test]
fn a_topic_keeps_so_many_events_of_each_class() {
    for way in Way::all() {
        let server = way.start(&["--topic-events", "2"]);
        let bulk = |n| format!(r#"{{"event":"output","data":{{"n":{n}}},"bulk":true}}"#);
        let mut ids = publish_some(&server, RUN, 3);
        ids.extend((4..=6).map(|n| publish(&server, RUN, &bulk(n))));
        let mut stream = way.open(&server, RUN);
        let id = stream.connected();
        assert_eq!(id, before(&ids[1]), "{way:?}");
        for n in [2, 3, 5, 6] {
            let id = &ids[n - 1];
            assert_eq!(stream.next(), numbered_frame(id, n as u64), "{way:?}");
        }
        assert!(stream.client.is_silent());
        // What only lacks bulk events is no gap.
        let mut stream = way.open(&server, &format!("{RUN}?last_event_id={}", ids[2]));
        assert_eq!(stream.greeting().2, "resumed", "{way:?}");
        assert_eq!(stream.next(), numbered_frame(&ids[4], 5), "{way:?}");
        let mut stream = way.open(&server, &format!("{RUN}?last_event_id={}", before(&ids[0])));
        stream.connected();
    }
}

#[test]
fn an_event_is_limited_on_the_wire() {
    let server = Server::start(&["--topic-event-bytes", "1024"]);
    // The longest id, which has another 18 digits than the first.
    let longest = 1024 - "id: 0123456789abcdef-18446744073709551615\nevent: x\ndata: \n\n".len();
    let of = |len: usize| format!(r#"{{"event":"x","text":"{}"}}"#, "a".repeat(len));
    let id = publish(&server, RUN, &of(longest));
    let escaped = format!(r#"{{"event":"x","data":"{}"}}"#, "é".repeat(longest / 6 + 1));
    let lines = format!(r#"{{"event":"x","text":"{}"}}"#, "\\n".repeat(longest / 7 + 1));
    for body in [of(longest + 1), escaped, lines] {
        let answer = server.post(RUN, JSON, &body);
        assert_eq!(answer.status(), 413, "{answer:?}");
        assert!(answer.problem().contains("bytes on the wire; at most 1024 are allowed"));
        let line = body.replacen('{', r#"{"org":"acme","topic":"run-7","#, 1);
        let answer = server.post("/api/events", NDJSON, &line);
        assert_eq!(answer.status(), 413, "{answer:?}");
        assert!(answer.problem().starts_with("line 1: the event has "), "{answer:?}");
    }
    let mut stream = server.stream_with(RUN, "");
    assert_eq!(stream.connected(), before(&id));
    assert_eq!(stream.next(), format!("id: {id}\nevent: x\ndata: {}\n\n", "a".repeat(longest)));
    assert!(stream.client.is_silent(), "the refused ones are not kept");
}

#[test]
fn publishes_to_topics_count_against_the_rate_of_their_org() {
    let server = Server::start(&["--publish-rate", "1", "--publish-burst", "3"]);
    let status = |path: &str| server.post(path, JSON, &numbered(1)).status();
    assert_eq!(status(RUN), 202);
    assert_eq!(status("/api/acme/topics/run-8/events"), 202);
    let close = format!("DELETE {RUN} HTTP/1.1\r\nhost: t\r\n\r\n");
    assert_eq!(server.request(&close).status(), 202);
    let refused = server.post(RUN, JSON, &numbered(1));
    assert_eq!(refused.status(), 429, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(server.request(&close).status(), 429);
    assert_eq!(server.post("/api/acme/events", JSON, r#"{"keys":["a"]}"#).status(), 429);
    let line = r#"{"org":"acme","topic":"run-7","event":"x","data":1}"#;
    let refused = server.post("/api/events", NDJSON, line);
    assert_eq!((refused.status(), refused.problem().starts_with("line 1: ")), (429, true));
    assert_eq!(status("/api/other/topics/run-7/events"), 202);
}

/// Publishers are served at the limits of connections, and subscribers are not.
#[test]
fn topics_are_written_at_the_limit_of_connections() {
    for transport in Transport::http1() {
        let server = Server::start_on(transport, &["--connections", "4"]);
        let mut streams: Vec<_> = (0..4).map(|_| server.stream_with(RUN, "")).collect();
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        let ask = |path: &str, fields: &str| {
            server.request(&format!("GET {path} HTTP/1.1\r\nhost: t\r\n{fields}\r\n"))
        };
        let because = "the server has as many connections as it may, 4";
        for path in [RUN.to_owned(), format!("{RUN}?exclusive")] {
            assert!(ask(&path, "").problem().starts_with(because), "{transport:?}");
            let browser = ask(&path, "accept: text/event-stream\r\n");
            assert_eq!(browser.status(), 200, "{transport:?} {browser:?}");
            assert!(browser.body.contains(because), "{browser:?}");
        }
        let id = publish(&server, RUN, &numbered(1));
        streams.iter_mut().for_each(|stream| assert_eq!(stream.next(), numbered_frame(&id, 1)));
        assert_eq!(super::close(&server, RUN, ""), 4, "{transport:?}");
    }
}

/// A stream counts as any other: in total and of its address.
#[test]
fn streams_of_topics_count_as_streams() {
    for limit in ["--streams", "--address-streams"] {
        for way in Way::all() {
            let server = way.start(&[limit, "2"]);
            let mut streams = [RUN, "/api/acme/events"].map(|path| way.open(&server, path));
            streams.iter_mut().for_each(|stream| _ = stream.connected());
            assert_eq!(server.get(RUN).status(), 503, "{way:?} {limit}");
            let exclusive = server.get(&format!("{RUN}?exclusive"));
            assert_eq!(exclusive.status(), 503, "{way:?} {limit}");
            let id = publish(&server, RUN, &numbered(1));
            assert_eq!(streams[0].next(), numbered_frame(&id, 1), "none was replaced");
        }
    }
}
