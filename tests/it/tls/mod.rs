//! TLS: certificates that are replaced while streams are open, versions, resumption, and handshakes that never end.

mod certificates;
mod empty_records;
mod ends;
mod floods;
mod handshakes;
mod interop;
mod streams;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ALL_VERSIONS, ClientConfig, ClientConnection, StreamOwned, SupportedProtocolVersion};

use crate::support::certificate::Certificate;
use crate::support::{BOUND, Server, Transport};

/// A client's end of a connection behind TLS.
type Session = StreamOwned<ClientConnection, TcpStream>;

/// A stream over TLS, read without its framing.
struct Listener(Session);

/// A client that trusts this certificate only.
fn client(trusted: &Certificate, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    trusted.trusting(rustls::crypto::aws_lc_rs::default_provider(), versions, &[])
}

/// A server with an additional cleartext address for the test's own requests. That address comes first.
fn start_as(command: Command, flags: &[&str]) -> Server {
    let cleartext = ["--plain-listen", "127.0.0.1:0", "--coalesce", "0"];
    let mut server = Server::start_as(command, Transport::Http1, &[flags, &cleartext].concat());
    server.addresses.reverse();
    server
}

fn start(more: &[&str]) -> Server {
    start_as(Server::command(), &[&Certificate::of_tests().flags()[..], more].concat())
}

/// The TLS address.
fn secure(server: &Server) -> SocketAddr {
    server.addresses[1]
}

fn connect(server: &Server) -> TcpStream {
    let socket = TcpStream::connect(secure(server)).expect("it listens");
    socket.set_read_timeout(Some(BOUND)).expect("a socket");
    socket.set_write_timeout(Some(BOUND)).expect("a socket");
    socket
}

/// Completes the handshake, or returns why it failed.
fn handshake(server: &Server, config: &Arc<ClientConfig>) -> std::io::Result<Session> {
    let name = ServerName::from(secure(server).ip());
    let session = ClientConnection::new(config.clone(), name).expect("a name");
    let mut session = StreamOwned::new(session, connect(server));
    while session.conn.is_handshaking() {
        session.conn.complete_io(&mut session.sock)?;
    }
    Ok(session)
}

/// Sends a request on a session, and reads to the end of the session.
fn get_livez(session: &mut Session) -> String {
    session
        .write_all(b"GET /livez HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    session.read_to_string(&mut answer).expect("an answer and an orderly end");
    answer
}

// ===== impl Listener =====

impl Listener {
    fn open(server: &Server, trusted: &Certificate) -> Self {
        Self::on(handshake(server, &client(trusted, ALL_VERSIONS).into()).expect("a handshake"))
    }

    fn on(mut session: Session) -> Self {
        session.write_all(b"GET /api/acme/events HTTP/1.1\r\nhost: t\r\n\r\n").expect("sent");
        let mut listener = Self(session);
        listener.receive("event: connected");
        listener
    }

    /// Reads until the text contains `end`.
    fn receive(&mut self, end: &str) {
        let mut received = String::new();
        let mut bytes = [0; 1024];
        while !received.contains(end) {
            let n = self.0.read(&mut bytes).expect("the stream is open");
            assert!(n > 0, "it ended after {received:?}");
            received.push_str(std::str::from_utf8(&bytes[..n]).expect("UTF-8"));
        }
    }
}
