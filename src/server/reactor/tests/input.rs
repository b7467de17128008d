//! What clients send on their streams, which is read a bounded part at a time, and discarded.

use super::*;
use crate::config::{STREAM_INPUT_MAX, STREAM_INPUT_PER_TURN};

/// Two ends of a connection whose buffers hold a flood.
fn wide_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    client.set_nonblocking(true).expect("a socket");
    (listener.accept().expect("accepted").0, client)
}

/// A client of a stream, which does not read.
struct Flooder {
    socket: TcpStream,
    /// The server's end.
    server: TcpStream,
    /// Bytes that the server has read.
    read: Arc<AtomicUsize>,
}

impl Rig {
    /// Opens a stream on a new connection.
    fn flooder(&self) -> Flooder {
        let ((server, socket), read) = (wide_pair(), Arc::<AtomicUsize>::default());
        let end = server.try_clone().expect("a descriptor");
        self.hand_off(Metered::reading(end, &read), self.open(), 0);
        Flooder { socket, server, read }
    }
}

/// SCENARIO: clients send garbage on their streams, each as much as it may, and then disconnect.
/// BUG: each stream was read until its socket was empty, however long that took.
/// FIX: a turn reads so many bytes in all, of one stream after the other; what is left is read in later turns, although
/// the poller reports it once.
#[tokio::test]
async fn a_turn_reads_a_bounded_part_of_what_clients_send() {
    const EACH: usize = 40_000;
    let mut rig = Rig::new(uncoalesced(8));
    let mut flooders: Vec<_> = (0..8).map(|_| rig.flooder()).collect();
    rig.run().await;
    for Flooder { socket, server, .. } in &mut flooders {
        let mut sent = 0;
        // The kernel needs a moment to deliver bytes.
        eventually(|| {
            sent += socket.write(&[b'x'; EACH][sent..]).unwrap_or_default();
            server.peek(&mut [0; EACH]).is_ok_and(|arrived| arrived == EACH)
        });
    }
    let counts: Vec<_> = flooders.iter().map(|flooder| flooder.read.clone()).collect();
    let read = || counts.iter().map(|count| count.load(Relaxed)).collect::<Vec<_>>();
    for _ in 0..20_000 {
        let before = read();
        rig.driver.turn();
        let (some, all) = (read().iter().sum::<usize>(), read());
        assert!(some - before.iter().sum::<usize>() <= STREAM_INPUT_PER_TURN, "{all:?}");
        let (least, most) = (all.iter().min(), all.iter().max());
        let ahead = most.zip(least).map(|(most, least)| most - least);
        assert!(ahead.is_some_and(|ahead| ahead <= 2 * STREAM_INPUT_PER_TURN), "{all:?}");
        if some == 8 * EACH {
            break;
        }
        yield_now().await;
    }
    assert_eq!(read(), [EACH; 8]);
    assert_eq!(rig.hub.seats(), 8, "each may send as much");
    drop(flooders);
    let hub = rig.hub.clone();
    rig.run_until(|| hub.seats() == 0).await;
    assert_eq!(rig.closed(CloseReason::Client), 8);
}

/// Polls until the condition holds, within a bound.
fn eventually(mut holds: impl FnMut() -> bool) {
    let mut polls = 0..20_000;
    while !holds() {
        polls.next().expect("within twenty seconds");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Those that send without end are cut, and one that has sent little and disconnected is noticed among them.
#[tokio::test]
async fn clients_that_send_without_end_are_cut_and_hide_no_other() {
    let mut rig = Rig::new(uncoalesced(8));
    let mut flooders: Vec<_> = (0..8).map(|_| rig.flooder()).collect();
    let (mut other, _idle) = (rig.flooder(), rig.flooder());
    rig.run().await;
    let mut flood = || {
        flooders.iter_mut().for_each(|one| while one.socket.write(&[b'x'; 4096]).is_ok() {});
    };
    flood();
    other.socket.write_all(b"bye").expect("a buffer");
    drop(other);
    let hub = rig.hub.clone();
    rig.run_until(|| {
        flood();
        hub.seats() == 1
    })
    .await;
    assert_eq!((rig.closed(CloseReason::Client), rig.closed(CloseReason::Excess)), (1, 8));
    let most = STREAM_INPUT_MAX + STREAM_INPUT_PER_TURN;
    assert!(flooders.iter().all(|flooder| flooder.read.load(Relaxed) <= most));
}

/// SCENARIO: behind TLS, a client sends key updates on its stream, with a byte of data after every 32 of them.
/// BUG: only data counted, so 64 KiB of it could hold the worker for ten seconds, and all of it was read at once.
/// FIX: what counts is what arrives at the socket.
#[cfg(feature = "tls")]
#[test]
fn records_without_data_count_too() {
    use crate::server::reactor::input_window::TurnInput;
    use crate::server::reactor::stream_conn::{Closed, Flow, StreamConn};
    use crate::server::tls::test_sessions::{key_updates, sessions};
    use crate::time::Time;

    let ((server, mut socket), hub) = (wide_pair(), Hub::new(uncoalesced(8)));
    server.set_nonblocking(true).expect("a socket");
    let (transport, mut client) = sessions(server);
    let org = "acme".parse().expect("a name");
    let stream = EventStream::open(&hub, &org, View::Member, None, Time(0)).expect("open");
    let mut conn = StreamConn::new(transport, stream, true, 0);
    let (mut scratch, mut sent, mut turns, mut read) = ([0; 4096], 0, 0, 0);
    let mut pending = Vec::new();
    let mut ended = None;
    for _ in 0..20_000 {
        while let Ok(n) = socket.write(&pending) {
            sent += n;
            pending.drain(..n);
            if sent > 2 * STREAM_INPUT_MAX {
                break;
            }
            pending.extend(key_updates(&mut client));
        }
        let mut turn = TurnInput { left: STREAM_INPUT_PER_TURN, now: Time(0) };
        match conn.discard_input(&mut scratch, &mut turn) {
            Ok(Flow::Unread) => turns += 1,
            // The kernel needs a moment to pass on what was sent.
            Ok(_) => std::thread::sleep(Duration::from_millis(1)),
            Err(closed) => {
                ended = Some(closed);
                break;
            }
        }
        read += STREAM_INPUT_PER_TURN - turn.left;
        assert!(read <= STREAM_INPUT_MAX + STREAM_INPUT_PER_TURN, "{read} bytes, of {sent}");
    }
    assert_eq!(ended, Some(Closed(CloseReason::Excess)), "{read} bytes in {turns} turns");
}

/// With its request a client may send more data, or close its session, in the same segment.
#[cfg(feature = "tls")]
#[tokio::test]
async fn what_a_session_holds_when_the_stream_begins_is_discarded() {
    use crate::server::tls::test_sessions::{records, sessions_in_memory};

    for closes in [false, true] {
        let mut rig = Rig::new(uncoalesced(8));
        let (mut server, mut client) = sessions_in_memory();
        client.writer().write_all(b"more").expect("a session");
        if closes {
            client.send_close_notify();
        }
        server.read_tls(&mut &records(&mut client)[..]).expect("memory");
        server.process_new_packets().expect("records");
        let (socket, _open) = wide_pair();
        socket.set_nonblocking(true).expect("a socket");
        let transport = Transport::tls(mio::net::TcpStream::from_std(socket), server);
        rig.hand_off(transport, rig.open(), 0);
        rig.run().await;
        assert_eq!(rig.hub.seats(), usize::from(!closes));
        assert_eq!(rig.closed(CloseReason::Client), u64::from(closes));
    }
}
