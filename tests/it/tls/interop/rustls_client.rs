//! rustls as a client, which updates its keys itself (`refresh_traffic_keys`).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConnection, StreamOwned};

use super::super::Session;
use super::record::Message;
use super::server::Records;
use super::tap::Transcript;
use super::{Answers, EVERY, Site, keys};
use crate::support::BOUND;
use crate::support::certificate::Certificate;
use crate::support::programs::{OPENSSL, requires};

const UPDATING: Records =
    Records { request_update_after: Some(EVERY), end_after: None, keep: false };

/// Opens a stream through the relay, and reads its greeting.
fn open(site: &Site) -> Session {
    open_after(site, &[(0, "GET /api/acme/events HTTP/1.1\r\nhost: t\r\n\r\n")])
}

/// The same with so many key updates before each part of the request.
fn open_after(site: &Site, request: &[(usize, &str)]) -> Session {
    let mut config = Certificate::of_tests().trusting(default_provider(), &[&TLS13], &[]);
    config.key_log = site.tap.log();
    let name = ServerName::from(site.tap.address.ip());
    let session = ClientConnection::new(Arc::new(config), name).expect("a session");
    let socket = TcpStream::connect(site.tap.address).expect("it listens");
    socket.set_read_timeout(Some(BOUND)).expect("a socket");
    let mut session = StreamOwned::new(session, socket);
    while session.conn.is_handshaking() {
        session.conn.complete_io(&mut session.sock).expect("a handshake");
    }
    for (updates, part) in request {
        for _ in 0..*updates {
            session.conn.refresh_traffic_keys().expect("TLS 1.3");
        }
        session.write_all(part.as_bytes()).expect("sent");
    }
    receive(&mut session, "event: connected");
    session
}

/// Reads until the text contains this.
fn receive(session: &mut Session, end: &str) {
    let mut received = String::new();
    while !received.contains(end) {
        received.push_str(&read(session));
    }
}

/// Reads some more, and sends what the session has to answer.
fn read(session: &mut Session) -> String {
    let mut bytes = [0; 4096];
    let length = session.read(&mut bytes).expect("the stream is open");
    assert!(length > 0, "the stream ended");
    session.flush().expect("answered");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[test]
fn rustls_updates_its_keys() {
    requires!(OPENSSL);
    let site = Site::start_for_rustls(UPDATING);
    let session = Mutex::new(open(&site));
    site.updates_keys(Answers::All, |key| {
        let session = &mut *session.lock().expect("no panic");
        receive(session, key);
        // rustls, too, sends its answer before its next data.
        session.write_all(b".").expect("sent");
        true
    });
    drop(session);
    site.ends_as("client");
}

/// The client updates its keys, one time or several times before an event, and requests that the server does too. The
/// server's own requests come in between.
#[test]
fn rustls_requests_key_updates() {
    requires!(OPENSSL);
    let site = Site::start_for_rustls(UPDATING);
    let mut session = open(&site);
    let (mut updates, mut count) = (0, 0);
    for at_once in [1, 1, 3, 1] {
        for _ in 0..at_once {
            session.conn.refresh_traffic_keys().expect("TLS 1.3");
        }
        session.flush().expect("sent");
        updates += 1;
        // An event that is published at once may come before the server has read the request.
        for attempt in 0.. {
            let key = format!("e{count}-");
            site.server.publish(&key);
            receive(&mut session, &key);
            count += 1;
            let seen = site.tap.until("the stream is recorded", |_| true);
            if Transcript::key_updates(&seen.server, false) == updates {
                break;
            }
            assert!(attempt < 100, "{seen:?}");
        }
        // Enough that the server requests one.
        for _ in 0..EVERY {
            let key = format!("e{count}-");
            site.server.publish(&key);
            receive(&mut session, &key);
            count += 1;
        }
    }
    // Its close_notify is sealed with keys that were updated many times.
    session.conn.send_close_notify();
    session.flush().expect("sent");
    site.ends_as("client");
    let seen = site.tap.until("close_notify is recorded", |seen| {
        seen.client.last().is_some_and(|last| last.message == Message::Alert(0))
    });
    let requested = Transcript::key_updates(&seen.server, true);
    assert!(requested >= 4, "{seen:?}");
    assert_eq!(Transcript::key_updates(&seen.server, false), 4, "one answer for the three at once");
    assert_eq!(Transcript::key_updates(&seen.client, true), 6);
    let answered = Transcript::key_updates(&seen.client, false);
    assert_eq!(seen.client.last().expect("records").generation as usize, 6 + answered);
    assert!((1..=requested).contains(&answered), "{seen:?}");
}

/// Both sides update their keys at the same time, again and again.
#[test]
fn key_updates_of_both_sides_cross() {
    requires!(OPENSSL);
    let site = Site::start_for_rustls(Records { request_update_after: Some(1), ..UPDATING });
    let mut session = open(&site);
    for key in keys("e", 60) {
        site.server.publish(&key);
        session.conn.refresh_traffic_keys().expect("TLS 1.3");
        session.flush().expect("sent");
        receive(&mut session, &key);
    }
    drop(session);
    site.ends_as("client");
    let seen = site.tap.until("the stream is recorded", |_| true);
    let updates = [true, false].map(|requested| Transcript::key_updates(&seen.server, requested));
    assert!(updates.iter().all(|count| *count > 5), "{updates:?}");
}

/// The keys of a stream are found though they were updated before it began. After many updates the session stays with
/// rustls, which requests none.
#[test]
fn key_updates_before_a_stream_leave_it_working() {
    requires!(OPENSSL);
    for (each, is_released) in [(1, true), (7, true), (30, false)] {
        let site = Site::start_for_rustls(UPDATING);
        let parts = ["GET /api/acme/events HTTP/1.1\r\n", "host: t\r\n", "\r\n"];
        let mut session = open_after(&site, &parts.map(|part| (each, part)));
        for (n, key) in keys("e", 16).iter().enumerate() {
            if n < 8 {
                session.conn.refresh_traffic_keys().expect("TLS 1.3");
                session.flush().expect("sent");
            }
            site.server.publish(key);
            receive(&mut session, key);
        }
        let seen = site.tap.until("the stream is recorded", |_| true);
        let requests = Transcript::key_updates(&seen.server, true);
        assert_eq!(requests > 0, is_released, "{each}: {seen:?}");
        assert!(Transcript::key_updates(&seen.server, false) > 0, "{each}: {seen:?}");
        assert_eq!(Transcript::key_updates(&seen.client, true), 3 * each + 8, "{each}: {seen:?}");
    }
}
