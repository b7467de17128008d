//! No client holds a drain: what carries no complete request, or makes no progress, ends within the grace. Every other
//! limit is an hour, so a server that ends within the test at all has not waited for another.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::support::http2_client::{
    END_HEADERS, END_STREAM, Http2Client, PREFACE, frame, kind, request,
};
use crate::support::large::{LARGE, publish};
use crate::support::peer::{Dual, session};
use crate::support::server::Signal;
use crate::support::{Server, Transport};

const HOUR: [&str; 16] = [
    "--workers",
    "1",
    "--drain-window",
    "0",
    "--drain-timeout",
    "1h",
    "--head-timeout",
    "1h",
    "--body-timeout",
    "1h",
    "--stall-timeout",
    "1h",
    "--peer-timeout",
    "1h",
    "--keepalive",
    "1h",
];

/// What holds the drain, if the server waits for it.
type Hold = Box<dyn std::any::Any + Send>;

fn hold(socket: TcpStream, bytes: &[u8]) -> Hold {
    (&socket).write_all(bytes).expect("the server reads");
    Box::new(socket)
}

/// Has one client hold a drain. Returns once the server has ended.
fn drain_held_by(what: &str, act: impl FnOnce(&Dual) -> Hold) {
    let mut dual = Dual::start(&HOUR);
    let held = act(&dual);
    dual.server.settle();
    dual.server.signal(Signal::TERM);
    println!("{what}");
    assert_eq!(dual.server.wait(), Some(0), "{what}");
    drop(held);
}

type Holder<'a> = (&'a str, Box<dyn FnOnce(&Dual) -> Hold + Send + 'a>);

fn drain_held_by_each(holders: Vec<Holder<'_>>) {
    thread::scope(|scope| {
        for (what, act) in holders {
            scope.spawn(move || drain_held_by(what, act));
        }
    });
}

/// SCENARIO: a client connects and sends nothing, or half a hello, and the server is asked to stop.
/// BUG: it waited for the handshake until `--head-timeout`, 9.6 s.
/// FIX: it waits for `--drain-grace`.
#[test]
fn held_by_a_handshake() {
    if !Transport::all().any(Transport::is_secure) {
        return;
    }
    let mut hello = Vec::new();
    session(Transport::Tls).write_tls(&mut hello).expect("to memory");
    let hello = &hello;
    drain_held_by_each(vec![
        ("a silent connection", Box::new(|dual| hold(dual.socket(Transport::Tls), b""))),
        (
            "half a hello",
            Box::new(|dual| hold(dual.socket(Transport::Tls), &hello[..hello.len() / 2])),
        ),
        ("a hello", Box::new(|dual| hold(dual.socket(Transport::Tls), hello))),
        (
            "half a request in cleartext",
            Box::new(|dual| hold(dual.socket(Transport::Tls), b"GET / HT")),
        ),
    ]);
}

/// The same with a request that is not complete, on every transport.
#[test]
fn held_by_half_a_request() {
    let mut holders: Vec<Holder<'_>> = Vec::new();
    for transport in Transport::all() {
        let send = |cut: fn(&[u8]) -> &[u8]| {
            move |dual: &Dual| -> Hold {
                let mut peer = dual.connect(transport);
                let request = peer.request("GET", "/api/acme/events", None);
                peer.send(cut(&request), false);
                Box::new(peer)
            }
        };
        holders.push(("nothing", Box::new(send(|_| &[]))));
        holders.push(("a few bytes", Box::new(send(|bytes| &bytes[..10]))));
        holders.push(("half a head", Box::new(send(|bytes| &bytes[..bytes.len() - 3]))));
    }
    holders.push((
        "half a head after a request",
        Box::new(|dual| {
            let mut client = dual.server.connect();
            client.send("GET /livez HTTP/1.1\r\nhost: t\r\n\r\nGET /livez HTTP/1.1\r\n");
            client.read_answer();
            Box::new(client)
        }),
    ));
    drain_held_by_each(holders);
}

/// A client of HTTP/2 that does not respond to GOAWAY, with and without an open stream or a response, the window shut.
#[test]
fn held_by_a_client_of_http2_whose_window_is_shut() {
    fn client(dual: &Dual, paths: &[&str]) -> Hold {
        let mut client = Http2Client::connect(dual.server.address(), 0);
        for path in paths {
            let stream = client.get(path);
            assert_eq!(client.status(stream), 200);
        }
        Box::new(client)
    }
    let stream = "/api/acme/events";
    drain_held_by_each(vec![
        ("no request", Box::new(|dual| client(dual, &[]))),
        ("a response", Box::new(|dual| client(dual, &["/metrics"]))),
        ("a stream", Box::new(|dual| client(dual, &[stream]))),
        ("both, twice", Box::new(|dual| client(dual, &[stream, "/metrics", "/livez", stream]))),
        (
            "no ACK of the settings",
            Box::new(|dual| {
                let get =
                    frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", stream));
                let window = [&[0, 4][..], &0_u32.to_be_bytes()].concat();
                let bytes = [PREFACE, &frame(kind::SETTINGS, 0, 0, &window), &get].concat();
                hold(dual.socket(Transport::H2c), &bytes)
            }),
        ),
    ]);
}

/// A stream that has its greeting already, and then no window for its end.
#[test]
fn held_by_a_stream_of_http2_without_a_window_for_its_end() {
    drain_held_by("an end", |dual| {
        let mut client = Http2Client::connect(dual.server.address(), 0);
        let stream = client.get("/api/acme/events");
        client.status(stream);
        client.grant(stream, 16);
        client.until("a part of the greeting", |client| {
            (client.received(stream) == 16).then_some(())
        });
        Box::new(client)
    });
}

/// Requests one after the other, whose responses are not read until the socket is full.
#[test]
fn held_by_responses_that_are_not_read() {
    for transport in Transport::http1() {
        drain_held_by(&format!("{transport:?}"), |dual| {
            let mut peer = dual.connect(transport);
            let get = peer.request("GET", "/metrics", None).repeat(100);
            peer.send_until_full(&get);
            Box::new(peer)
        });
    }
}

/// SCENARIO: the client of a stream reads nothing, so that its socket is full when its end is due in a drain.
/// BUG: the server waited for it until `--stall-timeout`, `--peer-timeout` or `--drain-timeout`.
/// FIX: without progress the stream ends within `--drain-grace` and two seconds.
#[test]
fn held_by_a_stream_whose_socket_is_full() {
    for transport in Transport::http1() {
        let history = ["--history-events", "2"];
        let mut server = Server::start_on(transport, &[LARGE, &HOUR, &history].concat());
        let mut reads = server.stream("acme");
        reads.connected();
        let late = server.streams("acme", 4);
        publish(&server, 7, &mut reads);
        server.signal(Signal::TERM);
        reads.farewell();
        assert_eq!(server.wait(), Some(0), "{transport:?}");
        drop(late);
    }
}

/// SCENARIO: a token names an unknown key, the server that has the keys accepts the connection and never responds, and
/// the server is asked to stop.
/// BUG: the request waited for the keys until `--jwks-timeout`, and the drain for the request.
/// FIX: in a drain no request waits for keys. The token may be good, so a browser is asked to come back.
#[test]
fn held_by_a_request_that_waits_for_keys() {
    const TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJleHAiOjk5OTk5OTk5OTl9.AAAA";
    let keys = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/keys", keys.local_addr().expect("bound"));
    let more = ["--jwks-url", &url, "--jwt-audience", "any", "--jwks-timeout", "1m"];
    let mut server = Server::start(&[&HOUR[..], &more].concat());
    let _silent = keys.accept().expect("it fetches the keys when it starts");
    let mut client = server.connect();
    client.send(&format!(
        "GET /api/acme/events HTTP/1.1\r\nhost: t\r\naccept: text/event-stream\r\n\
         authorization: Bearer {TOKEN}\r\n\r\n"
    ));
    server.settle();
    server.signal(Signal::TERM);
    // Less than the fetch takes.
    client.socket().set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    let response = client.read_answer();
    assert_eq!(response.status(), 200);
    assert!(response.body.starts_with("retry: "), "{}", response.body);
    assert_eq!(server.wait(), Some(0));
}
