//! `since=` in each of its forms.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{RUN, before, numbered_frame, publish, publish_some};
use crate::bytes::Way;
use crate::support::{BOUND, Server, Stream};

fn numbered(n: u64) -> String {
    super::numbered(n)
}

/// The milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("a number")
}

/// A time that is later than all before it, and earlier than all after it, by the server's clocks too.
fn moment() -> u64 {
    let start = std::time::Instant::now();
    let after = |time: u64| {
        while now() < time {
            assert!(start.elapsed() < BOUND, "the clock stands still");
            std::thread::yield_now();
        }
        time
    };
    let time = after(now() + 3);
    after(time + 3);
    time
}

/// Whether the stream gets the events after number `from`, and no others.
fn expect_from(stream: &mut Stream, ids: &[String], from: usize) {
    stream.greeting();
    for (id, n) in ids.iter().zip(1..).skip(from) {
        assert_eq!(stream.next(), numbered_frame(id, n));
    }
    assert!(stream.client.is_silent());
}

#[test]
fn a_stream_since_now_gets_only_what_comes() {
    for way in Way::all() {
        let server = way.start(&[]);
        let ids = publish_some(&server, RUN, 2);
        let mut stream = way.open(&server, &format!("{RUN}?since=now"));
        assert_eq!(stream.greeting().1, ids[1], "{way:?}: its id is that of now");
        let id = publish(&server, RUN, &numbered(3));
        assert_eq!(stream.next(), numbered_frame(&id, 3), "{way:?}");
    }
}

#[test]
fn a_stream_since_a_time_gets_what_was_published_then_and_later() {
    for way in Way::all() {
        let server = way.start(&[]);
        let start = now();
        let mut ids = publish_some(&server, RUN, 2);
        let middle = moment();
        ids.push(publish(&server, RUN, &numbered(3)));
        let end = moment();
        for (since, from) in [
            (0, 0),
            (start - 60_000, 0),
            (start, 0),
            (middle, 2),
            (end, 3),
            (end + 3_600_000, 3),
            (u64::MAX, 3),
        ] {
            let mut stream = way.open(&server, &format!("{RUN}?since={since}"));
            expect_from(&mut stream, &ids, from);
        }
    }
}

#[test]
fn a_stream_since_an_id_gets_what_followed() {
    for way in Way::all() {
        let server = way.start(&[]);
        let ids = publish_some(&server, RUN, 3);
        for (id, from) in [(&before(&ids[0]), 0), (&ids[0], 1), (&ids[2], 3)] {
            let mut stream = way.open(&server, &format!("{RUN}?since={id}"));
            expect_from(&mut stream, &ids, from);
        }
    }
}

/// What cannot be used is everything: an `EventSource` gives up at an error.
#[test]
fn another_value_of_since_is_everything() {
    let server = Server::start(&[]);
    let ids = publish_some(&server, RUN, 2);
    let (first, last) = (&ids[0], &ids[1]);
    for query in [
        "since=".into(),
        "since=all".into(),
        "since=yesterday".into(),
        "since=-1".into(),
        "since=1e3".into(),
        "since=99999999999999999999999999.5".into(),
        "since=%00".into(),
        "since=0123456789abcdef-1".into(),
        format!("since={first}&since={last}"),
        format!("since=now&since={last}"),
        format!("since=now&last_event_id={first}x"),
    ] {
        for _ in 0..2 {
            let mut stream = server.stream_with(&format!("{RUN}?{query}"), "");
            assert_eq!(stream.connected(), before(first), "{query}");
            assert_eq!(stream.next(), numbered_frame(first, 1), "{query}");
            assert_eq!(stream.next(), numbered_frame(last, 2), "{query}");
        }
    }
    let mut stream = server.stream_with(&format!("{RUN}?since=99999999999999999999999999"), "");
    expect_from(&mut stream, &ids, 2);
}

/// Invalidations have nothing to replay to a client that has missed none.
#[test]
fn streams_of_an_org_do_not_read_since() {
    let server = Server::start(&["--coalesce", "0"]);
    let _keeps_the_channel = server.streams("acme", 1);
    let id = server.publish("acme", &["a"]).expect("subscribed");
    for since in ["all", "0", &before(&id)] {
        let mut stream = server.stream_with(&format!("/api/acme/events?since={since}"), "");
        assert_eq!(stream.connected(), id);
        assert!(stream.client.is_silent());
    }
}
