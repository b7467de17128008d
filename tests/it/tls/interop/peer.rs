//! A client that composes the records of its stream itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use socket2::SockRef;

use super::key_log::KeyLog;
use super::record::{HEADER, Keys, Message, NOT_REQUESTED, Opened, Opener, REQUESTED, kind};
use super::server::Local;
use crate::support::BOUND;
use crate::support::certificate::Certificate;

/// Its handshake is that of rustls, which has ended.
pub(super) struct Peer {
    socket: TcpStream,
    pub(super) keys: Keys,
    server: Opener,
    /// Messages that were received and not yet taken.
    messages: Vec<Opened>,
    /// Key updates that the server has requested, and that were not sent yet.
    requests: usize,
    /// Key updates of the server that were requested of it.
    answers: usize,
    /// Records of the server so far.
    records: usize,
}

// ===== impl Peer =====

impl Peer {
    /// Connects, and requests a stream.
    pub(super) fn open(address: SocketAddr) -> Self {
        let mut peer = Self::connect(address);
        let request = b"GET /api/acme/events HTTP/1.1\r\nhost: t\r\n\r\n";
        peer.send(kind::DATA, request);
        peer.receive("event: connected");
        peer
    }

    /// A stream that has already updated the keys of both directions.
    pub(super) fn updated(server: &Local) -> Self {
        let mut peer = Self::open(server.secure);
        let mut count = 0;
        loop {
            server.publish(&format!("warm{count}"));
            peer.receive(&format!("warm{count}"));
            count += 1;
            if peer.keys.generation > 0 {
                return peer;
            }
            assert!(count < 20, "the server requests a key update");
        }
    }

    fn connect(address: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(address).expect("it listens");
        socket.set_read_timeout(Some(BOUND)).expect("a socket");
        socket.set_write_timeout(Some(BOUND)).expect("a socket");
        socket.set_nodelay(true).expect("a socket");
        let log = Arc::new(KeyLog::memory());
        let mut config = Certificate::of_tests().trusting(default_provider(), &[&TLS13], &[]);
        config.key_log = log.clone();
        let name = ServerName::from(address.ip());
        let mut session = ClientConnection::new(config.into(), name).expect("a session");
        let mut hello = Vec::new();
        session.write_tls(&mut hello).expect("memory");
        socket.write_all(&hello).expect("it reads");
        while session.is_handshaking() {
            // Record by record, so that rustls has none that come after the handshake.
            let record = read(&mut socket).expect("a record of the handshake");
            session.read_tls(&mut &record[..]).expect("memory");
            session.process_new_packets().expect("a handshake");
            while session.wants_write() {
                session.write_tls(&mut socket).expect("it reads");
            }
        }
        let suite = u16::from(session.negotiated_cipher_suite().expect("negotiated").suite());
        let secret = |label| log.secret(label, &hello[11..43]).expect("logged");
        let keys = Keys::new(suite, secret("CLIENT_TRAFFIC_SECRET_0"));
        let server = Opener::new(suite, secret("SERVER_TRAFFIC_SECRET_0"));
        Self { socket, keys, server, messages: Vec::new(), requests: 0, answers: 0, records: 0 }
    }

    /// Sends a record with this type inside.
    pub(super) fn send(&mut self, kind: u8, content: &[u8]) {
        let record = self.keys.seal(kind, content);
        self.send_bytes(&record);
    }

    /// Sends these bytes as they are.
    pub(super) fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).expect("it reads");
    }

    /// The same, where the server may have closed the connection.
    pub(super) fn try_send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// A record with a KeyUpdate; what follows is sealed with the next keys.
    pub(super) fn key_update(&mut self, requested: bool) -> Vec<u8> {
        let record =
            self.keys.seal(kind::HANDSHAKE, if requested { &REQUESTED } else { &NOT_REQUESTED });
        self.keys.update();
        record
    }

    /// Reads until the data contains this, and answers requests of key updates meanwhile.
    pub(super) fn receive(&mut self, end: &str) {
        self.receive_only(end);
        self.answer_all();
    }

    /// Reads until the data contains this, and sends nothing.
    pub(super) fn receive_only(&mut self, end: &str) {
        let mut received = String::new();
        while !received.contains(end) {
            match self.next().unwrap_or_else(|| panic!("it ended after {received:?}")) {
                Message::Data(data) => received.push_str(&String::from_utf8_lossy(&data)),
                Message::KeyUpdate { requested: true } => self.requests += 1,
                Message::KeyUpdate { requested: false } => self.answers += 1,
                Message::Handshake(4) => {}
                other => panic!("{other:?} after {received:?}"),
            }
        }
    }

    /// Answers the requests of key updates that were received.
    pub(super) fn answer_all(&mut self) {
        for _ in 0..std::mem::take(&mut self.requests) {
            let answer = self.key_update(false);
            self.send_bytes(&answer);
        }
    }

    /// Asserts that the server sends so many key updates for those that were requested, and goes on.
    pub(super) fn is_answered(&mut self, server: &Local, answers: usize, what: &str) {
        self.answers = 0;
        let mut count = 0;
        // What is published at once may come before the server has read the request.
        while self.answers < answers || count < 2 {
            assert!(count < 1_000, "{what}: {} answers", self.answers);
            let key = format!("after{count}-");
            server.publish(&key);
            self.receive(&key);
            count += 1;
        }
        assert_eq!(self.answers, answers, "{what}");
    }

    /// The messages up to the end of the connection, however it comes, without data.
    pub(super) fn rest(&mut self) -> Vec<Message> {
        self.read_to_end().1
    }

    /// The data up to the end of the connection, however it comes, and the other messages.
    pub(super) fn read_to_end(&mut self) -> (String, Vec<Message>) {
        let (mut data, mut others) = (String::new(), Vec::new());
        while let Some(message) = self.next() {
            match message {
                Message::Data(bytes) => data.push_str(&String::from_utf8_lossy(&bytes)),
                other => others.push(other),
            }
        }
        (data, others)
    }

    /// The records that the server has sent after the handshake.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Ends the connection with RST.
    pub(super) fn reset(self) {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).expect("a socket");
    }

    /// The next message of the server; `None` at the end of the connection.
    fn next(&mut self) -> Option<Message> {
        while self.messages.is_empty() {
            let record = read(&mut self.socket)?;
            self.messages = self.server.open(&record);
            self.records += 1;
        }
        Some(self.messages.remove(0).message)
    }
}

/// A whole record; `None` at the end of the connection.
fn read(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut record = vec![0; HEADER];
    socket.read_exact(&mut record).inspect_err(assert_not_late).ok()?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(HEADER + length, 0);
    socket.read_exact(&mut record[HEADER..]).inspect_err(assert_not_late).ok()?;
    Some(record)
}

fn assert_not_late(why: &std::io::Error) {
    assert_ne!(why.kind(), std::io::ErrorKind::WouldBlock, "the server sends nothing in time");
}
