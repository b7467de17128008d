//! What organisations remember over a restart.

use std::collections::HashSet;
use std::net::TcpStream;

use super::{ACME, Place, reconnect, resumed, stop};
use crate::support::server::Signal;
use crate::support::{Stream, Transport, after, eventually};

#[test]
fn a_client_resumes_over_a_restart_with_exactly_what_it_missed() {
    for transport in Transport::all() {
        let place = Place::new();
        let server = place.start_on(transport, &[]);
        let mut stream = server.stream("acme");
        let start = stream.connected();
        let first = server.publish("acme", &["a"]).expect("subscribed");
        stream.expect_invalidate(&first, &["a"]);
        stream.client.reset();
        eventually("the seat is free", || server.seats() == 0);
        let missed = ["b", "c"].map(|key| server.publish("acme", &[key]).expect("remembered"));
        stop(server);
        assert_eq!(place.names(), ["state"]);

        let server = place.start_on(transport, &[]);
        let mut stream = resumed(&server, ACME, &first);
        assert_eq!(place.names(), ["state.tmp"], "it was gone before the first event");
        stream.expect_invalidate(&missed[0], &["b"]);
        stream.expect_invalidate(&missed[1], &["c"]);
        let mut whole = resumed(&server, ACME, &start);
        whole.expect_invalidate(&first, &["a"]);
        whole.expect_invalidate(&missed[0], &["b"]);
        whole.expect_invalidate(&missed[1], &["c"]);
        let mut current = resumed(&server, ACME, &missed[1]);
        // The ids go on.
        let live = server.publish("acme", &["d"]).expect("subscribed");
        assert_eq!(live, after(&missed[1], 1));
        for stream in [&mut stream, &mut whole, &mut current] {
            stream.expect_invalidate(&live, &["d"]);
            assert!(stream.client.is_silent());
        }
        // The id of an org that it has not.
        reconnect(&server, "/api/other/events", &start).connected();
    }
}

/// The client's stream ends by the drain, and it comes back to the next server, as a browser does.
#[test]
fn ids_go_on_from_restart_to_restart() {
    let place = Place::new();
    let mut server = place.start(&[]);
    let mut stream = server.stream("acme");
    let (start, mut issued) = (stream.connected(), HashSet::new());
    let mut last = start.clone();
    for n in 1..=6 {
        let live = server.publish("acme", &["live"]).expect("subscribed");
        stream.expect_invalidate(&live, &["live"]);
        server.signal(Signal::TERM);
        stream.farewell();
        assert_eq!(server.wait(), Some(0));
        server = place.start(&[]);
        let missed = server.publish("acme", &["missed"]).expect("remembered");
        assert!(issued.insert(live.clone()) && issued.insert(missed.clone()), "issued twice");
        stream = resumed(&server, ACME, &live);
        stream.expect_invalidate(&missed, &["missed"]);
        assert_eq!(missed, after(&start, 2 * n));
        last = missed;
    }
    let mut first = resumed(&server, ACME, &start);
    for n in 1..=12 {
        first.expect_invalidate(&after(&start, n), &[if n % 2 == 1 { "live" } else { "missed" }]);
    }
    resumed(&server, ACME, &last);
    assert_eq!(server.metric("nudged_rereads_total"), 0);
}

#[test]
fn public_views_and_filters_resume_over_a_restart() {
    let place = Place::new();
    let flags = ["--public-keys", "posts,users"];
    let server = place.start(&flags);
    let path = "/api/acme/public/events";
    let (member, public) =
        (server.stream("acme").connected(), server.stream_with(path, "").connected());
    for keys in [&["secret"][..], &["secret", "posts"], &["users"], &["secret"]] {
        server.publish("acme", keys);
    }
    stop(server);

    let server = place.start(&flags);
    let mut stream = resumed(&server, path, &public);
    stream.expect_invalidate(&after(&public, 1), &["posts"]);
    stream.expect_invalidate(&after(&public, 2), &["users"]);
    let mut stream = resumed(&server, ACME, &member);
    stream.expect_invalidate(&after(&member, 1), &["secret"]);
    stream.expect_invalidate(&after(&member, 2), &["secret", "posts"]);
    // What an event of before the restart is about is not known, so it passes every filter; later ones are filtered.
    let mut filtered = resumed(&server, &format!("{ACME}?keys=posts"), &after(&member, 3));
    filtered.expect_invalidate(&after(&member, 4), &["secret"]);
    server.publish("acme", &["users"]);
    server.publish("acme", &["posts"]);
    filtered.expect_invalidate(&after(&member, 6), &["posts"]);
    // No view covers an id of the other one.
    reconnect(&server, path, &member).connected();
    reconnect(&server, ACME, &public).connected();
}

/// The last thing that keeps the server from ending.
#[test]
fn a_publish_that_is_answered_during_the_drain_is_there() {
    let place = Place::new();
    let mut server = place.start(&[]);
    let mut stream = server.stream("acme");
    let start = stream.connected();
    let mut publish = server.connect();
    publish.send(
        "POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
         content-length: 14\r\nexpect: 100-continue\r\n\r\n",
    );
    assert_eq!(publish.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    publish.send("{\"keys\"");
    server.signal(Signal::TERM);
    stream.farewell();
    eventually("nothing more is accepted", || TcpStream::connect(server.address()).is_err());
    publish.send(":[\"a\"]}");
    let answer = publish.read_answer();
    let id = after(&start, 1);
    assert_eq!((answer.status(), &*answer.body), (202, &*format!(r#"{{"id":"{id}"}}"#)));
    assert_eq!(server.wait(), Some(0));

    let server = place.start(&[]);
    resumed(&server, ACME, &start).expect_invalidate(&id, &["a"]);
}

/// The burst window is longer than any test, and no stream is there that its end would be delivered to.
#[test]
fn what_a_burst_window_holds_is_there() {
    let place = Place::new();
    let server = place.start(&["--coalesce", "50s"]);
    let start = server.stream("acme").connected();
    let ids = ["a", "b", "c"].map(|key| server.publish("acme", &[key]).expect("remembered"));
    stop(server);

    let server = place.start(&["--coalesce", "50s"]);
    let mut stream = resumed(&server, ACME, &start);
    stream.expect_invalidate(&ids[0], &["a"]);
    stream.expect_invalidate(&ids[1], &["b", "c"]);
    assert_eq!(ids[2], ids[1]);
}

/// SCENARIO: all clients of an organisation are to re-read everything within an hour, and the server restarts before.
/// BUG: a client whose turn had not come would resume at the next server, and never re-read.
/// FIX: what was requested holds over a restart.
#[test]
fn a_client_that_has_to_re_read_does_so_after_the_restart() {
    for path in ["/api/acme/reread", "/api/reread"] {
        let place = Place::new();
        let flags = ["--reread-window", "1h"];
        let mut server = place.start(&flags);
        let mut streams = server.streams("acme", 1);
        let before = server.publish("acme", &["a"]).expect("subscribed");
        streams[0].expect_invalidate(&before, &["a"]);
        let request = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n");
        let answer = server.request(&request);
        assert_eq!(answer.status(), 202, "{answer:?}");
        let after = server.publish("acme", &["b"]).expect("subscribed");
        server.signal(Signal::TERM);
        assert_eq!(server.wait(), Some(0));
        let server = place.start(&flags);
        let mut stream = reconnect(&server, ACME, &before);
        assert_eq!(stream.greeting().2, "connected", "{path}");
        // That of a client which has connected since.
        assert_eq!(reconnect(&server, ACME, &after).greeting().2, "resumed", "{path}");
    }
}

/// Each gets what its own organisation published while there was no server for it, and nothing else.
#[test]
fn of_hundreds_of_clients_none_re_reads() {
    const STREAMS: usize = 400;
    const ORGS: usize = 40;
    let place = Place::new();
    let mut server = place.start(&["--workers", "2"]);
    let org = |n: usize| format!("org-{}", n % ORGS);
    let mut streams: Vec<_> = (0..STREAMS).map(|n| server.stream(&org(n))).collect();
    let starts: Vec<_> = streams.iter_mut().map(Stream::connected).collect();
    for n in 0..ORGS {
        server.publish(&org(n), &[&format!("before-{n}")]).expect("subscribed");
    }
    for (n, stream) in streams.iter_mut().enumerate() {
        stream.expect_invalidate(&after(&starts[n], 1), &[&format!("before-{}", n % ORGS)]);
    }
    server.signal(Signal::TERM);
    streams.iter_mut().for_each(|stream| _ = stream.farewell());
    assert_eq!(server.wait(), Some(0));

    // With another number of workers.
    let server = place.start(&["--workers", "3"]);
    for n in 0..ORGS {
        server.publish(&org(n), &[&format!("between-{n}")]).expect("remembered");
    }
    let path = |n| format!("/api/{}/events", org(n));
    for (n, start) in starts.iter().enumerate() {
        let mut stream = resumed(&server, &path(n), &after(start, 1));
        stream.expect_invalidate(&after(start, 2), &[&format!("between-{}", n % ORGS)]);
        assert!(stream.client.is_silent());
    }
}
