//! What holds for every route: internal addresses, hosts, pages of other origins, metrics and the access log.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::{JSON, NDJSON, RUN, close, numbered, numbered_frame, publish};
use crate::bytes::Way;
use crate::support::client::post;
use crate::support::server::Signal;
use crate::support::{Client, Server, Stream, Transport, eventually, header};
use crate::tokens::{SECRET, now, sign};

const LINE: &str = r#"{"org":"acme","topic":"run-7","event":"output","data":{"n":1}}"#;

#[test]
fn with_an_internal_address_topics_are_written_there_only() {
    let flags = ["--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"];
    let server = Server::start(&flags);
    let [public, internal] = server.addresses[..] else { panic!("two addresses") };
    let ask = |address, request: &str| {
        let mut client = Client::connect(address);
        client.send(request);
        client.read_answer()
    };
    let (event, lines) = (post(RUN, JSON, &numbered(1)), post("/api/events", NDJSON, LINE));
    let end = format!("DELETE {RUN} HTTP/1.1\r\nhost: t\r\n\r\n");
    let mut streams = [public, internal].map(|address| {
        let mut stream = Stream::open(Client::connect(address), RUN, "");
        stream.connected();
        stream
    });
    for request in [&event, &lines, &end] {
        let refused = ask(public, request);
        assert_eq!(refused.status(), 404, "{request}");
        assert!(refused.problem().contains("--internal-listen"), "{refused:?}");
    }
    assert_eq!(ask(internal, &event).status(), 202);
    assert_eq!(ask(internal, &end).body, r#"{"streams":2}"#);
    for stream in &mut streams {
        assert!(stream.next().ends_with("event: output\ndata: {\"n\":1}\n\n"));
        assert!(stream.next().contains("event: closed\n"));
    }
    let mut client = Client::connect(public);
    client.send(&format!("HEAD {RUN} HTTP/1.1\r\nhost: t\r\n\r\n"));
    assert!(client.read_head().starts_with("HTTP/1.1 200 "));
}

#[test]
fn the_head_of_a_stream_is_that_of_every_stream() {
    for way in Way::all() {
        let server = way.start(&[]);
        let Stream { head, .. } = way.open(&server, RUN);
        let other = way.open(&server, "/api/acme/events").head;
        let fields = |head: &str| {
            let lines = head.lines().filter(|line| !line.starts_with("date: "));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(fields(&head), fields(&other), "{way:?}");
        let alone = way.open(&server, &format!("{RUN}?exclusive")).head;
        assert_eq!(fields(&alone), fields(&other), "{way:?}");
        let mut client = server.connect();
        client.send(&format!("HEAD {RUN} HTTP/1.1\r\nhost: test\r\n\r\n"));
        let head = client.read_head();
        assert_eq!(header(&head, "content-type"), Some("text/event-stream"), "{head}");
        assert_eq!(header(&head, "connection"), None, "the connection goes on: {head}");
        client.send("GET /livez HTTP/1.1\r\nhost: test\r\n\r\n");
        assert_eq!(client.read_answer().status(), 200, "{way:?}");
    }
}

/// Over HTTP/1.0 there are no chunks, and the same bytes.
#[test]
fn a_client_of_http_1_0_gets_the_same_events() {
    for transport in Transport::http1() {
        let server = Server::start_on(transport, &[]);
        let id = publish(&server, RUN, &numbered(1));
        for query in ["", "?exclusive"] {
            let mut client = server.connect();
            client.send(&format!("GET {RUN}{query} HTTP/1.0\r\n\r\n"));
            let head = client.read_head();
            assert!(header(&head, "transfer-encoding").is_none(), "{head}");
            client.read_until(b"event: connected\n");
            client.read_until(b"\n\n");
            let frame = numbered_frame(&id, 1);
            assert_eq!(client.read_exact(frame.len()), frame.as_bytes(), "{transport:?}");
        }
    }
}

#[test]
fn a_request_for_another_host_is_refused() {
    for transport in Transport::http1() {
        let server = Server::start_on(transport, &[]);
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            let mut client = server.connect();
            client
                .send(&format!("{method} {RUN}?exclusive HTTP/1.1\r\nhost: evil.example\r\n\r\n"));
            assert!(client.read_head().starts_with("HTTP/1.1 421 "), "{transport:?} {method}");
        }
    }
}

#[test]
fn a_page_of_another_origin_changes_no_topic() {
    let evil = "origin: https://evil.example\r\nsec-fetch-site: cross-site\r\n";
    let claims = serde_json::json!({
        "org": "acme", "scope": "subscribe publish", "topics": "*", "exp": now() + 600,
    });
    let cookie = format!("cookie: nudged_token={}\r\n", sign(SECRET.as_bytes(), &claims));
    for transport in Transport::all() {
        for (flags, cookie) in [(&[][..], ""), (&["--jwt-secret", SECRET][..], &*cookie)] {
            let server = Server::start_on(transport, flags);
            let body = numbered(1);
            let ask = |method: &str, fields: &str| {
                let body = if method == "POST" { &*body } else { "" };
                let answer = server.request(&format!(
                    "{method} {RUN} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\n{cookie}{fields}content-length: {}\r\n\r\n{body}",
                    body.len()
                ));
                answer.status()
            };
            for method in ["POST", "DELETE"] {
                assert_eq!(ask(method, evil), 403, "{transport:?} {method} {cookie}");
                assert_eq!(ask(method, "origin: http://localhost\r\n"), 202, "{method}");
                assert_eq!(ask(method, ""), 202, "{method}");
            }
        }
    }
}

/// SCENARIO: a page of another origin, or an image in it, requests `?exclusive`, and the browser adds the cookie.
/// BUG: that is a GET, which counted as one that changes nothing, so the page turned the topic's streams out.
/// FIX: an exclusive stream is a change, which neither the cookie nor an open server allows to a foreign page.
#[test]
fn a_page_of_another_origin_replaces_no_stream() {
    let claims = serde_json::json!({
        "org": "acme", "scope": "subscribe exclusive", "topics": "*", "exp": now() + 600,
    });
    let token = sign(SECRET.as_bytes(), &claims);
    let cookie = format!("cookie: nudged_token={token}\r\n");
    for transport in Transport::all() {
        for (flags, cookie) in [(&[][..], ""), (&["--jwt-secret", SECRET][..], &*cookie)] {
            let server = Server::start_on(transport, flags);
            let mut rival = server.stream_with(RUN, cookie);
            rival.connected();
            for fields in ["origin: https://evil.example\r\n", "sec-fetch-site: cross-site\r\n"] {
                let answer = server.request(&format!(
                    "GET {RUN}?exclusive HTTP/1.1\r\nhost: localhost\r\n{cookie}{fields}\r\n"
                ));
                assert_eq!(answer.status(), 403, "{transport:?} {cookie}{fields}");
                // What only reads is left to the browser, also where it says that it is not exclusive.
                let fields = format!("{cookie}{fields}");
                server.stream_with(&format!("{RUN}?exclusive=0"), &fields).connected();
            }
            assert_eq!(server.closed().get("replaced"), None, "{transport:?} {cookie}");
        }
    }
}

#[test]
fn a_preflight_allows_what_topics_have() {
    let server = Server::start(&["--cors-origin", "https://app.example", "--insecure-open"]);
    for method in ["POST", "DELETE"] {
        let answer = server.request(&format!(
            "OPTIONS {RUN} HTTP/1.1\r\nhost: t\r\norigin: https://app.example\r\n\
             access-control-request-method: {method}\r\n\r\n"
        ));
        assert_eq!(answer.status(), 204);
        let methods = answer.header("access-control-allow-methods").expect("methods");
        assert!(methods.contains(method), "{methods}");
    }
    let fields = "origin: https://app.example\r\n";
    for query in ["", "?exclusive"] {
        let head = server.stream_with(&format!("{RUN}{query}"), fields).head;
        let allowed = header(&head, "access-control-allow-origin");
        assert_eq!(allowed, Some("https://app.example"), "{head}");
    }
}

/// A token in the URL is none that a page may send on.
#[test]
fn a_stream_with_a_token_in_its_url_has_no_referrer() {
    let server = Server::start(&["--jwt-secret", SECRET]);
    let claims = serde_json::json!({
        "org": "acme", "scope": "subscribe exclusive", "topics": "run-7", "exp": now() + 600,
    });
    let token = sign(SECRET.as_bytes(), &claims);
    for query in ["", "&exclusive"] {
        let head = server.stream_with(&format!("{RUN}?token={token}{query}"), "").head;
        assert_eq!(header(&head, "referrer-policy"), Some("no-referrer"), "{head}");
    }
}

#[test]
fn topics_are_in_the_metrics() {
    for way in Way::all() {
        let server = way.start(&["--coalesce", "0"]);
        let open = |kind: &str| server.metric(&format!("nudged_streams_open{{kind=\"{kind}\"}}"));
        assert_eq!(server.metric("nudged_topics"), 0);
        assert_eq!(server.metric("nudged_topics_bytes"), 0);
        let mut streams = [RUN, RUN, "/api/acme/events"].map(|path| way.open(&server, path));
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        assert_eq!((open("topic"), open("member"), open("public")), (2, 1, 0), "{way:?}");
        assert_eq!(server.metric("nudged_streams_opened_total"), 3);
        assert_eq!(server.metric("nudged_topics"), 1);
        assert_eq!(server.metric("nudged_channels"), 1, "that of the org");
        publish(&server, RUN, &numbered(1));
        publish(&server, "/api/acme/topics/b/events", &numbered(1));
        assert_eq!(server.metric("nudged_topics"), 2);
        assert_eq!(server.metric("nudged_channels"), 1);
        let bytes = server.metric("nudged_topics_bytes");
        assert!((1..10_000).contains(&bytes), "{bytes}");
        assert_eq!(server.metric("nudged_events_published_total"), 2);
        assert_eq!(server.metric("nudged_seats"), 3);
        eventually("both are delivered", || server.metric("nudged_events_delivered_total") == 2);
        assert_eq!(close(&server, RUN, ""), 2);
        eventually("they have ended", || (open("topic"), open("member")) == (0, 1));
        assert_eq!(server.closed().get("closed"), Some(&2), "{way:?}");
        assert_eq!(server.closed().get("replaced"), None);
        assert_eq!(server.metric("nudged_topics"), 1);
        drop(streams);
    }
}

#[test]
fn the_access_log_has_the_topic_of_a_stream() {
    for transport in Transport::all() {
        let mut command = Server::command();
        command.stderr(Stdio::piped());
        let flags = ["--access-log", "--log-format", "json", "--log", "off", "--workers", "1"];
        let mut server = Server::start_as(command, transport, &flags);
        let query = "?token=s3cret&since=all";
        let mut streams = ["", "&exclusive"].map(|more| {
            let mut stream = server.stream_with(&format!("{RUN}{query}{more}"), "");
            stream.connected();
            stream
        });
        // The first was replaced; the other gets two events and the end.
        assert!(streams[0].next().contains("replaced"));
        for n in 1..=2 {
            let id = publish(&server, RUN, &numbered(n));
            assert_eq!(streams[1].next(), numbered_frame(&id, n));
        }
        close(&server, RUN, "");
        assert!(streams[1].next().contains("event: closed\n"));
        eventually("both have ended", || server.seats() == 0);
        let mut org = server.stream("acme");
        org.connected();
        org.client.reset();
        eventually("it has ended", || server.seats() == 0);
        let log = BufReader::new(server.take_stderr());
        server.signal(Signal::TERM);
        assert_eq!(server.wait(), Some(0));
        let lines: Vec<String> = log.lines().map(|line| line.expect("text")).collect();
        let parsed: Vec<Value> =
            lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert_eq!(parsed.len(), 3, "{lines:#?}");
        assert_eq!(parsed[2].get("topic"), None, "that of an org has none: {lines:#?}");
        for (line, cause) in parsed.iter().zip(["replaced", "closed"]) {
            assert_eq!(line["org"], "acme", "{line}");
            assert_eq!(line["topic"], "run-7", "{line}");
            assert_eq!(line["kind"], "topic", "{line}");
            assert_eq!(line["cause"], cause, "{line} {transport:?}");
        }
        assert_eq!(parsed[0]["events"], 0, "{transport:?}");
        assert_eq!(parsed[1]["events"], 3, "with the end, {transport:?}: {lines:#?}");
        let text = lines.concat();
        assert!(!text.contains("s3cret") && !text.contains("since"), "{text}");
    }
}
