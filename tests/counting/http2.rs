//! What an idle stream costs over HTTP/2, with a hundred of them to a connection. The client writes and reads frames
//! (RFC 9113, 6) and holds nothing but sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering::Relaxed;

use super::counting::{LIVE_BYTES, allocations};
use super::{KEYS, connect, post, read_until, start};

const STREAMS: u32 = 100;

/// Bytes of a stream that is open, with its part of the connection's. A third is h2's own record of it.
const STREAM_BYTES: f64 = 1_400.0;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM_AND_HEADERS: u8 = 5;

pub(super) fn is_bounded() {
    let (address, _stop) = start();
    let mut publisher = connect(address);
    let (post, mut connections) = (post(&KEYS), Vec::new());
    let mut live = Vec::new();
    connections.reserve_exact(20);
    for count in [10, 20] {
        while connections.len() < count {
            connections.push(open(address));
        }
        // Once this event has arrived, the work of the new streams is finished.
        publish(&mut publisher, &post, &mut connections);
        live.push(LIVE_BYTES.load(Relaxed));
    }
    let bytes = (live[1] - live[0]) as f64 / f64::from(10 * STREAMS);
    println!("bytes for each open stream over HTTP/2: {bytes:.0}");
    assert!(bytes <= STREAM_BYTES, "{bytes} bytes a stream");

    let rounds = (0..10).map(|_| allocations(|| publish(&mut publisher, &post, &mut connections)));
    let of_all = rounds.min().expect("ten");
    println!("allocations of a publish to {} streams over HTTP/2: {of_all}", 20 * STREAMS);
    assert!(of_all <= 20, "{of_all} allocations");
}

/// Publishes, and reads the event on all streams.
fn publish(publisher: &mut TcpStream, post: &str, connections: &mut [TcpStream]) {
    publisher.write_all(post.as_bytes()).expect("it listens");
    read_until(publisher, b"}");
    connections.iter_mut().for_each(read_events);
}

/// A connection whose requests arrive at once, and are as short as HPACK can make them (RFC 7541, 6.1, 6.2.1).
fn open(address: SocketAddr) -> TcpStream {
    const METHOD_AND_SCHEME: [u8; 2] = [0x82, 0x86];
    let path = KEYS.stream.as_bytes();
    let indexed = [&METHOD_AND_SCHEME[..], &[0xbf, 0xbe]].concat();
    let literal = [
        &METHOD_AND_SCHEME[..],
        &[0x44, u8::try_from(path.len()).expect("short")],
        path,
        &[0x41, 9],
        b"localhost",
    ]
    .concat();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut bytes, SETTINGS, 0, 0, &[]);
    frame(&mut bytes, WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    for number in 0..STREAMS {
        let head = if number == 0 { &literal } else { &indexed };
        frame(&mut bytes, HEADERS, END_STREAM_AND_HEADERS, 2 * number + 1, head);
    }
    let mut connection = connect(address);
    connection.write_all(&bytes).expect("it listens");
    // The greetings.
    read_events(&mut connection);
    connection
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    for part in [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload] {
        bytes.extend_from_slice(part);
    }
}

/// Reads frames until each stream has received an event, which is a frame.
fn read_events(connection: &mut TcpStream) {
    let mut events = STREAMS;
    while events > 0 {
        let (mut head, mut payload) = ([0; 9], [0; 4096]);
        connection.read_exact(&mut head).expect("more, in time");
        let payload = &mut payload[..usize::from(u16::from_be_bytes([head[1], head[2]]))];
        connection.read_exact(payload).expect("more, in time");
        match (head[3], head[4]) {
            (DATA, _) => {
                assert!(payload.ends_with(b"\n\n"), "{payload:?}");
                events -= 1;
            }
            (kind @ (SETTINGS | PING), 0) => {
                let length = if kind == PING { 8 } else { 0 };
                let reply = [&[0, 0, length, kind, ACK, 0, 0, 0, 0][..], &payload[..length.into()]];
                reply.iter().for_each(|part| connection.write_all(part).expect("it listens"));
            }
            (kind, _) => assert!(matches!(kind, HEADERS | SETTINGS | WINDOW_UPDATE), "{kind}"),
        }
    }
}
