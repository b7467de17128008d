//! An L4 balancer, and what it sends.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::support::{Client, Server, Transport};

/// Where the proxies are.
pub(crate) const PROXY: [u8; 4] = [127, 0, 0, 2];
const FROM: [&str; 2] = ["--proxy-protocol-from", "127.0.0.2"];

pub(crate) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// A health check's (LOCAL).
pub(crate) const LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

pub(crate) const STREAM: &str =
    "GET /api/acme/events HTTP/1.1\r\nhost: t\r\naccept: text/event-stream\r\n\r\n";
pub(crate) const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: t\r\n\r\n";

/// Adds the header of one client to each connection, and forwards bytes. Ends with the test's process.
#[derive(Clone, Copy)]
pub(crate) struct Balancer {
    pub(crate) address: SocketAddr,
}

// ===== impl Balancer =====

impl Balancer {
    /// In front of a server, for this client.
    pub(crate) fn start(server: SocketAddr, client: &str) -> Self {
        Self::sending(server, header(client))
    }

    /// Sends this before everything else.
    pub(crate) fn sending(server: SocketAddr, first: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(mut upstream) = try_connect(PROXY.into(), server) else { continue };
                if upstream.write_all(&first).is_ok() {
                    forward(&client, &upstream);
                    forward(&upstream, &client);
                }
            }
        });
        Self { address }
    }
}

/// Forwards what one sends to the other, and its end.
fn forward(from: &TcpStream, to: &TcpStream) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    thread::spawn(move || {
        if io::copy(&mut Read::by_ref(&mut from), &mut to).is_err() {
            _ = to.shutdown(Shutdown::Both);
        }
        _ = to.shutdown(Shutdown::Write);
    });
}

/// A server with one worker, of which the proxies are these.
pub(crate) fn server(transport: Transport, args: &[&str]) -> Server {
    let mut command = Server::command();
    command.stderr(Stdio::piped());
    let usual = ["--coalesce", "0", "--workers", "1"];
    Server::start_as(command, transport, &[&usual[..], &FROM, args].concat())
}

/// A header with this client's address.
pub(crate) fn header(client: &str) -> Vec<u8> {
    let (family, addresses) = match client.parse().expect("an address") {
        IpAddr::V4(v4) => (0x11, [&v4.octets()[..], &[198, 51, 100, 2]].concat()),
        IpAddr::V6(v6) => (0x21, [v6.octets(), [0; 16]].concat()),
    };
    raw(0x21, family, &[&addresses[..], &[0x12, 0x67, 0x01, 0xBB]].concat())
}

/// A header with this command and family.
pub(crate) fn raw(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a length").to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

/// A connection of a proxy.
pub(crate) fn connect(server: &Server) -> Client {
    Client::on(socket(server.listens_on[0]))
}

pub(crate) fn socket(server: SocketAddr) -> TcpStream {
    try_connect(PROXY.into(), server).expect("it listens")
}

fn try_connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// Refused headers with this cause.
pub(crate) fn refused(server: &Server, reason: &str) -> u64 {
    server.metric(&format!("nudged_proxy_protocol_refused_total{{reason=\"{reason}\"}}"))
}

/// Fails if any header was refused.
pub(crate) fn expect_none_refused(server: &Server) {
    for reason in ["missing", "unfinished", "v1", "oversized", "malformed", "spoofed"] {
        assert_eq!(refused(server, reason), 0, "{reason}");
    }
}
