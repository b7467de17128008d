//! The hosts that a server answers for. A name that an attacker's page has rebound to loopback is not one of them.

use std::net::SocketAddr;
use std::process::Command;

use crate::support::http2_client::{END_HEADERS, END_STREAM, PREFACE, block, frame, kind};
use crate::support::peer::{Dual, Peer};
use crate::support::{Answer, Client, Server, Transport};

/// Names that only an attacker, or a mistake, has a browser use for an open server.
const FOREIGN: [&str; 11] = [
    "evil.example",
    "evil.example:6834",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evillocalhost",
    ".localhost",
    "10.0.0.1",
    "0.0.0.0:6834",
    "[::]",
    "[2001:db8::1]:6834",
    "[::ffff:10.0.0.1]",
];

/// Names of this machine, as browsers write them, and some more.
const OURS: [&str; 9] = [
    "localhost",
    "LocalHost:6834",
    "localhost.",
    "app.localhost:3000",
    "127.0.0.1",
    "127.9.9.9:1",
    "[::1]:80",
    "[::ffff:127.0.0.1]",
    "",
];

const REFUSED: u16 = 421;

const STREAM: (&str, &str) = ("GET", "/api/acme/events");
const REQUESTS: [(&str, &str); 9] = [
    STREAM,
    ("HEAD", "/api/acme/events"),
    ("GET", "/api/acme/public/events"),
    ("POST", "/api/acme/events"),
    ("OPTIONS", "/api/acme/events"),
    ("GET", "/metrics"),
    ("GET", "/livez"),
    ("GET", "/nudged.js"),
    ("GET", "/nowhere"),
];

/// The program, without the hosts that the other tests use.
fn command() -> Command {
    let mut command = Server::command();
    command.env_remove("NUDGED_HOST");
    command
}

fn server(args: &[&str]) -> Server {
    Server::start_as(command(), Transport::Http1, args)
}

fn ask(address: SocketAddr, (method, path): (&str, &str), host: &str) -> Answer {
    let mut client = Client::connect(address);
    let fields = "content-type: application/json\r\ncontent-length: 14\r\nconnection: close";
    client.send(&format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n\r\n{{\"keys\":[\"a\"]}}"
    ));
    client.read_answer()
}

/// The status of a request without a body, on a connection of its own that the server ends.
fn status_on(peer: &mut Peer, (method, path): (&str, &str), hosts: &[(&str, &str)]) -> u16 {
    let bytes = if peer.is_http2() {
        let (authority, others) =
            (hosts.iter()).partition::<Vec<_>, _>(|(name, _)| name.starts_with(':'));
        let method = [(":method", method), (":scheme", "http"), (":path", path)];
        let fields = [&method[..], &authority, &others].concat();
        let request = frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields));
        [PREFACE, &frame(kind::SETTINGS, 0, 0, &[]), &request].concat()
    } else {
        let fields: String = hosts.iter().map(|(_, host)| format!("host: {host}\r\n")).collect();
        format!("{method} {path} HTTP/1.1\r\n{fields}connection: close\r\n\r\n").into_bytes()
    };
    let is_http2 = peer.is_http2();
    peer.send(&bytes, is_http2);
    if is_http2 {
        // The connection ends with the response.
        peer.half_close();
    }
    peer.read_answer().expect("an answer")
}

/// SCENARIO: a page of evil.example, whose name now resolves to 127.0.0.1, uses the open server of its visitor.
/// BUG: any host was accepted, so the page, of the same origin for its browser, could subscribe and publish.
/// FIX: an open server answers for loopback addresses, `localhost` and what `--host` names, on every transport and
/// route.
#[test]
fn a_name_that_is_rebound_to_loopback_reaches_nothing() {
    let server = server(&["--internal-listen", "127.0.0.1:0"]);
    for address in &server.addresses {
        for request in REQUESTS.into_iter().filter(|(method, _)| *method != "HEAD") {
            let answer = ask(*address, request, "evil.example:6834");
            assert_eq!(answer.status(), REFUSED, "{request:?}: {answer:?}");
            let detail = answer.problem();
            assert!(detail.contains("--host") && detail.contains("localhost"), "{detail}");
            assert!(!detail.contains("evil"), "{detail}");
        }
        for host in FOREIGN {
            for request in [STREAM, ("GET", "/livez")] {
                assert_eq!(ask(*address, request, host).status(), REFUSED, "{request:?} {host}");
            }
        }
        for host in OURS {
            assert_eq!(ask(*address, ("GET", "/livez"), host).status(), 200, "{host}");
        }
    }
    let old = "GET /livez HTTP/1.0\r\n\r\n";
    assert_eq!(server.request(old).status(), 200, "no browser omits the host");
    let livez = |target: &str, host: &str| {
        server.request(&format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n")).status()
    };
    assert_eq!(livez("http://localhost/livez", "localhost"), 200);
    assert_eq!(livez("http://evil.example/livez", "localhost"), REFUSED);
    assert_eq!(livez("http://localhost/livez", "evil.example"), REFUSED);
    let published = ask(server.addresses[1], ("POST", "/api/acme/events"), "localhost");
    assert_eq!(published.status(), 202, "{published:?}");
}

#[test]
fn the_host_is_checked_on_every_transport() {
    let dual = Dual::start_as(command(), &[]);
    for transport in Transport::all() {
        let status = |request, hosts: &[(&str, &str)]| {
            status_on(&mut dual.connect(transport), request, hosts)
        };
        let (name, is_http2) = match transport {
            Transport::H2 | Transport::H2c => (":authority", true),
            Transport::Http1 | Transport::Tls => ("host", false),
        };
        for request in REQUESTS.into_iter().filter(|(method, _)| *method != "POST") {
            let refused = status(request, &[(name, "evil.example")]);
            assert_eq!(refused, REFUSED, "{transport:?} {request:?}");
        }
        assert_eq!(status(("GET", "/livez"), &[(name, "localhost:6834")]), 200, "{transport:?}");
        if is_http2 {
            assert_eq!(status(STREAM, &[("host", "evil.example")]), REFUSED, "{transport:?}");
            let both = [(":authority", "localhost"), ("host", "evil.example")];
            assert_eq!(status(STREAM, &both), REFUSED, "{transport:?}");
            assert_eq!(status(("GET", "/livez"), &[]), 200, "{transport:?}");
        }
    }
    // The second request of a connection is not read by the reactor.
    let mut client = dual.server.connect();
    client.send("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(client.read_answer().status(), 200);
    client.send("GET /api/acme/events HTTP/1.1\r\nhost: evil.example\r\n\r\n");
    assert_eq!(client.read_answer().status(), REFUSED);
    // Nor is one whose head arrives in pieces; and a body is not waited for.
    let mut client = dual.server.connect();
    client.send("GET /api/acme/events HTTP/1.1\r\nhost: evil");
    dual.server.request("GET /livez HTTP/1.0\r\n\r\n");
    client.send(".example\r\n\r\n");
    assert_eq!(client.read_answer().status(), REFUSED);
    let mut client = dual.server.connect();
    client
        .send("POST /api/acme/events HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 9\r\n\r\n");
    assert_eq!(client.read_answer().status(), REFUSED);
    let metrics = ask(dual.server.address(), ("GET", "/metrics"), "localhost").body;
    assert!(metrics.contains("\nnudged_seats 0\n"), "{metrics}");
}

#[test]
fn more_hosts_are_named_by_a_setting() {
    let server = server(&["--host", "App.internal,10.0.0.1", "--host", "[2001:db8::1]"]);
    let status = |host: &str| ask(server.address(), ("GET", "/livez"), host).status();
    for host in ["app.internal", "APP.internal:80", "10.0.0.1:6834", "[2001:db8::1]:1", "localhost"]
    {
        assert_eq!(status(host), 200, "{host}");
    }
    for host in ["evil.example", "internal", "x.app.internal", "10.0.0.2", "[2001:db8::2]"] {
        assert_eq!(status(host), REFUSED, "{host}");
    }
    for wrong in ["app.internal:80", "http://app.internal", "a b", "*", "", "*.internal", "bücher"]
    {
        let (code, message) = Server::refuses_to_start_as(command(), &["--host", wrong]);
        assert_eq!(code, Some(2), "{wrong}");
        assert!(message.contains("--host"), "{wrong}: {message}");
    }
}

/// A server that is reachable from elsewhere has many names, unless it is given them. Addresses cannot be rebound.
#[test]
fn other_servers_answer_for_any_host_unless_they_are_given_names() {
    let key = ["--publish-key", "publish-key-of-the-test"];
    for access in [&["--insecure-open"][..], &key] {
        let any = server(access);
        let named = server(&[access, &["--host", "app.internal"]].concat());
        let status =
            |server: &Server, host: &str| ask(server.address(), ("GET", "/livez"), host).status();
        for host in FOREIGN {
            assert_eq!(status(&any, host), 200, "{host}");
        }
        for host in ["app.internal", "localhost", "10.0.0.1:80", "[2001:db8::1]"] {
            assert_eq!(status(&named, host), 200, "{host}");
        }
        for host in ["evil.example", "10.0.0.1.evil.example"] {
            assert_eq!(status(&named, host), REFUSED, "{host}");
        }
    }
}

/// SCENARIO: an open server on loopback has `--cors-origin '*'`.
/// BUG: any page that its user visits could publish, which nothing announced.
/// FIX: pages of other origins need `--insecure-open` as networks do.
#[test]
fn an_open_server_has_no_cors_unless_it_is_said_twice() {
    for origin in ["*", "https://app.example"] {
        // No address of this machine, so that no server stays.
        let flags = ["--cors-origin", origin, "--listen", "192.0.2.1:0"];
        let (code, message) = Server::refuses_to_start(&flags);
        assert_eq!(code, Some(2), "{message}");
        assert!(
            message.contains("--cors-origin") && message.contains("--insecure-open"),
            "{message}"
        );
        drop(server(&["--cors-origin", origin, "--insecure-open"]));
        drop(server(&["--cors-origin", origin, "--publish-key", "publish-key-of-the-test"]));
    }
}
