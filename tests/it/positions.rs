//! Positions: what a backend reads before its database, so that the page that it makes misses nothing and re-reads
//! nothing.

use serde_json::Value;

use crate::support::{Answer, Client, Server, Stream, Transport, after};

const PATH: &str = "/api/acme/position";

fn server(transport: Transport, more: &[&str]) -> Server {
    let flags = ["--public-orgs", "acme", "--public-keys", "posts"];
    Server::start_on(transport, &[&flags[..], more].concat())
}

fn answer(client: &mut Client, method: &str, path: &str, fields: &str) -> Answer {
    client.send(&format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{fields}\r\n"));
    client.read_answer()
}

/// The ids of both views.
fn position(server: &Server, path: &str) -> [String; 2] {
    let answer = server.get(path);
    assert_eq!(answer.status(), 200, "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    ["member", "public"].map(|view| body[view]["id"].as_str().expect("an id").to_owned())
}

fn resumed(server: &Server, path: &str, id: &str) -> Stream {
    let mut stream = server.stream_with(&format!("{path}?last_event_id={id}"), "");
    let (_, greeted, name) = stream.greeting();
    assert_eq!((&*name, &*greeted), ("resumed", id));
    stream
}

/// Over HTTP/1 the answer is the same for the first request of a connection and for a later one.
#[test]
fn a_position_has_the_id_and_the_streams_of_each_view() {
    for transport in Transport::all() {
        let server = server(transport, &["--coalesce", "0"]);
        let mut client = server.connect();
        let read = |client: &mut Client| answer(client, "GET", PATH, "");
        let first = read(&mut client);
        let ids = position(&server, PATH);
        assert!(ids.iter().all(|id| id.ends_with("-0")) && ids[0] != ids[1], "{ids:?}");
        let expected = |member: &str, public: &str, streams: [usize; 2]| {
            format!(
                "{{\"member\":{{\"id\":\"{member}\",\"streams\":{}}},\
                 \"public\":{{\"id\":\"{public}\",\"streams\":{}}}}}",
                streams[0], streams[1]
            )
        };
        assert_eq!(first.body, expected(&ids[0], &ids[1], [0, 0]), "{transport:?}");
        assert_eq!(first.status(), 200);
        assert_eq!(first.header("content-type"), Some("application/json"));
        assert_eq!(first.header("cache-control"), Some("no-store"));
        assert_eq!(first.header("x-content-type-options"), Some("nosniff"));

        let _members = server.streams("acme", 2);
        server.stream_with("/api/acme/public/events", "").connected();
        server.publish("acme", &["secret"]);
        server.publish("acme", &["posts"]);
        let public = server.stream_with("/api/acme/public/events", "");
        let answer = read(&mut client).body;
        let streams = |n| expected(&after(&ids[0], 2), &after(&ids[1], 1), [2, n]);
        // The stream that has ended may be counted until its connection is read.
        assert!(answer == streams(1) || answer == streams(2), "{answer}");
        drop(public);
        let private = server.get("/api/other/position").body;
        assert!(private.contains("\"member\"") && !private.contains("\"public\""), "{private}");
    }
}

/// SCENARIO: a backend makes a page of an organisation that was never used; before the page has its stream, something
/// changes.
/// BUG: there was nothing to read before the database, so the page had to read everything twice, or missed the change.
/// FIX: the position is remembered as if a stream had been there: the first stream is resumed.
#[test]
fn a_page_that_begins_at_a_position_misses_nothing() {
    for transport in Transport::all() {
        let server = server(transport, &["--coalesce", "0"]);
        for _ in 0..3 {
            let [member, public] = position(&server, PATH);
            let changed = server.publish("acme", &["secret"]).expect("remembered");
            let seen = server.publish("acme", &["posts"]).expect("remembered");
            assert_eq!([&changed, &seen], [&after(&member, 1), &after(&member, 2)]);
            let mut stream = resumed(&server, "/api/acme/events", &member);
            stream.expect_invalidate(&changed, &["secret"]);
            stream.expect_invalidate(&seen, &["posts"]);
            let mut stream = resumed(&server, "/api/acme/public/events", &public);
            stream.expect_invalidate(&after(&public, 1), &["posts"]);
        }
    }
}

/// A position that is read while a burst is held is the one before the union.
#[test]
fn a_position_within_a_burst_is_before_its_union() {
    for transport in Transport::all() {
        let server = server(transport, &["--coalesce", "1s"]);
        let [start, _] = position(&server, PATH);
        server.publish("acme", &["a"]);
        server.publish("acme", &["b"]);
        let [id, _] = position(&server, PATH);
        server.publish("acme", &["c"]);
        let mut stream = resumed(&server, "/api/acme/events", &id);
        // On a slow machine the window may have closed in between.
        let mut received = String::new();
        while !received.contains("\"c\"") {
            received.push_str(&stream.next());
        }
        assert!(received.contains("\"b\"") || id != after(&start, 1), "{received}");
    }
}

#[test]
fn a_position_is_a_resource_with_two_methods() {
    for transport in Transport::all() {
        let server =
            server(transport, &["--cors-origin", "https://app.example", "--insecure-open"]);
        let mut client = server.connect();
        let refused = answer(&mut client, "POST", PATH, "content-length: 0\r\n");
        assert_eq!((refused.status(), refused.header("allow")), (405, Some("GET, HEAD")));
        for (path, status) in [
            ("/api/position", 404),
            ("/api/acme/position/", 404),
            ("/api/acme/public/position", 404),
            ("/api/a%20b/position", 400),
        ] {
            assert_eq!(server.get(path).status(), status, "{path}");
        }
        assert!(server.get("/api/acme").problem().contains("GET /api/{org}/position"));
        let origin = "origin: https://app.example\r\n";
        let allowed = answer(&mut server.connect(), "GET", PATH, origin);
        assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example"));
        let mut client = server.connect();
        client.send(&format!("HEAD {PATH} HTTP/1.1\r\nhost: test\r\n\r\n"));
        assert!(client.read_head().starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(answer(&mut client, "GET", "/livez", "").body, "live\n");
    }
}
