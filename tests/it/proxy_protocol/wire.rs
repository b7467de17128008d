//! Headers that are accepted, and what follows them.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use super::balancer::{
    Balancer, LIVEZ, LOCAL, STREAM, connect, expect_none_refused, header, raw, server, socket,
};
use crate::support::bridge::Bridge;
use crate::support::certificate::Certificate;
use crate::support::http2_client::Http2Client;
use crate::support::temp_dir::TempDir;
use crate::support::{BOUND, Client, Server, Stream, Transport, eventually};

const CLIENT: &str = "192.0.2.1";

/// Reads the greeting of a stream that was requested.
fn expect_stream(mut client: Client) -> Stream {
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut stream = Stream { client, head };
    stream.connected();
    stream
}

/// TLS or HTTP gets its first byte, whatever came with the header.
#[test]
fn a_header_may_be_split_anywhere() {
    let server = server(Transport::Http1, &[]);
    let bytes = [&header(CLIENT)[..], STREAM.as_bytes()].concat();
    let mut clients: Vec<_> = (0..bytes.len())
        .map(|length| {
            let mut client = connect(&server);
            client.send_bytes(&bytes[..length]);
            (client, &bytes[length..])
        })
        .collect();
    // Now it has read all of these parts.
    server.settle();
    clients.iter_mut().for_each(|(client, rest)| client.send_bytes(rest));
    let mut streams: Vec<_> =
        clients.into_iter().map(|(client, _)| expect_stream(client)).collect();
    let id = server.publish("acme", &["a"]).expect("subscribed");
    streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["a"]));
    expect_none_refused(&server);
    drop(streams);
    eventually("every seat and connection is free", || {
        server.seats() == 0 && server.metric("nudged_connections") == 1
    });
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let server = server(Transport::Http1, &[]);
    let vectors = [&header("2001:db8::1")[16..], &[4, 0, 2, 0, 0]].concat();
    for (header, requests) in [(header(CLIENT), STREAM), (raw(0x21, 0x21, &vectors), STREAM)] {
        let mut client = connect(&server);
        for byte in [&header[..], requests.as_bytes()].concat() {
            client.send_bytes(&[byte]);
            server.get("/livez");
        }
        expect_stream(client);
    }
    expect_none_refused(&server);
}

/// Requests that the reactor does not serve, and several on a connection.
#[test]
fn what_follows_is_served_as_without_a_header() {
    let server = server(Transport::Http1, &[]);
    let mut client = connect(&server);
    client.send_bytes(&[&header(CLIENT)[..], LIVEZ.as_bytes(), LIVEZ.as_bytes()].concat());
    (0..2).for_each(|_| assert_eq!(client.read_answer().status(), 200));
    client.send(STREAM);
    expect_stream(client);

    let mut http2 = socket(server.address());
    Write::write_all(&mut http2, &header(CLIENT)).expect("connected");
    let mut http2 = Http2Client::on(http2, 65_535);
    let stream = http2.get("/api/acme/events");
    assert_eq!(http2.status(stream), 200);
    assert!(http2.event(stream).contains("event: connected"));

    let mut twice = connect(&server);
    twice.send_bytes(&[&header(CLIENT)[..], &header(CLIENT), LIVEZ.as_bytes()].concat());
    assert!(twice.read_head().starts_with("HTTP/1.1 400 "), "one header, and then a request");
    expect_none_refused(&server);
}

/// In cleartext and behind TLS, over HTTP/1 and HTTP/2; the client reads what it would read without a balancer.
#[test]
fn every_transport_is_served_behind_a_balancer() {
    for transport in Transport::all() {
        let server = server(transport, &[]);
        let balancer = Balancer::start(server.listens_on[0], CLIENT);
        let bridge = match transport {
            Transport::Http1 => None,
            transport => Some(Bridge::to(balancer.address, transport)),
        };
        let address = bridge.as_ref().map_or(balancer.address, |bridge| bridge.address);
        let open = || Stream::open(Client::connect(address), "/api/acme/events", "");
        let mut streams: Vec<_> = (0..3).map(|_| open()).collect();
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        let id = server.publish("acme", &["a"]).expect("subscribed");
        streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["a"]));
        let mut client = Client::connect(address);
        client.send(LIVEZ);
        assert_eq!(client.read_answer().status(), 200, "{transport:?}");
        drop((streams, client));
        eventually("every seat is free", || server.seats() == 0);
        expect_none_refused(&server);
    }
}

/// Health checks, and balancers that do not know an address.
#[test]
fn a_header_without_an_address_is_of_the_proxy_itself() {
    let server = server(Transport::Http1, &["--address-connections", "1"]);
    let unix = raw(0x21, 0x31, &[0; 216]);
    let udp = raw(0x21, 0x12, &header(CLIENT)[16..]);
    let local = raw(0x20, 0x11, &header(CLIENT)[16..]);
    let mut open = Vec::new();
    for header in [&LOCAL[..], &local, &raw(0x21, 0, b""), &unix, &udp].repeat(3) {
        let mut client = connect(&server);
        client.send_bytes(&[header, LIVEZ.as_bytes()].concat());
        let answer = client.read_answer();
        assert_eq!((answer.status(), answer.header("connection")), (200, None), "{header:?}");
        open.push(client);
    }
    // None of them was closed for another.
    for client in &mut open {
        client.send(LIVEZ);
        assert_eq!(client.read_answer().status(), 200);
    }
    // And a check of the connection alone, with and without a header.
    for first in [&b""[..], &LOCAL] {
        let mut client = connect(&server);
        client.send_bytes(first);
        client.half_close();
        assert_eq!(client.read_to_end(), b"");
        let mut client = connect(&server);
        client.send_bytes(first);
        client.reset();
    }
    server.settle();
    expect_none_refused(&server);
}

/// The internal address is for backends and probes, which come directly, from the network of the proxies too.
#[test]
fn public_addresses_need_the_header_and_internal_ones_do_not() {
    let tls = Certificate::of_tests();
    let more = ["--plain-listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"];
    let server = server(Transport::Http1, &[&tls.flags()[..], &more].concat());
    let [secure, plain, internal] = server.addresses[..] else { panic!("three addresses") };
    let answers = |to: SocketAddr, first: &[u8]| {
        let mut client = Client::on(socket(to));
        client.send_bytes(&[first, LIVEZ.as_bytes()].concat());
        let head = client.try_read_until(b"\r\n\r\n").ok()?;
        String::from_utf8(head).ok()?.split(' ').nth(1)?.parse::<u16>().ok()
    };
    assert_eq!(answers(plain, &header(CLIENT)), Some(200));
    assert_eq!(answers(plain, b""), None);
    assert_eq!(answers(internal, b""), Some(200));
    assert_eq!(answers(internal, &header(CLIENT)), Some(400));
    assert_eq!(answers(secure, b""), None, "it would say that it speaks TLS");
    assert_eq!(answers(secure, &header(CLIENT)), Some(400), "it says that it speaks TLS");
    let balancer = Balancer::start(secure, CLIENT);
    let bridge = Bridge::to(balancer.address, Transport::Tls);
    Stream::open(Client::connect(bridge.address), "/api/acme/events", "").connected();
}

/// Where the balancer is a process of the same machine.
#[test]
fn a_header_names_the_client_of_a_unix_socket() {
    let dir = TempDir::new();
    let listen = format!("127.0.0.1:0,unix:{}", dir.file("socket"));
    let args = ["--proxy-protocol-from", "unix", "--address-streams", "1", "--listen", &listen];
    let server = server(Transport::Http1, &args);
    let connect = |parts: &[&[u8]]| {
        let mut socket = UnixStream::connect(dir.path().join("socket")).expect("it listens");
        socket.set_read_timeout(Some(BOUND)).expect("a socket");
        for part in parts {
            socket.write_all(part).expect("connected");
            server.settle();
        }
        socket
    };
    let status = |mut socket: UnixStream| {
        let mut status = [0; 12];
        let read = socket.read_exact(&mut status);
        (read.is_ok().then(|| String::from_utf8_lossy(&status).into_owned()), socket)
    };
    let header = header(CLIENT);
    let parts: Vec<_> = header.chunks(9).chain([STREAM.as_bytes()]).collect();
    let (first, _open) = status(connect(&parts));
    assert_eq!(first.as_deref(), Some("HTTP/1.1 200"));
    let plain = STREAM.replace("accept: text/event-stream\r\n", "");
    let (second, _) = status(connect(&[&header, plain.as_bytes()]));
    assert_eq!(second.as_deref(), Some("HTTP/1.1 503"), "one stream of this client is open");
    let _checks = [(); 3].map(|()| {
        let (check, socket) = status(connect(&[&LOCAL, STREAM.as_bytes()]));
        assert_eq!(check.as_deref(), Some("HTTP/1.1 200"), "it has no address");
        socket
    });
    assert_eq!(status(connect(&[LIVEZ.as_bytes()])).0, None);
    assert_eq!(super::balancer::refused(&server, "missing"), 1);
}

/// The wait for a header costs no task: a connection that sends none costs what one costs that waits for its request.
#[test]
fn a_connection_that_waits_for_its_header_costs_what_others_cost() {
    const COUNT: usize = 2_000;
    let memory = |first: &[u8], from: &dyn Fn(&Server) -> std::net::TcpStream| {
        let server = server(Transport::Http1, &["--head-timeout", "1h"]);
        server.settle();
        let before = server.memory();
        let sockets: Vec<_> = (0..COUNT)
            .map(|_| {
                let mut socket = from(&server);
                Write::write_all(&mut socket, first).expect("connected");
                socket
            })
            .collect();
        eventually("all are accepted", || server.metric("nudged_connections") == COUNT as u64 + 1);
        let memory = server.memory().saturating_sub(before) / COUNT as u64;
        drop(sockets);
        memory
    };
    let proxy = |server: &Server| socket(server.address());
    let ordinary = |server: &Server| std::net::TcpStream::connect(server.address()).expect("it");
    let (silent, begun, usual) =
        (memory(b"", &proxy), memory(&LOCAL[..15], &proxy), memory(b"", &ordinary));
    println!("{silent}, {begun} and {usual} bytes");
    assert!(silent.max(begun) < usual + 600, "{silent}, {begun} and {usual} bytes");
}
