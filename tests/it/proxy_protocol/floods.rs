//! Connections of proxies that send no header, or no request after it, and their end when the server drains.

use std::net::TcpStream;

use super::balancer::{LIVEZ, LOCAL, STREAM, connect, header, refused, server, socket};
use crate::support::server::Signal;
use crate::support::{Client, Server, Transport, eventually};

const CONNECTIONS: usize = 4;
/// More than the limit, and what may be open beyond it.
const MANY: usize = 40;

fn small() -> Server {
    let mut command = Server::command_by(&["sh", "-c", "ulimit -n 80 && exec \"$0\" \"$@\""]);
    command.stderr(std::process::Stdio::null());
    let args = ["--workers", "1", "--connections", "4", "--head-timeout", "1h", "--coalesce", "0"];
    Server::start_as(
        command,
        Transport::Http1,
        &[&args[..], &["--proxy-protocol-from", "127.0.0.2"]].concat(),
    )
}

fn silence(server: &Server, first: &[u8]) -> Vec<TcpStream> {
    let connect = |_| {
        let mut socket = socket(server.address());
        // It may be closed by now.
        _ = std::io::Write::write_all(&mut socket, first);
        socket
    };
    (0..MANY).map(connect).collect()
}

/// SCENARIO: a host in the proxy's network opens connections and sends nothing on them, or no whole header.
/// FIX: they count against the limit of connections, and the oldest is closed for the next connection of any client.
#[test]
fn connections_that_wait_for_their_header_keep_no_client_out() {
    for first in [&b""[..], &LOCAL[..15]] {
        let server = small();
        let _silent = silence(&server, first);
        eventually("all places are taken", || {
            server.metric("nudged_connections") >= CONNECTIONS as u64
        });
        // All places are theirs: directly, and behind a proxy.
        let mut streams = server.streams("acme", 2);
        for client in ["192.0.2.1", "192.0.2.2"] {
            let mut client_socket = connect(&server);
            client_socket.send_bytes(&[&header(client)[..], STREAM.as_bytes()].concat());
            let head = client_socket.read_head();
            assert!(
                head.starts_with("HTTP/1.1 200 ") && !head.contains("content-length"),
                "{head}"
            );
            let mut stream = crate::support::Stream { client: client_socket, head };
            stream.connected();
            streams.push(stream);
        }
        assert!(server.metric("nudged_evicted_total{kind=\"idle\"}") >= CONNECTIONS as u64);
        assert_eq!(server.get("/api/acme/events").status(), 503, "streams are never ended");
        let id = server.publish("acme", &["a"]).expect("subscribed");
        streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["a"]));
    }
}

/// The header arrives as the connection is closed to make room, or just before: either way there is one outcome.
#[test]
fn a_header_that_comes_late_finds_its_connection_open_or_closed() {
    let server = small();
    let mut waiting: Vec<_> = (0..CONNECTIONS).map(|_| connect(&server)).collect();
    server.settle();
    for client in &mut waiting {
        _ = client.try_send_bytes(&header("192.0.2.1"));
    }
    let mut others: Vec<_> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    for client in waiting.iter_mut().chain(&mut others) {
        _ = client.try_send_bytes(LIVEZ.as_bytes());
    }
    let answered = waiting.iter_mut().chain(&mut others);
    let answered = answered.filter_map(|client| client.try_read_until(b"\r\n\r\n").ok()).count();
    assert!(answered >= CONNECTIONS, "{answered}");
    drop((waiting, others));
    eventually("every place is free", || server.metric("nudged_connections") == 1);
    let _streams = server.streams("acme", CONNECTIONS);
}

/// What a drain finds waiting gets a task, and has the time that a request has.
#[test]
fn a_header_that_is_on_its_way_when_the_server_drains_is_received() {
    let mut server = server(Transport::Http1, &["--drain-delay", "0", "--drain-window", "0"]);
    let whole = header("192.0.2.1");
    let mut clients: Vec<Client> = [0, 1, 16, 27]
        .map(|length| {
            let mut client = connect(&server);
            client.send_bytes(&whole[..length]);
            client
        })
        .into();
    server.settle();
    assert_eq!(refused(&server, "missing"), 0);
    server.signal(Signal::TERM);
    for (client, length) in clients.iter_mut().zip([0, 1, 16, 27]) {
        client.send_bytes(&[&whole[length..], LIVEZ.as_bytes()].concat());
        assert_eq!(client.read_answer().status(), 200);
    }
    drop(clients);
    assert_eq!(server.wait(), Some(0));
}
