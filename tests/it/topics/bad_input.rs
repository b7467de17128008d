//! Bad input: each refusal says what is allowed, and nothing of its request is published.

use super::{JSON, NDJSON, RUN, numbered};
use crate::support::{Server, Stream, Transport};

/// The bodies of publishes that are refused, with their status and a part of the detail.
fn bodies() -> Vec<(String, u16, &'static str)> {
    let like = r#"expected a document like {"event":"output","data":{"n":1}}"#;
    let grammar = "an event's name is 1 to 64 of A-Z a-z 0-9 . _ : - and starts with a letter";
    let reserved = "the names connected, resumed, invalidate, closed, ping are reserved";
    let mut rows: Vec<(String, u16, &'static str)> = [
        // The document.
        ("", 400, like),
        ("nonsense", 400, like),
        ("null", 400, like),
        (r#"["x",1]"#, 400, "this is an array"),
        (r#" ["x",1,null,true]"#, 400, "this is an array"),
        (r#""x""#, 400, like),
        (r#"{"event":"x","data":1"#, 400, "EOF"),
        (r#"{"event":"x","data":1}{}"#, 400, "trailing characters"),
        ("{}", 400, "missing field `event`"),
        (r#"{"data":1}"#, 400, "missing field `event`"),
        (r#"{"event":"x"}"#, 400, "it has neither data nor text"),
        (r#"{"event":"x","bulk":true}"#, 400, "it has neither data nor text"),
        (r#"{"event":"x","data":1,"text":"a"}"#, 400, "it has both data and text"),
        (r#"{"event":"x","data":null,"text":""}"#, 400, "it has both data and text"),
        (r#"{"event":"x","data":1,"id":"9"}"#, 400, "unknown field `id`"),
        (r#"{"event":"x","data":1,"retry":9}"#, 400, "unknown field `retry`"),
        (r#"{"event":"x","data":1,"Data":1}"#, 400, "unknown field `Data`"),
        (r#"{"keys":["posts"]}"#, 400, "unknown field `keys`"),
        (r#"{"event":"x","data":1,"event":"y"}"#, 400, "duplicate field `event`"),
        (r#"{"event":"x","data":1,"data":2}"#, 400, "duplicate field `data`"),
        (r#"{"event":"x","text":"a","text":"b"}"#, 400, "duplicate field `text`"),
        (r#"{"event":"x","data":1,"bulk":true,"bulk":true}"#, 400, "duplicate field `bulk`"),
        // Types.
        (r#"{"event":1,"data":1}"#, 400, "expected a string"),
        (r#"{"event":null,"data":1}"#, 400, "expected a string"),
        (r#"{"event":"x","text":1}"#, 400, "expected a string"),
        (r#"{"event":"x","text":null}"#, 400, "expected a string"),
        (r#"{"event":"x","text":{"a":1}}"#, 400, "expected a string"),
        (r#"{"event":"x","data":1,"bulk":1}"#, 400, "expected a boolean"),
        (r#"{"event":"x","data":1,"bulk":"true"}"#, 400, "expected a boolean"),
        (r#"{"event":"x","data":1,"bulk":null}"#, 400, "expected a boolean"),
        // What is no JSON.
        (r#"{"event":"x","data":}"#, 400, "expected value"),
        (r#"{"event":"x","data":01}"#, 400, like),
        (r#"{"event":"x","data":NaN}"#, 400, like),
        (r#"{"event":"x","data":{"a":1,}}"#, 400, like),
        (r#"{"event":"x","data":'a'}"#, 400, like),
        ("{\"event\":\"x\",\"data\":\"a\nb\"}", 400, "control character"),
        ("{\"event\":\"x\",\"data\":\"a\rb\"}", 400, "control character"),
        ("{\"event\":\"x\",\"text\":\"a\nb\"}", 400, "control character"),
        (r#"{"event":"x","data":"\x"}"#, 400, "invalid escape"),
        (r#"{"event":"x","text":"\ud800"}"#, 400, "unexpected end of hex escape"),
        // Names.
        (r#"{"event":"","data":1}"#, 422, grammar),
        (r#"{"event":"1x","data":1}"#, 422, grammar),
        (r#"{"event":".x","data":1}"#, 422, grammar),
        (r#"{"event":"a b","data":1}"#, 422, grammar),
        (r#"{"event":"a\nid: 9","data":1}"#, 422, grammar),
        (r#"{"event":"a\r","data":1}"#, 422, grammar),
        (r#"{"event":"a\u0000","data":1}"#, 422, grammar),
        (r#"{"event":"é","data":1}"#, 422, grammar),
        (r#"{"event":"ping","data":1}"#, 422, reserved),
        (r#"{"event":"closed","text":"x"}"#, 422, reserved),
        (r#"{"event":"connected","data":1}"#, 422, reserved),
        (r#"{"event":"resumed","data":1}"#, 422, reserved),
        (r#"{"event":"invalidate","data":{"keys":["a"]}}"#, 422, reserved),
    ]
    .map(|(body, status, detail)| (body.to_owned(), status, detail))
    .into();
    let long = format!(r#"{{"event":"{}","data":1}}"#, "a".repeat(65));
    rows.push((long, 422, grammar));
    let large = format!(r#"{{"event":"x","text":"{}"}}"#, "a".repeat(61_440));
    rows.push((large, 413, "bytes on the wire; at most 61440 are allowed"));
    let body = format!(r#"{{"event":"x","text":"{}"}}"#, "a".repeat(65_536));
    rows.push((body, 413, "the body may have at most 65536 bytes"));
    rows
}

/// A stream of the topic, which has begun.
fn watch(server: &Server) -> Stream {
    let mut stream = server.stream_with(RUN, "");
    stream.connected();
    stream
}

/// Checks that the next event of the stream is the first of all.
fn expect_nothing_before(server: &Server, mut stream: Stream) {
    assert_eq!(server.metric("nudged_events_published_total"), 0);
    let id = super::publish(server, RUN, &numbered(1));
    assert!(id.ends_with("-1"), "{id}");
    assert_eq!(stream.next(), super::numbered_frame(&id, 1));
}

#[test]
fn a_bad_publish_is_refused_with_what_is_allowed() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &[]);
        let stream = watch(&server);
        for (body, status, detail) in bodies() {
            let answer = server.post(RUN, JSON, &body);
            assert_eq!(answer.status(), status, "{transport:?} {body}: {answer:?}");
            let problem = answer.problem();
            assert!(problem.contains(detail), "{transport:?} {body}: {problem}");
        }
        let typed = server.post(RUN, "text/plain", &numbered(1));
        assert_eq!(typed.problem(), "content-type has to be application/json");
        expect_nothing_before(&server, stream);
    }
}

/// A body is read as that of any publish.
#[test]
fn a_body_that_is_late_or_encoded_is_refused() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &["--body-timeout", "1s"]);
        let stream = watch(&server);
        for method in ["POST", "DELETE"] {
            let begin = |fields: &str, body: &str| {
                let mut client = server.connect();
                client.send(&format!(
                    "{method} {RUN} HTTP/1.1\r\nhost: t\r\ncontent-type: {JSON}\r\n{fields}content-length: 26\r\n\r\n{body}"
                ));
                client.read_answer()
            };
            assert_eq!(begin("", "{").status(), 408, "{transport:?} {method}");
            let coded = begin("content-encoding: gzip\r\n", r#"{"event":"x","data":12345}"#);
            assert_eq!(coded.status(), 415, "{transport:?} {method}");
            assert_eq!(coded.header("accept-encoding"), Some("identity"));
        }
        expect_nothing_before(&server, stream);
    }
}

/// In no body that is refused does a good line before or after the bad one count.
#[test]
fn a_bad_line_refuses_the_whole_request() {
    let event = r#"{"org":"acme","topic":"run-7","event":"output","data":{"n":1}}"#;
    let keys = r#"{"org":"acme","keys":["a"]}"#;
    let like = r#"expected a line like {"org":"acme","keys":["posts"]} or {"org":"acme","topic":"#;
    let both = "it has keys, and a topic or parts of an event";
    let name = "a topic's name is 1 to 128 of A-Z a-z 0-9 . _ -";
    let mut rows: Vec<(String, u16, &str)> = [
        (r#"{"org":"acme"}"#, 400, "missing field `keys`, or `topic` with an event"),
        (r#"{"org":"acme","keys":["a"],"topic":"run-7"}"#, 400, both),
        (r#"{"org":"acme","keys":["a"],"topic":"t","event":"x","data":1}"#, 400, both),
        (r#"{"org":"acme","keys":["a"],"event":"x","data":1}"#, 400, both),
        (r#"{"org":"acme","keys":["a"],"data":null}"#, 400, both),
        (r#"{"org":"acme","keys":["a"],"text":""}"#, 400, both),
        (r#"{"org":"acme","keys":["a"],"bulk":false}"#, 400, both),
        (
            r#"{"org":"acme","keys":null,"topic":"t","event":"x","data":1}"#,
            400,
            "an array of strings",
        ),
        (r#"{"org":"acme","topic":"t"}"#, 400, "missing field `event`"),
        (r#"{"org":"acme","topic":"t","data":1}"#, 400, "missing field `event`"),
        (r#"{"org":"acme","event":"x","data":1}"#, 400, "missing field `topic`"),
        (r#"{"org":"acme","bulk":true}"#, 400, "missing field `topic`"),
        (r#"{"topic":"t","event":"x","data":1}"#, 400, "missing field `org`"),
        (r#"{"org":"acme","topic":"t","event":"x"}"#, 400, "it has neither data nor text"),
        (r#"{"org":"acme","topic":"t","event":"x","data":1,"text":""}"#, 400, "it has both"),
        (r#"{"org":"acme","topic":"t","event":"x","data":1,"id":"9"}"#, 400, "unknown field `id`"),
        (r#"{"org":"acme","topic":null,"event":"x","data":1}"#, 400, "expected a string"),
        (r#"{"org":"acme","topic":["t"],"event":"x","data":1}"#, 400, "expected a string"),
        (r#"{"org":"acme","topic":"t","event":"x","data":1,"bulk":null}"#, 400, "a boolean"),
        (r#"{"org":"acme","topic":"t","topic":"u","event":"x","data":1}"#, 400, "duplicate field"),
        (r#"["acme",null,"t","x",1]"#, 400, "this is an array"),
        (r#"{"org":"a/b","topic":"t","event":"x","data":1}"#, 400, "an organisation's name is"),
        (r#"{"org":"acme","topic":"","event":"x","data":1}"#, 400, name),
        (r#"{"org":"acme","topic":"a/b","event":"x","data":1}"#, 400, name),
        (r#"{"org":"acme","topic":"run-*","event":"x","data":1}"#, 400, name),
        (r#"{"org":"acme","topic":"t","event":"closed","data":1}"#, 422, "are reserved"),
        (r#"{"org":"acme","topic":"t","event":"1","data":1}"#, 422, "starts with a letter"),
        (r#"{"org":"acme","topic":"t","event":"x","data":}"#, 400, like),
        ("nonsense", 400, like),
    ]
    .map(|(line, status, detail)| (line.to_owned(), status, detail))
    .into();
    let long = "a".repeat(129);
    let line = format!(r#"{{"org":"acme","topic":"{long}","event":"x","data":1}}"#);
    rows.push((line, 400, name));
    for transport in Transport::all() {
        let server = Server::start_on(transport, &["--coalesce", "0"]);
        let stream = watch(&server);
        for (bad, status, detail) in &rows {
            let body = format!("{event}\n\n{bad}\n{keys}\n");
            let answer = server.post("/api/events", NDJSON, &body);
            assert_eq!(answer.status(), *status, "{transport:?} {bad}: {answer:?}");
            let problem = answer.problem();
            assert!(problem.starts_with("line 3: ") && problem.contains(detail), "{problem}");
            assert!(problem.ends_with("nothing of this request was published"), "{problem}");
        }
        expect_nothing_before(&server, stream);
    }
}

#[test]
fn a_bad_path_method_or_parameter_is_refused_with_what_is_allowed() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &[]);
        let ask = |method: &str, path: &str| {
            server.request(&format!("{method} {path} HTTP/1.1\r\nhost: t\r\n\r\n"))
        };
        let long = format!("/api/acme/topics/{}/events", "a".repeat(129));
        for path in [
            "/api/acme/topics//events",
            "/api/acme/topics/%2e/events",
            "/api/acme/topics/a%2Fb/events",
            "/api/acme/topics/%ff/events",
            "/api/acme/topics/run-*/events",
            &long,
        ] {
            for method in ["GET", "POST", "DELETE"] {
                let answer = ask(method, path);
                assert_eq!(answer.status(), 400, "{method} {path}");
                let grammar = "a topic's name is 1 to 128 of A-Z a-z 0-9 . _ - and starts with";
                assert!(answer.problem().starts_with(grammar), "{path}");
            }
        }
        let org = ask("GET", "/api/a%20b/topics/t/events");
        assert!(org.problem().starts_with("an organisation's name is"), "{org:?}");
        for path in
            ["/api/acme/topics/run-7", "/api/acme/topics/a/b/events", "/api/acme/topics/events"]
        {
            let answer = ask("GET", path);
            assert_eq!(answer.status(), 404, "{path}");
            assert!(answer.problem().contains("/api/{org}/topics/{topic}/events"), "{answer:?}");
        }
        for method in ["PUT", "PATCH"] {
            let answer = ask(method, RUN);
            assert_eq!(answer.status(), 405);
            assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, DELETE"));
            assert_eq!(answer.problem(), "this resource allows GET, HEAD, POST, DELETE");
        }
        for (query, detail) in [
            ("exclusive=yes", "the parameter exclusive may be 1 or true"),
            ("exclusive=TRUE", "the parameter exclusive may be 1 or true"),
            ("exclusive=2&exclusive=1", "the parameter exclusive may be 1 or true"),
            ("ping=comment", "the parameter ping may be event"),
            ("exclusive&ping=1", "the parameter ping may be event"),
        ] {
            let answer = ask("GET", &format!("{RUN}?{query}"));
            assert_eq!(answer.status(), 400, "{query}");
            assert!(answer.problem().starts_with(detail), "{answer:?}");
            let mut client = server.connect();
            client.send(&format!("HEAD {RUN}?{query} HTTP/1.1\r\nhost: t\r\n\r\n"));
            assert!(client.read_head().starts_with("HTTP/1.1 400 "), "{query}");
        }
        server.stream_with("/api/%61cme/topics/%72un-7/events?a=b", "").connected();
        assert_eq!(server.metric("nudged_streams_opened_total"), 1);
    }
}
