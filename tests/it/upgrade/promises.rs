//! What a server knows of a stream holds at its successor too.

use std::process::Command;

use super::upgradable::{PROGRAM, Upgradable};
use crate::support::server::Signal;
use crate::support::topic::{RUN, numbered, numbered_frame, publish};
use crate::support::{Server, Stream, eventually};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn publish_event(server: &Server, n: u64) -> String {
    publish(server, RUN, &numbered(n))
}

fn expect_event(stream: &mut Stream, id: &str, n: u64) {
    assert_eq!(stream.next_event(), numbered_frame(id, n));
}

#[test]
fn a_topic_goes_on_with_what_it_keeps() {
    let mut server = Upgradable::start(&[]);
    let first = publish_event(&server, 1);
    let mut stream = server.stream_with(RUN, "");
    stream.connected();
    expect_event(&mut stream, &first, 1);
    server.upgrade();
    let second = publish_event(&server, 2);
    expect_event(&mut stream, &second, 2);
    // One that comes late, and one that comes back.
    let mut late = server.stream_with(RUN, "");
    late.connected();
    expect_event(&mut late, &first, 1);
    expect_event(&mut late, &second, 2);
    let mut back = server.stream_with(RUN, &format!("last-event-id: {first}\r\n"));
    assert_eq!(back.greeting().2, "resumed");
    expect_event(&mut back, &second, 2);
}

#[test]
fn an_exclusive_stream_stays_alone() {
    let mut server = Upgradable::start(&[]);
    let path = format!("{RUN}?exclusive");
    let mut first = server.stream_with(&path, "");
    first.connected();
    server.upgrade();
    let id = publish_event(&server, 1);
    expect_event(&mut first, &id, 1);
    let mut second = server.stream_with(&path, "");
    second.connected();
    assert_eq!(first.next_event(), "event: closed\ndata: {\"reason\":\"replaced\"}\n\n");
    expect_event(&mut second, &id, 1);
    eventually("the first is gone", || server.seats() == 1);
}

#[test]
fn a_filter_and_a_public_view_hold() {
    let flags = ["--coalesce", "0", "--public-orgs", "acme", "--public-keys", "posts"];
    let mut server = Upgradable::start(&flags);
    let mut filtered = server.stream_with("/api/acme/events?keys=posts", "");
    let mut public = server.stream_with("/api/acme/public/events", "");
    let mut member = server.stream("acme");
    let (_, first) = (filtered.connected(), public.connected());
    member.connected();
    server.upgrade();
    let users = server.publish("acme", &["users"]).expect("subscribed");
    let posts = server.publish("acme", &["posts"]).expect("subscribed");
    member.expect_invalidate(&users, &["users"]);
    member.expect_invalidate(&posts, &["posts"]);
    filtered.expect_invalidate(&posts, &["posts"]);
    public.expect_invalidate(&crate::support::after(&first, 1), &["posts"]);
}

#[test]
fn a_stream_resumes_at_the_successor_with_an_id_of_before() {
    let mut server = Upgradable::start(&["--coalesce", "0"]);
    let mut stream = server.stream("acme");
    let first = stream.connected();
    let id = server.publish("acme", &["a"]).expect("subscribed");
    server.upgrade();
    server.upgrade();
    let mut back = server.stream_with("/api/acme/events", &format!("last-event-id: {first}\r\n"));
    assert_eq!(back.greeting().2, "resumed");
    back.expect_invalidate(&id, &["a"]);
    let live = server.publish("acme", &["live"]).expect("subscribed");
    assert_eq!(live, crate::support::after(&id, 1));
    back.expect_invalidate(&live, &["live"]);
}

/// It is a part of the age that it had before.
#[test]
fn a_stream_ends_at_its_maximum_age() {
    let mut server = Upgradable::start(&["--max-stream-age", "3s", "--keepalive", "5m"]);
    let mut streams = server.streams("acme", 8);
    server.upgrade();
    for stream in &mut streams {
        assert_eq!(stream.client.read_to_end(), b"0\r\n\r\n");
    }
    eventually("they are counted", || server.closed().get("max_age") == Some(&8));
}

#[test]
fn a_stream_ends_when_its_token_expires() {
    let more = ["--jwt-secret", SECRET, "--token-query", "token", "--keepalive", "5m"];
    let mut server = Upgradable::start(&more);
    let minted = Command::new(PROGRAM)
        .args(["token", "--org", "acme", "--ttl", "4s"])
        .env("NUDGED_JWT_SECRET", SECRET)
        .output()
        .expect("it runs");
    let token = String::from_utf8(minted.stdout).expect("a token");
    let path = format!("/api/acme/events?token={}", token.trim());
    let mut stream = server.stream_with(&path, "");
    stream.connected();
    server.upgrade();
    assert_eq!(stream.client.read_to_end(), b"0\r\n\r\n");
    eventually("it is counted", || server.closed().get("expired") == Some(&1));
}

/// A keepalive is due when it would have been.
#[test]
fn keepalives_go_on() {
    let mut server = Upgradable::start(&["--keepalive", "1s"]);
    let mut stream = server.stream("acme");
    stream.connected();
    for _ in 0..3 {
        server.upgrade();
        assert_eq!(stream.next(), ": keepalive\n");
    }
}

/// Its limits of addresses too.
#[test]
fn a_stream_counts_against_the_limit_of_its_address() {
    let mut server = Upgradable::start(&["--address-streams", "3", "--streams", "70000"]);
    let streams = server.streams("acme", 3);
    server.upgrade();
    let status = |server: &Server| {
        let mut client = server.connect();
        client.send("GET /api/acme/events HTTP/1.1\r\nhost: test\r\n\r\n");
        client.read_head()
    };
    assert!(!status(&server).starts_with("HTTP/1.1 200 "), "a fourth");
    drop(streams);
    eventually("they are gone", || server.seats() == 0);
    assert!(status(&server).starts_with("HTTP/1.1 200 "), "one again");
}

#[test]
fn a_stream_is_one_line_of_the_access_log_with_its_whole_time() {
    let mut server = Upgradable::start(&["--access-log", "--coalesce", "0"]);
    let mut stream = server.stream("acme");
    stream.connected();
    let first = server.publish("acme", &["a"]).expect("subscribed");
    stream.expect_invalidate(&first, &["a"]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    server.upgrade();
    let second = server.publish("acme", &["b"]).expect("subscribed");
    stream.expect_invalidate(&second, &["b"]);
    stream.client.reset();
    let line = server.log.line(&["a stream ended"]);
    let field = |name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}=")).expect(name);
        rest.split(' ').next().expect("a value").to_owned()
    };
    assert_eq!(
        (field("org"), field("events"), field("client")),
        ("acme".into(), "2".into(), "127.0.0.1".into())
    );
    assert!(field("seconds").parse::<f64>().expect("a number") >= 1.0, "{line}");
    server.signal(Signal::TERM);
    eventually("it ends", || server.processes().is_empty());
    let rest: Vec<_> = server.log.rest();
    assert!(!rest.iter().any(|line| line.contains("a stream ended")), "{rest:#?}");
}

#[test]
fn the_counters_of_streams_and_events_go_on() {
    let mut server = Upgradable::start(&["--coalesce", "0"]);
    let mut streams = server.streams("acme", 10);
    let id = server.publish("acme", &["a"]).expect("subscribed");
    streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["a"]));
    drop(streams.split_off(7));
    eventually("three have left", || server.seats() == 7);
    let names = [
        "nudged_events_delivered_total",
        "nudged_rereads_total",
        "nudged_seats",
        "nudged_streams_open",
    ];
    let metrics = server.get("/metrics").body;
    let known = names.iter().filter(|name| metrics.contains(&format!("\n{name} ")));
    let known: Vec<_> = known.map(|name| (*name, server.metric(name))).collect();
    assert!(known.len() >= 3, "{metrics}");
    let closed = server.closed();
    server.upgrade();
    for (name, value) in known {
        assert_eq!(server.metric(name), value, "{name}");
    }
    assert_eq!(server.closed(), closed);
    drop(streams);
    eventually("all have left", || server.seats() == 0);
    let all: u64 = server.closed().values().sum();
    assert_eq!(all, 10);
}
