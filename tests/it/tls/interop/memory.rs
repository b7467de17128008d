//! The memory of streams whose clients have sent the beginning of a record, and never its end.

use std::net::TcpStream;

use super::peer::Peer;
use super::record::kind;
use crate::support::eventually;
use crate::support::programs::{OPENSSL, requires};
use crate::tls::{secure, start};

#[test]
fn half_a_record_costs_no_more_than_a_record_and_is_returned() {
    requires!(OPENSSL);
    const PEERS: usize = 50;
    const SENT: usize = 16_000;
    let server = start(&["--workers", "1"]);
    let round = || {
        let mut peers: Vec<_> = (0..PEERS).map(|_| Peer::open(secure(&server))).collect();
        let before = server.memory();
        for peer in &mut peers {
            let record = peer.keys.seal(kind::DATA, &[1; 16_384]);
            peer.send_bytes(&record[..SENT]);
        }
        let sockets: Vec<_> = peers.iter().map(Peer::socket).collect();
        eventually("all of it is read", || sockets.iter().all(|socket| is_read(socket)));
        let each = server.memory().saturating_sub(before) as usize / PEERS;
        assert!(each < 20 * 1024, "{each} bytes for half a record");
        drop(peers);
        eventually("the seats are free", || server.seats() == 0);
        server.memory()
    };
    let first = round();
    let last = [(); 4].map(|()| round())[3];
    // A leak of what each round holds would be 3 MiB.
    assert!(last < first + (1 << 20), "{first} bytes after a round, {last} after five");
}

/// Whether the server has read all that was sent on this loopback connection (`proc_net_tcp(5)`).
fn is_read(socket: &TcpStream) -> bool {
    let [local, peer] = [socket.local_addr(), socket.peer_addr()]
        .map(|end| format!(":{:04X} ", end.expect("connected").port()));
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("it is there");
    // The server's end: its own address comes first.
    let line = sockets
        .lines()
        .find(|line| line.split_once(&peer).is_some_and(|(_, rest)| rest.contains(&local)));
    let queues = line.and_then(|line| line.split_whitespace().nth(4));
    queues.is_some_and(|queues| queues.ends_with(":00000000"))
}
