//! The headers for pages of other origins, and the security headers of responses other than streams.

use crate::support::{Server, Transport};

#[test]
fn only_an_allowed_origin_gets_cors_headers() {
    for transport in Transport::all() {
        let server = Server::start_on(
            transport,
            &["--cors-origin", "https://app.example", "--insecure-open"],
        );
        let head = server.stream_with("/api/acme/events", "origin: https://app.example\r\n").head;
        assert!(head.contains("access-control-allow-origin: https://app.example\r\n"), "{head}");
        assert!(head.contains("access-control-allow-credentials: true\r\n"), "{head}");
        let head = server.stream_with("/api/acme/events", "origin: https://evil.example\r\n").head;
        assert!(!head.contains("access-control-allow"), "{head}");
        assert!(head.contains("vary: origin\r\n"), "{head}");
    }
}

#[test]
fn a_preflight_succeeds_for_allowed_origins_only() {
    let server = Server::start(&["--cors-origin", "https://app.example", "--insecure-open"]);
    let preflight = |origin: &str| {
        server.request(&format!(
            "OPTIONS /api/acme/events HTTP/1.1\r\nhost: t\r\norigin: {origin}\r\n\
             access-control-request-method: POST\r\n\
             access-control-request-headers: content-type\r\n\r\n"
        ))
    };
    let allowed = preflight("https://app.example");
    assert_eq!(allowed.status(), 204);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(allowed.header("access-control-allow-methods"), Some("GET, HEAD, POST, DELETE"));
    for origin in ["https://app.example.evil.example", "http://app.example", "null"] {
        let refused = preflight(origin);
        assert_eq!(refused.status(), 403, "{origin}");
        assert_eq!(refused.header("access-control-allow-origin"), None, "{origin}");
    }
    let closed = Server::start(&[]);
    let plain = closed.request(
        "OPTIONS /api/acme/events HTTP/1.1\r\nhost: t\r\norigin: https://app.example\r\n\
         access-control-request-method: POST\r\n\r\n",
    );
    assert_eq!(plain.status(), 405, "without the setting no other origin is allowed");
}

/// The fields of a response that a browser reads for CORS, in the order of their names.
fn cors_fields(head: &str) -> Vec<String> {
    let mut fields: Vec<_> = (head.lines().skip(1).map(str::to_owned))
        .filter(|line| line.starts_with("access-control-") || line.starts_with("vary:"))
        .collect();
    fields.sort();
    fields
}

const ALLOWED: &str = "access-control-allow-origin: https://app.example";
const COOKIES: &str = "access-control-allow-credentials: true";
const EXPOSED: &str = "access-control-expose-headers: retry-after, allow";
const VARY: &str = "vary: origin";

/// SCENARIO: a page of an allowed origin reads a refusal, or has a tracing library that adds fields to its requests.
/// BUG: the page did not see `retry-after`, and the preflight refused the fields of the library.
/// FIX: both are allowed, and `--cors-header` allows more.
#[test]
fn an_allowed_page_sees_when_to_come_back_and_may_be_traced() {
    for transport in Transport::all() {
        let flags = [
            "--cors-origin",
            "https://app.example",
            "--cors-header",
            "X-Tenant,x-b",
            "--insecure-open",
        ];
        let server = Server::start_on(transport, &flags);
        let ask = |line: &str, more: &str| {
            server.request(&format!(
                "{line} HTTP/1.1\r\nhost: t\r\norigin: https://app.example\r\n{more}\r\n"
            ))
        };
        let with_cookies = [COOKIES, ALLOWED, EXPOSED, VARY];
        let origin = "origin: https://app.example\r\n";
        // The reactor reads the first request of a connection, hyper the others.
        let direct = server.stream_with("/api/acme/events", origin).head;
        assert_eq!(cors_fields(&direct), with_cookies, "{transport:?}");
        let mut client = server.connect();
        client.send("GET /livez HTTP/1.1\r\nhost: t\r\n\r\n");
        client.read_answer();
        client.send(&format!("GET /api/acme/events HTTP/1.1\r\nhost: t\r\n{origin}\r\n"));
        assert_eq!(cors_fields(&client.read_head()), with_cookies, "{transport:?}");
        for (line, status) in [
            ("GET /livez", 200),
            ("DELETE /livez", 405),
            ("GET /nowhere", 404),
            ("POST /api/acme/events", 415),
        ] {
            let answer = ask(line, "");
            assert_eq!(answer.status(), status, "{transport:?} {line}");
            assert_eq!(cors_fields(&answer.head), with_cookies, "{transport:?} {line}");
        }
        let foreign = server
            .request("GET /livez HTTP/1.1\r\nhost: t\r\norigin: https://evil.example\r\n\r\n");
        assert_eq!(cors_fields(&foreign.head), [VARY], "{transport:?}");

        let preflight = ask("OPTIONS /api/acme/events", "access-control-request-method: POST\r\n");
        assert_eq!(preflight.status(), 204);
        let headers = "access-control-allow-headers: authorization, content-type, last-event-id, \
            cache-control, traceparent, tracestate, baggage, sentry-trace, x-requested-with, \
            x-tenant, x-b";
        let (methods, age) = (
            "access-control-allow-methods: GET, HEAD, POST, DELETE",
            "access-control-max-age: 7200",
        );
        let expected = [COOKIES, headers, methods, ALLOWED, EXPOSED, age, VARY];
        assert_eq!(cors_fields(&preflight.head), expected, "{transport:?}");
    }
}

#[test]
fn any_page_is_allowed_without_cookies() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &["--cors-origin", "*", "--insecure-open"]);
        let expected = [EXPOSED, "access-control-allow-origin: *"];
        let head = server.stream_with("/api/acme/events", "origin: https://a.example\r\n").head;
        let mut fields = cors_fields(&head);
        fields.reverse();
        assert_eq!(fields, expected, "{transport:?}");
        let mut fields = cors_fields(&server.get("/nowhere").head);
        fields.reverse();
        assert_eq!(fields, expected, "{transport:?}");
    }
}

#[test]
fn an_origin_with_an_asterisk_allows_one_label_with_cookies() {
    let origins = "https://*.preview.example,http://*.localhost:3000";
    for transport in Transport::all() {
        let server = Server::start_on(transport, &["--cors-origin", origins, "--insecure-open"]);
        let allowed = |origin: &str| {
            let field = format!("origin: {origin}\r\n");
            let streamed = cors_fields(&server.stream_with("/api/acme/events", &field).head);
            let got = server.request(&format!("GET /livez HTTP/1.1\r\nhost: t\r\n{field}\r\n"));
            assert_eq!(streamed, cors_fields(&got.head), "{transport:?} {origin}");
            let preflight = server.request(&format!(
                "OPTIONS /api/acme/events HTTP/1.1\r\nhost: t\r\n{field}access-control-request-method: POST\r\n\r\n"
            ));
            let is_allowed = streamed.iter().any(|field| field.contains("allow-origin"));
            assert_eq!(preflight.status(), if is_allowed { 204 } else { 403 }, "{origin}");
            if is_allowed {
                let named = format!("access-control-allow-origin: {origin}");
                assert_eq!(streamed, [COOKIES, &named, EXPOSED, VARY]);
            } else {
                assert_eq!(streamed, [VARY], "{transport:?} {origin}");
            }
            is_allowed
        };
        for good in [
            "https://pr-7.preview.example",
            "https://a_b.preview.example",
            "http://x.localhost:3000",
        ] {
            assert!(allowed(good), "{good}");
        }
        for bad in [
            "https://preview.example",
            "https://.preview.example",
            "https://a.b.preview.example",
            "http://a.preview.example",
            "https://a.preview.example:8443",
            "https://a.preview.example.evil.example",
            "https://evil.example/.preview.example",
            "https://evil.example:1.preview.example",
            "https://me@a.preview.example",
            "https://*.preview.example",
            "http://x.localhost",
            "https://apreview.example",
        ] {
            assert!(!allowed(bad), "{bad}");
        }
    }
}

#[test]
fn responses_other_than_streams_have_security_headers() {
    let server = Server::start(&[]);
    for path in ["/livez", "/metrics", "/nowhere"] {
        let answer = server.get(path);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.contains("default-src 'none'"), "{policy}");
    }
}

/// SCENARIO: the name of the query parameter is written with an escape, as `?%74oken=`.
/// BUG: the token was accepted, and its URL went on as the referrer.
/// FIX: the names of parameters are decoded before they are compared, here too.
#[test]
fn no_spelling_of_the_token_in_a_url_reaches_a_referrer() {
    for transport in Transport::all() {
        let server = super::server(transport, &[]);
        let token = super::mint(&["--org", "acme"]);
        for query in ["token=", "%74oken=", "a=b&tok%65n=", "%74%6f%6B%65%6e=", "token=old&token="]
        {
            let path = format!("/api/acme/events?{query}{token}");
            let mut stream = server.stream_with(&path, "");
            stream.connected();
            assert!(stream.head.contains("referrer-policy: no-referrer\r\n"), "{}", stream.head);
        }
        let other = server.stream_with("/api/acme/events?xtoken=1", &super::bearer(&token));
        assert!(!other.head.contains("referrer-policy"), "{}", other.head);
    }
}
