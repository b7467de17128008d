//! Publishing: accepted requests, and the refusal at each bound.

use crate::support::Server;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

fn server(args: &[&str]) -> Server {
    Server::start(&[&["--coalesce", "0"], args].concat())
}

#[test]
fn the_response_contains_the_id_of_the_event_that_subscribers_receive() {
    let server = server(&[]);
    let mut stream = server.stream("acme");
    stream.connected();
    let answer =
        server.post("/api/acme/events", "application/json; charset=utf-8", r#"{"keys":["posts"]}"#);
    assert_eq!(answer.status(), 202);
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    stream.expect_invalidate(body["id"].as_str().expect("an id"), &["posts"]);
}

#[test]
fn a_publish_without_subscribers_is_accepted() {
    let server = server(&[]);
    assert_eq!(server.publish("empty", &["posts"]), None);
    assert_eq!(server.metric("nudged_channels"), 0, "an invented name costs nothing");
}

#[test]
fn keys_arrive_unchanged_and_without_duplicates() {
    let server = server(&[]);
    let mut stream = server.stream("acme");
    stream.connected();
    let long = "k".repeat(512);
    let keys =
        ["b", "a\r\nid: 9\r\n\r\n", "\0", "\u{2028}\u{feff}", "\"\\", "é😀", &long, "data: x"];
    let id = server.publish("acme", &keys).expect("subscribed");
    stream.expect_invalidate(&id, &keys);
    let id = server.publish("acme", &["b", "a", "b", "a"]).expect("subscribed");
    stream.expect_invalidate(&id, &["b", "a"]);
    let answer = server.post("/api/acme/events", JSON, r#"{"keys":["\ud83d\ude00"]}"#);
    assert_eq!(answer.status(), 202);
    assert!(stream.next().contains("data: {\"keys\":[\"\\ud83d\\ude00\"]}\n\n"));
}

#[test]
fn one_request_publishes_to_many_orgs() {
    let server = server(&[]);
    let (mut acme, mut other) = (server.stream("acme"), server.stream("other"));
    let (acme_id, other_id) = (acme.connected(), other.connected());
    let body = "{\"org\":\"acme\",\"keys\":[\"a\"]}\n\n{\"org\":\"other\",\"keys\":[\"b\"]}\r\n{\"org\":\"none\",\"keys\":[\"c\"]}";
    let answer = server.post("/api/events", NDJSON, body);
    assert_eq!((answer.status(), &*answer.body), (202, r#"{"published":3}"#));
    acme.expect_invalidate(&acme_id.replace("-0", "-1"), &["a"]);
    other.expect_invalidate(&other_id.replace("-0", "-1"), &["b"]);
}

#[test]
fn an_invalid_line_is_reported_and_nothing_is_published() {
    let server = server(&[]);
    let mut stream = server.stream("acme");
    let id = stream.connected();
    let good = r#"{"org":"acme","keys":["a"]}"#;
    for (bad, status, expected) in [
        (r#"{"org":"a/b","keys":["x"]}"#, 400, "starts with a letter or digit"),
        (r#"{"org":"acme","keys":[]}"#, 422, "at least one is needed"),
        (r#"{"org":"acme"}"#, 400, "missing field `keys`"),
        (r#"{"keys":["x"]}"#, 400, "missing field `org`"),
        ("nonsense", 400, "expected a line like"),
    ] {
        let answer =
            server.post("/api/events", NDJSON, &format!("{good}\n{good}\n{bad}\n{good}\n"));
        assert_eq!(answer.status(), status);
        let detail = answer.problem();
        assert!(detail.starts_with("line 3: ") && detail.contains(expected), "{detail}");
        assert!(detail.ends_with("nothing of this request was published"), "{detail}");
    }
    assert_eq!(server.post("/api/events", NDJSON, "\n\n").status(), 400);
    let next = server.publish("acme", &["after"]);
    assert_eq!(next, Some(id.replace("-0", "-1")), "this is the first event");
}

#[test]
fn every_refusal_states_the_error_and_the_bound() {
    let server = server(&["--keys", "3", "--key-bytes", "8", "--publish-bytes", "100"]);
    let too_large = format!(r#"{{"keys":["{}"]}}"#, "x".repeat(100));
    for (body, status, expected) in [
        (r#"{"keys":["a","b","c","d"]}"#, 422, "there are 4 keys; at most 3 are allowed"),
        (r#"{"keys":["a","123456789"]}"#, 422, "key 1 has 9 bytes; at most 8 are allowed"),
        (r#"{"keys":["a",""]}"#, 422, "key 1 is empty"),
        (r#"{"keys":[]}"#, 422, "at least one is needed"),
        (r#"{}"#, 400, "missing field `keys`"),
        (r#"{"keys":["a"],"kyes":[]}"#, 400, "unknown field `kyes`, expected `keys`"),
        (r#"{"keys":"a"}"#, 400, "expected an array of strings"),
        (r#"{"keys":[1]}"#, 400, "expected a string"),
        (r#"{"keys":["a"]"#, 400, "EOF"),
        (r#"{"keys":["\ud800"]}"#, 400, "unexpected end of hex escape"),
        ("", 400, r#"expected a document like {"keys":["posts"]}"#),
        (&too_large, 413, "at most 100 bytes"),
    ] {
        let answer = server.post("/api/acme/events", JSON, body);
        assert_eq!(answer.status(), status, "{body}: {answer:?}");
        let detail = answer.problem();
        assert!(detail.contains(expected), "{body}: {detail}");
    }
    let mut client = server.connect();
    client.send("POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send(&format!("{:x}\r\n{too_large}\r\n0\r\n\r\n", too_large.len()));
    assert_eq!(client.read_answer().status(), 413, "a body of unknown length");
    assert_eq!(server.metric("nudged_events_published_total"), 0);
}

#[test]
fn unknown_paths_methods_and_types_are_refused_with_the_allowed_ones() {
    let server = server(&[]);
    let answer = server.post("/api/acme/events", "text/plain", r#"{"keys":["a"]}"#);
    assert_eq!(
        (answer.status(), answer.problem()),
        (415, "content-type has to be application/json".into())
    );
    let answer = server.post("/api/events", JSON, r#"{"org":"a","keys":["a"]}"#);
    assert_eq!(
        (answer.status(), answer.problem()),
        (415, "content-type has to be application/x-ndjson".into())
    );

    for (path, allow) in [
        ("/api/acme/events", "GET, HEAD, POST, DELETE"),
        ("/api/acme/reread", "POST"),
        ("/api/reread", "POST"),
        ("/api/acme/public/events", "GET, HEAD"),
        ("/api/events", "POST"),
        ("/metrics", "GET, HEAD"),
    ] {
        let answer = server.request(&format!("PUT {path} HTTP/1.1\r\nhost: t\r\n\r\n"));
        assert_eq!((answer.status(), answer.header("allow")), (405, Some(allow)));
        assert!(answer.problem().contains(allow));
    }
    for path in ["/", "/api/acme", "/api/acme/events/"] {
        let answer = server.get(path);
        assert_eq!(answer.status(), 404);
        assert!(answer.problem().contains("GET /api/{org}/events"));
    }
    for path in ["/api/%2e/events", "/api/a%20b/events", "/api/%ff/public/events"] {
        let answer = server.get(path);
        assert_eq!(answer.status(), 400, "{path}");
        assert!(answer.problem().contains("1 to 64 of A-Z a-z 0-9 . _ -"));
    }
    let mut stream = server.stream_with("/api/%61cme/events", "");
    stream.connected();
    assert!(server.publish("acme", &["decoded"]).is_some());
}

#[test]
fn a_body_that_does_not_arrive_is_answered_with_408() {
    let server = server(&["--body-timeout", "200ms"]);
    let mut client = server.connect();
    client.send("POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: 30\r\n\r\n{");
    assert_eq!(client.read_answer().status(), 408);
}

#[test]
fn health_and_metrics_are_served() {
    let server = server(&[]);
    assert_eq!(server.get("/livez").body, "live\n");
    assert_eq!(server.get("/readyz").body, "ready\n");
    for name in [
        "nudged_streams_open{kind=\"member\"}",
        "nudged_streams_open{kind=\"public\"}",
        "nudged_streams_opened_total",
        "nudged_streams_closed_total{reason=\"client\"}",
        "nudged_events_published_total",
        "nudged_events_coalesced_total",
        "nudged_events_delivered_total",
        "nudged_keepalives_total",
        "nudged_rereads_total",
        "nudged_channels",
        "nudged_seats",
    ] {
        assert_eq!(server.metric(name), 0, "{name}");
    }
}
