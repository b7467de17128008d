//! HTTP/1 messages that RFC 9112 forbids: each is refused with one response and the end of the connection. If a proxy
//! and the server disagree about where a request ends, one of them can be made to parse a body as a request (request
//! smuggling).

mod refused;

use self::refused::{
    BODY, CHUNKED, HOST, LENGTH, REFUSED, REFUSED_CHUNKS, REFUSED_LINES, REFUSED_TARGETS,
};
use crate::support::server::Signal;
use crate::support::{Client, Server, Transport};

const LINE: &str = "POST /api/acme/events HTTP/1.1";
const STREAM_LINE: &str = "GET /api/acme/events HTTP/1.1";

/// A publish with these lines, each ended by `eol`, and the body that they announce.
fn publish(line: &str, fields: &[&str], eol: &str) -> String {
    let chunked = fields.iter().any(|field| field.contains("transfer-encoding"));
    let body = if chunked { chunk(BODY) } else { BODY.to_owned() };
    message(line, fields, eol, &body)
}

fn message(line: &str, fields: &[&str], eol: &str, body: &str) -> String {
    let fields = fields.join(eol);
    format!("{line}{eol}content-type: application/json{eol}{fields}{eol}{eol}{body}")
}

fn chunk(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// The message, followed by a valid publish.
fn with_another_after(message: &str) -> String {
    message.to_owned() + &publish(LINE, &[HOST, LENGTH], "\r\n")
}

fn server(transport: Transport, more: &[&str]) -> Server {
    // A long head timeout, so that it closes no connection here.
    Server::start_on(transport, &[&["--coalesce", "0", "--head-timeout", "1h"][..], more].concat())
}

fn published(server: &Server) -> u64 {
    server.metric("nudged_events_published_total")
}

/// Sends a message followed by another; the first must be refused, and the connection must end.
fn expect_refusal(server: &Server, message: &str, status: u16) {
    let mut client = server.connect();
    client.send(&with_another_after(message));
    expect_last_answer(&mut client, status, message);
}

fn expect_last_answer(client: &mut Client, status: u16, message: &str) {
    let answer = client.read_answer();
    assert_eq!(answer.status(), status, "{message:?}: {answer:?}");
    assert_eq!(answer.header("connection"), Some("close"), "{message:?}: {answer:?}");
    let rest = client.read_to_end();
    assert!(rest.is_empty(), "{message:?}: then {:?}", String::from_utf8_lossy(&rest));
}

#[test]
fn malformed_fields_are_refused_on_every_route() {
    let server = server(Transport::Http1, &[]);
    for (status, fields) in REFUSED {
        expect_refusal(&server, &publish(LINE, fields, "\r\n"), status);
        for line in [STREAM_LINE, "OPTIONS * HTTP/1.1"] {
            expect_refusal(&server, &publish(line, fields, "\r\n"), status);
        }
        // A request without a body could open a stream at once.
        let rest: Vec<_> = fields.iter().copied().filter(|field| *field != LENGTH).collect();
        if !rest.iter().any(|field| field.contains("content-length") || field.contains("chunked")) {
            expect_refusal(&server, &message(STREAM_LINE, &rest, "\r\n", ""), status);
        }
    }
    assert_eq!((published(&server), server.seats()), (0, 0));
}

#[test]
fn malformed_chunks_are_refused() {
    let server = server(Transport::Http1, &[]);
    for body in REFUSED_CHUNKS {
        expect_refusal(&server, &message(LINE, &[HOST, CHUNKED], "\r\n", body), 400);
    }
    // Extensions of all chunks together, which inflate a small body (7.1.1).
    let extension = |bytes| format!("1;{}\r\n", "a".repeat(bytes));
    let long = extension(17 * 1024) + "{\r\n0\r\n\r\n";
    let many = BODY.chars().map(|byte| extension(2 * 1024) + &format!("{byte}\r\n"));
    for body in [long, many.collect::<String>() + "0\r\n\r\n"] {
        expect_refusal(&server, &message(LINE, &[HOST, CHUNKED], "\r\n", &body), 400);
    }
    assert_eq!(published(&server), 0);
}

#[test]
fn malformed_first_lines_are_refused() {
    let server = server(Transport::Http1, &[]);
    for line in REFUSED_LINES {
        expect_refusal(&server, &publish(line, &[HOST, LENGTH], "\r\n"), 400);
    }
    // HTTP/1.0 has no transfer codings (6.1), and a request has one host (3.2).
    let line = "POST /api/acme/events HTTP/1.0";
    for fields in [&[HOST, CHUNKED][..], &[HOST, HOST, LENGTH]] {
        expect_refusal(&server, &publish(line, fields, "\r\n"), 400);
    }
    assert_eq!(published(&server), 0);
}

/// SCENARIO: a request is for `ftp://t/api/acme/events`, or for a URI with a user in it.
/// BUG: it was served like a request for the path alone.
/// FIX: it is refused, because it names a resource that is not this server's.
#[test]
fn targets_of_other_schemes_or_forms_are_refused() {
    let server = server(Transport::Http1, &[]);
    for (methods, target) in REFUSED_TARGETS {
        for method in methods {
            let line = format!("{method} {target} HTTP/1.1");
            expect_refusal(&server, &publish(&line, &[HOST, LENGTH], "\r\n"), 400);
        }
    }
    assert_eq!(published(&server), 0);
}

/// SCENARIO: the chunks of a request end in `0\r\n\n`, or its trailers in a bare LF. A second request follows, with a
/// third one in its body.
/// BUG: the library parses the second's head as trailers, and its body as a request.
/// FIX: trailers are refused, and where the body is not read, the connection ends with the response.
#[test]
fn nothing_after_malformed_trailers_is_parsed_as_a_request() {
    let hidden = publish(LINE, &[HOST, LENGTH], "\r\n");
    let length = format!("content-length: {}", hidden.len());
    let second = message("POST /other HTTP/1.1", &[HOST, &length], "\r\n", &hidden);
    let keys = ["--publish-key", "publish-key-of-the-test"];
    let (open, closed) = (server(Transport::Http1, &[]), server(Transport::Http1, &keys));
    for end in ["0\r\n\n", "0\r\nx: a\n\n"] {
        for (server, line, status) in [
            (&open, "GET /livez HTTP/1.1", 200),
            (&open, "POST /nowhere HTTP/1.1", 404),
            (&open, "PUT /api/acme/events HTTP/1.1", 405),
            (&open, LINE, 400),
            (&closed, LINE, 401),
        ] {
            let first = message(line, &[HOST, CHUNKED], "\r\n", end);
            let mut client = server.connect();
            client.send(&format!("{first}{second}"));
            expect_last_answer(&mut client, status, &first);
        }
    }
    assert_eq!((published(&open), published(&closed)), (0, 0));
}

/// The body of a request that is refused or needs none is skipped, and the next request is parsed after it.
#[test]
fn an_unread_body_is_not_parsed_as_a_request() {
    let hidden = publish(LINE, &[HOST, LENGTH], "\r\n");
    let length = format!("content-length: {}", hidden.len());
    let server = server(Transport::Http1, &[]);
    for (index, (line, status)) in [
        ("GET /livez HTTP/1.1", 200),
        ("POST /nowhere HTTP/1.1", 404),
        ("PUT /api/acme/events HTTP/1.1", 405),
        ("OPTIONS * HTTP/1.1", 404),
        ("POST /api/events HTTP/1.1", 415),
        ("CONNECT /api/acme/events HTTP/1.1", 405),
        ("CONNECT t:80 HTTP/1.1", 404),
    ]
    .iter()
    .enumerate()
    {
        let mut client = server.connect();
        client.send(&with_another_after(&message(line, &[HOST, &length], "\r\n", &hidden)));
        for expected in [*status, 202] {
            assert_eq!(client.read_answer().status(), expected, "{line}");
        }
        assert_eq!(published(&server), index as u64 + 1, "{line}");

        let chunked = message(line, &[HOST, CHUNKED], "\r\n", &chunk(&hidden));
        expect_refusal(&server, &chunked, *status);
        assert_eq!(published(&server), index as u64 + 1, "{line}");
    }
}

/// A stream over HTTP/1 is the last response on its connection.
#[test]
fn nothing_after_the_request_of_a_stream_is_parsed_as_a_request() {
    let hidden = publish(LINE, &[HOST, LENGTH], "\r\n");
    let length = format!("content-length: {}", hidden.len());
    let get = |fields: &[&str], body: &str| message(STREAM_LINE, fields, "\r\n", body);
    for transport in Transport::http1() {
        for request in [
            get(&[HOST], ""),
            get(&[HOST, "connection: upgrade", "upgrade: websocket"], ""),
            get(&[HOST, &length], &hidden),
            get(&[HOST, CHUNKED], &chunk(&hidden)),
            get(&[HOST, CHUNKED], "0\r\n\n"),
            get(&[HOST, "content-length: 3", CHUNKED], "0\r\n\r\n"),
        ] {
            let server = server(transport, &["--drain-window", "0"]);
            let mut client = server.connect();
            client.send(&with_another_after(&request));
            client.read_until(b"event: connected\ndata: {\"keepalive\":20}\n\n\r\n");
            // A publish would show up on the stream before its end.
            server.signal(Signal::TERM);
            let rest = String::from_utf8(client.read_to_end()).expect("ASCII");
            let (stream, after) = rest.split_once("\r\n0\r\n\r\n").expect("an end");
            assert!(!stream.contains("event:"), "{transport:?} {request:?}: {rest}");
            assert_eq!(after, "", "{transport:?} {request:?}");
        }
    }
}

/// Unusual requests that RFC 9112 allows.
#[test]
fn unusual_but_valid_requests_are_accepted() {
    let server = server(Transport::Http1, &["--host", "t,test,other,my_service,2001:db8::1"]);
    let crlf = |fields: &[&str]| publish(LINE, fields, "\r\n");
    let chunks = |body: &str| message(LINE, &[HOST, CHUNKED], "\r\n", body);
    let good = [
        // A repeated length (6.3).
        crlf(&[HOST, LENGTH, LENGTH]),
        crlf(&[HOST, "content-length:000014 \t"]),
        crlf(&[HOST, "Transfer-Encoding: ,Chunked"]).replace(BODY, &chunk(BODY)),
        // Lines that end in a bare LF, and empty ones before the first (2.2).
        publish(LINE, &[HOST, LENGTH], "\n"),
        format!("\r\n\r\n{}", crlf(&[HOST, LENGTH])),
        // Hosts (RFC 3986, 3.2).
        crlf(&["host:", LENGTH]),
        crlf(&["host: my_service:6834", LENGTH]),
        crlf(&["host: [2001:db8::1]:6834", LENGTH]),
        crlf(&[HOST, LENGTH, "x: \té"]),
        // A target with an authority, which overrides the host (3.2.2).
        publish("POST http://other/api/acme/events HTTP/1.1", &[HOST, LENGTH], "\r\n"),
        publish("POST HTTPS://other:443/api/acme/events HTTP/1.1", &[HOST, LENGTH], "\r\n"),
        // A fragment, which clients do not send, and which the library removes before it could be refused (3.2.1).
        publish("POST /api/acme/events?x#y HTTP/1.1", &[HOST, LENGTH], "\r\n"),
        // Chunk extensions, and the zeros and whitespace that a size may have around it (7.1).
        chunks(&format!("000E \t;a=\"b\"\r\n{BODY}\r\n00;c\r\n\r\n")),
    ];
    for (index, good) in good.iter().enumerate() {
        let mut client = server.connect();
        client.send(&with_another_after(good));
        for _ in 0..2 {
            let answer = client.read_answer();
            assert_eq!(answer.status(), 202, "{good:?}: {answer:?}");
        }
        assert_eq!(published(&server), 2 * (index as u64 + 1), "{good:?}");
    }
}

/// A length besides chunks is ignored, but the connection must end after such a request (6.3).
#[test]
fn a_length_besides_chunks_ends_the_connection() {
    let server = server(Transport::Http1, &[]);
    for (index, fields) in
        [[HOST, LENGTH, CHUNKED], [HOST, CHUNKED, LENGTH], [HOST, CHUNKED, "content-length: 1"]]
            .iter()
            .enumerate()
    {
        expect_refusal(&server, &publish(LINE, fields, "\r\n"), 202);
        assert_eq!(published(&server), index as u64 + 1, "{fields:?}");
    }
    // HTTP/1.0 needs no host, and ends its connection unless asked otherwise.
    let old = publish("POST /api/acme/events HTTP/1.0", &[LENGTH], "\r\n");
    assert_eq!(server.request(&old).status(), 202);
}

/// What hyper refuses by itself, before there is a request: these are all responses without a problem body, as the
/// README says.
#[test]
fn the_responses_of_the_library_have_no_body() {
    let post = "POST /api/acme/events HTTP/1.1\r\nhost: t\r\n";
    let many: String = (0..101).map(|n| format!("x{n}: a\r\n")).collect();
    for transport in Transport::http1() {
        let server = Server::start_on(transport, &["--head-bytes", "131072"]);
        for (status, request) in [
            (400, "hello\r\n\r\n".to_owned()),
            (400, "GET /livez HTTP/1.2\r\nhost: t\r\n\r\n".to_owned()),
            (400, format!("{post}: a\r\n\r\n")),
            (400, format!("{post}content-length: x\r\n\r\n")),
            (400, format!("{post}content-length: 1\r\ncontent-length: 2\r\n\r\n")),
            (400, format!("{post}transfer-encoding: gzip\r\n\r\n")),
            (414, format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "a".repeat(70_000))),
            (431, format!("{post}{many}\r\n")),
            (431, format!("{post}content-length: {}\r\n\r\n", u64::MAX)),
        ] {
            let mut client = server.connect();
            client.send(&request);
            let answer = client.read_answer();
            assert_eq!((answer.status(), answer.body.as_str()), (status, ""), "{request:.60}");
            assert_eq!(answer.header("content-type"), None, "{request:.60}: {answer:?}");
        }
    }
}
