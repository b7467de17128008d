//! Streams that end at a deadline: at their maximum age, or because their client receives nothing. These tests check
//! how they end and the counted cause; `src/hub/tests/deadlines.rs` checks when, in virtual time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::large::{LARGE, publish};
use crate::support::{Server, Transport, eventually};

/// More large events than the buffers of a connection hold.
const EVENTS: u64 = 3;

fn server(transport: Transport, limits: &[&str]) -> Server {
    Server::start_on(transport, &[LARGE, &["--history-events", "2"], limits].concat())
}

fn closed(server: &Server, reason: &str) -> u64 {
    server.metric(&format!("nudged_streams_closed_total{{reason=\"{reason}\"}}"))
}

/// The body ends as a complete one, and its connection too, so that the client reconnects through the load balancer.
#[test]
fn a_stream_ends_in_order_at_its_maximum_age() {
    for transport in Transport::http1() {
        let server = Server::start_on(transport, &["--max-stream-age", "2s"]);
        let before = server.descriptors_at_rest();
        let earlier = closed(&server, "max_age");
        for mut stream in server.streams("acme", 20) {
            assert_eq!(stream.client.read_to_end(), b"0\r\n\r\n", "{transport:?}");
        }
        eventually("every seat is free", || server.seats() == 0);
        eventually("every descriptor is closed", || server.descriptors() <= before);
        assert_eq!(closed(&server, "max_age"), earlier + 20, "{transport:?}");
    }
}

/// A client that reconnects with its last id receives the events that were published meanwhile.
#[test]
fn an_end_at_the_maximum_age_loses_no_event() {
    for transport in Transport::http1() {
        let server = Server::start_on(transport, &["--max-stream-age", "1s"]);
        let mut stream = server.stream("acme");
        let last = stream.connected();
        assert_eq!(stream.client.read_to_end(), b"0\r\n\r\n");
        let id = server.publish("acme", &["meanwhile"]).expect("remembered");
        let header = format!("last-event-id: {last}\r\n");
        let mut stream = server.stream_with("/api/acme/events", &header);
        assert_eq!(stream.greeting().2, "resumed", "{transport:?}");
        stream.expect_invalidate(&id, &["meanwhile"]);
    }
}

#[test]
fn a_stream_has_no_maximum_age_by_default() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &["--keepalive", "1s"]);
        let mut stream = server.stream("acme");
        stream.connected();
        for _ in 0..3 {
            assert_eq!(stream.next(), ": keepalive\n");
        }
        assert_eq!(server.seats(), 1, "{transport:?}");
    }
}

/// The client's kernel acknowledges everything and announces a closed window. The peer timeout, which our kernel
/// enforces, is far longer, so that the stall timeout ends the stream.
#[test]
fn a_client_that_receives_nothing_is_closed_as_stalled() {
    for transport in Transport::http1() {
        let limits = ["--peer-timeout", "10m", "--stall-timeout", "2s"];
        let server = server(transport, &limits);
        let before = server.descriptors_at_rest();
        let mut reads = server.stream("acme");
        reads.connected();
        let stalled = server.streams("acme", 4);
        publish(&server, EVENTS, &mut reads);
        eventually(&format!("they are closed on {transport:?}"), || server.seats() == 1);
        eventually("they are counted", || closed(&server, "stalled") == 4);
        eventually("their descriptors are closed", || server.descriptors() <= before + 1);
        let live = server.publish("acme", &["live"]).expect("subscribed");
        reads.expect_invalidate(&live, &["live"]);
        // The kernel discarded the bytes that it still held for them.
        for stream in stalled {
            let mut rest = Vec::new();
            let end = std::io::Read::read_to_end(&mut stream.client.socket(), &mut rest);
            assert!(end.is_err_and(|why| why.kind() == std::io::ErrorKind::ConnectionReset));
        }
    }
}

/// A client that reads slowly is served while one that reads nothing is closed.
#[test]
fn a_slow_reader_is_not_closed_as_stalled() {
    for transport in Transport::http1() {
        let limits = ["--peer-timeout", "10m", "--stall-timeout", "6s"];
        let history = ["--history-bytes", "100000000"];
        let server = Server::start_on(transport, &[LARGE, &limits, &history].concat());
        let mut reads = server.stream("acme");
        reads.connected();
        let mut slow = server.streams("acme", 1).remove(0);
        let _stalled = server.streams("acme", 1);
        let is_closed = AtomicBool::new(false);
        thread::scope(|scope| {
            // Publishes faster than the slow client reads.
            scope.spawn(|| {
                while !is_closed.load(Ordering::Acquire) {
                    publish(&server, 1, &mut reads);
                    thread::sleep(Duration::from_millis(300));
                }
            });
            // Its kernel opens the window only once much of the buffer is free, which happens many times before the
            // timeout.
            scope.spawn(|| {
                while !is_closed.load(Ordering::Acquire) {
                    slow.client.read_exact(150_000);
                    thread::sleep(Duration::from_millis(200));
                }
            });
            eventually("the other is closed", || closed(&server, "stalled") > 0);
            is_closed.store(true, Ordering::Release);
        });
        assert_eq!((server.seats(), closed(&server, "stalled")), (2, 1), "{transport:?}");
    }
}

/// The kernel also limits how long a window stays closed (`tcp_probe_timer` in Linux's net/ipv4/tcp_timer.c). Where
/// its limit is the shorter one, it ends the connection, and reports the same error as for a vanished peer.
#[test]
fn a_closed_window_ends_at_the_peer_timeout_if_that_is_shorter() {
    for transport in Transport::http1() {
        let limits = ["--peer-timeout", "1s", "--stall-timeout", "60s"];
        let server = server(transport, &limits);
        let mut reads = server.stream("acme");
        reads.connected();
        let _stalled = server.streams("acme", 4);
        publish(&server, EVENTS, &mut reads);
        eventually(&format!("one seat is left on {transport:?}"), || server.seats() == 1);
        eventually("they are counted", || closed(&server, "timeout") == 4);
    }
}

/// A reset is distinguished from a close.
#[test]
fn a_reset_is_counted_as_a_reset() {
    for transport in Transport::http1() {
        let server = Server::start_on(transport, &[]);
        let mut streams = server.streams("acme", 20);
        streams.drain(..10).for_each(|stream| stream.client.reset());
        eventually("half of the seats are free", || server.seats() == 10);
        drop(streams);
        eventually("every seat is free", || server.seats() == 0);
        assert_eq!(
            (closed(&server, "reset"), closed(&server, "client")),
            (10, 10),
            "{transport:?}"
        );
    }
}
