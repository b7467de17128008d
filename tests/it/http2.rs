//! Many streams on one HTTP/2 connection: each receives its own events, has its own window, and ends by itself or
//! with its connection.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::support::http2_client::{
    END_HEADERS, END_STREAM, End, Http2Client, PREFACE, WIDE, code, frame, kind, request,
};
use crate::support::server::Signal;
use crate::support::{Server, eventually};

/// A keepalive interval that is longer than any test.
const FLAGS: &[&str] = &["--coalesce", "0", "--keepalive", "1h"];

fn server(more: &[&str]) -> Server {
    Server::start(&[FLAGS, more].concat())
}

fn stream_of(client: &mut Http2Client, org: &str) -> u32 {
    let stream = client.get(&format!("/api/{org}/events"));
    assert_eq!(client.status(stream), 200);
    assert!(client.event(stream).contains("event: connected\n"));
    stream
}

fn expect(client: &mut Http2Client, stream: u32, key: &str) {
    let event = client.event(stream);
    assert!(
        event.contains("event: invalidate\n") && event.contains(&format!("[\"{key}\"]")),
        "{event}"
    );
}

#[test]
fn each_of_many_streams_receives_the_events_of_its_own_org_only() {
    let server = server(&[]);
    let mut client = Http2Client::connect(server.address(), WIDE);
    let orgs = ["acme", "shop", "blog", "wiki"];
    let streams: Vec<_> =
        (0..100).map(|n| (orgs[n % 4], stream_of(&mut client, orgs[n % 4]))).collect();
    assert_eq!(server.seats(), 100);
    for org in orgs {
        server.publish(org, &[&format!("of-{org}")]);
    }
    for (org, stream) in &streams {
        expect(&mut client, *stream, &format!("of-{org}"));
    }
    client.ping();
    assert!(
        streams.iter().all(|(_, stream)| client.received(*stream) == 0),
        "no event of another org"
    );
}

#[test]
fn the_streams_of_a_connection_are_limited() {
    let server = server(&[]);
    let mut client = Http2Client::connect(server.address(), WIDE);
    let streams: Vec<_> = (0..256).map(|_| stream_of(&mut client, "acme")).collect();
    let refused = client.get("/api/acme/events");
    assert_eq!(client.end(refused).0, End::Reset(code::REFUSED_STREAM));
    assert_eq!(server.seats(), 256);
    client.reset(streams[7]);
    eventually("one seat is free", || server.seats() == 255);
    let late = stream_of(&mut client, "acme");
    server.publish("acme", &["posts"]);
    for stream in streams.into_iter().filter(|stream| *stream != 15).chain([late]) {
        expect(&mut client, stream, "posts");
    }
}

/// SCENARIO: an address may have two connections, and opens 256 streams on each.
/// BUG: each stream costs what one of HTTP/1 costs, and none was counted.
/// FIX: `--address-streams` and `--streams` count the streams of all connections.
#[test]
fn an_address_has_its_limit_of_streams_on_all_connections() {
    for limit in ["--streams", "--address-streams"] {
        let server = server(&["--address-connections", "4", limit, "5"]);
        let mut clients = [0, 1].map(|_| Http2Client::connect(server.address(), WIDE));
        let mut streams: Vec<_> = (0..5).map(|n| stream_of(&mut clients[n % 2], "acme")).collect();
        clients.iter_mut().for_each(expect_refused);
        clients[0].reset(streams.swap_remove(0));
        eventually("there is room", || {
            let stream = clients[1].get("/api/acme/events");
            // A refusal has no event.
            [(); 2].map(|()| clients[1].line(stream))[1].starts_with("id: ")
        });
        clients.iter_mut().for_each(expect_refused);
    }
}

fn expect_refused(client: &mut Http2Client) {
    let refused = client.get("/api/acme/events");
    let (end, body) = client.end(refused);
    assert!(end == End::Stream && body.contains("as many streams as it may, 5"), "{body}");
}

/// The client reads one stream, and grants the others no window.
#[test]
fn a_stream_without_a_window_is_reset_and_its_siblings_are_served() {
    #[rustfmt::skip]
    let large = ["--stall-timeout", "5s", "--peer-timeout", "10m", "--history-events", "2",
        "--publish-bytes", "2000000", "--key-bytes", "65536", "--event-bytes", "1048576"];
    let server = server(&large);
    // A window for the greeting, and little more.
    let mut client = Http2Client::connect(server.address(), 200);
    let sibling = stream_of(&mut client, "acme");
    client.grant(sibling, WIDE - 200);
    let publish = |client: &mut Http2Client, times: usize| {
        for n in 0..times {
            let keys: Vec<_> = (0..4).map(|k| format!("{n}-{k}-{}", "x".repeat(65_000))).collect();
            server.publish("acme", &keys.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(client.event(sibling).len() > 250_000);
        }
    };
    publish(&mut client, 20);
    let before = server.memory();
    let stalled: Vec<_> = (0..20).map(|_| stream_of(&mut client, "acme")).collect();
    publish(&mut client, 64);
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes are buffered");

    for stream in stalled {
        assert_eq!(client.end(stream).0, End::Reset(code::CANCEL));
    }
    eventually("they are counted as stalled", || server.closed().get("stalled") == Some(&20));
    assert_eq!(server.seats(), 1);
    publish(&mut client, 1);
}

/// SCENARIO: a client opens streams and grants them no window, so that not even a greeting fits.
/// BUG: each held its seat for ever, because nothing of it counted as pending.
/// FIX: its greeting counts as pending.
#[test]
fn a_stream_that_never_has_a_window_is_reset_as_stalled() {
    let server = server(&["--stall-timeout", "2s"]);
    let mut client = Http2Client::connect(server.address(), 0);
    let stalled = client.get("/api/acme/events");
    assert_eq!(client.status(stalled), 200);
    let sibling = client.get("/api/acme/events");
    client.grant(sibling, WIDE);
    client.event(sibling);
    assert_eq!(client.end(stalled).0, End::Reset(code::CANCEL));
    eventually("the stream is counted as stalled", || server.closed().get("stalled") == Some(&1));
    server.publish("acme", &["posts"]);
    expect(&mut client, sibling, "posts");
}

/// A stream whose client grants a few bytes at a time is served, with or without another pending event, while others,
/// to which it grants none, are reset.
///
/// SCENARIO: a client receives a large event a few bytes at a time, while another event is pending behind it.
/// BUG: the stall was counted from when the second event was handed to hyper, although bytes of the first were sent,
/// because hyper does not report to a body how much of a frame was sent.
/// FIX: the frame reports it.
#[test]
fn a_stream_whose_window_opens_slowly_is_not_stalled() {
    let server = server(&["--stall-timeout", "3s", "--key-bytes", "65536"]);
    let mut client = Http2Client::connect(server.address(), 200);
    let [slow, first, second] = [(); 3].map(|()| stream_of(&mut client, "acme"));
    let alone = stream_of(&mut client, "other");
    for org in ["acme", "other"] {
        server.publish(org, &[&"x".repeat(60_000)]);
    }
    server.publish("acme", &["posts"]);
    let grant_some = |client: &mut Http2Client, stream: u32| {
        let before = client.received(stream);
        client.grant(stream, 7);
        client
            .until("some bytes arrive", |client| (client.received(stream) > before).then_some(()));
    };
    // Two stall timeouts, one after the other.
    for (n, stalled) in [first, second].into_iter().enumerate() {
        while server.closed().get("stalled").copied().unwrap_or_default() <= n as u64 {
            grant_some(&mut client, slow);
            grant_some(&mut client, alone);
            if n == 0 {
                grant_some(&mut client, second);
            }
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(client.end(stalled).0, End::Reset(code::CANCEL));
    }
    for stream in [slow, alone] {
        client.grant(stream, WIDE / 2);
        assert!(client.event(stream).len() > 60_000);
    }
    expect(&mut client, slow, "posts");
    server.publish("other", &["posts"]);
    expect(&mut client, alone, "posts");
    assert_eq!((server.seats(), server.closed().get("stalled")), (2, Some(&2)));
}

/// It receives either the events it missed, or `connected`, which makes it reread.
#[test]
fn a_stream_whose_window_opens_late_receives_every_event_or_connected() {
    for (history, expected) in [("4", "event: connected\n"), ("256", "[\"key-1\"]")] {
        let server = server(&["--history-events", history]);
        let mut client = Http2Client::connect(server.address(), 200);
        let stream = stream_of(&mut client, "acme");
        let reads = stream_of(&mut client, "acme");
        client.grant(reads, WIDE - 200);
        for n in 0..64 {
            server.publish("acme", &[&format!("key-{n}")]);
            expect(&mut client, reads, &format!("key-{n}"));
        }
        client.grant(stream, WIDE - 200);
        // The first event still fitted into the window.
        expect(&mut client, stream, "key-0");
        let mut event = client.event(stream);
        while history == "4" && event.contains("invalidate") {
            event = client.event(stream);
        }
        assert!(event.contains(expected), "{event}");
        server.publish("acme", &["last"]);
        while !event.contains("[\"last\"]") {
            event = client.event(stream);
        }
    }
}

/// SCENARIO: a probe, or curl with `-I`, sends a `HEAD` over HTTP/2.
/// BUG: the response had a body, which curl takes for an error of the protocol, and for no response.
/// FIX: it is the head, with the length that the body would have.
#[test]
fn the_response_to_head_has_no_body() {
    let server = server(&[]);
    let mut client = Http2Client::connect(server.address(), WIDE);
    let paths = ["/livez", "/metrics", "/nudged.js", "/api/acme/position", "/nowhere"];
    for path in paths.into_iter().chain(["/api/acme/events", "/api/events"]) {
        let stream = client.take_stream();
        client.send(kind::HEADERS, END_STREAM | END_HEADERS, stream, &request("HEAD", path));
        let status = client.status(stream);
        assert_eq!(client.end(stream), (End::Stream, String::new()), "{path}: {status}");
    }
}

/// A way in which a client ends its connection.
type Disconnect = fn(Http2Client);

#[test]
fn a_reset_frees_its_seat_and_a_lost_connection_frees_all() {
    let server = server(&[]);
    let mut client = Http2Client::connect(server.address(), WIDE);
    let mut streams: Vec<_> = (0..20).map(|_| stream_of(&mut client, "acme")).collect();
    streams.drain(..10).for_each(|stream| client.reset(stream));
    eventually("ten seats are free", || server.seats() == 10);
    assert_eq!(server.closed().into_iter().collect::<Vec<_>>(), [("client".into(), 10)]);
    server.publish("acme", &["posts"]);
    streams.iter().for_each(|stream| expect(&mut client, *stream, "posts"));

    let ends: [(&str, Disconnect); 3] = [
        ("client", Http2Client::close),
        ("reset", Http2Client::abort),
        ("client", |mut client| {
            client.send(kind::GOAWAY, 0, 0, &[0; 8]);
            client.close();
        }),
    ];
    for (reason, end) in ends {
        let before = server.closed().get(reason).copied().unwrap_or_default();
        while server.seats() < 10 {
            stream_of(&mut client, "acme");
        }
        end(client);
        eventually("every seat is free", || server.seats() == 0);
        let closed = server.closed();
        assert_eq!(closed.get(reason), Some(&(before + 10)), "{closed:?}");
        client = Http2Client::connect(server.address(), WIDE);
    }
}

/// GOAWAY ends only new streams; open ones are served until the client resets them.
#[test]
fn a_client_that_sends_goaway_keeps_its_streams() {
    let server = server(&["--head-timeout", "1h"]);
    let mut client = Http2Client::connect(server.address(), WIDE);
    let stream = stream_of(&mut client, "acme");
    client.send(kind::GOAWAY, 0, 0, &[0; 8]);
    client.ping();
    server.publish("acme", &["posts"]);
    expect(&mut client, stream, "posts");
    client.reset(stream);
    eventually("its seat is free", || server.seats() == 0);
    assert_eq!(client.closing(), Some(code::NO_ERROR));
}

#[test]
fn a_drain_sends_goaway_and_ends_every_stream_in_order() {
    let mut server = server(&["--drain-window", "500ms", "--head-timeout", "1h"]);
    let mut client = Http2Client::connect(server.address(), WIDE);
    let streams: Vec<_> = (0..20).map(|_| stream_of(&mut client, "acme")).collect();
    server.signal(Signal::TERM);
    for stream in streams {
        let (end, last) = client.end(stream);
        assert_eq!(end, End::Stream);
        assert!(last.starts_with("retry: ") && last.matches('\n').count() == 1, "{last:?}");
    }
    assert_eq!(client.closing(), Some(code::NO_ERROR));
    assert_eq!(server.wait(), Some(0));
}

/// The connection stays open.
#[test]
fn a_stream_ends_at_its_maximum_age_without_its_connection() {
    let server = server(&["--max-stream-age", "2s"]);
    let mut client = Http2Client::connect(server.address(), WIDE);
    let streams: Vec<_> = (0..20).map(|_| stream_of(&mut client, "acme")).collect();
    for stream in streams {
        assert_eq!(client.end(stream), (End::Stream, String::new()));
    }
    eventually("each is counted", || server.closed().get("max_age") == Some(&20));
    // The connection accepts another stream.
    stream_of(&mut client, "acme");
}

#[test]
fn an_idle_connection_is_closed() {
    let server = server(&["--head-timeout", "1s", "--idle-timeout", "1s"]);
    let mut client = Http2Client::connect(server.address(), WIDE);
    let answer = client.get("/livez");
    assert_eq!((client.status(answer), client.end(answer).0), (200, End::Stream));
    assert_eq!(client.closing(), Some(code::NO_ERROR));
    // A connection with a stream is not idle; one with half of a head is.
    let mut client = Http2Client::connect(server.address(), WIDE);
    let stream = stream_of(&mut client, "acme");
    let mut without_pongs = Http2Client::connect(server.address(), WIDE);
    without_pongs.ignore_pings();
    let half = frame(kind::HEADERS, END_HEADERS, 1, &request("GET", "/livez"));
    let mut half_a_head = Http2Client::connect(server.address(), WIDE);
    half_a_head.send_bytes(&half[..20]);
    let mut half_a_preface =
        Http2Client::silent(TcpStream::connect(server.address()).expect("it listens"));
    half_a_preface.send_bytes(&PREFACE[..PREFACE.len() - 3]);
    let mut without_settings =
        Http2Client::silent(TcpStream::connect(server.address()).expect("it listens"));
    without_settings.send_bytes(PREFACE);
    for client in [&mut without_pongs, &mut half_a_head, &mut half_a_preface, &mut without_settings]
    {
        client.closing();
    }
    server.publish("acme", &["posts"]);
    expect(&mut client, stream, "posts");
    eventually("only two are left", || server.metric("nudged_connections") == 2);
}

/// Its kernel acknowledges every packet, but the client acknowledges no PING.
#[test]
fn a_client_that_acknowledges_no_ping_is_closed() {
    let server = Server::start(&["--coalesce", "0", "--keepalive", "1s", "--peer-timeout", "1s"]);
    let mut alive = Http2Client::connect(server.address(), WIDE);
    let stream = stream_of(&mut alive, "acme");
    // It acknowledges PINGs while it waits for this event.
    let alive = thread::spawn(move || while !alive.event(stream).contains("posts") {});
    let mut client = Http2Client::connect(server.address(), WIDE);
    let streams: Vec<_> = (0..10).map(|_| stream_of(&mut client, "acme")).collect();
    client.ignore_pings();
    client.closing();
    for stream in streams {
        assert_eq!(client.end(stream).0, End::Connection);
    }
    eventually("one seat is left", || server.seats() == 1);
    assert_eq!(server.closed().into_iter().collect::<Vec<_>>(), [("timeout".into(), 10)]);
    server.publish("acme", &["posts"]);
    alive.join().expect("the event arrived");
}

/// SCENARIO: a client sends the preface of HTTP/2 after requests of HTTP/1, as an attacker may to smuggle requests
/// through a proxy.
/// BUG: the connection switched to HTTP/2, and frames followed the responses.
/// FIX: the preface is valid only at the start of a connection (RFC 9113, 3.4); later it ends the connection.
#[test]
fn an_http2_preface_after_requests_ends_the_connection() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let request = b"GET /livez HTTP/1.1\r\nhost: t\r\n\r\n";
    client.send_bytes(&[request, PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat());
    assert_eq!(client.read_answer().status(), 200);
    assert_eq!(client.read_to_end(), b"");
}
