//! Records that bring no data, sent without end: key updates, and a handshake in pieces. Nothing but the number of
//! their bytes ends them here: rustls allows 32 key updates after each record of data, and every timeout is an hour.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use rustls::version::TLS13;
use rustls::{ALL_VERSIONS, ClientConnection};
use socket2::SockRef;

use super::empty_records::{NOTHING, provider};
use super::{Listener, Session, client, connect, get_livez, handshake, start};
use crate::support::certificate::Certificate;
use crate::support::http2_client::{ACK, END_HEADERS, END_STREAM, PREFACE, frame, kind, request};
use crate::support::programs::{OPENSSL, requires};
use crate::support::{Server, eventually};

/// Bytes of a flood; the server has to end it long before.
const FLOOD: usize = 2 << 20;

/// Key updates that rustls accepts between two records of data.
const KEY_UPDATES: usize = 32;

const HOUR: [&str; 6] = ["--head-timeout", "1h", "--keepalive", "1h", "--peer-timeout", "1h"];

fn session(server: &Server, protocol: &str) -> Session {
    let mut config = Certificate::of_tests().trusting(provider(), &[&TLS13], &[]);
    config.alpn_protocols = vec![protocol.into()];
    let session = handshake(server, &config.into()).expect("a handshake");
    // What the kernel buffers is not what the server read.
    SockRef::from(&session.sock).set_send_buffer_size(16 * 1024).expect("a socket");
    session
}

/// Records with as many key updates as rustls accepts, and one with this byte of data, or with [`NOTHING`].
fn key_updates(session: &mut ClientConnection, data: u8) -> Vec<u8> {
    let mut records = Vec::new();
    for _ in 0..KEY_UPDATES {
        session.refresh_traffic_keys().expect("TLS 1.3");
    }
    session.writer().write_all(&[data]).expect("a session");
    while session.wants_write() {
        session.write_tls(&mut records).expect("memory");
    }
    records
}

/// Sends this flood until the server ends the connection.
fn flood(mut socket: &TcpStream, mut some: impl FnMut() -> Vec<u8>) {
    let mut sent = 0;
    while sent < FLOOD {
        let bytes = some();
        if socket.write_all(&bytes).is_err() {
            return;
        }
        sent += bytes.len();
    }
    // It may be in the kernel's buffers for the most part.
    let mut bytes = [0; 4096];
    loop {
        match socket.read(&mut bytes) {
            Ok(1..) => {}
            Err(why) if is_timeout(&why) => panic!("the server read {sent} bytes of the flood"),
            Ok(0) | Err(_) => return,
        }
    }
}

fn is_timeout(why: &io::Error) -> bool {
    matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Asserts that only the connection that the test itself uses is left, and that the server is well.
fn assert_is_over(server: &Server, listener: &mut Listener) {
    eventually("the flood has ended", || server.metric("nudged_connections") == 2);
    // Over HTTP/2 the tasks of its requests end after their connection.
    eventually("its seats are free", || server.seats() == 1);
    server.publish("acme", &["posts"]);
    listener.receive("posts");
    assert!(get_livez(&mut session(server, "http/1.1")).ends_with("live\n"));
}

/// SCENARIO: a TLS client opens a stream and sends key updates, with a record of data, or an empty one, after every 32
/// of them.
/// BUG: only data counted against the limit of what a client may send on a stream, so it was never cut; and all of it
/// was read at once, so 15 MiB held the worker for 2.5 s.
/// FIX: what counts is what arrives at the socket.
#[test]
fn key_updates_on_a_stream_end_it() {
    requires!(OPENSSL);
    let server = start(&HOUR);
    let mut listener = Listener::open(&server, &Certificate::of_tests());
    for (cut, data) in (1..).zip([NOTHING, b'x']) {
        let mut flooder = Listener::on(session(&server, "http/1.1")).0;
        flood(&flooder.sock, || key_updates(&mut flooder.conn, data));
        eventually("it is cut for what it sent", || server.closed().get("excess") == Some(&cut));
        assert_is_over(&server, &mut listener);
    }
}

/// SCENARIO: the same in place of a request, or between the bytes of one.
/// BUG: the connection's task read all of it at once, and nothing but `--head-timeout` ended it.
/// FIX: the task gives way after two reads, and records that bring no data have a quota.
#[test]
fn key_updates_before_a_request_end_the_connection() {
    requires!(OPENSSL);
    let server = start(&HOUR);
    let mut listener = Listener::open(&server, &Certificate::of_tests());
    for (begin, data) in [("", NOTHING), ("GET /livez?", NOTHING), ("GET /livez?", b'x')] {
        let mut flooder = session(&server, "http/1.1");
        flooder.write_all(begin.as_bytes()).expect("sent");
        flood(&flooder.sock, || key_updates(&mut flooder.conn, data));
        assert_is_over(&server, &mut listener);
    }
}

/// The same over HTTP/2, before a request and while a stream is open.
#[test]
fn key_updates_over_http2_end_the_connection() {
    requires!(OPENSSL);
    let server = start(&HOUR);
    let mut listener = Listener::open(&server, &Certificate::of_tests());
    let ping = frame(kind::PING, ACK, 0, &[7; 8]);
    for (opens, data) in [(false, &ping), (true, &ping), (true, &vec![NOTHING])] {
        let mut flooder = session(&server, "h2");
        flooder.write_all(PREFACE).expect("sent");
        flooder.write_all(&frame(kind::SETTINGS, 0, 0, &[])).expect("sent");
        if opens {
            let get = request("GET", "/api/acme/events");
            let get = frame(kind::HEADERS, END_STREAM | END_HEADERS, 1, &get);
            flooder.write_all(&get).expect("sent");
            eventually("the stream is open", || server.seats() == 2);
        }
        let mut data = data.iter().cycle();
        flood(&flooder.sock, || key_updates(&mut flooder.conn, *data.next().expect("endless")));
        assert_is_over(&server, &mut listener);
    }
}

/// A hello of 16 MiB, in one record after the other or in records of one byte; and records of data before the client
/// has finished its handshake.
#[test]
fn a_handshake_that_never_ends_is_cut_after_so_many_bytes() {
    requires!(OPENSSL);
    let server = start(&HOUR);
    let mut listener = Listener::open(&server, &Certificate::of_tests());
    let record = |kind: u8, bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).expect("a record").to_be_bytes();
        [&[kind, 3, 1][..], &length, bytes].concat()
    };
    for length in [[0xff, 0xff, 0xff], [0, 0xff, 0xff]] {
        for size in [1, 16_384] {
            let mut socket = connect(&server);
            socket.write_all(&record(22, &[&[1][..], &length].concat())).expect("sent");
            flood(&socket, || record(22, &vec![0; size]));
            assert_is_over(&server, &mut listener);
        }
    }
    let mut hello = Vec::new();
    let config = client(&Certificate::of_tests(), ALL_VERSIONS);
    let name = "localhost".try_into().expect("a name");
    let mut session = ClientConnection::new(config.into(), name).expect("a session");
    session.write_tls(&mut hello).expect("a hello");
    for kind in [20, 21, 22, 23] {
        let mut socket = connect(&server);
        socket.write_all(&hello).expect("sent");
        flood(&socket, || record(kind, &[1]));
        assert_is_over(&server, &mut listener);
    }
}
