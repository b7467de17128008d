//! Subscribers that do not read: each costs a constant amount, delays no other, loses no event unnoticed, and leaves
//! nothing behind.

use crate::support::large::{LARGE, keys, publish};
use crate::support::server::Signal;
use crate::support::{Server, Stream, Transport, eventually};

/// More than the buffers of a connection hold: `tcp_wmem` ends at 4 MiB, and the receive buffer of a client that does
/// not read does not grow.
const EVENTS: u64 = 7;

/// With a peer timeout that outlasts the tests: at it, the kernel closes a connection that is not read.
fn server(transport: Transport, more: &[&str]) -> Server {
    Server::start_on(transport, &[LARGE, &["--peer-timeout", "10m"], more].concat())
}

/// Reads up to the event with number `last` and returns the number of `connected` events, which are the only ones
/// allowed where events are missing.
fn catch_up(stream: &mut Stream, last: u64) -> u64 {
    let (mut at, mut rereads) = (0, 0);
    while at < last {
        let event = stream.next();
        let lines: Vec<_> = event.splitn(3, '\n').collect();
        let seq: u64 = lines[0].rsplit('-').next().expect("a number").parse().expect("a number");
        if lines[1] == "event: connected" {
            assert!(seq > at, "{at} to {seq}");
            rereads += 1;
        } else {
            assert_eq!((lines[1], seq), ("event: invalidate", at + 1), "a gap without connected");
            let keys = serde_json::to_string(&keys(seq)).expect("strings");
            assert!(lines[2] == format!("data: {{\"keys\":{keys}}}\n\n"), "event {seq} is damaged");
        }
        at = seq;
    }
    assert_eq!(at, last);
    rereads
}

#[test]
fn a_late_reader_receives_connected_wherever_events_are_missing() {
    for transport in Transport::http1() {
        let server = server(transport, &["--history-events", "4"]);
        let mut late = server.streams("acme", 2);
        let mut reads = server.stream("acme");
        reads.connected();
        publish(&server, EVENTS, &mut reads);
        let rereads: Vec<_> = late.iter_mut().map(|stream| catch_up(stream, EVENTS)).collect();
        assert!(rereads.iter().all(|times| *times > 0), "{transport:?}: none stalled");
        let counted = || server.metric("nudged_rereads_total") >= rereads.iter().sum::<u64>();
        eventually("they are counted", counted);
        // They receive live events again.
        let live = server.publish("acme", &["live"]).expect("subscribed");
        late.iter_mut().for_each(|stream| stream.expect_invalidate(&live, &["live"]));
    }
}

#[test]
fn a_late_reader_receives_everything_that_the_history_holds() {
    for transport in Transport::http1() {
        let server = server(transport, &["--history-bytes", "100000000"]);
        let mut late = server.streams("acme", 2);
        let mut reads = server.stream("acme");
        reads.connected();
        publish(&server, EVENTS, &mut reads);
        for stream in &mut late {
            assert_eq!(catch_up(stream, EVENTS), 0, "{transport:?}");
        }
        assert_eq!(server.metric("nudged_rereads_total"), 0);
    }
}

/// Queues of these events for sixteen clients would hold 112 MiB.
#[test]
fn nothing_is_queued_for_a_client_that_does_not_read() {
    for transport in Transport::http1() {
        let server = server(transport, &["--history-events", "2"]);
        let mut reads = server.stream("acme");
        reads.connected();
        publish(&server, EVENTS, &mut reads);
        let before = server.memory_peak();
        let late = server.streams("acme", 16);
        publish(&server, EVENTS, &mut reads);
        let grown = server.memory_peak() - before;
        assert!(grown < 48 << 20, "{grown} bytes on {transport:?}");
        drop(late);
    }
}

#[test]
fn the_end_of_a_client_that_never_read_frees_its_seat_and_descriptor() {
    for transport in Transport::http1() {
        let server = server(transport, &["--history-events", "2"]);
        let before = server.descriptors_at_rest();
        let mut reads = server.stream("acme");
        reads.connected();
        let late = server.streams("acme", 4);
        publish(&server, EVENTS, &mut reads);
        assert_eq!(server.seats(), 5);
        late.into_iter().for_each(|stream| stream.client.reset());
        eventually(&format!("every seat is free on {transport:?}"), || server.seats() == 1);
        eventually("every descriptor is closed", || server.descriptors() <= before + 1);
    }
}

/// Its kernel acknowledges the probes of a closed window, which does not count as progress (`TCP_USER_TIMEOUT`).
#[test]
fn a_client_that_never_reads_is_closed_at_the_peer_timeout() {
    for transport in Transport::http1() {
        let server = Server::start_on(transport, &[LARGE, &["--peer-timeout", "3s"]].concat());
        let mut reads = server.stream("acme");
        reads.connected();
        let late = server.streams("acme", 4);
        publish(&server, EVENTS, &mut reads);
        eventually(&format!("one seat is left on {transport:?}"), || server.seats() == 1);
        let live = server.publish("acme", &["live"]).expect("subscribed");
        reads.expect_invalidate(&live, &["live"]);
        drop(late);
    }
}

#[test]
fn a_client_that_never_reads_does_not_hold_up_the_drain() {
    for transport in Transport::http1() {
        let mut server = server(
            transport,
            &["--history-events", "2", "--drain-timeout", "500ms", "--drain-window", "0"],
        );
        let mut reads = server.stream("acme");
        reads.connected();
        let late = server.streams("acme", 4);
        publish(&server, EVENTS, &mut reads);
        server.signal(Signal::TERM);
        reads.farewell();
        assert_eq!(server.wait(), Some(0), "{transport:?}");
        drop(late);
    }
}
