//! Responses that their client does not receive, and bodies that it does not finish: both have bounds of bytes and of
//! time, on every transport.

use crate::support::http2_client::{
    END_HEADERS, END_STREAM, End, Http2Client, PREFACE, WIDE, code, kind, request,
};
use crate::support::peer::{Dual, Peer};
use crate::support::{Server, Transport, eventually};

/// Requests that one connection may have open.
const REQUESTS: usize = 256;

/// SCENARIO: a client without a token shuts its flow-control windows, requests `/metrics` 256 times, and responds to
/// pings.
/// BUG: the responses were kept for as long as the client liked, 1.6 MiB a connection.
/// FIX: a response that the client has not received within `--body-timeout` is reset, be it with hyper (without any
/// window) or with h2 (with a window of some bytes).
#[test]
fn responses_that_a_client_does_not_receive_are_reset() {
    let server =
        Server::start(&["--body-timeout", "1s", "--head-timeout", "1h", "--keepalive", "1s"]);
    for window in [0, 1, 100] {
        let mut client = Http2Client::connect(server.address(), window);
        let stream = client.get("/api/acme/events");
        client.grant(stream, WIDE - window);
        client.event(stream);
        let requests: Vec<_> = (1..REQUESTS).map(|_| client.get("/metrics")).collect();
        for request in requests {
            assert_eq!(client.status(request), 200);
            let (end, received) = client.end(request);
            assert_eq!((end, received.len()), (End::Reset(code::CANCEL), window as usize));
        }
        // Neither its stream nor a response that it receives is harmed.
        let id = server.publish("acme", &["posts"]).expect("subscribed");
        assert!(std::iter::repeat_with(|| client.event(stream)).any(|event| event.contains(&id)));
        let livez = client.get("/livez");
        client.grant(livez, 1_000);
        assert_eq!(client.end(livez), (End::Stream, "live\n".into()));
        client.close();
        eventually("no connection is left", || server.metric("nudged_connections") == 1);
    }
}

/// The same where it is the window of the connection that stays shut.
#[test]
fn responses_that_a_connection_has_no_window_for_are_reset() {
    let server = Server::start(&["--body-timeout", "1s", "--head-timeout", "1h"]);
    let socket = std::net::TcpStream::connect(server.address()).expect("it listens");
    let mut client = Http2Client::silent(socket);
    client.send_bytes(PREFACE);
    let settings = [&[0, 1][..], &0_u32.to_be_bytes(), &[0, 4], &WIDE.to_be_bytes()].concat();
    client.send(kind::SETTINGS, 0, 0, &settings);
    let requests: Vec<_> = (0..REQUESTS).map(|_| client.get("/metrics")).collect();
    let ends: Vec<_> = requests.into_iter().map(|request| client.end(request)).collect();
    let received: usize = ends.iter().map(|(_, body)| body.len()).sum();
    assert_eq!(received, 65_535, "the window that a connection has without any update");
    assert!(ends.iter().filter(|(end, _)| *end == End::Reset(code::CANCEL)).count() > REQUESTS / 2);
}

/// SCENARIO: a client sends requests one after the other over HTTP/1, and reads no response.
/// BUG: what its socket did not take was kept until the kernel gave it up at `--peer-timeout`.
/// FIX: a connection that takes nothing for `--body-timeout` is reset.
#[test]
fn a_client_of_http1_that_reads_no_response_is_closed() {
    for transport in Transport::http1() {
        let hour = ["--peer-timeout", "1h", "--head-timeout", "1h", "--stall-timeout", "1h"];
        let args = ["--body-timeout", "1s", "--workers", "1"];
        let dual = Dual::start(&[&hour[..], &args].concat());
        drop(dual.connect(transport));
        dual.is_left_empty("a connection before");
        let before = dual.server.descriptors();
        let mut peer = dual.connect(transport);
        let get = peer.request("GET", "/metrics", None).repeat(100);
        // The last is a stream, which waits for the responses before it.
        peer.send_until_full(&get);
        let stream = peer.request("GET", "/api/acme/events", None);
        peer.send(&stream, false);
        dual.is_left_empty(&format!("{transport:?}"));
        eventually("its descriptor is closed", || dual.server.descriptors() <= before);
        drop::<Peer>(peer);
    }
}

/// Sends the head of a publish, and as much of its body as the server accepts, up to `bytes`.
fn begin_publish(client: &mut Http2Client, bytes: usize) -> u32 {
    let stream = client.take_stream();
    client.send(kind::HEADERS, END_HEADERS, stream, &request("POST", "/api/acme/events"));
    let mut left = bytes;
    while left > 0 && !client.has_status(stream) {
        let some = left.min(16_000);
        client.send_data(stream, &vec![b' '; some]);
        left -= some;
    }
    stream
}

/// SCENARIO: a client begins 256 publishes on one connection, and ends none of them.
/// BUG: each body could take `--publish-bytes`: 16.7 MiB a connection, where 128 KiB were promised.
/// FIX: all of them together may take `--connection-body-bytes`, 256 KiB; one beyond is refused.
#[test]
fn unfinished_bodies_of_one_connection_cost_bounded_memory() {
    let server = Server::start(&["--body-timeout", "5s"]);
    let mut client = Http2Client::connect(server.address(), WIDE);
    client.ping();
    let before = server.memory_peak();
    let publishes: Vec<_> = (0..REQUESTS).map(|_| begin_publish(&mut client, 60_000)).collect();
    let grown = server.memory_peak() - before;
    println!("{grown} bytes");
    assert!(grown < 3 << 20, "{grown} bytes");
    let mut statuses: Vec<_> = publishes.iter().map(|publish| client.status(*publish)).collect();
    // Each of the first four has sent 60,000 bytes, and all together may send 262,144.
    assert_eq!(statuses[..4], [408; 4], "they were too slow");
    statuses.retain(|status| *status == 503);
    assert!(statuses.len() > REQUESTS - 20, "{} were refused", statuses.len());
    // What was refused counts no longer.
    let publish = client.take_stream();
    client.send(kind::HEADERS, END_HEADERS, publish, &request("POST", "/api/acme/events"));
    client.send(kind::DATA, END_STREAM, publish, b"{\"keys\":[\"mine\"]}");
    assert_eq!(client.status(publish), 202);
    client.close();
}

/// A frame of one byte must not keep the memory of all that was read with it.
#[test]
fn a_body_of_single_bytes_costs_no_more_than_its_bytes() {
    let server = Server::start(&["--body-timeout", "5s"]);
    let mut client = Http2Client::connect(server.address(), WIDE);
    client.ping();
    let before = server.memory_peak();
    for _ in 0..REQUESTS - 1 {
        let stream = client.take_stream();
        client.send(kind::HEADERS, END_HEADERS, stream, &request("POST", "/api/acme/events"));
        // Unknown frames, which fill the server's reads around the byte.
        for _ in 0..4 {
            client.send_data(stream, b" ");
            client.send(0x77, 0, 0, &[0; 15_000]);
        }
    }
    client.ping();
    let grown = server.memory_peak() - before;
    println!("{grown} bytes");
    assert!(grown < 3 << 20, "{grown} bytes");
}

/// One publish may always be as large as `--publish-bytes` says.
#[test]
fn a_large_publish_is_not_refused_for_its_connection() {
    let server = Server::start(&["--publish-bytes", "1000000"]);
    let mut client = Http2Client::connect(server.address(), WIDE);
    let publish = begin_publish(&mut client, 900_000);
    client.send(kind::DATA, END_STREAM, publish, b"{\"keys\":[\"a\"]}");
    assert_eq!(client.status(publish), 202);
}
