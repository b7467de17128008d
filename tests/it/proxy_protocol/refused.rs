//! Headers that are refused, each with its cause.

use std::io::Write;

use super::balancer::{
    LIVEZ, LOCAL, SIGNATURE, connect, expect_none_refused, header, raw, refused, server,
};
use crate::support::bridge::Bridge;
use crate::support::log::Log;
use crate::support::{Client, Server, Transport, eventually};

const CLIENT: &str = "192.0.2.1";
const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n";

/// Reads the end of a connection, before which nothing was sent. What the server has not read makes it a reset.
fn expect_closed(client: Client, what: &[u8]) {
    assert_eq!(read_to_end(client), b"", "{what:?}");
}

fn read_to_end(mut client: Client) -> Vec<u8> {
    client.try_read_to_end().unwrap_or_default()
}

#[test]
fn a_connection_without_a_good_header_is_closed_and_counted() {
    let request = [LIVEZ.as_bytes()].concat();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    let address = &header(CLIENT)[16..];
    let long = raw(0x21, 0x11, &[address, &[4, 0x10, 0], &[0; 0x1000]].concat());
    for transport in Transport::http1() {
        let mut server = server(transport, &["--head-timeout", "1h"]);
        let log = Log::of(&mut server);
        for (label, what) in [
            ("missing", vec![request.clone(), hello.clone(), b"\r\n\r\n\r".to_vec(), vec![0]]),
            ("v1", vec![V1.to_vec(), V1[..6].to_vec(), b"PROXY UNKNOWN\r\n".to_vec()]),
            ("oversized", vec![long.clone(), long[..16].to_vec()]),
            (
                "malformed",
                vec![
                    raw(0x11, 0x11, address),
                    raw(0x22, 0x11, address),
                    raw(0x21, 0x41, address),
                    raw(0x21, 0x11, &address[1..]),
                    raw(0x21, 0x11, &[address, &[1, 0, 9]].concat()),
                    raw(0x21, 0x11, &[address, &[3, 0, 4, 1, 2, 3, 4]].concat()),
                ],
            ),
        ] {
            let before = refused(&server, label);
            for first in &what {
                let mut client = connect(&server);
                _ = client.try_send_bytes(&[&first[..], &request].concat());
                expect_closed(client, first);
            }
            assert_eq!(refused(&server, label) - before, what.len() as u64, "{label}");
            // Of many, one is logged.
            log.line(&[&format!("reason=\"{label}\""), "peer=\"127.0.0.2\"", "times=1"]);
        }
        server.signal(crate::support::server::Signal::TERM);
        server.wait();
        let rest = log.rest();
        assert!(rest.iter().all(|line| !line.contains("reason=")), "{rest:?}");
    }
}

#[test]
fn a_header_that_ends_or_stops_in_the_middle_is_refused() {
    for transport in Transport::http1() {
        let patient = server(transport, &["--head-timeout", "1h"]);
        let whole = header(CLIENT);
        let parts = [1, 11, 12, 13, 16, 17, whole.len() - 1];
        for length in parts {
            let mut client = connect(&patient);
            client.send_bytes(&whole[..length]);
            client.half_close();
            expect_closed(client, &whole[..length]);
        }
        assert_eq!(refused(&patient, "unfinished"), parts.len() as u64);
        // A reset takes with it what has not been looked at.
        for length in parts {
            let mut client = connect(&patient);
            client.send_bytes(&whole[..length]);
            patient.settle();
            client.reset();
        }
        let count = 2 * parts.len() as u64;
        eventually("the resets are noticed", || refused(&patient, "unfinished") == count);
        eventually("nothing is left", || patient.metric("nudged_connections") == 1);

        let hasty = server(transport, &["--head-timeout", "1s"]);
        let mut clients: Vec<_> = [0, 1, 12, 27].map(|length| (connect(&hasty), length)).into();
        clients.iter_mut().for_each(|(client, length)| client.send_bytes(&whole[..*length]));
        for (client, length) in clients {
            expect_closed(client, &whole[..length]);
        }
        assert_eq!((refused(&hasty, "unfinished"), refused(&hasty, "missing")), (3, 1));
        // So much for its request.
        let mut client = connect(&hasty);
        client.send_bytes(&whole);
        expect_closed(client, b"no request");
        assert_eq!((refused(&hasty, "unfinished"), refused(&hasty, "missing")), (3, 1));
    }
}

/// SCENARIO: a balancer resets a connection in the middle of its header.
/// BUG: the log had it as that of a Unix socket, because a socket that was reset has no peer any more.
/// FIX: the log has it as one that is gone.
#[test]
fn a_peer_that_has_reset_its_connection_is_none_of_a_unix_socket() {
    let mut server = server(Transport::Http1, &["--head-timeout", "1h"]);
    let log = Log::of(&mut server);
    let mut client = connect(&server);
    client.send_bytes(&header(CLIENT)[..20]);
    server.settle();
    client.reset();
    log.line(&["reason=\"unfinished\"", "peer=\"gone\""]);
}

/// What a server makes of it that knows no proxies: for HTTP it is a malformed request, for TLS no handshake.
#[test]
fn a_header_of_another_peer_is_garbage() {
    for args in [&["--proxy-protocol-from", "127.0.0.2"][..], &[]] {
        for transport in Transport::http1() {
            let args = [&["--workers", "1", "--head-timeout", "1h"][..], args].concat();
            let server = Server::start_on(transport, &args);
            for (n, first) in [header(CLIENT), LOCAL.to_vec()].into_iter().enumerate() {
                let mut client = Client::connect(server.listens_on[0]);
                client.send_bytes(&[&first[..], LIVEZ.as_bytes()].concat());
                let answer = read_to_end(client);
                let answer = String::from_utf8_lossy(&answer).into_owned();
                match transport {
                    Transport::Http1 => assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}"),
                    _ => assert!(!answer.contains("HTTP"), "{answer}"),
                }
                assert_eq!(refused(&server, "spoofed"), n as u64 + 1, "{transport:?}");
            }
            let mut client = Client::connect(server.listens_on[0]);
            client.send_bytes(V1);
            let answer = read_to_end(client);
            assert!(!answer.starts_with(b"HTTP/1.1 2"), "{answer:?}");
            assert_eq!(server.get("/livez").status(), 200);
            // The signature of the next connection is not that of the one before.
            drop(Client::connect(server.listens_on[0]));
            server.settle();
            assert_eq!(refused(&server, "spoofed"), 2);
        }
    }
}

/// SCENARIO: a client behind the balancer sends a header of its own, to appear as another.
/// FIX: the first header is the balancer's, and what follows it is the client's, no header.
#[test]
fn a_client_behind_a_balancer_cannot_name_itself() {
    for transport in Transport::http1() {
        let server = server(transport, &[]);
        let first = [header(CLIENT), header("203.0.113.9")].concat();
        let balancer = super::balancer::Balancer::sending(server.listens_on[0], first);
        let bridge =
            (transport == Transport::Tls).then(|| Bridge::to(balancer.address, Transport::Tls));
        let address = bridge.as_ref().map_or(balancer.address, |bridge| bridge.address);
        let mut client = Client::connect(address);
        _ = client.try_send_bytes(LIVEZ.as_bytes());
        let answer = client.try_read_until(b"\r\n\r\n").unwrap_or_default();
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{transport:?}");
        expect_none_refused(&server);
    }
}

/// A task waits for these: the server is full, or drains.
#[test]
fn a_header_is_refused_alike_at_the_limit_of_connections() {
    let server = server(Transport::Http1, &["--head-timeout", "1h", "--connections", "2"]);
    let _streams = server.streams("acme", 2);
    for (label, first) in [
        ("missing", LIVEZ.as_bytes()),
        ("v1", V1),
        ("malformed", &raw(0x21, 0x11, b"short")),
        ("oversized", &[&SIGNATURE[..], &[0x21, 0x11, 0xFF, 0xFF]].concat()),
    ] {
        let mut client = connect(&server);
        client.send_bytes(first);
        expect_closed(client, first);
        assert_eq!(refused(&server, label), 1, "{label}");
    }
    let mut client = connect(&server);
    client.send_bytes(&SIGNATURE);
    server.settle();
    client.half_close();
    expect_closed(client, &SIGNATURE);
    assert_eq!(refused(&server, "unfinished"), 1);

    let mut client = connect(&server);
    for byte in [&header(CLIENT)[..], LIVEZ.as_bytes()].concat() {
        client.socket().write_all(&[byte]).expect("connected");
        server.get("/livez");
    }
    assert_eq!(client.read_answer().status(), 200, "a probe is answered");
    expect_probe(&server, &LOCAL);
}

fn expect_probe(server: &Server, first: &[u8]) {
    let mut client = connect(server);
    client.send_bytes(&[first, LIVEZ.as_bytes()].concat());
    assert_eq!(client.read_answer().status(), 200);
}
