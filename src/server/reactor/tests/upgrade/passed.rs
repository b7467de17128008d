//! Connections without a request are passed on, each with what has been read of it.

use std::future::Future as _;
use std::os::fd::AsFd as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::super::waiting::{LIVEZ, STREAM, connect, is_answered};
use super::*;
use crate::admission::{Entrance, PeerSource};
use crate::server::acceptor::Acceptor;
use crate::server::http1::{Connection, End};
use crate::server::passed_connection::PassedConnection;
use crate::server::reactor::Accepted;
use crate::server::upgrade::late::Late;

/// Both processes, and the socket between them.
struct Passing {
    old: Rig,
    next: Rig,
    ends: Ends,
}

// ===== impl Passing =====

impl Passing {
    async fn begin(mut old: Rig) -> Self {
        let next = Rig::new(uncoalesced(8));
        let (ends, _) = old.give(&next).await;
        Self { old, next, ends }
    }

    /// Has the next process serve what is passed on. Returns what had been read of it.
    async fn receive(&mut self) -> Vec<u8> {
        let mut late = None;
        let new = self.ends.new.clone();
        let received = || {
            late = new.receive(Instant::now()).ok();
            late.is_some()
        };
        self.old.run_until(received).await;
        let (message, mut sockets) = late.expect("it is passed on");
        let late = (message, sockets.remove(0));
        let (Message::Connection { peer, internal, secure, first, named }, socket) = late else {
            panic!("{late:?}");
        };
        assert!(!internal && !secure && named.is_none());
        let peer = Some(peer.parse::<std::net::SocketAddr>().expect("an address").ip());
        let passed = PassedConnection {
            peer,
            internal,
            secure,
            first: first.clone(),
            source: PeerSource::Socket,
        };
        let acceptor = Acceptor::new(self.next.context.clone());
        acceptor.serve_late(Late::new(socket, passed), None).await;
        first
    }

    /// Waits until the next process has responded to [`LIVEZ`].
    async fn answer(&mut self, client: &TcpStream) {
        let mut answer = Vec::new();
        self.next.run_until(|| is_answered(client, &mut answer)).await;
        assert_eq!(answer.windows(5).filter(|bytes| *bytes == b"live\n").count(), 1);
    }
}

/// The client of a connection that the next process of `old` gets once its request is over.
async fn keep_alive(old: &mut Rig) -> TcpStream {
    let mut client = old.connect().await;
    client.write_all(LIVEZ).expect("connected");
    let mut answer = Vec::new();
    old.run_until(|| is_answered(&client, &mut answer)).await;
    client
}

fn open(rig: &Rig) -> usize {
    rig.admission.connections(Entrance::Public)
}

/// One that has sent its request during the freeze, and one that sends it later.
#[tokio::test]
async fn a_waiting_connection_is_passed_on() {
    let mut old = Rig::new(uncoalesced(8));
    let (mut prober, mut listener) = (old.connect().await, old.connect().await);
    prober.write_all(LIVEZ).expect("connected");
    let mut passing = Passing::begin(old).await;
    assert_eq!(passing.receive().await, b"");
    assert_eq!(passing.receive().await, b"");
    assert_eq!((open(&passing.old), open(&passing.next)), (0, 2));
    passing.answer(&prober).await;
    listener.write_all(STREAM).expect("connected");
    let hub = passing.next.hub.clone();
    passing.next.run_until(|| hub.seats() == 1).await;
    let mut client = Client::new(listener);
    passing.next.run_until(|| client.read(4096) > 0).await;
    assert_eq!(client.events[0].name, "connected");
}

/// SCENARIO: a client sends the next request on its connection while the workers stand still.
/// BUG: that hyper is polled first would have the old process respond to it, or publish, when it may not any more.
/// FIX: a connection without a request is passed on before hyper reads.
#[tokio::test]
async fn a_request_that_comes_in_the_freeze_is_left_to_the_successor() {
    let rig = Rig::new(uncoalesced(8));
    let (mut client, Accepted { socket, admitted, .. }) = connect(&rig.admission).await;
    let end = TcpStream::from(socket.as_fd().try_clone_to_owned().expect("a descriptor"));
    let service = rig.context.factory.service(admitted);
    let connection = Connection::cleartext(socket, Bytes::new(), service, rig.context.clone());
    let mut connection = connection.expect("a runtime");
    let mut run = pin!(connection.run());
    let mut poll = || run.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    client.write_all(LIVEZ).expect("connected");
    let mut answer = Vec::new();
    for _ in 0..20_000 {
        assert!(poll().is_pending());
        if is_answered(&client, &mut answer) {
            break;
        }
        yield_now().await;
        thread::sleep(Duration::from_millis(1));
    }
    client.write_all(LIVEZ).expect("connected");
    // The runtime knows that there is something to read when the workers go on.
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(1));
        yield_now().await;
    }
    rig.handle.set_successor(Successor::new(Ends::new().old));
    assert!(matches!(poll(), Poll::Ready(End::PassesOn)));
    assert_eq!(end.peek(&mut [0; 1024]).ok(), Some(LIVEZ.len()), "nothing was read");
}

#[tokio::test]
async fn a_request_that_comes_in_the_freeze_is_answered_by_the_successor() {
    let mut old = Rig::new(uncoalesced(8));
    let mut client = keep_alive(&mut old).await;
    client.write_all(LIVEZ).expect("connected");
    let mut passing = Passing::begin(old).await;
    assert_eq!(passing.receive().await, b"", "nothing was read");
    passing.answer(&client).await;
}

/// An idle one is woken.
#[tokio::test]
async fn a_connection_between_two_requests_is_passed_on() {
    let mut old = Rig::new(uncoalesced(8));
    let mut client = keep_alive(&mut old).await;
    let mut passing = Passing::begin(old).await;
    assert_eq!(passing.receive().await, b"");
    assert_eq!((open(&passing.old), open(&passing.next)), (0, 1));
    client.write_all(LIVEZ).expect("connected");
    passing.answer(&client).await;
}

/// What hyper has read of a request, wherever it stopped; and of a first request the socket, which may wait for the rest
/// of HTTP/2's preface.
#[tokio::test]
async fn what_was_read_of_a_request_is_passed_on() {
    for split in [1, 3, 20, LIVEZ.len() - 1] {
        for is_first in [false, true] {
            let mut old = Rig::new(uncoalesced(8));
            let mut client =
                if is_first { old.connect().await } else { keep_alive(&mut old).await };
            client.write_all(&LIVEZ[..split]).expect("connected");
            for _ in 0..3 {
                thread::sleep(Duration::from_millis(1));
                old.run().await;
            }
            let mut passing = Passing::begin(old).await;
            let first = passing.receive().await;
            assert_eq!(first, &LIVEZ[..split]);
            client.write_all(&LIVEZ[split..]).expect("connected");
            passing.answer(&client).await;
        }
    }
    let mut old = Rig::new(uncoalesced(8));
    let mut client = old.connect().await;
    client.write_all(b"PRI * HT").expect("connected");
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(1));
        old.run().await;
    }
    let mut passing = Passing::begin(old).await;
    assert_eq!(passing.receive().await, b"PRI * HT");
}

/// The response comes from the old process, whatever it takes; what follows it goes on.
#[tokio::test]
async fn a_connection_with_a_request_in_flight_is_passed_on_after_it() {
    let mut old = Rig::new(uncoalesced(8));
    let mut client = old.connect().await;
    let body = br#"{"keys":["k"]}"#;
    write!(client, "POST /api/acme/events HTTP/1.1\r\nhost: test\r\n").expect("connected");
    write!(client, "content-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len())
        .expect("connected");
    client.write_all(&body[..4]).expect("connected");
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(1));
        old.run().await;
    }
    let mut passing = Passing::begin(old).await;
    passing.old.run().await;
    assert!(passing.ends.new.receive(Instant::now()).is_err(), "its request is in flight");
    client.write_all(&body[4..]).expect("connected");
    client.write_all(&LIVEZ[..7]).expect("connected");
    let mut answer = Vec::new();
    passing
        .old
        .run_until(|| {
            let mut bytes = [0; 1024];
            let length = client.read(&mut bytes).unwrap_or_default();
            answer.extend_from_slice(&bytes[..length]);
            !answer.is_empty()
        })
        .await;
    assert!(answer.starts_with(b"HTTP/1.1 2"), "{}", answer.escape_ascii());
    let first = passing.receive().await;
    assert!(LIVEZ[..7].starts_with(&first));
    client.write_all(&LIVEZ[7..]).expect("connected");
    passing.answer(&client).await;
}

/// The old process may accept until it stops listening.
#[tokio::test]
async fn what_is_accepted_afterwards_is_passed_on() {
    let mut passing = Passing::begin(Rig::new(uncoalesced(8))).await;
    let (mut client, accepted) = connect(&passing.old.admission).await;
    Acceptor::new(passing.old.context.clone()).dispatch(accepted, None);
    assert_eq!(passing.receive().await, b"");
    client.write_all(LIVEZ).expect("connected");
    passing.answer(&client).await;
    assert_eq!((open(&passing.old), open(&passing.next)), (0, 1));
}

#[tokio::test]
async fn a_connection_is_closed_if_the_successor_is_gone() {
    let mut old = Rig::new(uncoalesced(8));
    let kept = keep_alive(&mut old).await;
    let Passing { mut old, ends, .. } = {
        let next = Rig::new(uncoalesced(8));
        let (ends, _) = old.give(&next).await;
        Passing { old, next, ends }
    };
    drop(ends);
    let (client, accepted) = connect(&old.admission).await;
    old.handle.accept(accepted, None);
    let admission = old.admission.clone();
    old.run_until(|| admission.connections(Entrance::Public) == 0).await;
    for mut client in [kept, client] {
        client.set_nonblocking(false).expect("a socket");
        client.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        assert_eq!(client.read(&mut [0; 1]).expect("the end"), 0);
    }
}
