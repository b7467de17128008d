//! What HTTP/2 lets a client do that no browser does: floods, bombs and nonsense. Memory stays bounded, no
//! seat is left, and other clients are served.

use crate::support::http2_client::{
    ACK, END_HEADERS, END_STREAM, End, Http2Client, WIDE, block, code, frame, kind, request,
};
use crate::support::server::Signal;
use crate::support::{Server, Stream, Transport, eventually};

/// What a flood may cost, however long it is: far less than what was sent or asked for.
const COST: u64 = 8 << 20;

const MANY: u32 = 10_000;

/// A server with a subscriber that must not be hurt.
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

    /// Sees that the flood cost little, and that all is as before.
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

/// Sends as much of it as the server takes, and returns why it hung up if it did.
fn send(client: &mut Http2Client, bytes: &[u8]) -> Option<u32> {
    // What is answered has to be read, or both would wait for each other.
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

/// CVE-2023-44487: the request is cancelled before it is answered, again and again.
#[test]
fn a_rapid_reset() {
    let scene = Scene::begin(&[]);
    let mut client = scene.client();
    let asks = request("GET", "/api/acme/events");
    let flood: Vec<_> = streams()
        .flat_map(|n| {
            [headers(n, &asks), frame(kind::RST_STREAM, 0, n, &code::CANCEL.to_be_bytes())]
        })
        .flatten()
        .collect();
    scene.survives(|| {
        assert_eq!(send(&mut client, &flood), Some(code::ENHANCE_YOUR_CALM));
    });
}

/// CVE-2025-8671: the same, where the client makes the server do the reset.
#[test]
fn a_reset_that_the_server_is_made_to_do() {
    let scene = Scene::begin(&[]);
    let mut client = scene.client();
    let asks = request("GET", "/api/acme/events");
    let flood: Vec<_> = streams()
        .flat_map(|n| [headers(n, &asks), frame(kind::WINDOW_UPDATE, 0, n, &[0; 4])])
        .flatten()
        .collect();
    scene.survives(|| assert!(send(&mut client, &flood).is_some()));
}

/// CVE-2024-27316: a header block that never ends.
#[test]
fn a_flood_of_continuations() {
    let scene = Scene::begin(&[]);
    let mut client = scene.client();
    let mut flood = frame(kind::HEADERS, END_STREAM, 1, &request("GET", "/livez"));
    let field = block(&[("x", &"y".repeat(4_000))]);
    (0..MANY).for_each(|_| flood.extend(frame(kind::CONTINUATION, 0, 1, &field)));
    scene.survives(|| assert!(send(&mut client, &flood).is_some()));
}

/// The same in which nothing is said.
#[test]
fn a_flood_of_empty_continuations() {
    let scene = Scene::begin(&["--head-timeout", "1s"]);
    let mut client = scene.client();
    let mut flood = frame(kind::HEADERS, END_STREAM, 1, &request("GET", "/livez"));
    (0..MANY).for_each(|_| flood.extend(frame(kind::CONTINUATION, 0, 1, &[])));
    scene.survives(|| assert!(send(&mut client, &flood).is_some()));
}

/// A few bytes each that stand for four thousand (RFC 7541, 7.3).
#[test]
fn an_hpack_bomb() {
    let scene = Scene::begin(&[]);
    let mut client = scene.client();
    // It is put into the dynamic table, whose first field has the number 62.
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
fn a_head_has_a_size() {
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

/// Each is owed an answer, for which a client that does not read has no room.
#[test]
fn a_flood_of_what_is_answered() {
    for kind in [kind::PING, kind::SETTINGS] {
        let scene = Scene::begin(&["--peer-timeout", "1s"]);
        let mut client = scene.client();
        let payload: &[u8] = if kind == kind::PING { &[7; 8] } else { &[] };
        let flood = frame(kind, 0, 0, payload).repeat(1_000);
        scene.survives(|| {
            // At some time the server takes no more, or has hung up.
            client.shorten_write_timeout();
            let sent = (0..2_000).take_while(|_| client.try_send_bytes(&flood).is_ok()).count();
            assert!(sent < 2_000, "17 MB were taken");
            client.abort();
        });
    }
}

#[test]
fn a_flood_of_what_is_not_answered() {
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

/// CVE-2019-9518: pieces of a body with nothing in them.
#[test]
fn a_flood_of_empty_data() {
    let scene = Scene::begin(&["--body-timeout", "1s"]);
    let mut client = scene.client();
    let mut flood = frame(kind::HEADERS, END_HEADERS, 1, &request("POST", "/api/acme/events"));
    (0..MANY).for_each(|_| flood.extend(frame(kind::DATA, 0, 1, &[])));
    scene.survives(|| {
        _ = send(&mut client, &flood);
        client.abort();
    });
}

/// As many streams as there may be, each with as large a head and body as there may be.
#[test]
fn as_much_as_is_allowed() {
    let scene = Scene::begin(&["--body-timeout", "2s"]);
    let mut client = scene.client();
    // Its window is as wide as it will be once it has answered.
    client.ping();
    let field = block(&[("x", &"y".repeat(14_000))]);
    let mut streams = Vec::new();
    for _ in 0..256 {
        let stream = client.take_stream();
        let head = [request("POST", "/api/acme/events"), field.clone()].concat();
        client.send(kind::HEADERS, END_HEADERS, stream, &head);
        streams.push(stream);
    }
    // All that the connection's window allows.
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
fn a_slow_body_is_given_up_and_others_on_its_connection_go_on() {
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

/// SCENARIO: a client of a full server waits for the server's first words before it asks, as browsers may.
/// BUG: it was told to go at once, and never heard when to come back.
/// FIX: it is told to go once it has asked.
#[test]
fn a_full_server_says_so_and_lets_go() {
    let server = Server::start(&["--connections", "2", "--head-timeout", "1h"]);
    let _inside: Vec<_> = (0..2).map(|_| server.connect()).collect();
    eventually("both are in", || server.metric("nudged_connections") == 3);
    let mut client = Http2Client::connect(server.address(), WIDE);
    client.ping();
    let stream = client.get("/api/acme/events");
    let livez = client.get("/livez");
    assert_eq!((client.status(stream), client.status(livez)), (200, 200));
    let (end, said) = client.end(stream);
    assert_eq!(end, End::Stream);
    assert!(
        said.starts_with("retry: ") && said.contains("as many connections as it may"),
        "{said}"
    );
    assert_eq!(client.closing(), Some(code::NO_ERROR));
}

/// RFC 9113, 8.1.1: what HTTP/1 would take for a request within a request must not even be begun.
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
        ("a path that does not begin", [&get[..3], &[(":path", "livez")]].concat()),
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
        ("a line in a value", with("x", "a\r\nb: c")),
    ] {
        let mut client = scene.client();
        let asks = client.take_stream();
        client.send_bytes(&headers(asks, &block(&fields)));
        let outcome = client.outcome(asks);
        assert_eq!(outcome, Err(code::PROTOCOL_ERROR), "{what}");
    }
    for fields in [with("te", "trailers"), [&get[..2], &get[3..]].concat()] {
        let asks = client.take_stream();
        client.send_bytes(&headers(asks, &block(&fields)));
        assert_eq!(client.outcome(asks), Ok(200), "{fields:?}");
    }
    scene.server.publish("acme", &["still"]);
    assert!(client.event(stream).contains("[\"still\"]"), "a stream without an error goes on");
    client.close();
}

#[test]
fn nonsense_ends_its_connection() {
    let scene = Scene::begin(&[]);
    for (nonsense, why) in [
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
        client.send_bytes(&nonsense);
        assert_eq!(client.closing(), Some(why), "{nonsense:x?}");
    }
    scene.survives(|| ());
}

/// SCENARIO: a client sends what the HTTP/2 library warns of, once for every frame.
/// BUG: each frame was a line of the log, at the default level. FIX: the library logs nothing.
#[test]
fn a_flood_fills_no_log() {
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
    let mut said = String::new();
    std::io::Read::read_to_string(&mut log, &mut said).expect("text");
    assert_eq!(said, "");
}
