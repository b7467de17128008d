//! What a token allows with topics.

use serde_json::{Value, json};

use super::{JSON, NDJSON, RUN, before, numbered, numbered_frame};
use crate::support::{Answer, Server, Transport};
use crate::tokens::{PUBLISH_KEY, SECRET, bearer, now, sign};

const TOPIC: &str =
    "the token is not for this topic: its claim topics has to have the name, a prefix like";

fn server(transport: Transport, more: &[&str]) -> Server {
    let flags = ["--jwt-secret", SECRET, "--publish-key", PUBLISH_KEY, "--coalesce", "0"];
    Server::start_on(transport, &[&flags, more].concat())
}

/// The field with a token that has these claims, beside those of the matrix that it does not have.
fn token(claims: Value) -> String {
    let mut all = json!({
        "org": "acme", "scope": "subscribe publish exclusive", "topics": "*", "exp": now() + 600,
    });
    for (name, value) in claims.as_object().expect("claims") {
        all[name] = value.clone();
    }
    bearer(&sign(SECRET.as_bytes(), &all))
}

/// The same without the claim `topics`.
fn without_topics() -> String {
    let claims = json!({"org": "acme", "scope": "subscribe publish exclusive", "exp": now() + 600});
    bearer(&sign(SECRET.as_bytes(), &claims))
}

/// Requests that are answered at once, or whose stream is not read: the status and, of a refusal, the problem.
fn ask(server: &Server, method: &str, path: &str, field: &str) -> (u16, String, String) {
    let body = if method == "POST" { numbered(1) } else { String::new() };
    let mut client = server.connect();
    client.send(&format!(
        "{method} {path} HTTP/1.1\r\nhost: t\r\ncontent-type: {JSON}\r\n{field}content-length: {}\r\n\r\n{body}",
        body.len()
    ));
    let head = client.read_head();
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    let challenge =
        crate::support::header(&head, "www-authenticate").unwrap_or_default().to_owned();
    if status < 400 || method == "HEAD" {
        return (status, String::new(), challenge);
    }
    let length = crate::support::header(&head, "content-length").expect("a length");
    let body = client.read_exact(length.parse().expect("a number"));
    let answer = Answer { head, body: String::from_utf8(body).expect("UTF-8") };
    (status, answer.problem(), challenge)
}

/// `content-length: 0` on a GET leaves the request to hyper; without it the reactor decides.
fn get(server: &Server, path: &str, field: &str) -> u16 {
    let mut client = server.connect();
    client.send(&format!("GET {path} HTTP/1.1\r\nhost: t\r\n{field}\r\n"));
    client.read_head().split(' ').nth(1).expect("a status").parse().expect("a number")
}

#[test]
fn a_token_needs_the_topic_and_the_scope() {
    let scope = |scope: &str| token(json!({ "scope": scope }));
    let topics = |topics: Value| token(json!({ "topics": topics }));
    let key = bearer(PUBLISH_KEY);
    let (yes, no) = (true, false);
    // Whether it may read (GET, HEAD), read exclusively, write (POST, DELETE); the problem of what it may not.
    let rows = [
        (token(json!({})), yes, yes, yes, ""),
        (topics(json!("run-7")), yes, yes, yes, ""),
        (topics(json!(["a", "run-7"])), yes, yes, yes, ""),
        (topics(json!("run-*")), yes, yes, yes, ""),
        (topics(json!(["run-7*"])), yes, yes, yes, ""),
        (token(json!({"org": "*"})), yes, yes, yes, ""),
        (without_topics(), no, no, no, TOPIC),
        (topics(json!([])), no, no, no, TOPIC),
        (topics(json!("")), no, no, no, TOPIC),
        (topics(json!("run")), no, no, no, TOPIC),
        (topics(json!("run-")), no, no, no, TOPIC),
        (topics(json!("run-77*")), no, no, no, TOPIC),
        (topics(json!("*-7")), no, no, no, TOPIC),
        (topics(json!("r*7")), no, no, no, TOPIC),
        (topics(json!("RUN-7")), no, no, no, TOPIC),
        (topics(json!("run-7 run-8")), no, no, no, TOPIC),
        (token(json!({"org": "other"})), no, no, no, "the token is not for this organisation"),
        (scope("subscribe"), yes, no, no, "the token does not have the scope"),
        (scope("subscribe exclusive"), yes, yes, no, "the token does not have the scope publish"),
        (scope("exclusive"), no, no, no, "the token does not have the scope"),
        (scope("publish"), no, no, yes, "the token does not have the scope subscribe"),
        (scope("publish exclusive"), no, no, yes, "the token does not have the scope subscribe"),
        (key, no, no, yes, "the token does not have the scope subscribe"),
    ];
    for transport in Transport::all() {
        let server = server(transport, &[]);
        for (field, reads, reads_alone, writes, problem) in &rows {
            let alone = format!("{RUN}?exclusive");
            let off = format!("{RUN}?exclusive=0");
            for (method, path, allowed) in [
                ("GET", RUN, reads),
                ("HEAD", RUN, reads),
                ("GET", &*off, reads),
                ("GET", &alone, reads_alone),
                ("HEAD", &alone, reads_alone),
                ("POST", RUN, writes),
                ("DELETE", RUN, writes),
            ] {
                let (status, why, _) = ask(&server, method, path, field);
                let expected = match (allowed, method) {
                    (false, _) => 403,
                    (true, "GET" | "HEAD") => 200,
                    (true, _) => 202,
                };
                assert_eq!(status, expected, "{transport:?} {method} {path} {problem}: {why}");
                if method == "GET" {
                    assert_eq!(get(&server, path, field), expected, "{transport:?} {path}");
                }
                if status == 403 && method != "HEAD" {
                    assert!(why.starts_with(problem), "{transport:?} {method} {path}: {why}");
                }
            }
        }
        let none = ask(&server, "GET", RUN, "");
        assert_eq!((none.0, &*none.2), (401, r#"Bearer realm="nudged""#));
        for (method, path) in [("POST", RUN), ("DELETE", RUN), ("HEAD", RUN)] {
            assert_eq!(ask(&server, method, path, "").0, 401, "{method} {path}");
            assert_eq!(ask(&server, method, path, &bearer("x")).0, 401, "{method} {path}");
        }
    }
}

#[test]
fn a_challenge_names_what_the_request_needs() {
    let server = server(Transport::Http1, &[]);
    let scope = |scope: &str| token(json!({ "scope": scope }));
    let alone = format!("{RUN}?exclusive");
    let error = r#"Bearer realm="nudged", error="insufficient_scope""#;
    for (method, path, field, scope, problem) in [
        ("GET", RUN, scope("publish"), r#", scope="subscribe""#, "scope subscribe"),
        ("GET", &*alone, scope("publish"), r#", scope="subscribe""#, "scope subscribe"),
        (
            "GET",
            &alone,
            scope("subscribe"),
            r#", scope="subscribe exclusive""#,
            "scope exclusive, which ?exclusive needs beside subscribe",
        ),
        ("POST", RUN, scope("subscribe"), r#", scope="publish""#, "scope publish"),
        ("DELETE", RUN, scope("subscribe"), r#", scope="publish""#, "scope publish"),
        ("POST", RUN, without_topics(), "", r#""run-*", or "*""#),
    ] {
        let (status, why, challenge) = ask(&server, method, path, &field);
        assert_eq!((status, challenge), (403, format!("{error}{scope}")), "{method} {path}");
        assert!(why.ends_with(problem), "{why}");
    }
    // Another value than the parameter may have is not shown to those that may not have the stream.
    let bad = format!("{RUN}?exclusive=x");
    assert_eq!(ask(&server, "GET", &bad, &without_topics()).0, 403);
    assert_eq!(ask(&server, "GET", &bad, &scope("subscribe")).0, 400);
}

#[test]
fn a_topics_claim_of_another_type_makes_a_token_invalid() {
    for more in [&[][..], &["--jwt-org-claim", "/org"]] {
        let server = server(Transport::Http1, more);
        for topics in [json!(null), json!(7), json!([7]), json!({"run-7": true}), json!(true)] {
            let field = token(json!({ "topics": topics }));
            let (status, why, _) = ask(&server, "GET", RUN, &field);
            assert_eq!(status, 401, "{topics}: {why}");
            assert!(why.contains("its claims are not of the expected types"), "{why}");
        }
    }
}

/// The settings that name other claims leave this one where it is.
#[test]
fn the_topics_of_a_token_of_another_issuer_are_at_the_top() {
    let flags = ["--jwt-org-claim", "/a/org", "--jwt-scope-claim", "/a/scope"];
    let server = server(Transport::Http1, &flags);
    let claims = |topics: Value| {
        let mut claims = json!({
            "a": {"org": "acme", "scope": ["subscribe"], "topics": "*"}, "exp": now() + 600,
        });
        claims["topics"] = topics;
        bearer(&sign(SECRET.as_bytes(), &claims))
    };
    assert_eq!(ask(&server, "GET", RUN, &claims(json!("run-*"))).0, 200);
    assert_eq!(ask(&server, "GET", RUN, &claims(json!([]))).0, 403);
}

#[test]
fn one_line_for_another_topic_refuses_the_whole_batch() {
    for transport in Transport::all() {
        let server = server(transport, &[]);
        let batch = |field: &str, lines: &[&str]| {
            let body = lines.join("\n");
            server.request(&format!(
                "POST /api/events HTTP/1.1\r\nhost: t\r\ncontent-type: {NDJSON}\r\n{field}content-length: {}\r\n\r\n{body}",
                body.len()
            ))
        };
        let keys = r#"{"org":"acme","keys":["a"]}"#;
        let run = r#"{"org":"acme","topic":"run-7","event":"output","data":{"n":1}}"#;
        let job = r#"{"org":"acme","topic":"job-1","event":"output","data":{"n":1}}"#;
        let other = r#"{"org":"other","topic":"run-7","event":"output","data":{"n":1}}"#;
        let runs = token(json!({"topics": ["run-*"]}));
        let refused = batch(&runs, &[keys, run, job]);
        assert_eq!(refused.status(), 403, "{refused:?}");
        assert!(refused.problem().starts_with(&format!("line 3: {TOPIC}")), "{refused:?}");
        let refused = batch(&runs, &[run, other]);
        assert_eq!(refused.status(), 403);
        assert!(refused.problem().starts_with("line 2: the token is not for this organisation"));
        let refused = batch(&without_topics(), &[keys, run]);
        assert_eq!(refused.status(), 403);
        assert!(refused.problem().starts_with(&format!("line 2: {TOPIC}")), "{refused:?}");
        let refused = batch(&token(json!({"scope": "subscribe"})), &[run]);
        assert_eq!(refused.status(), 403, "{refused:?}");
        assert_eq!(server.metric("nudged_events_published_total"), 0, "{transport:?}");
        // Keys need no topic.
        assert_eq!(batch(&without_topics(), &[keys]).status(), 202);
        for field in [runs, token(json!({"org": "*"})), bearer(PUBLISH_KEY)] {
            let accepted = batch(&field, &[run, keys, run]);
            assert_eq!(accepted.body, r#"{"published":3}"#, "{transport:?}");
        }
        assert_eq!(batch(&bearer(PUBLISH_KEY), &[run, job, other]).status(), 202);
    }
}

/// Streams of topics end as others do, before their token's time.
#[test]
fn a_stream_of_a_topic_ends_with_its_token() {
    for transport in Transport::all() {
        let server = server(transport, &[]);
        let field = token(json!({"until": now() + 5}));
        let mut stream = server.stream_with(RUN, &field);
        stream.connected();
        let id = {
            let body = numbered(1);
            let request = format!(
                "POST {RUN} HTTP/1.1\r\nhost: t\r\ncontent-type: {JSON}\r\n{}content-length: {}\r\n\r\n{body}",
                bearer(PUBLISH_KEY),
                body.len()
            );
            let answer: Value = serde_json::from_str(&server.request(&request).body).expect("JSON");
            answer["id"].as_str().expect("an id").to_owned()
        };
        assert!(before(&id).ends_with("-0"));
        assert_eq!(stream.next(), numbered_frame(&id, 1));
        super::expect_end(&mut stream);
        assert_eq!(ask(&server, "GET", RUN, &token(json!({"until": now()}))).0, 401);
    }
}

#[test]
fn an_open_server_grants_every_topic() {
    let server = Server::start(&[]);
    for path in [RUN, "/api/other/topics/x/events"] {
        assert_eq!(get(&server, path, ""), 200);
        assert_eq!(get(&server, &format!("{path}?exclusive"), ""), 200);
        assert_eq!(ask(&server, "POST", path, "").0, 202);
        assert_eq!(ask(&server, "DELETE", path, "").0, 202);
    }
}
