//! Requests with several credentials, and tokens whose parts stand elsewhere.

use serde_json::json;

use super::{PUBLISH_KEY, SECRET, bearer, get_with, mint, now, server, sign};
use crate::support::client::header;
use crate::support::{Server, Transport};

const EVENTS: &str = "/api/acme/events";

/// The status of a response that may be a stream.
fn open(server: &Server, path: &str, fields: &str) -> u16 {
    let mut client = server.connect();
    client.send(&format!("GET {path} HTTP/1.1\r\nhost: t\r\n{fields}\r\n"));
    client.read_head().split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

fn cookies(tokens: &[&str]) -> String {
    tokens.iter().map(|token| format!("cookie: a=b; nudged_token={token}\r\n")).collect()
}

/// A token that expired long ago.
fn old() -> String {
    let claims = json!({"org": "acme", "scope": "subscribe publish", "exp": now() - 3600});
    sign(SECRET.as_bytes(), &claims)
}

/// SCENARIO: an old cookie, of another path or domain, precedes the good one; or a gateway sends a token of its own as
/// `authorization: Bearer` beside the page's ticket.
/// BUG: the first credential decided alone: 401, and the browser never came back.
/// FIX: the first that grants the request counts.
#[test]
fn the_first_credential_that_grants_the_request_counts() {
    let (old, good) = (old(), mint(&["--org", "acme", "--scope", "subscribe,publish"]));
    let elsewhere = mint(&["--org", "other", "--scope", "subscribe,publish"]);
    let nowhere = sign(SECRET.as_bytes(), &json!({"sub": "the gateway", "exp": now() + 3600}));
    let ticket = |token: &str| format!("{EVENTS}?token={token}");
    let requests = [
        (EVENTS.to_owned(), cookies(&[&old, &good])),
        (EVENTS.to_owned(), format!("cookie: nudged_token={old}; nudged_token={good}\r\n")),
        (EVENTS.to_owned(), bearer("opaque") + &cookies(&[&good])),
        (EVENTS.to_owned(), bearer("opaque") + &bearer(&good)),
        (ticket(&good), bearer("opaque") + &cookies(&[&old])),
        (ticket(&good), bearer(&nowhere)),
        (ticket(&good), bearer(&elsewhere)),
        (ticket(&old), cookies(&[&good])),
        (format!("{}&token={good}", ticket(&old)), String::new()),
        // What is repeated, or empty, takes no turn.
        (ticket(&old), bearer(&old) + &cookies(&[&old, "", &elsewhere, &good])),
        (EVENTS.to_owned(), format!("authorization: Basic dTpw\r\n{}", cookies(&[&good]))),
    ];
    for transport in Transport::all() {
        let server = server(transport, &["--publish-key", PUBLISH_KEY]);
        for (path, fields) in &requests {
            assert_eq!(open(&server, path, fields), 200, "{transport:?} {path} {fields}");
            let publish = format!(
                "POST {path} HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n{fields}\
                 content-length: 14\r\n\r\n{{\"keys\":[\"a\"]}}"
            );
            assert_eq!(server.request(&publish).status(), 202, "{transport:?} {path} {fields}");
        }
        // A publish key opens no stream, and does not keep a ticket from it.
        assert_eq!(open(&server, &ticket(&good), &bearer(PUBLISH_KEY)), 200);
    }
}

/// The error is that of the credential that precedes the others.
#[test]
fn a_request_without_a_good_credential_gets_the_error_of_the_first() {
    let server = server(Transport::Http1, &[]);
    let (old, elsewhere) = (old(), mint(&["--org", "other"]));
    for (first, second, status, why) in [
        (&old, &elsewhere, 401, "it has expired"),
        (&elsewhere, &old, 403, "not for this organisation"),
    ] {
        let answer = get_with(&server, EVENTS, &(bearer(first) + &cookies(&[second])));
        assert_eq!(answer.status(), status);
        assert!(answer.problem().contains(why), "{answer:?}");
    }
    let empty = get_with(&server, &format!("{EVENTS}?token="), &cookies(&[""]));
    assert!(empty.problem().contains("a token is needed"), "{empty:?}");
}

#[test]
fn at_most_three_credentials_are_tried() {
    let server = server(Transport::Http1, &[]);
    let good = mint(&["--org", "acme"]);
    let bad = ["1", "2", "3"];
    assert_eq!(open(&server, EVENTS, &cookies(&[bad[0], bad[1], &good])), 200);
    assert_eq!(open(&server, EVENTS, &cookies(&[bad[0], bad[1], bad[2], &good])), 401);
}

#[test]
fn claims_and_names_stand_where_the_settings_say() {
    let flags = [
        "--jwt-org-claim",
        "/https:~1~1example.com~1org",
        "--jwt-scope-claim",
        "/realm.access/roles",
        "--token-cookie",
        "__Host-session",
        "--token-query",
        "ticket",
    ];
    let claims = json!({
        "https://example.com/org": ["acme"], "realm.access": {"roles": ["subscribe"]}, "exp": now() + 60,
        "org": "other", "scope": "publish",
    });
    let token = sign(SECRET.as_bytes(), &claims);
    for transport in Transport::all() {
        let server = server(transport, &flags);
        let with = |path: &str, fields: &str| open(&server, path, fields);
        assert_eq!(with(EVENTS, &bearer(&token)), 200);
        assert_eq!(with("/api/other/events", &bearer(&token)), 403, "org has no meaning");
        assert_eq!(with(EVENTS, &format!("cookie: __Host-session={token}\r\n")), 200);
        assert_eq!(with(EVENTS, &cookies(&[&token])), 401);
        assert_eq!(with(&format!("{EVENTS}?token={token}"), ""), 401);
        let mut client = server.connect();
        client.send(&format!("GET {EVENTS}?t%69cket={token} HTTP/1.1\r\nhost: t\r\n\r\n"));
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(header(&head, "referrer-policy"), Some("no-referrer"));
        let wrong = json!({"https://example.com/org": 7, "exp": now() + 60});
        assert_eq!(with(EVENTS, &bearer(&sign(SECRET.as_bytes(), &wrong))), 401);
    }
    // By variables too; and a string of words is as good as an array.
    let mut command = Server::command();
    command.env("NUDGED_JWT_SECRET", SECRET).env("NUDGED_JWT_ORG_CLAIM", "/tenants/1");
    command
        .env("NUDGED_JWT_SCOPE_CLAIM", "/scp")
        .env("NUDGED_TOKEN_COOKIE", "c")
        .env("NUDGED_TOKEN_QUERY", "q");
    let server = Server::start_as(command, Transport::Http1, &[]);
    let claims = json!({"tenants": ["x", "acme"], "scp": "read subscribe", "exp": now() + 60});
    let token = sign(SECRET.as_bytes(), &claims);
    assert_eq!(open(&server, &format!("{EVENTS}?q={token}"), ""), 200);
    assert_eq!(open(&server, EVENTS, &format!("cookie: c={token}\r\n")), 200);
}

#[test]
fn a_name_that_no_request_can_have_is_refused() {
    for (flag, value, why) in [
        ("--jwt-org-claim", "org", "begins with a slash"),
        ("--jwt-scope-claim", "/a~", "~0 for a tilde"),
        ("--token-cookie", "a b", "RFC 6265"),
        ("--token-query", "to%6ben", "letters, digits"),
        ("--token-query", "last_event_id", "another meaning"),
    ] {
        let (code, message) = Server::refuses_to_start(&["--jwt-secret", SECRET, flag, value]);
        assert!(code.is_some_and(|code| code != 0), "{flag}");
        assert!(message.contains(flag) && message.contains(why), "{message}");
    }
}
