//! Places that strangers cannot keep: a full server answers probes and publishers, and idle connections go first.

use std::net::{SocketAddr, TcpStream};

use crate::support::bridge::Bridge;
use crate::support::certificate::Certificate;
use crate::support::client::post;
use crate::support::http2_client::Http2Client;
use crate::support::programs::OPENSSL;
use crate::support::{Answer, Client, Server, Transport, eventually};

const JSON: &str = "application/json";
const KEYS: &str = r#"{"keys":["a"]}"#;
const KEY: &str = "a-publish-key-of-tests";

/// With this limit of open files, five connections beyond the limit may be open.
const FILES: u32 = 80;
const CONNECTIONS: usize = 4;
/// More than the limit, and what may be open beyond it.
const MANY: usize = 40;

/// No time-out of a silent connection helps a test.
const PATIENT: [&str; 2] = ["--head-timeout", "1h"];

/// A server with four connections, that publishers need a key for.
fn small(more: &[&str]) -> Server {
    limited(&[&["--connections", "4"], more].concat())
}

fn limited(more: &[&str]) -> Server {
    let few = ["--workers", "1", "--publish-key", KEY, "--public-orgs", "*", "--coalesce", "0"];
    Server::start_with_files(FILES, Transport::Http1, &[&few[..], &PATIENT, more].concat())
}

/// Silent connections, of which as many as can be were accepted.
fn silence(address: SocketAddr) -> Vec<TcpStream> {
    (0..MANY).map(|_| TcpStream::connect(address).expect("it listens")).collect()
}

fn get(address: SocketAddr, path: &str) -> Answer {
    let mut client = Client::connect(address);
    client.send(&format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n"));
    client.read_answer()
}

/// The text of a publish with this key.
fn publish(key: &str) -> String {
    let credential = format!("host: test\r\nauthorization: Bearer {key}");
    post("/api/acme/events", JSON, KEYS).replace("host: test", &credential)
}

/// Publishes on this connection, which the response leaves open or not.
fn publish_on(client: &mut Client) -> bool {
    client.send(&publish(KEY));
    let answer = client.read_answer();
    assert_eq!(answer.status(), 202, "{answer:?}");
    answer.header("connection").is_none()
}

/// A probe is answered, a page gets its script, and a publish is accepted; a stranger's publish and any stream are refused.
fn expect_served(address: SocketAddr) {
    for path in ["/livez", "/readyz", "/metrics", "/nudged.js"] {
        assert_eq!(get(address, path).status(), 200, "{path}");
    }
    publish_on(&mut Client::connect(address));
    assert_eq!(get(address, "/api/acme/public/events").status(), 503);
    let mut stranger = Client::connect(address);
    stranger.send(&publish("another-publish-key"));
    assert_eq!(stranger.read_answer().status(), 401);
}

/// SCENARIO: strangers open more connections than the server may have, and send nothing.
/// BUG: they took the places that are kept for refusals too, so that /livez was answered only when the first of them
/// reached `--head-timeout`, on the address in cleartext too; a publish was refused.
/// FIX: the oldest connection beyond the limit that has proven nothing is closed to make room for the next.
#[test]
fn a_server_full_of_silent_connections_answers_probes_and_publishers() {
    let server = small(&[]);
    let _silent = silence(server.address());
    expect_served(server.address());
}

/// The silence may be on the TLS address: before the handshake, within it, after it, or in cleartext.
#[test]
fn silence_on_the_tls_address_keeps_no_probe_out() {
    if !OPENSSL.is_available_for("TLS") {
        return;
    }
    let tls = Certificate::of_tests();
    let flags = [&tls.flags()[..], &["--plain-listen", "127.0.0.1:0"]].concat();
    for begun in [&b""[..], &[22, 3, 1, 2, 0], b"GET /li"] {
        let server = small(&flags);
        let [secure, plain] = server.addresses[..] else { panic!("two addresses") };
        let silent = silence(secure);
        silent.iter().for_each(|socket| {
            // It may be closed by now.
            _ = std::io::Write::write(&mut &*socket, begun);
        });
        let bridges = [Transport::Tls, Transport::H2].map(|by| Bridge::to(secure, by));
        let after = bridges.each_ref().map(|bridge| silence(bridge.address));
        // One that is still on its way may push out the probe that came before it.
        eventually("no more connections are on their way", || {
            bridges.iter().all(|bridge| bridge.connections() == MANY)
        });
        expect_served(plain);
        bridges.iter().for_each(|bridge| expect_served(bridge.address));
        drop(after);
    }
}

/// SCENARIO: clients of HTTP/2 with a flow-control window of 0 send a probe each, and never take the response.
/// BUG: each held a place that is kept for refusals for as long as it wanted.
/// FIX: a response that is not taken proves nothing.
#[test]
fn clients_that_take_no_response_keep_no_probe_out() {
    for path in ["/livez", "/metrics", "/api/acme/public/events"] {
        let server = small(&[]);
        let mut clients = Vec::new();
        for _ in 0..MANY {
            let mut client =
                Http2Client::on(TcpStream::connect(server.address()).expect("it listens"), 0);
            client.get(path);
            clients.push(client);
        }
        expect_served(server.address());
    }
}

/// SCENARIO: a backend publishes at the connection limit, or behind a NAT whose strangers fill the limit of their
/// address.
/// BUG: the publish was refused (503), so that all members went stale.
/// FIX: it is accepted, and its connection kept for the next, whatever else connects.
#[test]
fn a_publisher_keeps_its_connection_at_the_limit() {
    for limits in [&["--connections", "4"][..], &["--address-connections", "4"]] {
        let server = limited(limits);
        let _streams: Vec<_> =
            (0..CONNECTIONS).map(|_| server.stream_with("/api/acme/public/events", "")).collect();
        let mut publisher = server.connect();
        assert!(publish_on(&mut publisher), "it is kept");
        let _silent = silence(server.address());
        for _ in 0..3 {
            assert!(publish_on(&mut publisher), "{limits:?}");
        }
        expect_served(server.address());
        assert!(publish_on(&mut publisher), "{limits:?}");
    }
}

/// Publishers too have a bound, which leaves places for probes.
#[test]
fn connections_of_publishers_are_kept_up_to_a_bound() {
    let server = small(&[]);
    let _streams: Vec<_> =
        (0..CONNECTIONS).map(|_| server.stream_with("/api/acme/public/events", "")).collect();
    let mut publishers: Vec<_> = (0..MANY)
        .map(|_| {
            let mut publisher = server.connect();
            publish_on(&mut publisher);
            publisher
        })
        .collect();
    expect_served(server.address());
    let open = server.metric("nudged_connections") as usize;
    assert!(open <= CONNECTIONS + FILES as usize / 16, "{open}");
    assert!(publish_on(publishers.last_mut().expect("many")), "the last one is kept");
}

/// SCENARIO: a publisher keeps its connection for the next publish, as HTTP clients and balancers do.
/// BUG: it was closed after `--head-timeout` (10 s).
/// FIX: it is idle for up to `--idle-timeout`; a connection that has sent nothing yet has `--head-timeout`.
#[test]
fn an_idle_connection_outlives_the_head_timeout() {
    for transport in Transport::http1() {
        let server =
            Server::start_on(transport, &["--head-timeout", "300ms", "--idle-timeout", "1h"]);
        let mut publisher = server.connect();
        let request = post("/api/acme/events", JSON, KEYS);
        publisher.send(&request);
        assert_eq!(publisher.read_answer().status(), 202);
        for _ in 0..2 {
            // Two of them, one after the other: longer than the time-out.
            assert_eq!(server.connect().read_to_end(), b"", "a silent one is closed");
        }
        publisher.send(&request);
        assert_eq!(publisher.read_answer().status(), 202, "{transport:?}");
        // A head that has begun has its own time again.
        publisher.send("GET /livez");
        assert_eq!(publisher.try_read_to_end().unwrap_or_default(), b"", "{transport:?}");
    }
}

#[test]
fn an_idle_connection_is_closed_at_the_idle_timeout() {
    for transport in Transport::all() {
        let server =
            Server::start_on(transport, &["--head-timeout", "1h", "--idle-timeout", "300ms"]);
        let mut client = server.connect();
        client.send("GET /livez HTTP/1.1\r\nhost: t\r\n\r\n");
        assert_eq!(client.read_answer().status(), 200);
        assert_eq!(client.read_to_end(), b"", "{transport:?}");
    }
}

/// One over HTTP/2 gets GOAWAY after `--idle-timeout`, and after `--head-timeout` if it has sent no request.
#[test]
fn an_idle_connection_of_http2_outlives_the_head_timeout() {
    let server = Server::start(&["--head-timeout", "300ms", "--idle-timeout", "1h"]);
    let mut idle = Http2Client::connect(server.address(), 65_535);
    let probe = idle.get("/livez");
    assert_eq!(idle.status(probe), 200);
    idle.end(probe);
    for _ in 0..2 {
        let mut silent = Http2Client::connect(server.address(), 65_535);
        silent.closing();
    }
    let probe = idle.get("/livez");
    assert_eq!(idle.status(probe), 200);
}

/// SCENARIO: idle connections, such as a balancer pools, take all places.
/// BUG: the next client was refused until the first of them reached a time-out.
/// FIX: they are the first to go, the longest idle one first.
#[test]
fn idle_connections_make_room_the_longest_idle_first() {
    for transport in Transport::http1() {
        let few = ["--workers", "1", "--connections", "4", "--coalesce", "0"];
        let server = Server::start_with_files(FILES, transport, &[&few[..], &PATIENT].concat());
        let livez = "GET /livez HTTP/1.1\r\nhost: t\r\n\r\n";
        let mut idle: Vec<_> = (0..CONNECTIONS).map(|_| server.connect()).collect();
        // The first is idle for the shortest time, then.
        for index in [0, 1, 2, 3, 0] {
            idle[index].send(livez);
            assert_eq!(idle[index].read_answer().status(), 200);
        }
        let mut streams = server.streams("acme", 2);
        for index in [1, 2] {
            assert_eq!(idle[index].try_read_to_end().unwrap_or_default(), b"", "{transport:?}");
        }
        for index in [3, 0] {
            idle[index].send(livez);
            assert_eq!(idle[index].read_answer().status(), 200, "{transport:?}, {index}");
        }
        streams.extend(server.streams("acme", 2));
        assert_eq!(server.get("/api/acme/events").status(), 503, "streams are never ended");
        let id = server.publish("acme", &["a"]).expect("subscribed");
        streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["a"]));
        drop(streams);
        eventually("there is room", || server.metric("nudged_connections") == 1);
    }
}

/// Those of an address make room for another of that address.
#[test]
fn idle_connections_make_room_within_the_limit_of_their_address() {
    for transport in Transport::http1() {
        let server = Server::start_on(transport, &["--address-connections", "2"]);
        let mut idle: Vec<_> = (0..2).map(|_| server.connect()).collect();
        for client in &mut idle {
            client.send("GET /livez HTTP/1.1\r\nhost: t\r\n\r\n");
            assert_eq!(client.read_answer().status(), 200);
        }
        let _streams = server.streams("acme", 2);
        for client in &mut idle {
            assert_eq!(client.try_read_to_end().unwrap_or_default(), b"", "{transport:?}");
        }
        assert_eq!(server.get("/api/acme/events").status(), 503, "{transport:?}");
    }
}
