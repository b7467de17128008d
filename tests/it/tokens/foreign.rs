//! Publishes of pages: a browser sends the cookie of its user, whichever page makes the request.

use super::{PUBLISH_KEY, bearer, mint, server};
use crate::support::{Server, Transport};

const BODY: &str = r#"{"keys":["posts"]}"#;

/// Publishes with these header lines; returns the status and the number of events published by it.
fn publish(server: &Server, path: &str, fields: &str) -> (u16, u64) {
    let published = || server.metric("nudged_events_published_total");
    let before = published();
    let (kind, body) = match path {
        "/api/events" => ("application/x-ndjson", r#"{"org":"acme","keys":["posts"]}"#),
        _ => ("application/json", BODY),
    };
    let answer = server.request(&format!(
        "POST {path} HTTP/1.1\r\ncontent-type: {kind}\r\n{fields}content-length: {}\r\n\r\n{body}",
        body.len()
    ));
    (answer.status(), published() - before)
}

/// SCENARIO: a page of another origin, or one on another port of the same host, publishes for the user that visits it.
/// BUG: only the browser's preflight prevented it; the server accepted any request with the cookie.
/// FIX: a request that changes anything is not authorised by a cookie if it comes from a foreign page.
#[test]
fn a_page_of_another_origin_does_not_publish_by_cookie() {
    for transport in Transport::all() {
        let server = server(
            transport,
            &[
                "--cors-origin",
                "https://app.example",
                "--publish-key",
                PUBLISH_KEY,
                "--coalesce",
                "0",
            ],
        );
        let token = mint(&["--org", "acme", "--scope", "subscribe,publish"]);
        let cookie = format!("cookie: nudged_token={token}\r\nhost: localhost\r\n");
        for path in ["/api/acme/events", "/api/events"] {
            let by_cookie = |fields: &str| publish(&server, path, &format!("{cookie}{fields}"));
            for own in [
                "",
                "origin: http://localhost\r\n",
                "origin: https://localhost\r\n",
                "origin: https://app.example\r\n",
                "origin: https://app.example\r\nsec-fetch-site: cross-site\r\n",
                "sec-fetch-site: none\r\n",
                // A proxy has put another host in place of the page's.
                "origin: https://www.example\r\nsec-fetch-site: same-origin\r\n",
            ] {
                assert_eq!(by_cookie(own), (202, 1), "{transport:?} {path} {own}");
            }
            for foreign in [
                "origin: https://evil.example\r\n",
                "origin: null\r\n",
                "origin: localhost\r\n",
                "origin: http://localhost:6834\r\n",
                "origin: http://localhost.evil.example\r\n",
                "origin: http://app.example\r\n",
                "origin: https://app.example\r\norigin: https://evil.example\r\n",
                "origin: http://localhost\r\nsec-fetch-site: cross-site\r\n",
                "origin: http://localhost\r\nsec-fetch-site: same-site\r\n",
                "sec-fetch-site: cross-site\r\n",
            ] {
                assert_eq!(by_cookie(foreign), (403, 0), "{transport:?} {path} {foreign}");
                // A credential that the page itself must know is as good as ever.
                for credential in [bearer(&token), bearer(PUBLISH_KEY)] {
                    let fields = format!("{credential}{cookie}{foreign}");
                    assert_eq!(publish(&server, path, &fields), (202, 1), "{foreign}");
                }
                let ticket = format!("{path}?token={token}");
                let fields = format!("host: localhost\r\n{foreign}");
                if path == "/api/acme/events" {
                    assert_eq!(publish(&server, &ticket, &fields), (202, 1), "{foreign}");
                }
            }
        }
        // What only reads is left to the browser, which does not show it to a foreign page.
        let foreign = format!("cookie: nudged_token={token}\r\norigin: https://evil.example\r\n");
        server.stream_with("/api/acme/events", &foreign).connected();
    }
}

#[test]
fn any_origin_is_without_cookies() {
    let server = server(Transport::Http1, &["--cors-origin", "*", "--coalesce", "0"]);
    let token = mint(&["--org", "acme", "--scope", "publish"]);
    let cookie = format!("host: t\r\ncookie: nudged_token={token}\r\n");
    let foreign = "origin: https://app.example\r\n";
    assert_eq!(publish(&server, "/api/acme/events", &format!("{cookie}{foreign}")), (403, 0));
    assert_eq!(publish(&server, "/api/acme/events", &cookie), (202, 1));
    let with = format!("host: t\r\n{}{foreign}", bearer(&token));
    assert_eq!(publish(&server, "/api/acme/events", &with), (202, 1));
}

#[test]
fn the_host_of_a_page_is_compared_with_its_port() {
    let server =
        server(Transport::Http1, &["--coalesce", "0", "--host", "t,test,app.example,example"]);
    let token = mint(&["--org", "acme", "--scope", "publish"]);
    for (host, origin, status) in [
        ("app.example:8443", "https://app.example:8443", 202),
        ("APP.example", "https://app.example", 202),
        ("app.example:443", "https://app.example", 202),
        ("app.example:80", "http://app.example", 202),
        ("[::1]:6834", "http://[::1]:6834", 202),
        ("app.example:80", "https://app.example", 403),
        ("app.example:8443", "https://app.example", 403),
        ("app.example", "https://app.example:8443", 403),
        ("example", "https://app.example", 403),
        ("", "https://app.example", 403),
    ] {
        let fields =
            format!("host: {host}\r\ncookie: nudged_token={token}\r\norigin: {origin}\r\n");
        let (found, _) = publish(&server, "/api/acme/events", &fields);
        assert_eq!(found, status, "{host} {origin}");
    }
}

/// Requests that change something and that a page may make without a preflight, or with one that is granted.
const CHANGES: [&str; 3] = ["DELETE /api/acme/events", "POST /api/acme/reread", "POST /api/reread"];

fn change(server: &Server, request: &str, fields: &str) -> u16 {
    server.request(&format!("{request} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n")).status()
}

#[test]
fn a_page_of_another_origin_neither_ends_streams_nor_has_them_re_read_by_cookie() {
    for transport in Transport::all() {
        let server = server(transport, &[]);
        let token = mint(&["--org", "*", "--scope", "publish"]);
        let cookie = format!("cookie: nudged_token={token}\r\n");
        for request in CHANGES {
            let foreign = format!("{cookie}origin: https://evil.example\r\n");
            assert_eq!(change(&server, request, &foreign), 403, "{transport:?} {request}");
            let own = format!("{cookie}origin: http://localhost\r\n");
            assert_eq!(change(&server, request, &own), 202, "{transport:?} {request}");
        }
    }
}

/// SCENARIO: a developer with an open server on loopback visits a stranger's page.
/// BUG: a request without a body needs no preflight, so the page had every client re-read everything, as often as it
/// liked.
/// FIX: a page of another origin changes nothing on an open server, unless `--cors-origin` allows it.
#[test]
fn a_page_of_another_origin_changes_nothing_on_an_open_server() {
    let evil = "origin: https://evil.example\r\nsec-fetch-site: cross-site\r\n";
    for transport in Transport::all() {
        let server = Server::start_on(transport, &[]);
        for request in CHANGES {
            assert_eq!(change(&server, request, evil), 403, "{transport:?} {request}");
            assert_eq!(change(&server, request, ""), 202, "{transport:?} {request}");
            let own = "origin: http://localhost\r\nsec-fetch-site: same-origin\r\n";
            assert_eq!(change(&server, request, own), 202, "{transport:?} {request}");
        }
    }
    for (origins, status) in [("*", 202), ("https://evil.example", 202), ("https://b.example", 403)]
    {
        let server = Server::start(&["--insecure-open", "--cors-origin", origins]);
        for request in CHANGES {
            assert_eq!(change(&server, request, evil), status, "{origins} {request}");
        }
    }
}
