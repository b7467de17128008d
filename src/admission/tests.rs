use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::places::ADDRESS_RESERVED_MAX;
use super::*;
use crate::hub::SocketId;

/// 64 descriptors are enough for 4 reserved places, of which two can be kept.
fn limits(connections: usize, address: Option<usize>) -> Admission {
    let config = Config {
        connections_max: Some(connections),
        address_connections_max: address,
        address_streams_max: address,
        trusted_proxies: vec!["10.0.0.0/8".parse().expect("a network")],
        ..Config::default()
    };
    Admission::new(&config, 64)
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Admits a connection if it need not wait for another to end.
fn admit(admission: &Admission, peer: &str) -> Option<Arc<Admitted>> {
    admit_to(admission, peer, Entrance::Public)
}

fn admit_to(admission: &Admission, peer: &str, entrance: Entrance) -> Option<Arc<Admitted>> {
    let peer = peer.parse().expect("an address");
    poll(pin!(admission.admit(Some(peer), entrance)))
}

fn admit_many<const N: usize>(admission: &Admission, peer: &str) -> [Arc<Admitted>; N] {
    std::array::from_fn(|_| admit(admission, peer).expect("room"))
}

fn open(admission: &Admission) -> usize {
    admission.connections(Entrance::Public)
}

fn is_closed(admitted: &Admitted) -> bool {
    admitted.closer().is_closed()
}

#[test]
fn a_connection_beyond_the_limit_has_a_reserved_place_until_there_is_room() {
    let admission = limits(2, None);
    let mut admitted: Vec<_> = admit_many::<2>(&admission, "::1").into();
    assert!(admitted.iter().all(|admitted| admitted.settle().is_ok() && !admitted.is_unproven()));
    let beyond = admit_many::<4>(&admission, "::1");
    assert!(beyond.iter().all(|admitted| admitted.settle() == Err(Limit::Connections)));
    assert!(beyond.iter().all(|admitted| admitted.is_unproven()));
    assert!(admitted[0].settle().is_ok(), "once there, it stays there");
    admitted.pop();
    assert!(beyond[3].settle().is_ok(), "there is room by the time of its request");
    assert!(!beyond[3].is_unproven());
    assert_eq!(beyond[2].settle(), Err(Limit::Connections));
    assert_eq!(open(&admission), 5);
    drop((admitted, beyond));
    assert_eq!(open(&admission), 0);
    assert!(admit(&admission, "::1").expect("room").settle().is_ok());
}

#[test]
fn the_oldest_connection_that_has_proven_nothing_is_closed_for_the_next() {
    let admission = limits(1, None);
    let _regular = admit_many::<1>(&admission, "::1");
    let [first, second, third, fourth] = admit_many(&admission, "::1");
    let peer = "::1".parse().expect("an address");
    let mut next = pin!(admission.admit(Some(peer), Entrance::Public));
    assert!(poll(next.as_mut()).is_none(), "it waits until that has ended");
    assert!(is_closed(&first) && ![&second, &third, &fourth].iter().any(|c| is_closed(c)));
    assert!(first.settle().is_err());
    first.keep();
    assert!(first.is_unproven(), "it is too late to prove itself");
    assert_eq!(open(&admission), 5, "the number of sockets is bounded");
    drop(first);
    let fifth = poll(next).expect("a place");
    second.keep();
    let mut next = pin!(admission.admit(Some(peer), Entrance::Public));
    assert!(poll(next.as_mut()).is_none());
    assert!(is_closed(&third) && !is_closed(&second) && !is_closed(&fifth));
    assert_eq!((admission.evicted(Evicted::Unproven), admission.evicted(Evicted::Idle)), (2, 0));
}

/// Closing it for another must not end a stream, or a request.
#[test]
fn an_idle_connection_is_closed_for_another_and_a_busy_one_is_not() {
    let admission = limits(3, None);
    let [first, second, third] = admit_many(&admission, "::1");
    for admitted in [&second, &third, &first] {
        admitted.closer().note_idle();
        // Later is later.
        let now = admission.shared.public.now();
        while admission.shared.public.now() == now {}
    }
    assert!(second.closer().note_busy());
    second.closer().note_idle();
    let peer = "::1".parse().expect("an address");
    let mut next = pin!(admission.admit(Some(peer), Entrance::Public));
    assert!(poll(next.as_mut()).is_none());
    assert!(is_closed(&third), "idle for the longest time");
    assert!(!third.closer().note_busy(), "it serves no request any more");
    assert!(!is_closed(&first) && !is_closed(&second));
    drop(third);
    let third = poll(next).expect("its place");
    assert!(!third.is_unproven());
    assert!(first.closer().note_busy());
    let stream = second.take_permit(StreamPermit::default());
    assert!(admit(&admission, "::1").expect("a reserved place").is_unproven(), "none is idle");
    first.closer().note_idle();
    let mut next = pin!(admission.admit(Some(peer), Entrance::Public));
    assert!(poll(next.as_mut()).is_none());
    assert!(is_closed(&first), "it is idle again");
    drop((first, third, stream));
    assert!(poll(next).is_some());
    assert_eq!(open(&admission), 0);
}

#[test]
fn a_publisher_keeps_a_reserved_place_of_which_half_are_left_to_probes() {
    let admission = limits(1, None);
    let _regular = admit_many::<1>(&admission, "::1");
    let [first, second, third] = admit_many(&admission, "::1");
    for admitted in [&first, &second, &third] {
        admitted.keep();
    }
    assert!(!first.is_unproven() && !second.is_unproven() && third.is_unproven());
    first.closer().note_idle();
    third.keep();
    assert!(is_closed(&first) && !third.is_unproven(), "an idle publisher leaves for another");
    drop(first);
    let fourth = admit(&admission, "::1").expect("a place");
    fourth.keep();
    assert!(fourth.is_unproven(), "none is idle");
    drop(second);
    fourth.keep();
    assert!(!fourth.is_unproven());
}

#[test]
fn an_address_has_its_own_limit() {
    let admission = limits(100, Some(2));
    let within = admit_many::<2>(&admission, "192.0.2.1");
    let beyond = admit_many::<4>(&admission, "::ffff:192.0.2.1");
    assert!(beyond.iter().all(|admitted| admitted.settle() == Err(Limit::Address)));
    assert!(!admit(&admission, "192.0.2.2").expect("a place").is_unproven(), "another address");
    let [first, second] = within;
    drop(first);
    assert!(beyond[1].settle().is_ok(), "there is room by the time of its request");
    drop((second, beyond));
    assert_eq!(open(&admission), 0);
    assert!(admission.shared.addresses.as_ref().expect("on").is_empty());
}

/// Of those of one address, only its own are closed.
#[test]
fn an_address_beyond_its_limit_has_few_reserved_places() {
    let config = Config {
        connections_max: Some(100),
        address_connections_max: Some(1),
        ..Config::default()
    };
    let admission = Admission::new(&config, 4_096);
    let other = admit_many::<2>(&admission, "192.0.2.2");
    let mut of_one = vec![admit(&admission, "192.0.2.1").expect("room")];
    for _ in 0..30 {
        of_one.push(admit(&admission, "192.0.2.1").expect("a reserved place"));
        // Its task ends it.
        of_one.retain(|admitted| !is_closed(admitted));
    }
    assert_eq!(of_one.len(), 1 + ADDRESS_RESERVED_MAX);
    assert!(!of_one[0].is_unproven() && !other.iter().any(|admitted| is_closed(admitted)));
}

#[test]
fn an_ipv6_address_counts_as_its_network() {
    let admission = limits(100, Some(1));
    let _first = admit_many::<1>(&admission, "2001:db8::1");
    let second = admit(&admission, "2001:db8::ffff:2").expect("a place");
    assert_eq!(second.settle(), Err(Limit::Address));
    assert!(admit(&admission, "2001:db8:0:1::1").expect("a place").settle().is_ok());
}

#[test]
fn a_trusted_proxy_is_not_counted_but_its_clients_are() {
    let admission = limits(100, Some(1));
    let proxies = admit_many::<3>(&admission, "10.1.2.3");
    assert!(proxies.iter().all(|admitted| admitted.settle().is_ok()));
    let client = "192.0.2.1".parse().expect("an address");
    let stream = |proxy: &Admitted| proxy.count_stream(|_| Some(client));
    let first = stream(&proxies[0]).expect("the first");
    assert_eq!(stream(&proxies[1]).expect_err("the second"), Limit::AddressStreams);
    drop(first);
    let first = stream(&proxies[1]).expect("there is room");
    let direct = admit(&admission, "192.0.2.1").expect("a place");
    assert!(direct.settle().is_ok(), "a stream is no connection");
    assert!(stream(&direct).is_err(), "but it is one of its address");
    drop(first);
    assert!(stream(&direct).is_ok());
}

fn admit_unknown(admission: &Admission) -> Arc<Admitted> {
    poll(pin!(admission.admit(None, Entrance::Public))).expect("room")
}

#[test]
fn a_peer_without_an_address_has_no_limit_of_one_unless_it_names_its_clients() {
    let unix = |trusted_proxies| {
        let limit = Some(1);
        let config = Config { address_streams_max: limit, trusted_proxies, ..Config::default() };
        let config = Config { address_connections_max: limit, ..config };
        Admission::new(&config, 1_024)
    };
    let client = Some("192.0.2.1".parse().expect("an address"));
    let admission = unix(vec!["0.0.0.0/0".parse().expect("a network")]);
    let peers = [(); 3].map(|()| admit_unknown(&admission));
    assert!(peers.iter().all(|peer| !peer.is_unproven() && peer.peer().is_none()));
    let streams: Vec<_> = peers.iter().map(|peer| peer.count_stream(|_| client)).collect();
    assert!(streams.iter().all(Result::is_ok), "what it sends is not believed");

    let admission = unix(vec!["unix".parse().expect("those")]);
    let peer = admit_unknown(&admission);
    let _first = peer.count_stream(|_| client).expect("the first");
    assert_eq!(peer.count_stream(|_| client).expect_err("a second"), Limit::AddressStreams);
    assert!(peer.count_stream(|unknown| unknown).is_ok(), "it names none");
}

#[test]
fn an_address_that_is_known_later_counts_from_then_on() {
    let admission = limits(100, Some(2));
    let address = "192.0.2.1".parse().expect("an address");
    let [first, second, third] = [(); 3].map(|()| admit_unknown(&admission));
    assert!(first.set_peer(address) && second.set_peer("::ffff:192.0.2.1".parse().expect("it")));
    assert_eq!((first.peer(), second.peer()), (Some(address), Some(address)));
    assert!(!third.set_peer(address) && third.set_peer(address), "once");
    poll(pin!(third.make_room())).expect("a reserved place");
    assert!(third.is_unproven());
    assert_eq!(third.settle(), Err(Limit::Address));
    drop(first);
    assert!(third.settle().is_ok() && !third.is_unproven(), "there is room by now");
    let trusted = admit_unknown(&admission);
    assert!(trusted.set_peer("10.0.0.1".parse().expect("an address")));
    assert_eq!(open(&admission), 3);
    drop((second, third, trusted));
    assert_eq!(open(&admission), 0);
    assert!(admission.shared.addresses.as_ref().expect("on").is_empty());
}

/// As if its address had been known from the start.
#[test]
fn room_for_an_address_that_is_known_later_is_made_among_its_own() {
    let admission = limits(100, Some(1));
    let address = "192.0.2.1".parse().expect("an address");
    let [idle, other] = [(); 2].map(|()| admit_unknown(&admission));
    assert!(idle.set_peer(address) && other.set_peer("192.0.2.2".parse().expect("another")));
    for admitted in [&other, &idle] {
        admitted.closer().note_idle();
    }
    let next = admit_unknown(&admission);
    assert!(!next.set_peer(address));
    let mut room = Box::pin(next.make_room());
    assert!(poll(room.as_mut()).is_none(), "it waits until that has ended");
    assert!(is_closed(&idle) && !is_closed(&other));
    drop(idle);
    assert!(poll(room.as_mut()).is_some());
    drop(room);
    assert!(!next.is_unproven() && next.settle().is_ok());
    // Beyond its limit it has few reserved places, and those of others are left alone.
    let beyond = [(); 4].map(|()| {
        let beyond = admit_unknown(&admission);
        assert!(!beyond.set_peer(address));
        assert!(poll(pin!(beyond.make_room())).is_some() && beyond.is_unproven());
        beyond
    });
    let last = admit_unknown(&admission);
    assert!(!last.set_peer(address));
    let mut room = Box::pin(last.make_room());
    assert!(poll(room.as_mut()).is_none());
    assert!(is_closed(&beyond[0]), "the oldest");
    drop(beyond);
    assert!(poll(room.as_mut()).is_some() && last.is_unproven());
    drop(room);
    drop((other, next, last));
    assert_eq!(open(&admission), 0);
}

#[test]
fn internal_connections_count_against_no_other_limit() {
    let admission = limits(1, Some(1));
    let _public = admit_many::<5>(&admission, "192.0.2.1");
    let of = |admitted: &Admitted| admitted.count_stream(|peer| peer).expect("a stream");
    let mut permits = PermitTable::default();
    for number in 0..8 {
        let internal = admit_to(&admission, "192.0.2.1", Entrance::Internal).expect("room");
        assert!(internal.is_internal() && internal.settle().is_ok());
        permits.keep(SocketId(number), internal.take_permit(of(&internal)));
    }
    assert_eq!((open(&admission), admission.connections(Entrance::Internal)), (5, 8));
    permits.give_back(SocketId(3));
    assert_eq!((open(&admission), admission.connections(Entrance::Internal)), (5, 7));
    drop(permits);
    assert_eq!(admission.connections(Entrance::Internal), 0);
}

#[test]
fn permits_are_released_one_by_one() {
    let admission = limits(100, Some(50));
    let mut permits = PermitTable::default();
    for number in 0..50 {
        let admitted = admit(&admission, "192.0.2.1").expect("a permit");
        let stream = admitted.count_stream(|proxy| proxy).expect("room");
        permits.keep(SocketId(number), admitted.take_permit(stream));
    }
    let streams_left = || admission.shared.stream_permits.available_permits();
    assert_eq!((open(&admission), streams_left()), (50, STREAMS_MIN - 50));
    for number in 0..25 {
        permits.give_back(SocketId(number));
    }
    assert_eq!((open(&admission), permits.others()), (25, 25));
    assert_eq!(streams_left(), STREAMS_MIN - 25);
    drop(permits);
    assert_eq!((open(&admission), streams_left()), (0, STREAMS_MIN));
    for addresses in [&admission.shared.addresses, &admission.shared.stream_addresses] {
        assert!(addresses.as_ref().expect("on").is_empty());
    }
}

#[test]
fn the_limit_by_descriptors_leaves_a_reserve() {
    let config = Config { workers: 2, ..Config::default() };
    for (descriptors, connections) in [(16, 1), (1_024, 916), (1_048_576, 1_048_276)] {
        assert_eq!(connections_possible(&config, descriptors), connections);
    }
    let internal_listen = vec![([127, 0, 0, 1], 0).into()];
    let config = Config { internal_listen, ..config };
    for (descriptors, connections) in [(16, 1), (1_024, 640), (1_048_576, 1_048_000)] {
        assert_eq!(connections_possible(&config, descriptors), connections);
    }
}
