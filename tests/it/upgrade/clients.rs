//! Streams whose clients are not the best: they read nothing, talk, close their half, or vanish. And those that stay with
//! the old process, which ends them in good order.
#![expect(clippy::needless_collect, reason = "all connections are open before the upgrade")]

use serde_json::json;

use super::upgradable::Upgradable;
use crate::support::http2_client::{End, Http2Client, WIDE};
use crate::support::large::{LARGE, publish};
use crate::support::programs::{OPENSSL, PYTHON, requires};
use crate::support::{Client, Stream, Transport, eventually};

/// More than the buffers of a connection hold.
const EVENTS: u64 = 7;

/// The client has a part of an event when its server is replaced, twice.
#[test]
fn a_client_that_does_not_read_gets_the_rest_of_an_event_that_was_cut() {
    for transport in Transport::http1() {
        rests_go_on(transport);
    }
}

fn rests_go_on(transport: Transport) {
    let more = ["--history-bytes", "100000000", "--peer-timeout", "10m"];
    let mut server = Upgradable::start_on(transport, &[LARGE, &more].concat());
    let mut late = server.streams("acme", 3);
    let mut reads = server.stream("acme");
    reads.connected();
    publish(&server, EVENTS, &mut reads);
    server.upgrade();
    // One reads a part of it in between.
    let part = late[0].client.read_exact(100_000);
    server.upgrade();
    let live = server.publish("acme", &["live"]).expect("subscribed");
    reads.expect_invalidate(&live, &["live"]);
    let [mut first, second, third] = late.try_into().ok().expect("three");
    let all = chunk_ends(&mut first, part, &live);
    for stream in [second, third] {
        let (mut stream, nothing) = (stream, Vec::new());
        assert!(chunk_ends(&mut stream, nothing, &live) == all, "not the same bytes");
    }
    assert_eq!(server.metric("nudged_rereads_total"), 0);
}

/// What the stream receives up to the end of the event with this id.
fn chunk_ends(stream: &mut Stream, mut bytes: Vec<u8>, id: &str) -> Vec<u8> {
    let end = format!("id: {id}\nevent: invalidate\ndata: {{\"keys\":[\"live\"]}}\n\n\r\n");
    bytes.extend(stream.client.read_until(end.as_bytes()));
    bytes
}

#[test]
fn a_client_that_talks_closes_its_half_or_vanishes_is_served_as_ever() {
    let mut server = Upgradable::start(&["--coalesce", "0", "--workers", "1"]);
    let mut talks = server.stream("acme");
    talks.connected();
    let [half, gone] = [server.stream("acme"), server.stream("acme")];
    talks.client.send("GET /livez HTTP/1.1\r\nhost: test\r\n\r\nand what else comes to mind");
    half.client.half_close();
    gone.client.reset();
    server.upgrade();
    eventually("only one is left", || server.seats() == 1);
    talks.client.send("and this");
    let id = server.publish("acme", &["a"]).expect("subscribed");
    talks.expect_invalidate(&id, &["a"]);

    // The same after it.
    let [half, gone] = [server.stream("acme"), server.stream("acme")];
    server.upgrade();
    half.client.half_close();
    gone.client.reset();
    eventually("only one is left", || server.seats() == 1);
    talks.client.half_close();
    eventually("none is left", || server.seats() == 0);
    let (opened, closed) = counters(&server);
    assert_eq!((opened, closed), (5, 5));
}

/// While all workers are stopped, or nearly so.
#[test]
fn a_client_that_leaves_in_the_middle_leaves_no_seat() {
    requires!(PYTHON);
    let mut server = Upgradable::start(&["--coalesce", "0", "--workers", "1"]);
    for kind in ["Hello", "Hub", "Took", "Commit", "Live"] {
        let mut stays = server.stream("acme");
        stays.connected();
        let [half, gone, drops] = [0; 3].map(|_| server.stream("acme"));
        // The old process waits for half a second at this step.
        let plan = json!({ "kind": kind, "when": "before", "do": "wait", "seconds": 0.5 });
        server.install_relay(plan);
        server.signal(crate::support::server::Signal::USR2);
        eventually("it waits", || server.trace().contains("do wait"));
        half.client.half_close();
        gone.client.reset();
        drop(drops);
        server.upgraded();
        server.forget_trace();
        eventually(&format!("only one is left, {kind}"), || server.seats() == 1);
        let id = server.publish("acme", &["a"]).expect("subscribed");
        stays.expect_invalidate(&id, &["a"]);
        drop(stays);
        eventually("none is left", || server.seats() == 0);
    }
    let (opened, closed) = counters(&server);
    assert_eq!((opened, closed), (20, 20));
}

fn counters(server: &Upgradable) -> (u64, u64) {
    let metrics = server.get("/metrics").body;
    let sum = |name: &str| -> u64 {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    };
    (sum("nudged_streams_opened_total"), sum("nudged_streams_closed_total"))
}

/// The keys of its session go with it.
#[test]
fn a_stream_behind_tls_goes_on() {
    requires!(OPENSSL);
    let mut server = Upgradable::start_on(Transport::Tls, &["--coalesce", "0", "--workers", "2"]);
    let mut streams = server.streams("acme", 20);
    for round in 0..3 {
        if round > 0 {
            server.upgrade();
        }
        for n in 0..30 {
            let key = format!("{round}-{n}");
            let id = server.publish("acme", &[&key]).expect("subscribed");
            streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &[&key]));
        }
    }
    assert_eq!(server.seats(), 20);
    assert_eq!(server.closed().values().sum::<u64>(), 0, "none has ended");
    drop(streams);
    eventually("none is left", || server.seats() == 0);
}

/// The old process drains them, and what it knew is known to the new one.
#[test]
fn a_stream_over_http2_or_in_a_tls_session_ends_in_order_and_resumes() {
    requires!(OPENSSL);
    let kept = ["--coalesce", "0", "--tls-sessions", "keep"];
    for (transport, flags) in
        [(Transport::H2c, &kept[..2]), (Transport::H2, &kept[..2]), (Transport::Tls, &kept[..])]
    {
        let mut server = Upgradable::start_on(transport, flags);
        let mut stream = server.stream("acme");
        stream.connected();
        let id = server.publish("acme", &["a"]).expect("subscribed");
        stream.expect_invalidate(&id, &["a"]);
        server.upgrade();
        stream.farewell();
        let missed = server.publish("acme", &["missed"]).expect("remembered");
        let last = format!("last-event-id: {id}\r\n");
        let mut stream = server.stream_with("/api/acme/events", &last);
        assert_eq!(stream.greeting().2, "resumed", "{transport:?}");
        stream.expect_invalidate(&missed, &["missed"]);
    }
}

/// Over HTTP/2 without TLS, as a proxy speaks it: also what is published on that connection is not lost.
#[test]
fn a_stream_of_a_multiplexed_connection_ends_in_order_and_others_go_on() {
    let mut server = Upgradable::start(&["--coalesce", "0"]);
    let mut kept = server.stream("acme");
    kept.connected();
    let mut client = Http2Client::connect(server.address(), WIDE);
    let stream = client.get("/api/acme/events");
    assert!(client.event(stream).contains("event: connected\n"));
    server.upgrade();
    assert!(matches!(client.end(stream).0, End::Stream), "an end in good order");
    let id = server.publish("acme", &["a"]).expect("subscribed");
    kept.expect_invalidate(&id, &["a"]);
    eventually("one is left", || server.seats() == 1);
}

/// What has sent nothing, a part of a request, or is between two requests, is answered by the new process.
#[test]
fn connections_without_a_stream_are_served_by_the_new_process() {
    let mut server = Upgradable::start(&["--coalesce", "0"]);
    let mut stream = server.stream("acme");
    stream.connected();
    const GET: &str = "GET /livez HTTP/1.1\r\nhost: test\r\n\r\n";
    let silent: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    let begun = (0..4).map(|_| {
        let mut client = server.connect();
        client.send(&GET[..20]);
        client
    });
    let begun: Vec<_> = begun.collect();
    let kept = (0..4).map(|_| {
        let mut client = server.connect();
        client.send(GET);
        assert_eq!(client.read_answer().status(), 200);
        client
    });
    let kept: Vec<_> = kept.collect();
    server.settle();
    server.upgrade();
    for (mut client, rest) in begun
        .into_iter()
        .map(|client| (client, &GET[20..]))
        .chain(silent.into_iter().chain(kept).map(|client| (client, GET)))
    {
        client.send(rest);
        assert_eq!(client.read_answer().status(), 200);
        // And a stream after it.
        let mut stream = Stream::open(client, "/api/acme/events", "");
        stream.connected();
    }
}
