//! What a token allows, and for how long.

use serde_json::{Value, json};

use super::{PUBLISH_KEY, SECRET, bearer, get_with, mint, now, server, sign, status_of};
use crate::support::{Transport, eventually};

#[test]
fn a_token_is_accepted_in_header_cookie_and_query() {
    let token = mint(&["--org", "acme"]);
    for transport in Transport::all() {
        let server = server(transport, &[]);
        let events = "/api/acme/events";
        server.stream_with(events, &bearer(&token)).connected();
        server.stream_with(events, &format!("cookie: a=b; nudged_token={token}\r\n")).connected();
        let mut stream = server.stream_with(&format!("{events}?token={token}"), "");
        stream.connected();
        assert!(stream.head.contains("referrer-policy: no-referrer\r\n"), "{}", stream.head);
        server.stream_with("/api/acme/public/events", "").connected();
    }
}

#[test]
fn a_request_without_a_valid_token_is_refused_with_401() {
    let server = server(Transport::Http1, &[]);
    let missing = server.get("/api/acme/events");
    assert_eq!(missing.status(), 401);
    assert_eq!(missing.header("www-authenticate"), Some(r#"Bearer realm="nudged""#));
    let good = mint(&["--org", "acme"]);
    let none =
        "eyJhbGciOiJub25lIn0.eyJvcmciOiJhY21lIiwic2NvcGUiOiJzdWJzY3JpYmUiLCJleHAiOjk5OTk5OTk5OTl9.";
    let (unsigned, _) = good.rsplit_once('.').expect("three parts");
    for bad in ["x", none, &format!("{unsigned}."), &format!("{unsigned}.AAAA"), &"a".repeat(8193)]
    {
        let answer = get_with(&server, "/api/acme/events", &bearer(bad));
        assert_eq!(answer.status(), 401, "{bad}");
        let challenge = answer.header("www-authenticate").expect("a challenge");
        assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
    }
}

#[test]
fn a_token_for_another_org_or_scope_is_refused_with_403() {
    let server = server(Transport::Http1, &["--publish-key", PUBLISH_KEY]);
    for args in [&["--org", "other"][..], &["--org", "acme", "--scope", "publish"]] {
        let token = mint(args);
        let answer = get_with(&server, "/api/acme/events", &bearer(&token));
        assert_eq!(answer.status(), 403, "{args:?}");
    }
    let field = bearer(PUBLISH_KEY);
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
    assert_eq!(request(&bearer(&subscriber)).status(), 403);
}

#[test]
fn every_claim_of_a_token_is_checked() {
    let flags = ["--jwt-issuer", "us", "--jwt-audience", "nudged"];
    let server = server(Transport::Http1, &flags);
    let good = json!({
        "org": "acme", "scope": "subscribe", "iss": "us", "aud": "nudged", "exp": now() + 60,
    });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        sign(SECRET.as_bytes(), &claims)
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").remove(name);
        sign(SECRET.as_bytes(), &claims)
    };
    let token = sign(SECRET.as_bytes(), &good);
    server.stream_with("/api/acme/events", &bearer(&token)).connected();
    for (why, token) in [
        ("it has expired", with("exp", json!(now() - 60))),
        ("it never expires", without("exp")),
        ("its expiry is no time", with("exp", json!("tomorrow"))),
        ("it is not valid yet", with("nbf", json!(now() + 600))),
        ("another issuer", with("iss", json!("them"))),
        ("no issuer", without("iss")),
        ("another audience", with("aud", json!("other"))),
        ("no audience", without("aud")),
        ("another secret signed it", sign(b"fedcba9876543210fedcba9876543210", &good)),
    ] {
        assert_eq!(status_of(&server, &token), 401, "{why}");
    }
    for (why, token) in [
        ("it allows nothing", without("scope")),
        ("it is for no org", without("org")),
        ("its org is another", with("org", json!("Acme"))),
    ] {
        assert_eq!(status_of(&server, &token), 403, "{why}");
    }
}

#[test]
fn a_stream_ends_when_its_token_does() {
    for transport in Transport::all() {
        // The end of the stream leaves a connection of HTTP/2 idle.
        let server = server(transport, &["--idle-timeout", "1s"]);
        let token = mint(&["--org", "acme", "--ttl", "6s"]);
        let mut stream = server.stream_with("/api/acme/events", &bearer(&token));
        stream.connected();
        let rest = stream.client.read_to_end();
        assert!(
            rest.ends_with(b"0\r\n\r\n"),
            "an orderly end: {:?}",
            String::from_utf8_lossy(&rest)
        );
        eventually("the end is counted", || server.closed().get("expired") == Some(&1));
        assert_eq!(server.seats(), 0);
        // SCENARIO: a browser reconnects at once with the token whose expiry ended its stream.
        // BUG: the library accepts a token during the second in which it expires.
        // FIX: a token that ends a stream opens none.
        assert_eq!(status_of(&server, &token), 401);
    }
}

#[test]
fn one_line_for_another_org_refuses_the_whole_batch() {
    let server = server(Transport::Http1, &[]);
    let token = mint(&["--org", "acme,shop", "--scope", "publish"]);
    let batch = |lines: &str| {
        server.request(&format!(
            "POST /api/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/x-ndjson\r\n\
             authorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{lines}",
            lines.len()
        ))
    };
    let (acme, other) = (r#"{"org":"acme","keys":["a"]}"#, r#"{"org":"other","keys":["a"]}"#);
    let published = || server.metric("nudged_events_published_total");
    let before = published();
    let refused = batch(&format!("{acme}\n{other}\n"));
    assert_eq!((refused.status(), published()), (403, before));
    assert!(refused.body.contains("line 2"), "{}", refused.body);
    assert_eq!(batch(&format!("{acme}\n{acme}\n")).status(), 202);
    assert!(published() > before);
}

/// A backend that publishes reads positions, and so may a page that subscribes.
#[test]
fn a_position_needs_either_scope_and_its_org() {
    for transport in Transport::all() {
        let server = server(transport, &["--publish-key", PUBLISH_KEY]);
        let position = |field: &str| get_with(&server, "/api/acme/position", field);
        let good = [
            mint(&["--org", "acme"]),
            mint(&["--org", "acme", "--scope", "publish"]),
            mint(&["--org", "*", "--scope", "publish"]),
            PUBLISH_KEY.to_owned(),
        ];
        for credential in &good {
            assert_eq!(position(&bearer(credential)).status(), 200, "{transport:?}");
        }
        assert_eq!(position("").status(), 401);
        assert_eq!(position(&bearer("x")).status(), 401);
        assert_eq!(position(&bearer(&mint(&["--org", "other"]))).status(), 403);
        let claims = json!({ "org": "acme", "scope": "other", "exp": now() + 60 });
        let refused = position(&bearer(&sign(SECRET.as_bytes(), &claims)));
        assert_eq!(refused.status(), 403);
        let challenge = refused.header("www-authenticate").expect("a challenge");
        assert!(challenge.ends_with(r#"scope="subscribe publish""#), "{challenge}");
        assert!(refused.problem().contains("neither the scope subscribe nor publish"));
        let in_url = get_with(&server, &format!("/api/acme/position?token={}", good[0]), "");
        assert_eq!(in_url.status(), 200);
        assert_eq!(in_url.header("referrer-policy"), Some("no-referrer"));
    }
}
