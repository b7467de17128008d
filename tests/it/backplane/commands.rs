//! Commands reach the streams of every server.

use super::{JSON, NDJSON, RUN, id_of, member, publish_keys, ready};
use crate::support::nats::NatsServer;
use crate::support::programs::{NATS_SERVER, requires};
use crate::support::{Answer, Server, Stream, eventually};

fn post(server: &Server, path: &str) -> Answer {
    server.post(path, JSON, "{}")
}

fn delete(server: &Server, path: &str, body: &str) -> Answer {
    server.request(&format!(
        "DELETE {path} HTTP/1.1\r\nhost: test\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn two(nats: &NatsServer) -> [Server; 2] {
    let args = &["--reread-window", "0", "--coalesce", "0"];
    [ready(nats, args), ready(nats, args)]
}

fn streams(servers: &[Server; 2], org: &str) -> [Stream; 2] {
    let mut streams = servers.each_ref().map(|server| server.stream(org));
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    streams
}

/// The end of a topic's stream, without a `retry:`.
fn expect_end(stream: &mut Stream) {
    assert_eq!(stream.client.read_to_end(), b"0\r\n\r\n", "the last chunk and no more");
}

fn expect_event(stream: &mut Stream, name: &str) -> String {
    let event = stream.next();
    assert!(event.contains(&format!("event: {name}\n")), "{event}");
    event
}

#[test]
fn a_reread_of_an_org_reaches_its_streams_everywhere_and_no_others() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let servers = two(&nats);
    let mut acme = streams(&servers, "acme");
    let mut other = streams(&servers, "other");
    let before = id_of(&publish_keys(&servers[0], "acme", "a"));
    acme.iter_mut().for_each(|stream| stream.expect_invalidate(&before, &["a"]));
    let answer = post(&servers[0], "/api/acme/reread");
    assert_eq!((answer.status(), member(&answer, "streams")), (202, 1.into()), "this server's");
    acme.iter_mut().for_each(|stream| _ = expect_event(stream, "connected"));
    let id = id_of(&publish_keys(&servers[1], "other", "b"));
    other.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["b"]));
    // No id from before resumes, on any server.
    for server in &servers {
        let id = format!("last-event-id: {before}\r\n");
        let mut stream = server.stream_with("/api/acme/events", &id);
        stream.connected();
    }
}

#[test]
fn a_reread_of_all_orgs_is_a_barrier() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let servers = two(&nats);
    let mut all = [streams(&servers, "acme"), streams(&servers, "other")];
    let before = id_of(&publish_keys(&servers[0], "acme", "a"));
    all[0].iter_mut().for_each(|stream| stream.expect_invalidate(&before, &["a"]));
    let answer = post(&servers[1], "/api/reread");
    assert_eq!((answer.status(), member(&answer, "streams")), (202, 2.into()), "{answer:?}");
    all.as_flattened_mut().iter_mut().for_each(|stream| _ = expect_event(stream, "connected"));
    let id = format!("last-event-id: {before}\r\n");
    for server in &servers {
        server.stream_with("/api/acme/events", &id).connected();
    }
}

#[test]
fn the_members_streams_end_everywhere() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let servers = two(&nats);
    let acme = streams(&servers, "acme");
    let public = servers.each_ref().map(|server| {
        let mut stream = server.stream_with("/api/acme/public/events", "");
        stream.connected();
        stream
    });
    let answer = delete(&servers[0], "/api/acme/events", "");
    assert_eq!((answer.status(), member(&answer, "streams")), (202, 1.into()), "{answer:?}");
    for mut stream in acme {
        stream.farewell();
    }
    let id = id_of(&publish_keys(&servers[0], "acme", "resolve-path"));
    for mut stream in public {
        let event = expect_event(&mut stream, "invalidate");
        assert!(!event.contains(&id), "the public view has ids of its own");
    }
}

#[test]
fn a_topic_is_closed_everywhere() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let servers = two(&nats);
    let first = id_of(&servers[0].post(RUN, JSON, r#"{"event":"a","data":1}"#));
    let mut streams = servers.each_ref().map(|server| server.stream_with(RUN, ""));
    for stream in &mut streams {
        stream.connected();
        assert_eq!(stream.next(), format!("id: {first}\nevent: a\ndata: 1\n\n"));
    }
    let answer = delete(&servers[1], RUN, r#"{"reason":"done \"so\""}"#);
    assert_eq!((answer.status(), member(&answer, "streams")), (202, 1.into()), "{answer:?}");
    for stream in &mut streams {
        let closed = expect_event(stream, "closed");
        assert!(closed.ends_with("data: {\"reason\":\"done \\\"so\\\"\"}\n\n"), "{closed}");
        expect_end(stream);
    }
    // What is published next begins anew.
    for server in &servers {
        eventually("its seat is free", || server.seats() == 0);
        server.stream_with(RUN, "").connected();
    }
    let second = id_of(&servers[0].post(RUN, JSON, r#"{"event":"a","data":2}"#));
    let mut stream = servers[1].stream_with(RUN, "");
    stream.connected();
    assert_eq!(stream.next(), format!("id: {second}\nevent: a\ndata: 2\n\n"));
}

/// The newest stream is the only one, whichever servers they are on, and receives its greeting once the others have
/// ended.
#[test]
fn an_exclusive_stream_ends_those_of_all_servers() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let servers = two(&nats);
    let mut losers = servers.each_ref().map(|server| server.stream_with(RUN, ""));
    losers.iter_mut().for_each(|stream| _ = stream.connected());
    for server in [0, 1, 1, 0] {
        let mut newest = servers[server].stream_with(&format!("{RUN}?exclusive"), "");
        newest.connected();
        for stream in &mut losers {
            assert_eq!(stream.next(), "event: closed\ndata: {\"reason\":\"replaced\"}\n\n");
            expect_end(stream);
        }
        assert_eq!(servers[server].seats(), 1);
        eventually("the other server's seats are free", || servers[1 - server].seats() == 0);
        let mut joined = servers[1 - server].stream_with(RUN, "");
        joined.connected();
        let id = id_of(&servers[server].post(RUN, JSON, r#"{"event":"a","text":"x"}"#));
        for stream in [&mut newest, &mut joined] {
            let mut event = stream.next();
            while !event.starts_with(&format!("id: {id}\n")) {
                event = stream.next();
            }
        }
        losers = [newest, joined];
    }
}

/// SCENARIO: a client opens exclusive streams one after the other, each of which appends its claim to the log.
/// BUG: nothing limited them, though every server reads what is appended, and a reader need not be allowed to publish.
/// FIX: a claim counts as a publish to the organisation. An `EventSource` beyond the rate comes back by itself.
#[test]
fn an_exclusive_stream_counts_as_a_publish() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let server = ready(&nats, &["--publish-rate", "1", "--publish-burst", "10"]);
    let exclusive = format!("{RUN}?exclusive");
    let mut newest = None;
    for _ in 0..10 {
        let mut stream = server.stream_with(&exclusive, "");
        stream.connected();
        newest = Some(stream);
    }
    let burst = "{\"org\":\"acme\",\"keys\":[\"a\"]}\n".repeat(10);
    assert_eq!(server.post("/api/events", NDJSON, &burst).status(), 429);

    // Beyond the rate it is refused, and an EventSource comes back.
    let head = |fields: &str| {
        let mut client = server.connect();
        client.send(&format!("GET {exclusive} HTTP/1.1\r\nhost: test\r\n{fields}\r\n"));
        client.read_head()
    };
    let publish = || server.post(RUN, JSON, r#"{"event":"a","data":1}"#).status();
    eventually("a claim is beyond the rate", || {
        eventually("the rate is used up", || publish() == 429);
        let refused = head("");
        refused.starts_with("HTTP/1.1 429 ") && refused.contains("retry-after: ")
    });
    eventually("an EventSource gets the end of a stream", || {
        eventually("the rate is used up", || publish() == 429);
        let ended = head("accept: text/event-stream\r\n");
        assert!(ended.starts_with("HTTP/1.1 200 "), "{ended}");
        ended.contains("content-length: ")
    });
    // Any other stream counts as nothing.
    server.stream_with(RUN, "").connected();
    drop(newest);
}
