//! A client that composes the bytes of its connection: a request and the end of the connection can arrive together,
//! over every transport.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ALL_VERSIONS, ClientConnection};
use socket2::SockRef;

use super::certificate::Certificate;
use super::http2_client::{END_HEADERS, END_STREAM, PREFACE, frame, kind, request, status};
use super::server::Signal;
use super::{BOUND, Server, Transport, eventually};

/// A server with a cleartext address and, if TLS can be tested, one behind TLS.
pub(crate) struct Dual {
    pub(crate) server: Server,
}

/// One connection, after its handshake.
pub(crate) struct Peer {
    socket: TcpStream,
    session: Option<ClientConnection>,
    transport: Transport,
}

// ===== impl Dual =====

impl Dual {
    pub(crate) fn start(more: &[&str]) -> Self {
        Self::start_as(Server::command(), more)
    }

    pub(crate) fn start_as(mut command: Command, more: &[&str]) -> Self {
        let secure = Transport::all().any(Transport::is_secure);
        if secure {
            command.args(Certificate::of_tests().flags());
            command.args(["--plain-listen", "127.0.0.1:0"]);
        }
        let mut server = Server::start_as(command, Transport::Http1, more);
        // The cleartext address comes first, for the test's own requests.
        server.addresses.reverse();
        Self { server }
    }

    /// Connects, and completes the handshake where there is one.
    pub(crate) fn connect(&self, transport: Transport) -> Peer {
        Peer::new(self.socket(transport), transport)
    }

    /// A connection on which nothing was sent.
    pub(crate) fn socket(&self, transport: Transport) -> TcpStream {
        let address = self.server.addresses[usize::from(transport.is_secure())];
        let socket = TcpStream::connect(address).expect("it listens");
        socket.set_read_timeout(Some(BOUND)).expect("a socket");
        socket.set_write_timeout(Some(BOUND)).expect("a socket");
        socket.set_nodelay(true).expect("a socket");
        socket
    }

    /// Runs `act` while the server is stopped, so that it finds all that was sent at once.
    pub(crate) fn stopped<T>(&self, act: impl FnOnce() -> T) -> T {
        self.server.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.server.pid());
        eventually("every thread is stopped", || {
            std::fs::read_dir(&tasks).expect("it runs").flatten().all(|task| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
            })
        });
        let done = act();
        self.server.signal(Signal::CONT);
        done
    }

    /// Waits until there is neither a seat nor a connection, beside that of the question.
    pub(crate) fn is_left_empty(&self, what: &str) {
        eventually(&format!("no seat is left: {what}"), || self.server.seats() == 0);
        eventually(&format!("no connection is left: {what}"), || {
            self.server.metric("nudged_connections") == 1
        });
    }
}

// ===== impl Peer =====

impl Peer {
    fn new(mut socket: TcpStream, transport: Transport) -> Self {
        let session = transport.is_secure().then(|| {
            let mut session = session(transport);
            while session.is_handshaking() {
                session.complete_io(&mut socket).expect("a handshake");
            }
            session
        });
        Self { socket, session, transport }
    }

    /// What a request looks like on this transport: a publish if it has a body.
    pub(crate) fn request(&self, method: &str, path: &str, body: Option<&str>) -> Vec<u8> {
        let text = body.unwrap_or_default();
        if matches!(self.transport, Transport::Http1 | Transport::Tls) {
            let length = body.map(|body| format!("content-length: {}\r\n", body.len()));
            let head =
                format!("{method} {path} HTTP/1.1\r\nhost: t\r\n{}", length.unwrap_or_default());
            return format!("{head}content-type: application/json\r\n\r\n{text}").into();
        }
        let flags = if body.is_some() { END_HEADERS } else { END_HEADERS | END_STREAM };
        let mut bytes = frame(kind::HEADERS, flags, 1, &request(method, path));
        if body.is_some() {
            bytes.extend(frame(kind::DATA, END_STREAM, 1, text.as_bytes()));
        }
        [PREFACE, &frame(kind::SETTINGS, 0, 0, &[]), &bytes].concat()
    }

    /// Sends these bytes, with close_notify after them, in one write.
    pub(crate) fn send(&mut self, bytes: &[u8], close_notify: bool) {
        let mut wire = Vec::new();
        match &mut self.session {
            Some(session) => {
                session.writer().write_all(bytes).expect("to memory");
                if close_notify {
                    session.send_close_notify();
                }
                while session.wants_write() {
                    session.write_tls(&mut wire).expect("to memory");
                }
            }
            None => wire.extend(bytes),
        }
        // The server may have closed it already.
        _ = self.socket.write_all(&wire);
    }

    /// Sends these bytes again and again, until the server reads no more for a second. Nothing is read.
    pub(crate) fn send_until_full(&mut self, bytes: &[u8]) {
        self.socket.set_write_timeout(Some(Duration::from_secs(1))).expect("a socket");
        let begin = Instant::now();
        loop {
            assert!(begin.elapsed() < BOUND, "the server reads on");
            let mut wire = Vec::new();
            match &mut self.session {
                Some(session) => {
                    session.writer().write_all(bytes).expect("to memory");
                    while session.wants_write() {
                        session.write_tls(&mut wire).expect("to memory");
                    }
                }
                None => wire.extend(bytes),
            }
            if self.socket.write_all(&wire).is_err() {
                return;
            }
        }
    }

    /// Ends our half of the connection with FIN.
    pub(crate) fn half_close(&self) {
        _ = self.socket.shutdown(Shutdown::Write);
    }

    /// The same. Returns once the server's kernel has the FIN: its acknowledgement leads to `FIN_WAIT2`
    /// (`proc_net_tcp(5)`).
    pub(crate) fn half_close_for_sure(&self) {
        self.half_close();
        let ends = [self.socket.local_addr(), self.socket.peer_addr()];
        let [local, peer] = ends.map(|end| format!(":{:04X} ", end.expect("connected").port()));
        eventually("the FIN is acknowledged", || {
            let sockets = std::fs::read_to_string("/proc/net/tcp").expect("it is there");
            let mut sockets = sockets.lines().filter_map(|line| line.split_once(&local));
            sockets.any(|(_, rest)| {
                rest.split_once(&peer).is_some_and(|(_, rest)| rest.starts_with("05 "))
            })
        });
    }

    /// Ends the connection with RST.
    pub(crate) fn reset(self) {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).expect("a socket");
    }

    /// All that the server sends up to the end of the connection, however that comes.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let begin = Instant::now();
        let mut read = Vec::new();
        let mut bytes = [0; 16 * 1024];
        loop {
            // Within TLS it ends with close_notify, with end of file, or with a reset.
            let more = match &mut self.session {
                Some(session) => session.read_tls(&mut self.socket),
                None => self.socket.read(&mut bytes),
            };
            let late = matches!(&more, Err(why) if why.kind() == ErrorKind::WouldBlock);
            assert!(!late && begin.elapsed() < BOUND, "the server did not end the connection");
            match (&mut self.session, more) {
                (Some(session), Ok(n)) => {
                    let is_broken = session.process_new_packets().is_err();
                    _ = session.reader().read_to_end(&mut read);
                    if is_broken || n == 0 {
                        return read;
                    }
                }
                (None, Ok(n @ 1..)) => read.extend(&bytes[..n]),
                _ => return read,
            }
        }
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.transport, Transport::H2 | Transport::H2c)
    }

    /// The status of the only response, if there is one before the end of the connection.
    pub(crate) fn read_answer(&mut self) -> Option<u16> {
        let bytes = self.read_to_end();
        if !self.is_http2() {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            return text.split(' ').nth(1).map(|status| status.parse().expect("a status"));
        }
        let mut frames = &bytes[..];
        while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = frames {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let payload = rest.get(..length)?;
            if *kind == kind::HEADERS {
                return Some(status(payload));
            }
            frames = &rest[length..];
        }
        None
    }

    /// Waits for the end of the connection.
    pub(crate) fn closing(mut self) {
        self.read_to_end();
    }
}

/// A session that trusts the certificate of tests, and has not begun.
pub(crate) fn session(transport: Transport) -> ClientConnection {
    let protocol = if transport == Transport::H2 { "h2" } else { "http/1.1" };
    let config = Certificate::of_tests().trusting(default_provider(), ALL_VERSIONS, &[protocol]);
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(config.into(), name).expect("a session")
}
