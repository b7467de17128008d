//! Commands to open streams: to end (a member was removed), or to re-read everything (a database was restored).

use crate::support::client::post;
use crate::support::server::Signal;
use crate::support::{Answer, Server, Stream, Transport, eventually};

fn server(transport: Transport, more: &[&str]) -> Server {
    let flags = ["--coalesce", "0", "--public-orgs", "acme", "--public-keys", "p*"];
    Server::start_on(transport, &[&flags[..], more].concat())
}

fn request(server: &Server, method: &str, path: &str, more: &str) -> Answer {
    server.request(&format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{more}\r\n"))
}

/// Requests something that is accepted. Returns the number of streams.
fn accepted(server: &Server, method: &str, path: &str) -> u64 {
    let answer = request(server, method, path, "");
    assert_eq!(answer.status(), 202, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(body.as_object().expect("an object").len(), 1, "{body}");
    body["streams"].as_u64().expect("a number")
}

fn reread(server: &Server) -> u64 {
    accepted(server, "POST", "/api/acme/reread")
}

fn public(server: &Server) -> Stream {
    server.stream_with("/api/acme/public/events", "")
}

/// A stream on a connection that has carried another request, and so comes from hyper.
fn later_stream(server: &Server) -> Stream {
    let mut client = server.connect();
    client.send("GET /livez HTTP/1.1\r\nhost: t\r\n\r\n");
    assert_eq!(client.read_answer().status(), 200);
    Stream::open(client, "/api/acme/events", "")
}

fn back(server: &Server, id: &str) -> (Stream, String, String) {
    let mut stream = server.stream_with("/api/acme/events", &format!("last-event-id: {id}\r\n"));
    let (_, id, name) = stream.greeting();
    (stream, id, name)
}

/// Reads a `connected` on a live stream, byte for byte, and returns its id.
fn rereads(stream: &mut Stream) -> String {
    let text = stream.next();
    let rest = text.strip_prefix("id: ").unwrap_or_else(|| panic!("{text:?}"));
    let (id, rest) = rest.split_once('\n').expect("a line");
    assert_eq!(rest, "event: connected\ndata: {\"keepalive\":20}\n\n");
    id.to_owned()
}

/// Reads the farewell and the end of the body. Over HTTP/1 the connection ends with it. Returns the reconnection time.
fn ends(stream: &mut Stream, transport: Transport) -> u64 {
    if matches!(transport, Transport::Http1 | Transport::Tls) {
        return stream.farewell();
    }
    let last = stream.next();
    assert_eq!(stream.client.read_exact(5), b"0\r\n\r\n");
    let retry = last.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix('\n'));
    retry.unwrap_or_else(|| panic!("{last:?}")).parse().expect("milliseconds")
}

/// SCENARIO: a member is removed from an organisation.
/// BUG: the stream went on until its token expired, and nothing could end it.
/// FIX: its backend has all member streams end; each comes back with its next token, and loses nothing.
#[test]
fn the_member_streams_of_an_org_end_and_come_back() {
    for transport in Transport::all() {
        let server = server(transport, &["--workers", "2", "--reread-window", "500ms"]);
        let mut streams: Vec<_> = (0..6).map(|_| server.stream("acme")).collect();
        streams.push(later_stream(&server));
        let ids: Vec<_> = streams.iter_mut().map(Stream::connected).collect();
        let mut others = [public(&server), server.stream("other")];
        others.iter_mut().for_each(|stream| _ = stream.connected());
        assert_eq!(accepted(&server, "DELETE", "/api/acme/events"), 7, "{transport:?}");

        let mut retries = Vec::new();
        for stream in &mut streams {
            retries.push(ends(stream, transport));
        }
        assert!(retries.iter().all(|retry| (1_000..=5_000).contains(retry)), "{retries:?}");
        eventually("they are counted", || server.closed().get("removed") == Some(&7));
        assert_eq!(server.closed().len(), 1, "{:?}", server.closed());

        let missed = server.publish("acme", &["p"]).expect("an id");
        let (mut again, id, name) = back(&server, &ids[0]);
        assert_eq!((&*name, id), ("resumed", ids[0].clone()));
        again.expect_invalidate(&missed, &["p"]);
        server.publish("other", &["b"]);
        assert!(others[0].next().contains("[\"p\"]") && others[1].next().contains("[\"b\"]"));
        assert_eq!(accepted(&server, "DELETE", "/api/unused/events"), 0);
    }
}

#[test]
fn a_stream_that_comes_back_within_the_window_stays() {
    for transport in Transport::all() {
        let server = server(transport, &["--workers", "1", "--reread-window", "1s"]);
        let mut streams = server.streams("acme", 3);
        assert_eq!(accepted(&server, "DELETE", "/api/acme/events"), 3);
        // The first ends at once.
        ends(&mut streams[0], transport);
        let mut again = server.stream("acme");
        again.connected();
        streams[1..].iter_mut().for_each(|stream| _ = ends(stream, transport));
        let id = server.publish("acme", &["a"]).expect("an id");
        again.expect_invalidate(&id, &["a"]);
        assert_eq!(server.seats(), 1);
    }
}

/// SCENARIO: a backend restores its database from a backup.
/// BUG: no client could learn that what it has is of another history; one that was away was even `resumed`.
/// FIX: each open stream gets `connected`, once, within the window, and no id from before resumes.
#[test]
fn every_client_rereads_once() {
    for path in ["/api/acme/reread", "/api/reread"] {
        for transport in Transport::all() {
            let server = server(transport, &["--workers", "2", "--reread-window", "500ms"]);
            let mut streams: Vec<_> = (0..4).map(|_| server.stream("acme")).collect();
            streams.extend([later_stream(&server), public(&server)]);
            let ids: Vec<_> = streams.iter_mut().map(Stream::connected).collect();
            let mut other = server.stream("other");
            other.connected();
            let all = path == "/api/reread";
            assert_eq!(accepted(&server, "POST", path), if all { 7 } else { 6 });

            // Every one of them was away, or is so now.
            let (mut late, _, name) = back(&server, &ids[0]);
            assert_eq!(name, "connected", "{transport:?}");
            let positions: Vec<_> = streams.iter_mut().map(rereads).collect();
            if all {
                rereads(&mut other);
            }
            let count = if all { 7 } else { 6 };
            eventually("counted", || server.metric("nudged_rereads_total") == count);

            let id = server.publish("acme", &["p"]).expect("an id");
            for stream in &mut streams[..5] {
                stream.expect_invalidate(&id, &["p"]);
            }
            late.expect_invalidate(&id, &["p"]);
            assert!(streams[5].next().contains("[\"p\"]"));
            let (mut resumed, _, name) = back(&server, &positions[0]);
            assert_eq!(name, "resumed");
            resumed.expect_invalidate(&id, &["p"]);
            let (_, _, name) = back(&server, &ids[1]);
            assert_eq!(name, "connected");
        }
    }
}

/// Those that have not re-read receive everything too, under ids that do not resume.
#[test]
fn what_is_published_within_the_window_reaches_every_stream_in_order() {
    for transport in Transport::all() {
        let server = server(transport, &["--workers", "1", "--reread-window", "2s"]);
        let mut streams = server.streams("acme", 4);
        assert_eq!(reread(&server), 4);
        // The first re-reads at once.
        rereads(&mut streams[0]);
        let first = server.publish("acme", &["a"]).expect("an id");
        streams[0].expect_invalidate(&first, &["a"]);
        let mut waits = streams.pop().expect("four");
        let text = waits.next();
        assert!(text.ends_with("\nevent: invalidate\ndata: {\"keys\":[\"a\"]}\n\n"), "{text:?}");
        let id = text.lines().next().and_then(|line| line.strip_prefix("id: ")).expect("an id");
        assert_eq!(id.len(), first.len());
        assert_ne!(id, first);
        // It leaves before it has re-read.
        drop(waits);
        assert_eq!(back(&server, id).2, "connected");
        assert_eq!(back(&server, &first).2, "resumed");
        for stream in &mut streams[1..] {
            assert!(stream.next().contains("[\"a\"]"));
            rereads(stream);
        }
        let last = server.publish("acme", &["b"]).expect("an id");
        streams.iter_mut().for_each(|stream| stream.expect_invalidate(&last, &["b"]));
    }
}

#[test]
fn a_server_that_stops_within_the_window_ends_every_stream() {
    for transport in Transport::all() {
        let mut server = server(transport, &["--reread-window", "1h", "--drain-window", "100ms"]);
        let mut streams = server.streams("acme", 6);
        reread(&server);
        accepted(&server, "POST", "/api/reread");
        accepted(&server, "DELETE", "/api/acme/events");
        server.signal(Signal::TERM);
        for stream in &mut streams {
            // Some of them are reached at once, as the first of the window.
            let mut next = stream.next();
            while next.contains("event: connected\n") {
                next = stream.next();
            }
            assert!(next.starts_with("retry: "), "{next:?}");
            assert_eq!(stream.client.read_to_end(), b"0\r\n\r\n");
        }
        assert_eq!(server.wait(), Some(0));
    }
}

#[test]
fn a_window_of_zero_is_at_once() {
    let server = server(Transport::Http1, &["--reread-window", "0"]);
    let mut streams = server.streams("acme", 100);
    assert_eq!(reread(&server), 100);
    streams.iter_mut().for_each(|stream| _ = rereads(stream));
    assert_eq!(accepted(&server, "DELETE", "/api/acme/events"), 100);
    streams.iter_mut().for_each(|stream| _ = stream.farewell());
}

#[test]
fn a_request_says_nothing_in_its_body() {
    let server = server(Transport::Http1, &[]);
    for (path, more, status) in [
        ("/api/acme/reread", "content-length: 0\r\n", 202),
        ("/api/acme/reread", "content-type: text/plain\r\ncontent-length: 0\r\n", 202),
        ("/api/a%20b/reread", "", 400),
        ("/api/acme/reread/", "", 404),
    ] {
        assert_eq!(request(&server, "POST", path, more).status(), status, "{path} {more}");
    }
    for (kind, body, status) in [
        ("application/json", "{}", 202),
        ("application/json; charset=utf-8", " {} ", 202),
        ("application/json", r#"{"keys":["a"]}"#, 400),
        ("application/json", "[]", 400),
        ("application/json", "null", 400),
        ("text/plain", "{}", 415),
    ] {
        for path in ["/api/acme/reread", "/api/reread"] {
            let answer = server.request(&post(path, kind, body));
            assert_eq!(answer.status(), status, "{kind} {body}: {answer:?}");
        }
    }
    let mut chunked = server.connect();
    chunked.send("DELETE /api/acme/events HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(chunked.read_answer().status(), 202);
    for (method, path, allow) in [
        ("PUT", "/api/acme/events", "GET, HEAD, POST, DELETE"),
        ("GET", "/api/acme/reread", "POST"),
        ("DELETE", "/api/reread", "POST"),
        ("DELETE", "/api/acme/public/events", "GET, HEAD"),
    ] {
        let answer = request(&server, method, path, "");
        assert_eq!((answer.status(), answer.header("allow")), (405, Some(allow)), "{path}");
    }
}

#[test]
fn requests_count_against_the_rate_of_publishes() {
    let server = server(Transport::Http1, &["--publish-rate", "1", "--publish-burst", "2"]);
    let status = |method, path| request(&server, method, path, "").status();
    assert_eq!(status("POST", "/api/acme/reread"), 202);
    assert_eq!(status("DELETE", "/api/acme/events"), 202);
    let answer = request(&server, "POST", "/api/acme/reread", "");
    assert_eq!(answer.status(), 429);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(status("POST", "/api/other/reread"), 202);
    let all = [(); 3].map(|()| status("POST", "/api/reread"));
    assert_eq!(all, [202, 202, 429], "these have a rate of their own");
}

#[test]
fn the_command_has_clients_reread() {
    let server = server(Transport::Http1, &["--workers", "1", "--reread-window", "0"]);
    let mut streams = [server.stream("acme"), server.stream("other")];
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    let url = format!("http://{}", server.address());
    let run = |args: &[&str]| {
        let output = Server::command().arg("reread").args(args).output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    assert_eq!(run(&["acme", "--url", &url]), (Some(0), "1 streams\n".into()));
    rereads(&mut streams[0]);
    assert_eq!(run(&["--url", &url]), (Some(0), "2 streams\n".into()));
    streams.iter_mut().for_each(|stream| _ = rereads(stream));
    assert_eq!(run(&["a b", "--url", &url]).0, Some(2));
    assert_eq!(run(&["acme", "--url", "http://127.0.0.1:1"]).0, Some(1));
}
