//! What streams are told before the end, and when.
#![expect(
    clippy::disallowed_types,
    clippy::needless_collect,
    reason = "loom replaces no lock of a test; its threads have to run at the same time"
)]

use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{begin_publish, server};
use crate::support::server::Signal;
use crate::support::{Transport, eventually};

/// The order tells that they did not end as one, and the window that they did not end early.
#[test]
fn streams_end_spread_over_the_window() {
    const STREAMS: usize = 100;
    for transport in Transport::all() {
        let mut server = server(transport, &["--workers", "2", "--drain-window", "2s"]);
        let ends = Arc::new(Mutex::new(Vec::new()));
        let orgs = ["a", "b", "c"];
        let streams: Vec<_> = (0..STREAMS).map(|n| server.stream(orgs[n % 3])).collect();
        let readers: Vec<_> = streams
            .into_iter()
            .map(|mut stream| {
                stream.connected();
                let ends = ends.clone();
                thread::spawn(move || {
                    let retry = stream.farewell();
                    ends.lock().expect("no panic").push((Instant::now(), retry));
                })
            })
            .collect();
        let start = Instant::now();
        server.signal(Signal::TERM);
        readers.into_iter().for_each(|reader| reader.join().expect("a proper end"));
        assert_eq!(server.wait(), Some(0));

        let ends = ends.lock().expect("no panic");
        let half = ends.iter().filter(|(at, _)| *at - start < Duration::from_secs(1)).count();
        assert!(
            (STREAMS / 4..=STREAMS * 3 / 4).contains(&half),
            "{half} in the first half: {transport:?}"
        );
        let mut retries: Vec<_> = ends.iter().map(|(_, retry)| *retry).collect();
        assert!(retries.iter().all(|retry| (1_000..=5_000).contains(retry)));
        retries.sort_unstable();
        retries.dedup();
        assert!(retries.len() > STREAMS / 2, "drawn for each: {retries:?}");
    }
}

/// A publish that has begun is finished, and heard by those whose turn to end has not come.
#[test]
fn who_stays_hears_until_its_turn_comes() {
    let mut server = server(Transport::Http1, &["--workers", "1", "--drain-window", "2s"]);
    let mut streams = server.streams("acme", 4);
    // A publish that began before accepting ended.
    let mut publish = server.connect();
    begin_publish(&mut publish);
    publish.send("{\"keys\"");
    server.signal(Signal::TERM);
    eventually("nothing more is accepted", || TcpStream::connect(server.address()).is_err());
    publish.send(":[\"a\"]}");
    assert_eq!(publish.read_answer().status(), 202);
    let heard = streams
        .iter_mut()
        .filter_map(|stream| {
            let heard = stream.next();
            if heard.starts_with("retry: ") {
                None
            } else {
                assert!(heard.contains("[\"a\"]"));
                stream.farewell();
                Some(())
            }
        })
        .count();
    assert!((1..4).contains(&heard), "{heard} of 4 were still there");
    assert_eq!(server.wait(), Some(0));
}

/// Its window would close long after the server has gone.
#[test]
fn what_a_burst_has_left_is_told_before_the_end() {
    for transport in Transport::all() {
        let mut server = server(transport, &["--coalesce", "50s", "--drain-window", "100ms"]);
        let mut streams = server.streams("acme", 2);
        let ids = ["first", "held"].map(|key| server.publish("acme", &[key]).expect("an id"));
        server.signal(Signal::TERM);
        for stream in &mut streams {
            stream.expect_invalidate(&ids[0], &["first"]);
            stream.expect_invalidate(&ids[1], &["held"]);
            stream.farewell();
        }
        assert_eq!(server.wait(), Some(0));
    }
}

/// A browser never comes back from a 503. So a stream that is asked for too late, on a connection that
/// was accepted in time, is told when to come back.
#[test]
fn who_asks_too_late_is_told_when_to_come_back() {
    let mut server = server(Transport::Http1, &["--workers", "1", "--drain-window", "3s"]);
    let mut streams = server.streams("acme", 2);
    // A request that has begun keeps its connection open.
    let mut late = server.connect();
    late.send("GET /api/acme/events HTTP/1.1\r\nhost: t\r\n");
    thread::sleep(Duration::from_millis(100));
    server.signal(Signal::TERM);
    streams[0].farewell();
    late.send("accept: text/event-stream\r\n\r\n");
    let answer = late.read_answer();
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert!(answer.body.starts_with("retry: ") && answer.body.ends_with("\n\n"), "{answer:?}");
    assert_eq!(server.wait(), Some(0));
}
