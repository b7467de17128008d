//! Streams that end by the clock: at their maximum age, or because their client takes nothing. When they end
//! is tested in virtual time (`src/hub/tests/deadlines.rs`); here it is how, and the counted cause.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::large::{LARGE, publish};
use crate::support::{Server, Transport, eventually};

/// More large events than a socket takes.
const EVENTS: u64 = 3;

fn server(transport: Transport, limits: &[&str]) -> Server {
    Server::start_on(transport, &[LARGE, &["--history-events", "2"], limits].concat())
}

fn closed(server: &Server, reason: &str) -> u64 {
    server.metric(&format!("nudged_streams_closed_total{{reason=\"{reason}\"}}"))
}

/// The body ends as one that is complete and the connection with it, so that the client comes back
/// through whatever spreads the load.
#[test]
fn a_stream_ends_properly_at_its_age() {
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

/// A client that reconnects with its last id misses nothing of what was published meanwhile.
#[test]
fn an_end_at_the_age_loses_nothing() {
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
fn a_stream_has_no_age_unless_asked_for() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &["--keepalive", "1s"]);
        let mut stream = server.stream("acme");
        stream.connected();
        for _ in 0..3 {
            assert_eq!(stream.next(), ": keepalive\n\n");
        }
        assert_eq!(server.seats(), 1, "{transport:?}");
    }
}

/// Its kernel acknowledges everything and says that it has no room. The peer timeout, which is our kernel's,
/// is far longer, so that it is the stall timeout that ends the stream.
#[test]
fn a_client_that_takes_nothing_is_cut_as_stalled() {
    for transport in Transport::http1() {
        let limits = ["--peer-timeout", "10m", "--stall-timeout", "2s"];
        let server = server(transport, &limits);
        let before = server.descriptors_at_rest();
        let mut reads = server.stream("acme");
        reads.connected();
        let stalled = server.streams("acme", 4);
        publish(&server, EVENTS, &mut reads);
        eventually(&format!("they are cut on {transport:?}"), || server.seats() == 1);
        eventually("they are counted", || closed(&server, "stalled") == 4);
        eventually("their descriptors are closed", || server.descriptors() <= before + 1);
        let live = server.publish("acme", &["live"]).expect("subscribed");
        reads.expect_invalidate(&live, &["live"]);
        // The kernel dropped what it held for them as well.
        for stream in stalled {
            let mut rest = Vec::new();
            let cut = std::io::Read::read_to_end(&mut stream.client.socket(), &mut rest);
            assert!(cut.is_err_and(|why| why.kind() == std::io::ErrorKind::ConnectionReset));
        }
    }
}

/// A client that reads slowly is served while one that reads nothing is cut.
#[test]
fn a_slow_reader_is_not_stalled() {
    for transport in Transport::http1() {
        let limits = ["--peer-timeout", "10m", "--stall-timeout", "6s"];
        let history = ["--history-bytes", "100000000"];
        let server = Server::start_on(transport, &[LARGE, &limits, &history].concat());
        let mut reads = server.stream("acme");
        reads.connected();
        let mut slow = server.streams("acme", 1).remove(0);
        let _stalled = server.streams("acme", 1);
        let is_cut = AtomicBool::new(false);
        thread::scope(|scope| {
            // More than the slow one reads.
            scope.spawn(|| {
                while !is_cut.load(Ordering::Acquire) {
                    publish(&server, 1, &mut reads);
                    thread::sleep(Duration::from_millis(300));
                }
            });
            // Its kernel opens the window once there is much room, which is many times in that time.
            scope.spawn(|| {
                while !is_cut.load(Ordering::Acquire) {
                    slow.client.read_exact(150_000);
                    thread::sleep(Duration::from_millis(200));
                }
            });
            eventually("the other is cut", || closed(&server, "stalled") > 0);
            is_cut.store(true, Ordering::Release);
        });
        assert_eq!((server.seats(), closed(&server, "stalled")), (2, 1), "{transport:?}");
    }
}

/// The kernel counts the time in which a window stays shut as well (`tcp_probe_timer` in Linux's
/// net/ipv4/tcp_timer.c): it is first where its limit is shorter, and says the same of it as of a
/// peer that is gone.
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

/// A reset is told from a close.
#[test]
fn a_reset_is_counted_as_one() {
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
