//! Connections behind TLS, from their first byte to their stream. There is no task but for those that leave the reactor.

mod ends;

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ServerConfig};

use super::waiting::{LIVEZ, STREAM, connect};
use super::*;
use crate::admission::Entrance;
use crate::server::tls::test_sessions::{client, configs_of, records};
use crate::server::tls::{Handshake, release_sessions};

/// The client's end of a connection behind TLS.
struct TlsClient {
    socket: TcpStream,
    session: ClientConnection,
    /// What it has received, decrypted.
    received: Vec<u8>,
}

/// A rig, and how its clients do their handshakes.
struct TlsRig {
    rig: Rig,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// What becomes of a session once its stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Tls12,
    /// TLS 1.3, left to rustls.
    Kept,
    Released,
}

const SORTS: [Sort; 3] = [Sort::Tls12, Sort::Kept, Sort::Released];

// ===== impl TlsClient =====

impl TlsClient {
    /// Receives what has arrived.
    fn receive(&mut self) {
        while self.session.wants_read()
            && self.session.read_tls(&mut self.socket).is_ok_and(|n| n > 0)
        {
            self.session.process_new_packets().expect("TLS");
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = self.session.reader().read(&mut bytes) {
                self.received.extend_from_slice(&bytes[..length]);
            }
        }
    }

    /// What it has to send now.
    fn records(&mut self) -> Vec<u8> {
        records(&mut self.session)
    }

    /// Sends what it has to send, with this data.
    fn send(&mut self, data: &[u8]) {
        self.session.writer().write_all(data).expect("a session");
        let records = self.records();
        self.write(&records);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("connected");
    }

    fn has_received(&mut self, text: &str) -> bool {
        self.receive();
        let records = self.records();
        self.write(&records);
        String::from_utf8_lossy(&self.received).contains(text)
    }
}

// ===== impl TlsRig =====

impl TlsRig {
    fn new() -> Self {
        Self::of(Sort::Released)
    }

    fn of(sort: Sort) -> Self {
        let version = if sort == Sort::Tls12 { &TLS12 } else { &TLS13 };
        let (mut server, client) = configs_of(&[version]);
        if sort != Sort::Kept {
            release_sessions(Arc::make_mut(&mut server));
        }
        Self { rig: Rig::new(uncoalesced(8)), server, client }
    }

    /// A client that has sent nothing.
    async fn connect(&mut self) -> TlsClient {
        let (socket, accepted) = connect(&self.rig.admission).await;
        socket.set_nodelay(true).expect("a socket");
        let handshake = Handshake::Silent(self.server.clone());
        self.rig.handle.accept(accepted, Some(handshake));
        self.rig.run().await;
        TlsClient { socket, session: client(self.client.clone()), received: Vec::new() }
    }

    /// A client that has received the server's part of the handshake, and has its own last part to send.
    async fn hello(&mut self) -> TlsClient {
        let mut client = self.connect().await;
        client.send(b"");
        self.until_answered(&mut client).await;
        client
    }

    /// The client receives the server's part of the handshake, after which it has a last part to send.
    async fn until_answered(&mut self, client: &mut TlsClient) {
        self.rig
            .run_until(|| {
                client.receive();
                client.session.wants_write()
            })
            .await;
    }

    /// A client whose handshake is complete for both.
    async fn handshake(&mut self) -> TlsClient {
        let mut client = self.hello().await;
        self.rig
            .run_until(|| {
                client.send(b"");
                client.receive();
                !client.session.is_handshaking()
            })
            .await;
        client
    }

    /// The stream of this client is open in the reactor, and gets what is published.
    async fn assert_streams(&mut self, client: &mut TlsClient) {
        let hub = self.rig.hub.clone();
        self.rig.run_until(|| client.has_received("event: connected")).await;
        // The last task may have to end.
        self.rig.run_until(|| tasks() == 0).await;
        assert_eq!(hub.seats(), 1);
        self.rig.publish("after");
        self.rig.run_until(|| client.has_received("after")).await;
    }

    fn connections(&self) -> usize {
        self.rig.admission.connections(Entrance::Public)
    }

    async fn until_released(&mut self) {
        let admission = self.rig.admission.clone();
        self.rig.run_until(|| admission.connections(Entrance::Public) == 0).await;
        assert_eq!(self.rig.hub.seats(), 0);
    }
}

/// Tasks that serve connections.
fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Waits for the kernel and the tasks until `done`, within a bound.
async fn poll_until(mut done: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        yield_now().await;
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("not done within twenty seconds");
}

/// The bytes of a record, in records of this many bytes at most.
fn split(record: &[u8], size: usize) -> Vec<u8> {
    let (header, fragment) = record.split_at(5);
    let part = |part: &[u8]| [&header[..3], &(part.len() as u16).to_be_bytes(), part].concat();
    fragment.chunks(size).flat_map(part).collect()
}

#[tokio::test]
async fn the_reactor_does_a_handshake_and_begins_the_stream_of_the_first_request() {
    for sort in SORTS {
        let mut rig = TlsRig::of(sort);
        let mut client = rig.handshake().await;
        client.send(STREAM);
        rig.assert_streams(&mut client).await;
        drop(client);
        rig.until_released().await;
    }
}

#[tokio::test]
async fn a_request_may_come_with_the_end_of_the_handshake() {
    for sort in SORTS {
        let mut rig = TlsRig::of(sort);
        let mut client = rig.hello().await;
        client.send(STREAM);
        rig.assert_streams(&mut client).await;
    }
}

/// Of one byte each, of every record that the client sends.
#[tokio::test]
async fn a_handshake_may_come_in_pieces() {
    let mut rig = TlsRig::new();
    let mut client = rig.connect().await;
    let mut parts = vec![client.records()];
    while let Some(part) = parts.pop() {
        for byte in part {
            client.write(&[byte]);
            rig.rig.run().await;
        }
        rig.rig
            .run_until(|| {
                client.receive();
                client.session.wants_write() || !client.session.is_handshaking()
            })
            .await;
        parts.extend(Some(client.records()).filter(|records| !records.is_empty()));
    }
    client.session.writer().write_all(STREAM).expect("a session");
    for byte in client.records() {
        client.write(&[byte]);
        rig.rig.run().await;
    }
    rig.assert_streams(&mut client).await;
}

#[tokio::test]
async fn a_hello_may_be_split_over_records() {
    for size in [1, 7, 100] {
        let mut rig = TlsRig::new();
        let mut client = rig.connect().await;
        let hello = client.records();
        for piece in split(&hello, size).chunks(1_000) {
            client.write(piece);
            rig.rig.run().await;
        }
        rig.until_answered(&mut client).await;
        client.send(STREAM);
        rig.assert_streams(&mut client).await;
    }
}

/// hyper responds to the first, and hands the connection over.
#[tokio::test]
async fn a_stream_may_follow_other_requests() {
    for sort in SORTS {
        for pipelined in [false, true] {
            let mut rig = TlsRig::of(sort);
            let mut client = rig.handshake().await;
            if pipelined {
                client.send(&[LIVEZ, LIVEZ, STREAM].concat());
            } else {
                client.send(LIVEZ);
                rig.rig.run_until(|| client.has_received("live\n")).await;
                assert_eq!(tasks(), 1);
                client.send(STREAM);
            }
            rig.assert_streams(&mut client).await;
        }
    }
}

/// A record that brings a part of a request is not lost either.
#[tokio::test]
async fn a_request_that_comes_in_pieces_is_hypers() {
    for split in [1, 20, STREAM.len() - 1] {
        let mut rig = TlsRig::new();
        let mut client = rig.handshake().await;
        client.send(&STREAM[..split]);
        rig.rig.run_until(|| tasks() == 1).await;
        client.send(&STREAM[split..]);
        rig.assert_streams(&mut client).await;
    }
}

/// In the record of the request, in records after it, and in one whose end is still to come.
#[tokio::test]
async fn what_follows_the_request_is_discarded() {
    for sort in SORTS {
        let mut rig = TlsRig::of(sort);
        let mut client = rig.handshake().await;
        client.session.writer().write_all(&[STREAM, b"more"].concat()).expect("a session");
        client.session.writer().write_all(&[b'm'; 100]).expect("a session");
        client.session.writer().write_all(&[b'm'; 200]).expect("a session");
        let records = client.records();
        let (first, rest) = records.split_at(records.len() - 70);
        client.write(first);
        rig.assert_streams(&mut client).await;
        client.write(rest);
        client.send(b"even more");
        rig.rig.publish("later");
        rig.rig.run_until(|| client.has_received("later")).await;
    }
}

/// Within the flight of the request, before and after it.
#[tokio::test]
async fn keys_may_be_updated_before_the_stream() {
    for (sort, before_request) in [(Sort::Kept, 3), (Sort::Released, 0), (Sort::Released, 3)] {
        let mut rig = TlsRig::of(sort);
        let mut client = rig.handshake().await;
        for _ in 0..before_request {
            client.session.refresh_traffic_keys().expect("TLS 1.3");
            client.send(b"");
            rig.rig.run().await;
        }
        client.session.refresh_traffic_keys().expect("TLS 1.3");
        client.session.writer().write_all(STREAM).expect("a session");
        client.session.refresh_traffic_keys().expect("TLS 1.3");
        client.send(b"more");
        rig.assert_streams(&mut client).await;
        client.session.refresh_traffic_keys().expect("TLS 1.3");
        client.send(b"more");
        rig.rig.publish("later");
        rig.rig.run_until(|| client.has_received("later")).await;
    }
}

#[tokio::test]
async fn a_client_that_closes_its_session_with_its_request_has_no_stream() {
    for sort in SORTS {
        let mut rig = TlsRig::of(sort);
        let mut client = rig.handshake().await;
        client.session.writer().write_all(STREAM).expect("a session");
        client.session.send_close_notify();
        client.send(b"");
        rig.until_released().await;
        assert_eq!(tasks(), 0);
    }
}

#[tokio::test]
async fn http2_has_a_task_from_the_end_of_its_handshake() {
    let mut rig = TlsRig::new();
    Arc::make_mut(&mut rig.server).alpn_protocols = vec![b"h2".to_vec()];
    Arc::make_mut(&mut rig.client).alpn_protocols = vec![b"h2".to_vec()];
    let mut client = rig.hello().await;
    assert_eq!(tasks(), 0);
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    rig.rig
        .run_until(|| {
            client.receive();
            !client.received.is_empty()
        })
        .await;
    assert_eq!((client.received[3], tasks()), (4, 1), "the server's SETTINGS");
    drop(client);
    rig.until_released().await;
}
