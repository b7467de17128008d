//! Who may come in: tokens good and bad, on the wire.

mod support;

use std::process::Command;

use support::{Answer, PATHS, Server};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PUBLISH_KEY: &str = "publish-key-of-the-test";

fn server(path: &[&str], more: &[&str]) -> Server {
    Server::start(&[path, &["--jwt-secret", SECRET], more].concat())
}

/// Mints with `nudged token`, signed with the secret.
fn mint(args: &[&str]) -> String {
    let mut command: Command = Server::command();
    let output = command.args(["token", "--secret", SECRET]).args(args).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("ASCII").trim().to_owned()
}

fn get_with(server: &Server, path: &str, headers: &str) -> Answer {
    server.request(&format!("GET {path} HTTP/1.1\r\nhost: t\r\n{headers}\r\n"))
}

#[test]
fn a_token_is_taken_from_three_places() {
    let token = mint(&["--org", "acme"]);
    for path in PATHS {
        let server = server(path, &[]);
        let events = "/api/acme/events";
        server.stream_with(events, &format!("authorization: Bearer {token}\r\n")).connected();
        server.stream_with(events, &format!("cookie: a=b; nudged_token={token}\r\n")).connected();
        let mut stream = server.stream_with(&format!("{events}?token={token}"), "");
        stream.connected();
        assert!(stream.head.contains("referrer-policy: no-referrer\r\n"), "{}", stream.head);
        server.stream_with("/api/acme/public/events", "").connected();
    }
}

#[test]
fn without_a_good_token_the_answer_is_401() {
    let server = server(&[], &[]);
    let missing = server.get("/api/acme/events");
    assert_eq!(missing.status(), 401);
    assert_eq!(missing.header("www-authenticate"), Some(r#"Bearer realm="nudged""#));
    let good = mint(&["--org", "acme"]);
    let none =
        "eyJhbGciOiJub25lIn0.eyJvcmciOiJhY21lIiwic2NvcGUiOiJzdWJzY3JpYmUiLCJleHAiOjk5OTk5OTk5OTl9.";
    let (unsigned, _) = good.rsplit_once('.').expect("three parts");
    for bad in ["x", none, &format!("{unsigned}."), &format!("{unsigned}.AAAA"), &"a".repeat(8193)]
    {
        let answer =
            get_with(&server, "/api/acme/events", &format!("authorization: Bearer {bad}\r\n"));
        assert_eq!(answer.status(), 401, "{bad}");
        let challenge = answer.header("www-authenticate").expect("a challenge");
        assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
    }
}

#[test]
fn another_org_or_scope_is_403() {
    let server = server(&[], &["--publish-key", PUBLISH_KEY]);
    for args in [&["--org", "other"][..], &["--org", "acme", "--scope", "publish"]] {
        let token = mint(args);
        let field = format!("authorization: Bearer {token}\r\n");
        let answer = get_with(&server, "/api/acme/events", &field);
        assert_eq!(answer.status(), 403, "{args:?}");
    }
    let field = format!("authorization: Bearer {PUBLISH_KEY}\r\n");
    assert_eq!(get_with(&server, "/api/acme/events", &field).status(), 403);
    let body = r#"{"keys":["a"]}"#;
    let request = |field: &str| {
        server.request(&format!(
            "POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n{field}content-length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    assert_eq!(request("").status(), 401);
    assert_eq!(request(&field).status(), 202);
    let subscriber = mint(&["--org", "acme"]);
    assert_eq!(request(&format!("authorization: Bearer {subscriber}\r\n")).status(), 403);
}

#[test]
fn an_allowed_origin_is_named_and_another_is_not() {
    for path in PATHS {
        let server = Server::start(&[path, &["--cors-origin", "https://app.example"]].concat());
        let head = server.stream_with("/api/acme/events", "origin: https://app.example\r\n").head;
        assert!(head.contains("access-control-allow-origin: https://app.example\r\n"), "{head}");
        assert!(head.contains("access-control-allow-credentials: true\r\n"), "{head}");
        let head = server.stream_with("/api/acme/events", "origin: https://evil.example\r\n").head;
        assert!(!head.contains("access-control-allow"), "{head}");
        assert!(head.contains("vary: origin\r\n"), "{head}");
    }
}
