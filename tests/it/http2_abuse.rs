//! Abuse that HTTP/2 allows a client: floods, bombs and malformed frames. Memory stays bounded, no seat is left, and
//! other clients are served.

use crate::support::http2_client::{
    ACK, END_HEADERS, END_STREAM, End, Http2Client, WIDE, block, code, frame, kind, request,
};
use crate::support::server::Signal;
use crate::support::{Server, Stream, Transport, eventually};

/// Bytes that a flood of any length may cost: far less than was sent or requested.
const COST: u64 = 8 << 20;

const MANY: u32 = 10_000;

/// A server with a subscriber that must be served throughout.
struct Scene {
    server: Server,
    subscriber: Stream,
}

// ===== impl Scene =====

impl Scene {
    fn begin(more: &[&str]) -> Self {
        let server = Server::start(&[&["--coalesce", "0", "--keepalive", "1h"], more].concat());
        let mut subscriber = server.stream("acme");
        subscriber.connected();
        Self { server, subscriber }
    }

    fn client(&self) -> Http2Client {
        Http2Client::connect(self.server.address(), WIDE)
    }

    /// Asserts that the flood costs little memory, and that the subscriber is served after it.
    fn survives(mut self, flood: impl FnOnce()) {
        let before = self.server.memory_peak();
        flood();
        let grown = self.server.memory_peak() - before;
        assert!(grown < COST, "it cost {grown} bytes");
        eventually("no seat is left", || self.server.seats() == 1);
        let id = self.server.publish("acme", &["posts"]).expect("subscribed");
        self.subscriber.expect_invalidate(&id, &["posts"]);
        eventually("no connection is left", || self.server.metric("nudged_connections") == 2);
    }
}

/// Sends as much as the server reads; returns the error code if it closed the connection.
fn send(client: &mut Http2Client, bytes: &[u8]) -> Option<u32> {
    // Replies have to be read, or client and server would wait for each other.
    for some in bytes.chunks(64 * 1024) {
        if client.try_send_bytes(some).is_err() {
            return client.closing();
        }
        client.read_available();
    }
    client.ping_or_close();
    client.closed.then_some(client.goaway).flatten()
}

fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, END_STREAM | END_HEADERS, stream, block)
}

fn streams() -> impl Iterator<Item = u32> {
    (0..MANY).map(|n| n * 2 + 1)
}

/// CVE-2023-44487: requests that are cancelled before their response.
#[test]
fn a_rapid_reset_ends_its_connection() {
    let scene = Scene::begin(&[]);
    let mut client = scene.client();
    let get = request("GET", "/api/acme/events");
    let flood: Vec<_> = streams()
        .flat_map(|n| {
            [headers(n, &get), frame(kind::RST_STREAM, 0, n, &code::CANCEL.to_be_bytes())]
        })
        .flatten()
        .collect();
    scene.survives(|| {
        assert_eq!(send(&mut client, &flood), Some(code::ENHANCE_YOUR_CALM));
    });
}

/// SCENARIO: requests in groups, each followed by the resets of all of its requests.
/// BUG: the server read so little at a time that it began each group before it had read the resets.
/// FIX: it reads more at a time once requests end.
#[test]
fn a_rapid_reset_of_groups_ends_its_connection() {
    let scene = Scene::begin(&[]);
    let mut client = scene.client();
    let get = request("GET", "/api/acme/events");
    let streams: Vec<_> = streams().collect();
    let group = |group: &[u32]| {
        let resets = group.iter().map(|n| (*n, kind::RST_STREAM, code::CANCEL.to_be_bytes()));
        let opened = group.iter().flat_map(|n| headers(*n, &get));
        opened
            .chain(resets.flat_map(|(n, kind, code)| frame(kind, 0, n, &code)))
            .collect::<Vec<_>>()
    };
    let flood: Vec<_> = streams.chunks(12).flat_map(group).collect();
    scene.survives(|| {
        assert_eq!(send(&mut client, &flood), Some(code::ENHANCE_YOUR_CALM));
    });
}

/// A page that opens streams and cancels most of them, again and again, is no flood.
#[test]
fn a_client_may_cancel_any_number_of_streams_over_time() {
    let scene = Scene::begin(&[]);
    let mut client = scene.client();
    let kept = client.get("/api/acme/events");
    client.event(kept);
    for _ in 0..100 {
        let streams = [(); 20].map(|()| client.get("/api/acme/events"));
        // Half of them at once, before a response.
        let (at_once, later) = streams.split_at(10);
        at_once.iter().for_each(|stream| client.reset(*stream));
        later.iter().for_each(|stream| _ = client.event(*stream));
        later.iter().for_each(|stream| client.reset(*stream));
    }
    client.ping();
    scene.server.publish("acme", &["still"]);
    assert!(client.event(kept).contains("[\"still\"]"));
    client.close();
    let Scene { mut subscriber, server } = scene;
    assert!(subscriber.next().contains("[\"still\"]"));
    Scene { server, subscriber }.survives(|| ());
}

/// CVE-2025-8671: the same, but the client provokes the server into the reset.
#[test]
fn resets_provoked_from_the_server_end_the_connection() {
    let scene = Scene::begin(&[]);
    let mut client = scene.client();
    let get = request("GET", "/api/acme/events");
    let flood: Vec<_> = streams()
        .flat_map(|n| [headers(n, &get), frame(kind::WINDOW_UPDATE, 0, n, &[0; 4])])
        .flatten()
        .collect();
    scene.survives(|| assert!(send(&mut client, &flood).is_some()));
}

/// CVE-2024-27316.
#[test]
fn a_header_block_without_end_ends_its_connection() {
    let scene = Scene::begin(&[]);
    let mut client = scene.client();
    let mut flood = frame(kind::HEADERS, END_STREAM, 1, &request("GET", "/livez"));
    let field = block(&[("x", &"y".repeat(4_000))]);
    (0..MANY).for_each(|_| flood.extend(frame(kind::CONTINUATION, 0, 1, &field)));
    scene.survives(|| assert!(send(&mut client, &flood).is_some()));
}

/// The same with empty frames.
#[test]
fn a_flood_of_empty_continuations_ends_its_connection() {
    let scene = Scene::begin(&["--head-timeout", "1s"]);
    let mut client = scene.client();
    let mut flood = frame(kind::HEADERS, END_STREAM, 1, &request("GET", "/livez"));
    (0..MANY).for_each(|_| flood.extend(frame(kind::CONTINUATION, 0, 1, &[])));
    scene.survives(|| assert!(send(&mut client, &flood).is_some()));
}

/// Each byte of the block refers to a field of four thousand bytes (RFC 7541, 7.3).
#[test]
fn an_hpack_bomb_costs_bounded_memory() {
    let scene = Scene::begin(&[]);
    let mut client = scene.client();
    // The field goes into the dynamic table, whose first index is 62.
    let mut bomb = block(&[("x", &"y".repeat(3_900))]);
    bomb[0] = 0x40;
    let bomb = [request("GET", "/livez"), bomb, vec![0x80 | 62; 12_000]].concat();
    scene.survives(|| {
        for n in 0..100 {
            if send(&mut client, &headers(n * 2 + 1, &bomb)).is_some() {
                break;
            }
        }
        client.close();
    });
}

#[test]
fn the_size_of_a_head_is_limited() {
    let scene = Scene::begin(&["--head-bytes", "8192"]);
    let mut client = scene.client();
    for (size, status) in [(7_000, 200), (9_000, 431), (12_000, 431)] {
        let stream = client.take_stream();
        let field = block(&[("x", &"y".repeat(size))]);
        client.send_bytes(&headers(stream, &[request("GET", "/livez"), field].concat()));
        assert_eq!(client.status(stream), status, "{size}");
    }
    client.close();
    scene.survives(|| ());
}

/// The server has to reply to each frame, but the client does not read the replies.
#[test]
fn a_flood_of_frames_that_need_a_reply_costs_bounded_memory() {
    for kind in [kind::PING, kind::SETTINGS] {
        let scene = Scene::begin(&["--peer-timeout", "1s"]);
        let mut client = scene.client();
        let payload: &[u8] = if kind == kind::PING { &[7; 8] } else { &[] };
        let flood = frame(kind, 0, 0, payload).repeat(1_000);
        scene.survives(|| {
            // At some point the server stops reading, or closes the connection.
            client.shorten_write_timeout();
            let sent = (0..2_000).take_while(|_| client.try_send_bytes(&flood).is_ok()).count();
            assert!(sent < 2_000, "the server has read 17 MB");
            client.abort();
        });
    }
}

#[test]
fn a_flood_of_frames_without_reply_costs_bounded_memory() {
    for (kind, payload) in [
        (kind::PRIORITY, &[0, 0, 0, 3, 16][..]),
        (kind::PING, &[7; 8]),
        // An unknown kind.
        (0x77, &[0; 100]),
    ] {
        let scene = Scene::begin(&[]);
        let mut client = scene.client();
        let (flags, stream) = match kind {
            kind::PRIORITY => (0, 1),
            kind::PING => (ACK, 0),
            _ => (0, 0),
        };
        let flood = frame(kind, flags, stream, payload).repeat(100_000);
        scene.survives(|| {
            _ = send(&mut client, &flood);
            client.abort();
        });
    }
}

/// CVE-2019-9518.
#[test]
fn a_flood_of_empty_data_frames_costs_bounded_memory() {
    let scene = Scene::begin(&["--body-timeout", "1s"]);
    let mut client = scene.client();
    let mut flood = frame(kind::HEADERS, END_HEADERS, 1, &request("POST", "/api/acme/events"));
    (0..MANY).for_each(|_| flood.extend(frame(kind::DATA, 0, 1, &[])));
    scene.survives(|| {
        _ = send(&mut client, &flood);
        client.abort();
    });
}

/// The largest allowed number of streams, each with the largest allowed head and body.
#[test]
fn the_largest_allowed_requests_cost_bounded_memory() {
    let scene = Scene::begin(&["--body-timeout", "2s"]);
    let mut client = scene.client();
    // By the time of the reply, the server has announced its full window.
    client.ping();
    let field = block(&[("x", &"y".repeat(14_000))]);
    let mut streams = Vec::new();
    for _ in 0..256 {
        let stream = client.take_stream();
        let head = [request("POST", "/api/acme/events"), field.clone()].concat();
        client.send(kind::HEADERS, END_HEADERS, stream, &head);
        streams.push(stream);
    }
    // As much as the connection's window allows.
    for stream in streams.iter().take(7) {
        client.send(kind::DATA, 0, *stream, &[b' '; 16_000]);
    }
    scene.survives(|| {
        for stream in streams {
            assert_eq!(client.status(stream), 408, "a slow body");
        }
        client.close();
    });
}

#[test]
fn a_slow_body_times_out_without_harm_to_its_connection() {
    let scene = Scene::begin(&["--body-timeout", "1s"]);
    let mut client = scene.client();
    let stream = client.get("/api/acme/events");
    client.event(stream);
    let publish = client.take_stream();
    client.send(kind::HEADERS, END_HEADERS, publish, &request("POST", "/api/acme/events"));
    client.send(kind::DATA, 0, publish, b"{\"keys\":[");
    assert_eq!(client.status(publish), 408);
    client.end(publish);
    let publish = client.take_stream();
    client.send(kind::HEADERS, END_HEADERS, publish, &request("POST", "/api/acme/events"));
    client.send(kind::DATA, END_STREAM, publish, b"{\"keys\":[\"mine\"]}");
    assert_eq!(client.status(publish), 202);
    assert!(client.event(stream).contains("[\"mine\"]"));
    client.close();
    let Scene { mut subscriber, server } = scene;
    assert!(subscriber.next().contains("[\"mine\"]"));
    Scene { server, subscriber }.survives(|| ());
}

/// SCENARIO: a client of a full server waits for the server's SETTINGS before its first request, as browsers may.
/// BUG: the server sent GOAWAY at once, so that the client never received a reconnection time.
/// FIX: it sends GOAWAY after the first request.
#[test]
fn a_full_server_responds_before_it_closes_the_connection() {
    let server = Server::start(&["--connections", "2", "--head-timeout", "1h"]);
    let _inside = server.streams("acme", 2);
    let mut client = Http2Client::connect(server.address(), WIDE);
    client.ping();
    let stream = client.get("/api/acme/events");
    let livez = client.get("/livez");
    assert_eq!((client.status(stream), client.status(livez)), (200, 200));
    let (end, body) = client.end(stream);
    assert_eq!(end, End::Stream);
    assert!(
        body.starts_with("retry: ") && body.contains("as many connections as it may"),
        "{body}"
    );
    assert_eq!(client.closing(), Some(code::NO_ERROR));
}

/// RFC 9113, 8.1.1: a malformed request must be reset before it is processed, or it could smuggle another one through
/// a server of HTTP/1.
#[test]
fn a_malformed_request_is_refused() {
    let scene = Scene::begin(&[]);
    let mut client = scene.client();
    let stream = client.get("/api/acme/events");
    client.event(stream);
    let get =
        [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/livez")];
    let with = |name: &'static str, value: &'static str| [&get[..], &[(name, value)]].concat();
    for (what, fields) in [
        ("no path", get[..3].to_vec()),
        ("an empty path", [&get[..3], &[(":path", "")]].concat()),
        ("a path without a slash", [&get[..3], &[(":path", "livez")]].concat()),
        ("a path with a space", [&get[..3], &[(":path", "/li vez")]].concat()),
        ("no method", get[1..].to_vec()),
        ("a path twice", with(":path", "/livez")),
        ("an unknown pseudo-field", with(":unknown", "x")),
        ("a pseudo-field last", [&[("x", "y")], &get[..]].concat()),
        ("an uppercase name", with("X-Upper", "x")),
        ("a connection", with("connection", "close")),
        ("a keep-alive", with("keep-alive", "1")),
        ("an upgrade", with("upgrade", "websocket")),
        ("a transfer-encoding", with("transfer-encoding", "chunked")),
        ("a te", with("te", "gzip")),
        ("a line end in a value", with("x", "a\r\nb: c")),
    ] {
        let mut client = scene.client();
        let stream = client.take_stream();
        client.send_bytes(&headers(stream, &block(&fields)));
        let outcome = client.outcome(stream);
        assert_eq!(outcome, Err(code::PROTOCOL_ERROR), "{what}");
    }
    for fields in [with("te", "trailers"), [&get[..2], &get[3..]].concat()] {
        let stream = client.take_stream();
        client.send_bytes(&headers(stream, &block(&fields)));
        assert_eq!(client.outcome(stream), Ok(200), "{fields:?}");
    }
    scene.server.publish("acme", &["still"]);
    assert!(
        client.event(stream).contains("[\"still\"]"),
        "the stream of another connection is served"
    );
    client.close();
}

#[test]
fn malformed_frames_end_their_connection() {
    let scene = Scene::begin(&[]);
    for (malformed, why) in [
        (frame(kind::HEADERS, END_STREAM | END_HEADERS, 1, &[0xff; 9]), code::PROTOCOL_ERROR),
        (
            frame(kind::HEADERS, END_STREAM | END_HEADERS, 2, &request("GET", "/")),
            code::PROTOCOL_ERROR,
        ),
        (frame(kind::CONTINUATION, 0, 1, &[]), code::PROTOCOL_ERROR),
        (frame(kind::DATA, 0, 0, b"x"), code::PROTOCOL_ERROR),
        (frame(kind::DATA, 0, 9, b"x"), code::PROTOCOL_ERROR),
        (vec![0xff; 9], 6),
    ] {
        let mut client = scene.client();
        client.ping();
        client.send_bytes(&malformed);
        assert_eq!(client.closing(), Some(why), "{malformed:x?}");
    }
    scene.survives(|| ());
}

/// SCENARIO: a client floods the server with frames for each of which the HTTP/2 library logs a warning.
/// BUG: each frame wrote a line to the log, at the default level.
/// FIX: the library's messages are not logged.
#[test]
fn a_flood_of_frames_does_not_fill_the_log() {
    let mut command = Server::command();
    command.stderr(std::process::Stdio::piped());
    let mut server =
        Server::start_as(command, Transport::Http1, &["--log", "warn,h2::proto=trace"]);
    let mut log = server.take_stderr();
    let mut client = Http2Client::connect(server.address(), WIDE);
    let flood = frame(kind::PING, ACK, 0, &[7; 8]).repeat(10_000);
    assert_eq!(send(&mut client, &flood), None);
    client.close();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut log, &mut text).expect("text");
    assert_eq!(text, "");
}
