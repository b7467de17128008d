//! The headers for pages of other origins, and the security headers of responses other than streams.

use crate::support::{Server, Transport};

#[test]
fn only_an_allowed_origin_gets_cors_headers() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &["--cors-origin", "https://app.example"]);
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
    let server = Server::start(&["--cors-origin", "https://app.example"]);
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
