//! The command line's clients against a scripted server: their exact requests, and what they do with each response.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Sender, channel};

use nudged::client::{Error, Listen, StreamKind, listen};

use crate::support::port::ReservedPort;
use crate::support::scripted_server::{
    DEADLINE, ScriptedServer, VERSION, answer, answer_one, block_on, error_text, listening,
    no_content, publishing, read_request, server, stream,
};

// ===== listen =====

#[test]
fn listen_sends_the_requests_of_an_event_source_and_writes_one_line_for_each_event() {
    let script = ScriptedServer::play([
        stream(
            "retry: 10\nid: e-1\nevent: connected\ndata: {}\n\n: keepalive\n\
             id: e-2\nevent: invalidate\ndata: {\"keys\":[\"posts\"]}\n\ndata: \u{1b}[2J\ndata: b\n\n",
        ),
        no_content(),
    ]);
    let address = script.address;
    let listened = listening(script.server(Some("s3cret")), false, None);

    let plain = format!(
        "GET /api/acme/events HTTP/1.1\r\nhost: {address}\r\nuser-agent: nudged/{VERSION}\r\n\
         authorization: Bearer s3cret\r\naccept: text/event-stream\r\ncache-control: no-cache\r\n"
    );
    let [first, second] = &script.requests()[..] else { panic!("not two requests") };
    assert_eq!(*first, format!("{plain}\r\n"));
    assert_eq!(*second, format!("{plain}last-event-id: e-2\r\n\r\n"));

    assert!(matches!(listened.result, Ok(())), "{:?}", listened.result);
    assert_eq!(
        listened.events,
        "connected {}  id=e-1\ninvalidate {\"keys\":[\"posts\"]}  id=e-2\n\
         message \\u{1b}[2J\\nb  id=e-2\n"
    );
    assert_eq!(
        listened.notes,
        format!(
            "listening to acme at http://{address}\nthe stream ended; trying again in 10ms\n\
             the server answered 204 No Content: the stream is over\n"
        )
    );
}

/// Sends the written text to another thread at every flush.
struct FlushTo(Vec<u8>, Sender<Vec<u8>>);

impl Write for FlushTo {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.1.send(std::mem::take(&mut self.0)).map_err(io::Error::other)
    }
}

/// SCENARIO: the server has a log, so that its keepalives are events, whose id is the position.
/// BUG: `nudged listen` printed a line for each of them, among the events.
/// FIX: it prints them on demand, and resumes after their ids.
#[test]
fn listen_prints_keepalives_on_demand_and_resumes_after_them() {
    let events = "retry: 10\nid: e-1\nevent: connected\ndata: {}\n\n\
                  id: e-4\nevent: ping\ndata: {}\n\nevent: pings\ndata: 1\n\n";
    for (pings, expected) in [
        (false, "connected {}  id=e-1\npings 1  id=e-4\n"),
        (true, "connected {}  id=e-1\nping {}  id=e-4\npings 1  id=e-4\n"),
    ] {
        let script = ScriptedServer::play([stream(events), no_content()]);
        let what = Listen {
            server: script.server(None),
            org: "acme".parse().expect("an org"),
            stream: StreamKind::Members,
            keys: Vec::new(),
            last_event_id: None,
            pings,
        };
        let mut printed = Vec::new();
        block_on(listen(&what, &mut printed, &mut io::sink())).expect("over");
        assert_eq!(String::from_utf8(printed).expect("text"), expected);
        assert!(script.requests()[1].contains("\r\nlast-event-id: e-4\r\n"));
    }
}

#[test]
fn listen_writes_an_event_before_its_stream_ends() {
    let (flushed, lines) = channel();
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    let script = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept()?;
        read_request(&mut peer)?;
        let whole = stream("retry: 10\ndata: x\n\n");
        let (open, last_chunk) = whole.split_at(whole.len() - "0\r\n\r\n".len());
        peer.write_all(open.as_bytes())?;
        let line = lines.recv_timeout(DEADLINE).map_err(io::Error::other)?;
        peer.write_all(last_chunk.as_bytes())?;
        answer_one(&listener, &no_content()).map(|_| line)
    });
    let org = "acme".parse().expect("an org");
    let what = Listen {
        server: server(address, None),
        org,
        stream: StreamKind::Members,
        keys: Vec::new(),
        last_event_id: None,
        pings: false,
    };
    let result = block_on(listen(&what, &mut FlushTo(Vec::new(), flushed), &mut io::sink()));
    assert!(matches!(result, Ok(())), "{result:?}");
    assert_eq!(script.join().expect("no panic").expect("written before the end"), b"message x\n");
}

#[test]
fn listen_carries_its_last_event_id_from_stream_to_stream() {
    let script = ScriptedServer::play([
        stream("retry: 10\n"),                   // no id: the given one is kept
        stream("id: e-5\n\nid: e-6\ndata: cut"), // an id counts without data, but not without an empty line
        stream("data: x\n\n"),
        stream("id\n\n"), // the server resets the id
        no_content(),
    ]);
    let listened = listening(script.server(None), true, Some("e-4"));
    let requests = script.requests();
    assert!(requests.iter().all(|r| r.starts_with("GET /api/acme/public/events HTTP/1.1\r\n")));
    assert!(requests.iter().all(|request| !request.contains("authorization")));
    let sent = |request: &String| {
        let line = request.lines().find_map(|line| line.strip_prefix("last-event-id: "));
        line.map(str::to_owned)
    };
    let ids: Vec<_> = requests.iter().map(sent).collect();
    let expected = [Some("e-4"), Some("e-4"), Some("e-5"), Some("e-5"), None];
    assert_eq!(ids, expected.map(|id| id.map(str::to_owned)));
    assert_eq!(listened.events, "message x  id=e-5\n");
}

#[test]
fn listen_reconnects_after_a_broken_connection() {
    let whole = stream("retry: 10\nid: e-1\ndata: x\n\n");
    let script = ScriptedServer::play([
        whole.strip_suffix("0\r\n\r\n").expect("a last chunk").to_owned(),
        "no HTTP at all\r\n\r\n".to_owned(),
        String::new(), // closed without an answer
        no_content(),
    ]);
    let listened = listening(script.server(None), false, None);
    let requests = script.requests();
    assert_eq!(requests.len(), 4);
    assert!(requests[1..].iter().all(|request| request.contains("\r\nlast-event-id: e-1\r\n")));
    assert_eq!(listened.events, "message x  id=e-1\n");

    let notes: Vec<_> = listened.notes.lines().collect();
    let [_, cut_off, no_http, no_answer, _] = notes[..] else { panic!("{notes:?}") };
    for (note, pause) in [(cut_off, "10ms"), (no_http, "10ms"), (no_answer, "20ms")] {
        assert!(note.starts_with("the connection broke: "), "{note}");
        assert!(note.ends_with(&format!("; trying again in {pause}")), "{note}");
    }
}

#[test]
fn listen_ends_without_a_retry_when_it_is_refused() {
    let problem = r#"{"title":"Unauthorized","status":401,"detail":"the token expired\nat noon"}"#;
    for (answer, expected) in [
        (
            answer("401 Unauthorized", "application/problem+json", problem),
            r"the server answered 401 Unauthorized: the token expired\nat noon",
        ),
        (
            answer("404 Not Found", "application/problem+json", r#"{"title":"Not Found"}"#),
            "the server answered 404 Not Found: Not Found",
        ),
        (
            answer("500 Internal Server Error", "application/problem+json", "{"),
            "the server answered 500 Internal Server Error",
        ),
        (answer("502 Bad Gateway", "text/html", "<p>"), "the server answered 502 Bad Gateway"),
        (answer("302 Found", "text/html", ""), "the server answered 302 Found"),
        (
            answer("200 OK", "text/html; charset=utf-8", "data: x\n\n"),
            r#"expected content-type text/event-stream, got "text/html""#,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
            r#"expected content-type text/event-stream, got """#,
        ),
    ] {
        let script = ScriptedServer::play([answer]);
        let listened = listening(script.server(None), false, None);
        assert_eq!(script.requests().len(), 1);
        assert_eq!(error_text(listened.result), expected);
        assert_eq!((listened.events.as_str(), listened.notes.as_str()), ("", ""));
    }
}

#[test]
fn listen_compares_the_content_type_as_a_media_type() {
    let script = ScriptedServer::play([
        answer("200 OK", "Text/Event-Stream; charset=utf-8", "retry: 10\ndata: x\n\n"),
        no_content(),
    ]);
    assert_eq!(listening(script.server(None), false, None).events, "message x\n");
}

#[test]
fn listen_ends_at_an_event_beyond_the_bound() {
    let endless = format!("id: e-1\ndata: x\n\n: {}", "x".repeat(nudged::wire::EVENT_LEN_MAX));
    let script = ScriptedServer::play([stream(&endless)]);
    let listened = listening(script.server(None), false, None);
    assert_eq!(listened.events, "message x  id=e-1\n");
    assert!(matches!(listened.result, Err(Error::TooLarge(_))), "{:?}", listened.result);
}

#[test]
fn listen_refuses_an_id_that_cannot_be_sent() {
    let unused = SocketAddr::from(([127, 0, 0, 1], 1));
    let listened = listening(server(unused, None), false, Some("a\nb"));
    assert!(matches!(listened.result, Err(Error::LastEventId)), "{:?}", listened.result);
}

#[test]
fn listen_names_its_keys_in_each_request() {
    let script = ScriptedServer::play([stream("retry: 10\n\n"), no_content()]);
    let what = Listen {
        server: script.server(None),
        org: "acme".parse().expect("an org"),
        stream: StreamKind::Public,
        keys: ["feed:*", "a b+c&d#%", "\u{e9}"].map(str::to_owned).into(),
        last_event_id: None,
        pings: false,
    };
    block_on(listen(&what, &mut io::sink(), &mut io::sink())).expect("over");
    let target = "GET /api/acme/public/events?keys=feed:*,a%20b%2Bc%26d%23%25,%C3%A9 HTTP/1.1\r\n";
    let requests = script.requests();
    assert!(requests.len() == 2 && requests.iter().all(|request| request.starts_with(target)));
}

#[test]
fn listen_stops_when_its_output_is_closed() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let script = ScriptedServer::play([stream("data: x\n\n")]);
    let org = "acme".parse().expect("an org");
    let what = Listen {
        server: script.server(None),
        org,
        stream: StreamKind::Members,
        keys: Vec::new(),
        last_event_id: None,
        pings: false,
    };
    let result = block_on(listen(&what, &mut Closed, &mut io::sink()));
    assert!(matches!(result, Err(Error::Output(why)) if why.kind() == io::ErrorKind::BrokenPipe));
}

// ===== publish =====

#[test]
fn publish_sends_the_keys_and_prints_the_id() {
    let script =
        ScriptedServer::play([answer("202 Accepted", "application/json", r#"{"id":"e-7"}"#)]);
    let address = script.address;
    let (result, out) = publishing(script.server(Some("s3cret")), &["posts", "a\"b\n"]);
    result.expect("accepted");
    assert_eq!(out, "e-7\n");
    assert_eq!(
        script.requests(),
        [format!(
            "POST /api/acme/events HTTP/1.1\r\nhost: {address}\r\nuser-agent: nudged/{VERSION}\r\n\
             authorization: Bearer s3cret\r\ncontent-type: application/json\r\ncontent-length: 27\r\n\r\n\
             {{\"keys\":[\"posts\",\"a\\\"b\\n\"]}}"
        )]
    );
}

#[test]
fn publish_prints_accepted_without_an_id() {
    let script = ScriptedServer::play([answer("202 Accepted", "application/json", "{}")]);
    let (result, out) = publishing(script.server(None), &["posts"]);
    result.expect("accepted");
    assert_eq!(out, "accepted\n");
}

#[test]
fn publish_reports_why_it_was_refused() {
    let problem = r#"{"title":"Unprocessable Entity","status":422,"detail":"at most 256 keys"}"#;
    for (answer, expected) in [
        (
            answer("422 Unprocessable Entity", "application/problem+json", problem),
            "the server answered 422 Unprocessable Entity: at most 256 keys",
        ),
        (answer("200 OK", "text/plain", "hello"), "the server answered 200 OK"),
    ] {
        let script = ScriptedServer::play([answer]);
        let (result, out) = publishing(script.server(None), &[]);
        assert_eq!((error_text(result).as_str(), out.as_str()), (expected, ""));
    }
}

#[test]
fn publish_reports_the_address_that_refuses_the_connection() {
    let closed = ReservedPort::new();
    let address = closed.address;
    let (result, _) = publishing(server(address, None), &["posts"]);
    let message = error_text(result);
    assert!(
        message.starts_with(&format!("cannot reach {address}: Connection refused")),
        "{message}"
    );
}
