//! The bounds of a publish: the largest accepted, the smallest refused, and that no part of a refused request was
//! published.

use crate::support::{Answer, Client, Server, Transport, eventually};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

fn server(args: &[&str]) -> Server {
    Server::start(&[&["--coalesce", "0"], args].concat())
}

/// Posts a body that may be invalid UTF-8.
fn post_bytes(server: &Server, path: &str, content_type: &str, body: &[u8]) -> Answer {
    let mut client = server.connect();
    let length = body.len();
    client.send_bytes(
        format!(
            "POST {path} HTTP/1.1\r\nhost: t\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
        )
        .as_bytes(),
    );
    client.send_bytes(body);
    client.read_answer()
}

fn published(server: &Server) -> u64 {
    server.metric("nudged_events_published_total")
}

#[test]
fn publishes_up_to_each_bound_are_accepted() {
    let server = server(&["--keys", "3", "--key-bytes", "8", "--publish-bytes", "100"]);
    let mut stream = server.stream("acme");
    stream.connected();
    let id = server.publish("acme", &["12345678", "b", "c"]).expect("subscribed");
    stream.expect_invalidate(&id, &["12345678", "b", "c"]);
    // The length of a key is counted in bytes of UTF-8, not in characters and not as escaped.
    let answer = server.post("/api/acme/events", JSON, r#"{"keys":["\u00e9\u00e9\u00e9\u00e9"]}"#);
    assert_eq!(answer.status(), 202, "{answer:?}");
    let answer = server.post("/api/acme/events", JSON, r#"{"keys":["éééé1"]}"#);
    assert_eq!(answer.problem(), "key 0 has 9 bytes; at most 8 are allowed");

    let fits = format!("{:<100}", r#"{"keys":["a"]}"#);
    for (body, status) in [(fits.clone(), 202), (format!("{fits} "), 413)] {
        assert_eq!(server.post("/api/acme/events", JSON, &body).status(), status);
    }
    assert_eq!(published(&server), 3);
}

#[test]
fn the_response_to_an_accepted_publish_is_json() {
    let server = server(&[]);
    server.stream("acme").connected();
    for (path, kind, body) in [
        ("/api/acme/events", JSON, r#"{"keys":["a"]}"#),
        ("/api/events", NDJSON, r#"{"org":"acme","keys":["a"]}"#),
    ] {
        let answer = server.post(path, kind, body);
        assert_eq!((answer.status(), answer.header("content-type")), (202, Some(JSON)));
    }
}

#[test]
fn no_malformed_document_is_published() {
    let server = server(&[]);
    let bodies: [&[u8]; 14] = [
        b"null",
        b"[]",
        br#"["a"]"#,
        br#"{"keys":null}"#,
        br#"{"keys":{"a":1}}"#,
        br#"{"keys":["a"]} {"keys":["b"]}"#,
        br#"{"keys":["a"],"keys":["b"]}"#,
        br#"{"keys":["a",]}"#,
        b"{\"keys\":[\"a\nb\"]}",
        b"{\"keys\":[\"\xff\"]}",
        b"\xef\xbb\xbf{\"keys\":[\"a\"]}",
        br#"{"keys":["\udc00"]}"#,
        br#"{"keys":["\ud83dx"]}"#,
        br#"{"keys":["\ud83d\ud83d"]}"#,
    ];
    for body in bodies {
        let answer = post_bytes(&server, "/api/acme/events", JSON, body);
        let shown = String::from_utf8_lossy(body);
        assert_eq!(answer.status(), 400, "{shown}: {answer:?}");
        let detail = answer.problem();
        assert!(detail.starts_with(r#"expected a document like {"keys":["posts"]}: "#), "{detail}");
    }
    let nested = format!("{{\"keys\":{}", "[".repeat(60_000));
    assert_eq!(server.post("/api/acme/events", JSON, &nested).status(), 400);
    assert_eq!(published(&server), 0);
}

#[test]
fn a_content_type_is_compared_as_a_media_type() {
    let server = server(&[]);
    let body = r#"{"keys":["a"]}"#;
    for good in ["application/json", "Application/JSON", "application/json ; charset=utf-8"] {
        assert_eq!(server.post("/api/acme/events", good, body).status(), 202, "{good}");
    }
    for bad in ["", "application/jsonp", "application/problem+json", "json", NDJSON] {
        let answer = server.post("/api/acme/events", bad, body);
        assert_eq!(answer.status(), 415, "{bad}");
        assert_eq!(answer.problem(), "content-type has to be application/json");
    }
    let answer = server.request(&format!(
        "POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(answer.status(), 415, "no content-type");
    assert_eq!(published(&server), 3);
}

/// With and without `expect: 100-continue`.
#[test]
fn a_content_length_beyond_the_bound_is_refused_before_the_body() {
    let server = server(&[]);
    let head = "POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n";
    let mut client = server.connect();
    client.send(&format!("{head}content-length: 65537\r\n\r\n"));
    let answer = client.read_answer();
    assert_eq!(
        (answer.status(), answer.problem()),
        (413, "the body may have at most 65536 bytes".into())
    );
    // With this expectation the client does not send the body (RFC 9110, 10.1.1).
    let mut client = server.connect();
    client.send(&format!("{head}expect: 100-continue\r\ncontent-length: 99999999999\r\n\r\n"));
    assert_eq!(client.read_answer().status(), 413);
}

/// The unread body of a refused request must never be parsed as the next request.
#[test]
fn a_refused_body_is_not_parsed_as_a_request() {
    let server = server(&[]);
    let hidden = "POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{\"keys\":[\"x\"]}";
    for (path, kind, status) in [
        ("/api/acme/events", "text/plain", 415),
        ("/api/acme/events", JSON, 400),
        ("/nowhere", JSON, 404),
        ("/livez", JSON, 405),
        ("/api/a%20b/events", JSON, 400),
    ] {
        let mut client = server.connect();
        client.send(&format!(
            "POST {path} HTTP/1.1\r\nhost: t\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{hidden}",
            hidden.len()
        ));
        assert_eq!(client.read_answer().status(), status, "{path}");
        client.half_close();
        assert_eq!(client.read_to_end(), b"", "{path}: one request has one answer");
    }
    assert_eq!(published(&server), 0);
}

#[test]
fn an_org_name_is_one_decoded_path_segment() {
    let server = server(&[]);
    let long = "a".repeat(64);
    for good in ["a", "9", "A.b_c-d", "events", "public", &long, "%41cme", "a%2Eb"] {
        let answer = server.post(&format!("/api/{good}/events"), JSON, r#"{"keys":["a"]}"#);
        assert_eq!(answer.status(), 202, "{good}");
    }
    let too_long = "a".repeat(65);
    for bad in ["", ".a", "-a", "_a", "a%2Fb", "a%00", "a%0d%0a", "%C3%A9", "%", "a%zz", &too_long]
    {
        for route in ["events", "public/events"] {
            let answer = server.get(&format!("/api/{bad}/{route}"));
            assert_eq!(answer.status(), 400, "{bad:?}: {answer:?}");
            assert!(answer.problem().contains("1 to 64 of A-Z a-z 0-9 . _ -"));
        }
        let answer = server.post(&format!("/api/{bad}/events"), JSON, r#"{"keys":["a"]}"#);
        assert_eq!(answer.status(), 400, "{bad:?}");
    }
    assert_eq!(published(&server), 8);
}

#[test]
fn every_bound_applies_to_a_batch_too() {
    let limits = ["--keys", "3", "--key-bytes", "8", "--publish-bytes", "200"];
    let server = server(&limits);
    let mut stream = server.stream("acme");
    stream.connected();
    let good = r#"{"org":"acme","keys":["a"]}"#;
    let cases: [(&[u8], u16, &str); 9] = [
        (br#"{"org":"acme","keys":["a","b","c","d"]}"#, 422, "there are 4 keys; at most 3"),
        (br#"{"org":"acme","keys":["a","123456789"]}"#, 422, "key 1 has 9 bytes; at most 8"),
        (br#"{"org":"acme","keys":[""]}"#, 422, "key 0 is empty"),
        (br#"{"org":"","keys":["a"]}"#, 400, "starts with a letter or digit"),
        (br#"{"org":1,"keys":["a"]}"#, 400, "expected a string"),
        (br#"{"org":"acme","keys":["a"],"key":1}"#, 400, "unknown field `key`"),
        (b"{\"org\":\"acme\",\"keys\":[\"\xff\"]}", 400, "expected a line like"),
        (br#"{"org":"acme","keys":["a"]}{"org":"b","keys":["a"]}"#, 400, "trailing characters"),
        (b"{\"org\":\"acme\",\"keys\":[\"\\ud800\"]}", 400, "expected a line like"),
    ];
    for (bad, status, expected) in cases {
        // Empty lines publish nothing, but they count as lines.
        let body = [good.as_bytes(), b"\n\n", bad, b"\n"].concat();
        let answer = post_bytes(&server, "/api/events", NDJSON, &body);
        assert_eq!(answer.status(), status, "{expected}: {answer:?}");
        let detail = answer.problem();
        assert!(detail.starts_with("line 3: ") && detail.contains(expected), "{detail}");
    }
    let too_large = format!("{good}\n").repeat(8);
    assert_eq!(server.post("/api/events", NDJSON, &too_large).status(), 413);
    assert_eq!(published(&server), 0);
    // Subscribers received nothing of it: this is the first event.
    let id = server.publish("acme", &["after"]).expect("subscribed");
    stream.expect_invalidate(&id, &["after"]);
}

#[test]
fn a_batch_keeps_the_order_of_its_lines() {
    let body = ["a", "b", "a"].map(|key| format!("{{\"org\":\"acme\",\"keys\":[\"{key}\"]}}\n"));
    let apart = server(&[]);
    let mut stream = apart.stream("acme");
    let start = stream.connected();
    assert_eq!(apart.post("/api/events", NDJSON, &body.concat()).status(), 202);
    for (seq, key) in [("-1", "a"), ("-2", "b"), ("-3", "a")] {
        stream.expect_invalidate(&start.replace("-0", seq), &[key]);
    }

    let union = Server::start(&["--coalesce", "1s"]);
    let mut stream = union.stream("acme");
    let start = stream.connected();
    assert_eq!(union.post("/api/events", NDJSON, &body.concat()).status(), 202);
    stream.expect_invalidate(&start.replace("-0", "-1"), &["a"]);
    stream.expect_invalidate(&start.replace("-0", "-2"), &["b", "a"]);
}

/// A publisher that disconnects within its request has published nothing and leaves no descriptor open.
#[test]
fn an_incomplete_request_publishes_nothing() {
    let server = server(&[]);
    let before = server.descriptors_at_rest();
    let ends: [fn(Client); 3] = [Client::reset, drop, |mut client| {
        client.half_close();
        client.read_to_end();
    }];
    let whole = "POST /api/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/x-ndjson\r\ncontent-length: 60\r\n\r\n{\"org\":\"acme\",\"keys\":[\"a\"]}\n";
    for end in ends {
        for cut in [10, 60, whole.len() - 5, whole.len()] {
            let mut client = server.connect();
            client.send(&whole[..cut]);
            end(client);
        }
    }
    eventually("every descriptor is closed", || server.descriptors() <= before);
    assert_eq!(published(&server), 0);
}

#[test]
fn a_connection_stays_open_after_a_refusal() {
    let server = server(&[]);
    let mut client = server.connect();
    for (body, status) in [(r#"{"keys":[]}"#, 422), ("{", 400), (r#"{"keys":["a"]}"#, 202)] {
        client.send(&format!(
            "POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(client.read_answer().status(), status);
    }
}

/// SCENARIO: a publisher compresses its body.
/// BUG: the coding was ignored, and the compressed bytes were parsed: "expected value at line 1 column 1".
/// FIX: 415, with the coding that is accepted (RFC 9110, 12.5.3 and 15.5.16).
#[test]
fn a_content_coding_is_refused() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &[]);
        for (path, kind, body) in [
            ("/api/acme/events", JSON, r#"{"keys":["a"]}"#),
            ("/api/events", NDJSON, r#"{"org":"acme","keys":["a"]}"#),
        ] {
            for (fields, status) in [
                ("", 202),
                ("content-encoding: identity\r\n", 202),
                ("content-encoding: Identity\r\n", 202),
                ("content-encoding:\r\n", 202),
                ("content-encoding: gzip\r\n", 415),
                ("content-encoding: identity, br\r\n", 415),
                ("content-encoding: identity\r\ncontent-encoding: zstd\r\n", 415),
                ("content-encoding: \u{fc}\r\n", 415),
            ] {
                let length = body.len();
                let answer = server.request(&format!(
                    "POST {path} HTTP/1.1\r\nhost: t\r\ncontent-type: {kind}\r\n{fields}\
                     content-length: {length}\r\n\r\n{body}"
                ));
                assert_eq!(answer.status(), status, "{transport:?} {fields:?}: {answer:?}");
                if status == 415 {
                    assert_eq!(answer.header("accept-encoding"), Some("identity"), "{answer:?}");
                    assert_eq!(
                        answer.problem(),
                        "a publish has no content-encoding; send the body as it is"
                    );
                }
            }
        }
        assert_eq!(published(&server), 8);
    }
}

/// SCENARIO: a publisher sends something else than what is expected.
/// BUG: the error named a type of the source: "expected struct Publish".
/// FIX: it names what JSON knows.
#[test]
fn no_error_names_a_type_of_the_source() {
    let server = server(&[]);
    #[rustfmt::skip]
    let values = [
        "null", "true", "1", "-1", "1.5", "1e999", "\"a\"", "[]", "[[]]", "{}", "{\"a\":1}", "", "{", "{\"keys\"",
        "{\"keys\":[\"a\"]} x", "{\"keys\":[\"a\"],\"keys\":[\"a\"]}", "{1:2}", "\u{fc}", "[\"a\",1]", "[null]", "[{}]",
    ];
    let wrap = |value: &str| {
        let whole = value.to_owned();
        [whole, format!("{{\"keys\":{value}}}"), format!("{{\"org\":{value},\"keys\":[\"a\"]}}")]
    };
    for value in values.into_iter().flat_map(wrap) {
        for (path, kind) in [("/api/acme/events", JSON), ("/api/events", NDJSON)] {
            let answer = server.post(path, kind, &value);
            if answer.status() == 202 {
                continue;
            }
            let detail = answer.problem();
            #[rustfmt::skip]
            let foreign = [
                "struct", "enum", "tuple", "variant", "newtype", "Publish", "Batch", "Line", "Key", "Cow", "Vec", "String",
                "str ", "u64", "i64", "f64", "unit", "Option", "sequence", " map", "borrowed",
            ];
            for word in foreign {
                assert!(!detail.contains(word), "{value}: {detail}");
            }
            assert!(detail.contains("expected a ") || detail.contains("key"), "{value}: {detail}");
        }
    }
}
