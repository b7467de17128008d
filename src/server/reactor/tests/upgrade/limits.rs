//! Limits count what is taken over.

use super::super::waiting::STREAM;
use super::*;
use crate::admission::Entrance;
use crate::config::Config;
use crate::server::proxy_protocol::HeaderState;
use crate::stream::{AccessLog, AccessRecord, Ended};

fn limited(connections: usize, streams: usize, address: usize) -> Config {
    Config {
        hub: uncoalesced(8),
        connections_max: Some(connections),
        streams_max: Some(streams),
        address_connections_max: Some(address),
        address_streams_max: Some(address),
        ..Config::default()
    }
}

impl Rig {
    /// Requests a stream on a new connection. Returns the client's end, and the response so far.
    async fn request(&mut self) -> (TcpStream, String) {
        let mut client = self.connect().await;
        client.write_all(STREAM).expect("connected");
        let mut answer = Vec::new();
        self.run_until(|| {
            let mut bytes = [0; 4096];
            let length = client.read(&mut bytes).unwrap_or_default();
            answer.extend_from_slice(&bytes[..length]);
            !answer.is_empty()
        })
        .await;
        (client, String::from_utf8(answer).expect("ASCII"))
    }

    async fn stream(&mut self) -> TcpStream {
        let (client, answer) = self.request().await;
        assert!(answer.contains("event: connected"), "{answer}");
        client
    }

    async fn refused(&mut self) {
        let (_client, answer) = self.request().await;
        assert!(!answer.contains("event: connected"), "{answer}");
    }

    fn connections(&self) -> usize {
        self.admission.connections(Entrance::Public)
    }
}

/// The streams of an address may be more than it may have in the next process: no other is admitted until they are fewer.
#[tokio::test]
async fn what_was_admitted_stays_and_counts() {
    let mut rig = Rig::aged(limited(64, 64, 3));
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(rig.stream().await);
    }
    rig.refused().await;
    let admission = rig.admission.clone();
    rig.run_until(|| admission.connections(Entrance::Public) == 3).await;
    let mut next = Rig::aged(limited(64, 64, 2));
    let (_ends, given) = rig.give(&next).await;
    assert_eq!(given.taken, Ok(3));
    assert_eq!((rig.connections(), next.connections()), (0, 3));
    let hub = next.hub.clone();
    for left in [2, 1] {
        next.refused().await;
        clients.pop();
        next.run_until(|| hub.seats() == left).await;
    }
    clients.push(next.stream().await);
    next.refused().await;
    drop(clients);
    let admission = next.admission.clone();
    next.run_until(|| admission.connections(Entrance::Public) == 0).await;
}

/// A limit that the old process did not have holds for what it has admitted, as far as that can be known.
#[tokio::test]
async fn a_new_limit_counts_what_is_there() {
    let mut rig = Rig::aged(Config { hub: uncoalesced(8), ..Config::default() });
    let _clients = [rig.stream().await, rig.stream().await];
    let mut next = Rig::aged(limited(64, 64, 2));
    let (_ends, given) = rig.give(&next).await;
    assert_eq!(given.taken, Ok(2));
    next.refused().await;
}

/// Nothing is taken, and the old process goes on.
#[tokio::test]
async fn a_total_that_is_too_small_refuses_all() {
    for (connections, streams, why) in [
        (64, 2, "3 streams are handed over, and at most 2 are allowed"),
        (2, 64, "3 connections are handed over, and at most 2 are allowed"),
    ] {
        let mut rig = Rig::aged(limited(64, 64, 8));
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(Client::new(rig.stream().await));
        }
        let next = Rig::aged(limited(connections, streams, 8));
        let (_ends, given) = rig.give(&next).await;
        assert_eq!(given.taken, Err(why.to_owned()));
        assert_eq!((rig.connections(), next.connections(), next.hub.seats()), (3, 0, 0));
        rig.publish("after");
        rig.run().await;
        for client in &mut clients {
            let mut text = String::new();
            rig.run_until(|| {
                let mut bytes = [0; 4096];
                let length = client.socket.read(&mut bytes).unwrap_or_default();
                text.push_str(std::str::from_utf8(&bytes[..length]).expect("ASCII"));
                text.contains("\"after\"")
            })
            .await;
        }
        let _more = rig.stream().await;
    }
}

/// Those of an internal address have places of their own, and no limit per address.
#[tokio::test]
async fn an_internal_connection_counts_as_one() {
    let mut rig = Rig::aged(limited(64, 64, 1));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut clients = Vec::new();
    for _ in 0..2 {
        let address = listener.local_addr().expect("bound");
        let mut client = TcpStream::connect(address).expect("connected");
        let (socket, peer) = listener.accept().expect("accepted");
        let admitted = rig.admission.admit(Some(peer.ip()), Entrance::Internal).await;
        let socket = watched(socket);
        rig.handle.accept(
            crate::server::reactor::Accepted { socket, admitted, header: HeaderState::Done },
            None,
        );
        client.write_all(STREAM).expect("connected");
        clients.push(client);
    }
    let hub = rig.hub.clone();
    rig.run_until(|| hub.seats() == 2).await;
    let counts = |rig: &Rig| (rig.connections(), rig.admission.connections(Entrance::Internal));
    assert_eq!(counts(&rig), (0, 2));
    let mut next = Rig::aged(limited(64, 64, 1));
    let (_ends, given) = rig.give(&next).await;
    assert!(given.states.iter().all(|state| state.permit.internal));
    assert_eq!((counts(&rig), counts(&next)), ((0, 0), (0, 2)));
    let _public = next.stream().await;
    assert_eq!(counts(&next), (1, 2));
    drop(clients);
    let hub = next.hub.clone();
    next.run_until(|| hub.seats() == 1).await;
    assert_eq!(counts(&next), (1, 0));
}

static ENDS: AtomicUsize = AtomicUsize::new(0);

fn count_end(_: &Ended<'_>) {
    ENDS.fetch_add(1, Relaxed);
}

/// SCENARIO: with an access log, a successor has taken streams, and refuses them, or the old process gives the upgrade up.
/// BUG: as the successor ended, it logged the end of each of the streams, which go on.
/// FIX: what has not gone on there is dropped without a trace.
#[tokio::test]
async fn a_successor_that_never_lives_logs_no_end() {
    let mut rig = Rig::aged(limited(64, 64, 8));
    let client = Some([127, 0, 0, 1].into());
    let record = || AccessRecord::new(rig.clock, client, count_end);
    let streams = [rig.open().with_record(record()), rig.open().with_record(record())];
    let mut clients = Vec::new();
    for stream in streams {
        clients.push(rig.begin_on(wide_pair(), stream).await);
    }
    for streams_max in [1, 64] {
        let next = Rig::aged(limited(64, streams_max, 8));
        rig.hand_over_hub(&next);
        let log = AccessLog { clock: next.clock, log: count_end };
        let workers = vec![next.handle.clone()];
        let adopter = Adopter::new(workers, next.admission.clone(), Some(log), next.clock.now());
        let ends = Ends::new();
        let new = ends.new.clone();
        let taken = rig.frozen(&ends, move |freeze| {
            assert_eq!(freeze.send_streams(soon()).expect("sent").given, 2);
            let (states, taken) = receive(&new, adopter, |_| ());
            assert!(states.iter().all(|state| state.stream.record.is_some()));
            (Outcome::Kept, taken.ok())
        });
        assert_eq!(taken.await, (streams_max > 1).then_some(2));
        let hub = next.hub.clone();
        drop(next);
        assert_eq!((hub.seats(), ENDS.load(Relaxed)), (0, 0), "with {streams_max} streams at most");
    }
    drop(clients);
    let hub = rig.hub.clone();
    rig.run_until(|| hub.seats() == 0).await;
    assert_eq!(ENDS.load(Relaxed), 2, "where they end");
}
