//! What the example `heartbeat_proxy` promises, with bytes on both sides of it.

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::processes::HeartbeatProxy;
use super::{NEVER, PING};
use crate::support::killed::Killed;
use crate::support::port::ReservedPort;
use crate::support::scripted_server::answer;
use crate::support::{Client, eventually, header};

/// The proxy, and the server behind it, which accepts and answers by hand.
struct Behind {
    listener: TcpListener,
    proxy: HeartbeatProxy,
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream; charset=utf-8\r\n\
    transfer-encoding: chunked\r\n\r\n";
const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

// ===== impl Behind =====

impl Behind {
    fn start(ping: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        listener.set_nonblocking(true).expect("a socket");
        let proxy = HeartbeatProxy::start(listener.local_addr().expect("bound"), ping);
        Self { listener, proxy }
    }

    /// A client that has sent this.
    fn client(&self, request: &str) -> Client {
        let mut client = Client::connect(self.proxy.address);
        client.send(request);
        client
    }

    /// The proxy's next connection to its upstream, and the head of the request on it.
    fn upstream(&self) -> (Client, String) {
        let mut accepted = None;
        eventually("the proxy connects", || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        let (socket, _) = accepted.expect("a connection");
        socket.set_nonblocking(false).expect("a socket");
        let mut upstream = Client::on(socket);
        let head = upstream.read_until(b"\r\n\r\n");
        (upstream, String::from_utf8_lossy(&head).into_owned())
    }
}

/// Writes until the peer has taken nothing for a second; returns how much it took.
fn write_until_full(mut socket: &TcpStream, bound: usize) -> usize {
    socket.set_write_timeout(Some(Duration::from_secs(1))).expect("a socket");
    let (bytes, mut written) = (vec![b'x'; 1 << 16], 0);
    while written < bound {
        match socket.write(&bytes) {
            Ok(n) => written += n,
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(why) => panic!("{why}"),
        }
    }
    written
}

#[test]
fn fields_of_one_connection_do_not_pass_and_the_others_do() {
    let behind = Behind::start(NEVER);
    let mut client = behind.client(
        "GET /a?b=c HTTP/1.1\r\nhost: a.test\r\nconnection: Keep-Alive, X-Hop\r\n\
         connection: x-other\r\nx-hop: 1\r\nx-other: 1\r\nkeep-alive: timeout=5\r\nte: trailers\r\n\
         proxy-connection: keep-alive\r\nupgrade: websocket\r\naccept-encoding: gzip\r\n\
         x-stays: 1\r\nx-stays: 2\r\n\r\n",
    );
    let (mut upstream, request) = behind.upstream();
    let mut request: Vec<_> = request.lines().collect();
    request[1..].sort_unstable();
    let expected = [
        "GET /a?b=c HTTP/1.1",
        "",
        "accept-encoding: identity",
        "host: a.test",
        "x-stays: 1",
        "x-stays: 2",
    ];
    assert_eq!(request, expected);

    upstream.send(
        "HTTP/1.1 404 Not Here\r\nconnection: close, X-Hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
         x-stays: 1\r\ndate: today\r\ncontent-length: 2\r\n\r\nno",
    );
    let response = client.read_answer();
    let mut head: Vec<_> = response.head.lines().collect();
    head[1..].sort_unstable();
    let expected = ["HTTP/1.1 404 Not Here", "", "content-length: 2", "date: today", "x-stays: 1"];
    assert_eq!(head, expected);
    assert_eq!(response.body, "no");

    // The connection to the client is kept all the same.
    client.send(GET);
    let (mut upstream, _) = behind.upstream();
    upstream.send(&answer("200 OK", "text/plain", "yes"));
    assert_eq!(client.read_answer().body, "yes");
}

#[test]
fn bodies_pass_part_by_part_both_ways() {
    for method in ["POST", "GET"] {
        let behind = Behind::start(NEVER);
        let mut client = behind.client(&format!(
            "{method} / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"
        ));
        let (mut upstream, head) = behind.upstream();
        assert_eq!(header(&head, "transfer-encoding"), Some("chunked"), "{head}");
        upstream.read_until(b"3\r\none\r\n");
        upstream.send(STREAM);
        let head = client.read_head();
        assert_eq!(header(&head, "x-accel-buffering"), Some("no"), "{head}");
        upstream.send("9\r\ndata: 1\n\n\r\n");
        client.read_until(b"data: 1\n\n");
        client.send("3\r\ntwo\r\n0\r\n\r\n");
        upstream.read_until(b"3\r\ntwo\r\n0\r\n\r\n");
        upstream.send("9\r\ndata: 2\n\n\r\n0\r\n\r\n");
        client.read_until(b"data: 2\n\n\r\n0\r\n\r\n");
    }
}

#[test]
fn an_event_stream_gets_heartbeats_and_nothing_else_does() {
    let behind = Behind::start(PING);
    let mut other = behind.client(GET);
    let (mut upstream_of_other, _) = behind.upstream();
    upstream_of_other.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab");
    let head = other.read_head();
    assert_eq!(header(&head, "x-accel-buffering"), None, "{head}");

    let mut client = behind.client(GET);
    let (mut upstream, _) = behind.upstream();
    upstream.send(STREAM);
    upstream.send("9\r\ndata: 1\n\n\r\n");
    client.read_head();
    client.read_until(b"9\r\ndata: 1\n\n\r\n");
    for _ in 0..3 {
        assert_eq!(client.read_until(b"\n\n\r\n"), b"8\r\n: ping\n\n\r\n");
    }
    // No ping within an event.
    upstream.send("7\r\ndata: 2\r\n");
    client.read_until(b"data: 2");
    upstream.send("2\r\n\n\n\r\n");
    assert_eq!(client.read_until(b"\n\n\r\n"), b"\r\n2\r\n\n\n\r\n");

    upstream_of_other.send("cd");
    assert_eq!(other.read_exact(4), b"abcd");
}

#[test]
fn a_client_that_leaves_ends_its_request_at_the_upstream() {
    const UPLOAD: &str = "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 9\r\n\r\nhalf";
    let behind = Behind::start(NEVER);
    for (request, answered) in [(GET, false), (GET, true), (UPLOAD, false), (UPLOAD, true)] {
        for reset in [false, true] {
            let mut client = behind.client(request);
            let (mut upstream, _) = behind.upstream();
            if request == UPLOAD {
                upstream.read_until(b"half");
            }
            if answered {
                upstream.send(STREAM);
                client.read_head();
            }
            if reset {
                client.reset()
            } else {
                drop(client)
            }
            let rest = upstream.try_read_to_end();
            assert!(rest.as_ref().is_ok_and(Vec::is_empty), "{request:?} {answered}: {rest:?}");
        }
    }
}

#[test]
fn a_response_that_breaks_off_is_not_made_whole() {
    let behind = Behind::start(NEVER);
    let mut client = behind.client(GET);
    let (mut upstream, _) = behind.upstream();
    upstream.send(STREAM);
    upstream.send("9\r\ndata: 1\n\n\r\n");
    client.read_head();
    drop(upstream);
    assert_eq!(client.read_to_end(), b"9\r\ndata: 1\n\n\r\n");
}

/// SCENARIO: the upstream answers in HTTP/1.0, or with chunks and a length that is not theirs.
/// BUG: the client was answered in HTTP/1.0 too, or with that length, at which the body was cut off.
/// FIX: the version is the proxy's own (RFC 9110, 2.5), and chunks come before a length (RFC 9112, 6.3).
#[test]
fn a_response_is_framed_for_the_client() {
    let behind = Behind::start(NEVER);
    for response in [
        "HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 3\r\n\
         transfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n",
    ] {
        let mut client = behind.client(GET);
        let (mut upstream, _) = behind.upstream();
        upstream.send(response);
        drop(upstream);
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{response}: {head}");
        assert_eq!(header(&head, "content-length"), None, "{response}: {head}");
        assert_eq!(client.read_until(b"0\r\n\r\n"), b"9\r\ndata: 1\n\n\r\n0\r\n\r\n", "{response}");
    }
}

#[test]
fn an_upstream_that_does_not_answer_is_a_bad_gateway() {
    let nowhere = ReservedPort::new();
    let proxy = HeartbeatProxy::start(nowhere.address, NEVER);
    let mut client = Client::connect(proxy.address);
    for _ in 0..2 {
        client.send("POST /a?token=secret HTTP/1.1\r\nhost: a.test\r\ncontent-length: 2\r\n\r\nab");
        let answer = client.read_answer();
        assert!(answer.head.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{}", answer.head);
        assert_eq!(answer.body, "no answer from upstream\n");
    }
    let line = proxy.stderr.line(&[]);
    assert!(line.starts_with("502 for /a: ") && line.contains("refused"), "{line}");

    let behind = Behind::start(NEVER);
    let mut client = behind.client(GET);
    drop(behind.upstream());
    assert_eq!(client.read_answer().status(), 502);
    for nonsense in ["HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "SSH-2.0-server\r\n"] {
        client.send(GET);
        behind.upstream().0.send(nonsense);
        assert_eq!(client.read_answer().status(), 502, "{nonsense:?}");
    }
}

/// What does not fit into the sockets' buffers waits at its sender.
#[test]
fn neither_side_is_read_faster_than_the_other_one_reads() {
    const MUCH: usize = 256 << 20;
    let behind = Behind::start(NEVER);
    let client =
        behind.client("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 1000000000\r\n\r\n");
    let (mut upstream, _) = behind.upstream();
    assert!(write_until_full(client.socket(), MUCH) < MUCH / 2);
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
    assert!(write_until_full(upstream.socket(), MUCH) < MUCH / 2);
}

#[test]
fn odd_requests_harm_no_other_one() {
    let behind = Behind::start(NEVER);
    for odd in ["\0\r\n\r\n", "GET / HTTP/9\r\n\r\n", "GET  / HTTP/1.1\r\n\r\n"] {
        let mut client = behind.client(odd);
        let answer = String::from_utf8_lossy(&client.read_to_end()).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{odd:?}: {answer}");
    }
    for (odd, sent) in [
        ("OPTIONS * HTTP/1.1\r\nhost: a.test\r\n", "OPTIONS * HTTP/1.1\r\n"),
        ("GET http://b.test/x HTTP/1.1\r\nhost: b.test\r\n", "GET /x HTTP/1.1\r\n"),
        ("GET /%00?\u{e9} HTTP/1.1\r\nhost: a.test\r\n", "GET /%00?\u{e9} HTTP/1.1\r\n"),
        ("GET / HTTP/1.1\r\nhost: a.test\r\nconnection: \u{e9}, host,,\r\n", "GET / HTTP/1.1\r\n"),
        ("GET / HTTP/1.0\r\n", "GET / HTTP/1.1\r\n"),
    ] {
        let mut client = behind.client(&format!("{odd}\r\n"));
        let (mut upstream, head) = behind.upstream();
        assert!(head.starts_with(sent), "{odd:?}: {head}");
        assert!(head.contains("host: "), "{odd:?}: {head}");
        upstream.send(&answer("200 OK", "text/plain", "fine"));
        assert_eq!(client.read_answer().body, "fine", "{odd:?}");
    }
    // A tunnel is none of its business, and the upstream refuses it.
    let mut client = behind.client("CONNECT b.test:443 HTTP/1.1\r\nhost: b.test\r\n\r\n");
    behind.upstream().0.send(&answer("405 Method Not Allowed", "text/plain", "no"));
    assert_eq!(client.read_answer().status(), 405);
}

#[test]
fn arguments_that_cannot_work_are_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let taken = taken.local_addr().expect("bound").to_string();
    let (listen, upstream, ping) = ("127.0.0.1:0", "http://127.0.0.1:9", "5s");
    let no_upstream = "it has to be http://HOST:PORT, without a path";
    for (args, reason) in [
        (&[] as &[&str], "it takes three arguments, not 0"),
        (&[listen, upstream], "it takes three arguments, not 2"),
        (&["here", upstream, ping], "cannot listen on \"here\": "),
        (&[&taken, upstream, ping], "Address already in use"),
        (&[listen, "https://a.test", ping], no_upstream),
        (&[listen, "http://a.test/b", ping], no_upstream),
        (&[listen, "a.test:9", ping], no_upstream),
        (&[listen, "http://a.test:99999", ping], no_upstream),
        (&[listen, "http://a.test:b", ping], no_upstream),
        (&[listen, "http://u:p@a.test", ping], no_upstream),
        (&[listen, "http://", ping], "UPSTREAM \"http://\": "),
        (&[listen, "http://a b", ping], "UPSTREAM \"http://a b\": invalid"),
        (&[listen, upstream, "5"], "PING \"5\": "),
        (&[listen, upstream, "0s"], "PING \"0s\": it has to be from 100ms to 86400s"),
        (&[listen, upstream, "2d"], "PING \"2d\": it has to be from 100ms to 86400s"),
        (&[listen, upstream, "99999999999999y"], "PING \"99999999999999y\": "),
    ] {
        let mut process = Killed(HeartbeatProxy::command(args).spawn().expect("the example"));
        let code = process.wait();
        let mut stderr = process.0.stderr.take().expect("piped");
        let written = std::io::read_to_string(&mut stderr).expect("text");
        assert_eq!(code, Some(2), "{args:?}: {written}");
        assert!(written.contains(reason), "{args:?}: {written}");
        assert!(written.contains("usage: heartbeat_proxy LISTEN UPSTREAM PING\n"), "{written}");
        assert!(!written.contains("panicked"), "{written}");
    }
}
