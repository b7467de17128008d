//! When a stream whose socket is full has stalled: bytes are counted, and seconds passed by hand.

use super::*;
use crate::hub::{Batch, SocketId};
use crate::server::reactor::response_head::ResponseHeads;
use crate::server::reactor::stream_conn::{ConnCtx, Flow, StreamConn};
use crate::time::{Tick, Time};

/// A stream whose connection is written to by hand.
pub(super) struct Conn {
    pub(super) hub: Hub,
    conn: StreamConn,
}

fn ctx(hub: &Hub) -> ConnCtx<'_> {
    ConnCtx {
        socket: SocketId(7),
        counters: hub.shard_counters(),
        #[cfg(feature = "tls")]
        tls_records: &crate::config::TlsRecords { end_after: u64::MAX, request_update_after: None },
    }
}

// ===== impl Conn =====

impl Conn {
    /// A stream of which nothing is written yet.
    pub(super) fn open(transport: Transport, history_events: usize) -> Self {
        let (hub, org) = (Hub::new(uncoalesced(history_events)), "acme".parse().expect("a name"));
        let stream = EventStream::open(&hub, &org, View::Member, None, Time(0)).expect("open");
        Self { conn: StreamConn::new(transport, stream, true, 0), hub }
    }

    pub(super) fn begin(&mut self) -> Flow {
        let mut heads = ResponseHeads::default();
        let Self { hub, conn } = self;
        conn.begin(&mut heads, &Fields::default(), ctx(hub)).expect("its peer is there")
    }

    pub(super) fn begun(transport: Transport) -> Self {
        let mut conn = Self::open(transport, 400);
        assert_eq!(conn.begin(), Flow::Idle);
        conn
    }

    /// Returns the bytes of the event.
    pub(super) fn publish(&self, key: &str) -> usize {
        let keys = Keys::new([key], self.hub.config()).expect("a key");
        let id = self.hub.publish(&"acme".parse().expect("a name"), &keys, Time(0)).id;
        crate::wire::Frame::invalidate(id.expect("subscribed"), [key]).chunked().len()
    }

    pub(super) fn resume(&mut self) -> Flow {
        let Self { hub, conn } = self;
        conn.resume(ctx(hub)).expect("its peer is there")
    }

    fn delivered(&self) -> u64 {
        read(&self.hub.shard_counters().delivered)
    }

    /// Whether the driver ends the stream in this second.
    fn stalls_at(&self, second: u32) -> bool {
        let (mut due, mut batch, driver) = (Vec::new(), Batch::default(), self.hub.driver());
        driver.tick(Tick(second), &mut Vec::new());
        driver.timers(Tick(second), &mut due);
        driver.fire(&due, &mut batch);
        !batch.writes.is_empty()
    }

    /// The socket is full at 0 s; at 39 s `take` has it take something. It stalls a minute after that.
    pub(super) fn assert_stalls_after_its_last_progress(mut self, take: impl FnOnce(&mut Self)) {
        assert_eq!(self.resume(), Flow::Blocked);
        assert!(!(1..=39).any(|second| self.stalls_at(second)));
        take(&mut self);
        let stalls_at = (40..200).find(|second| self.stalls_at(*second));
        assert!(stalls_at.is_some_and(|second| second > 39 + 60), "it stalls at {stalls_at:?}");
    }
}

/// SCENARIO: a socket is full; after 39 s its client reads dozens of events, and after that nothing for half a minute.
/// BUG: if the socket took some batches of events whole and then none of the next, only the last was looked at: no
/// progress was noted, and the stream was cut 61 s after its socket was full first.
/// FIX: whatever the socket takes is progress.
#[test]
fn a_client_that_took_whole_batches_has_not_stalled() {
    for events in [1, 15, 16, 17, 32, 48] {
        let room = Arc::new(AtomicUsize::new(1 << 20));
        let mut conn = Conn::begun(Metered::with_room(&room));
        // From the tenth on, all have the same length.
        (0..9).for_each(|_| _ = conn.publish("k"));
        assert_eq!(conn.resume(), Flow::Idle);
        room.store(0, Relaxed);
        let bytes = (0..80).map(|_| conn.publish("k")).max().expect("some");
        conn.assert_stalls_after_its_last_progress(|conn| {
            room.store(events * bytes, Relaxed);
            assert_eq!(conn.resume(), Flow::Blocked);
            assert_eq!(conn.delivered(), 9 + events as u64);
        });
    }
}

/// SCENARIO: a socket is full when the process is stopped for a minute; its client reads all the time.
/// BUG: when the process went on, the clock was looked at before the socket, and the stream was cut.
/// FIX: the time without progress counts from the end of the pause.
#[test]
fn a_stream_has_not_stalled_because_of_a_pause() {
    let room = Arc::new(AtomicUsize::new(1 << 20));
    let mut conn = Conn::begun(Metered::with_room(&room));
    room.store(0, Relaxed);
    conn.publish("k");
    assert_eq!(conn.resume(), Flow::Blocked);
    conn.hub.driver().resume(Time(100_000), Duration::from_secs(60));
    let stalls_at = (100..300).find(|second| conn.stalls_at(*second));
    assert_eq!(stalls_at, Some(161), "if its client has taken nothing by then");
}

/// SCENARIO: behind TLS, an event is larger than what the socket takes; after 39 s the client reads half of it, and
/// nothing more for half a minute.
/// BUG: the TLS session had taken the event whole, and that the socket took records of it was no progress.
/// FIX: what counts is what the socket takes.
#[cfg(feature = "tls")]
#[test]
fn a_client_that_took_a_part_of_a_large_record_has_not_stalled() {
    let (server, mut client) = narrow_pair();
    server.set_nonblocking(true).expect("a socket");
    let (transport, _session) = crate::server::tls::test_sessions::sessions(server);
    let conn = Conn::begun(transport);
    conn.publish(&"k".repeat(60_000));
    conn.assert_stalls_after_its_last_progress(|conn| {
        let (mut bytes, mut taken) = ([0; 500], 0);
        while taken < 30_000 {
            match client.socket.read(&mut bytes) {
                Ok(n) => taken += n,
                // The kernel needs a moment to pass on what was sent.
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
            assert_eq!(conn.resume(), Flow::Blocked);
        }
    });
}
