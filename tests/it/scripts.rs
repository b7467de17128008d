//! The browser client as the server has it: its names, its heads, and for which pages it is.

use crate::support::{Answer, Server, Transport};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const CLIENT: &str = include_str!("../../src/browser/nudged.js");
const ADAPTERS: &str = include_str!("../../src/browser/adapters.js");

const FRESH: &str = "cache-control: max-age=3600";
const FOR_EVER: &str = "cache-control: public, max-age=31536000, immutable";

/// Each name, its content, and how long it may be kept.
fn names() -> [(String, &'static str, &'static str); 4] {
    [
        ("/nudged.js".into(), CLIENT, FRESH),
        ("/nudged-adapters.js".into(), ADAPTERS, FRESH),
        (format!("/nudged-{VERSION}.js"), CLIENT, FOR_EVER),
        (format!("/nudged-adapters-{VERSION}.js"), ADAPTERS, FOR_EVER),
    ]
}

fn ask(server: &Server, line: &str, more: &str) -> Answer {
    let mut client = server.connect();
    client.send(&format!("{line} HTTP/1.1\r\nhost: t\r\n{more}\r\n"));
    if line.starts_with("HEAD ") {
        return Answer { head: client.read_head(), body: String::new() };
    }
    client.read_answer()
}

fn etag(answer: &Answer) -> String {
    answer.header("etag").expect("a tag").to_owned()
}

/// The status line and the fields, in the order of their names, without the date.
fn head(answer: &Answer) -> Vec<String> {
    let mut lines = answer.head.lines().filter(|line| !line.is_empty()).map(str::to_owned);
    let status = lines.next().expect("a status line");
    let mut fields: Vec<_> = lines.filter(|line| !line.starts_with("date: ")).collect();
    fields.sort();
    fields.insert(0, status);
    fields
}

/// What every response to a script has, a refusal too.
const OF_ALL: [&str; 4] = [
    "access-control-allow-origin: *",
    "content-security-policy: default-src 'none'; frame-ancestors 'none'",
    "referrer-policy: no-referrer",
    "x-content-type-options: nosniff",
];

fn expected(status: &str, more: &[&str]) -> Vec<String> {
    let mut fields: Vec<_> = OF_ALL.iter().chain(more).map(|&field| field.to_owned()).collect();
    fields.sort();
    fields.insert(0, format!("HTTP/1.1 {status}"));
    fields
}

#[test]
fn the_client_is_served_under_its_name_and_that_of_its_version() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &[]);
        for (path, content, cache) in names() {
            let answer = ask(&server, &format!("GET {path}?x"), "");
            assert_eq!(answer.body, content, "{transport:?} {path}");
            let tag = etag(&answer);
            let opaque = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            assert!(opaque.is_some_and(|tag| tag.len() == 16), "strong: {tag}");
            let tag = format!("etag: {tag}");
            let length = format!("content-length: {}", content.len());
            let script = [&tag, cache, "content-type: text/javascript; charset=utf-8", &length];
            assert_eq!(head(&answer), expected("200 OK", &script), "{transport:?} {path}");
            let shown = ask(&server, &format!("HEAD {path}"), "");
            assert_eq!(head(&shown), expected("200 OK", &script), "{transport:?} {path}");
        }
        let tags = names().map(|(path, ..)| etag(&ask(&server, &format!("GET {path}"), "")));
        assert_eq!(tags[..2], tags[2..], "of the content, not of the name");
        assert_ne!(tags[0], tags[1]);
    }
}

#[test]
fn a_script_that_a_cache_has_is_not_sent_again() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &[]);
        for (path, _, cache) in names() {
            let tag = etag(&ask(&server, &format!("GET {path}"), ""));
            let fields = [&format!("etag: {tag}"), cache];
            for held in [
                tag.clone(),
                format!("W/{tag}"),
                format!("\"a,b\", W/\"c\" , {tag}"),
                "*".to_owned(),
                format!("\"other\"\r\nif-none-match: {tag}"),
            ] {
                let field = format!("if-none-match: {held}\r\nif-modified-since: x\r\n");
                for method in ["GET", "HEAD"] {
                    let answer = ask(&server, &format!("{method} {path}"), &field);
                    let expected = expected("304 Not Modified", &fields);
                    assert_eq!(head(&answer), expected, "{transport:?} {method} {held}");
                    assert_eq!(answer.body, "");
                }
            }
            for other in ["\"other\"", "", &tag[1..], &format!("\"{tag}")] {
                let field = format!("if-none-match: {other}\r\n");
                let status = ask(&server, &format!("GET {path}"), &field).status();
                assert_eq!(status, 200, "{transport:?} {other}");
            }
        }
        // Nothing is left on the connection behind a response without a body.
        let mut client = server.connect();
        for _ in 0..3 {
            client.send("GET /nudged.js HTTP/1.1\r\nhost: t\r\nif-none-match: *\r\n\r\n");
            assert_eq!(client.read_answer().status(), 304, "{transport:?}");
            client.send("HEAD /nudged.js HTTP/1.1\r\nhost: t\r\n\r\n");
            assert!(client.read_head().starts_with("HTTP/1.1 200 "), "{transport:?}");
        }
    }
}

#[test]
fn another_version_is_refused_with_the_one_that_there_is() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &[]);
        for path in ["/nudged-0.0.9.js", "/nudged-adapters-99.0.0.js"] {
            for method in ["GET", "DELETE"] {
                let answer = ask(&server, &format!("{method} {path}"), "");
                assert_eq!(answer.status(), 404, "{path}");
                assert!(answer.problem().contains(&format!(" version {VERSION} ")), "{answer:?}");
                assert_eq!(answer.header("cache-control"), Some("no-store"), "it may come soon");
                assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
            }
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            for (path, ..) in names() {
                let answer = ask(&server, &format!("{method} {path}"), "");
                assert_eq!(answer.status(), 405, "{method} {path}");
                assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method} {path}");
            }
        }
        assert!(server.get("/nowhere").problem().contains("/nudged.js"));
    }
}

/// A browser refuses a module whose CORS fields are two, or are for another origin, and a shared cache would have to keep
/// one for each origin. What pages may read of the streams is another matter.
#[test]
fn every_page_may_import_it_whatever_pages_are_allowed() {
    let policies = [
        &[][..],
        &["--cors-origin", "*", "--insecure-open"],
        &["--cors-origin", "https://app.example", "--insecure-open"],
        &["--jwt-secret", "0123456789abcdef0123456789abcdef"],
    ];
    for transport in Transport::all() {
        for flags in policies {
            let server = Server::start_on(transport, flags);
            for origin in
                ["", "origin: https://app.example\r\n", "origin: https://evil.example\r\n"]
            {
                for (path, content, _) in names() {
                    let answer = ask(&server, &format!("GET {path}"), origin);
                    assert_eq!((answer.status(), answer.body.as_str()), (200, content));
                    let is_cors = |line: &&str| {
                        line.starts_with("access-control-") || line.starts_with("vary")
                    };
                    let fields: Vec<_> = answer.head.lines().filter(is_cors).collect();
                    assert_eq!(fields, OF_ALL[..1], "{transport:?} {flags:?} {origin}");
                }
            }
        }
    }
}

#[test]
fn the_documentation_names_the_version() {
    for page in [include_str!("../../README.md"), include_str!("../../src/browser/README.md")] {
        assert!(page.contains(&format!("`/nudged-{VERSION}.js`")));
    }
}

/// The name of such a file would differ: in the package, and under each of the two names of the adapters.
#[test]
fn the_adapters_need_no_other_file() {
    for statement in ["import", "export *", " from '"] {
        assert!(!ADAPTERS.contains(statement), "{statement}");
    }
}
