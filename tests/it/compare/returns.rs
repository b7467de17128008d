//! Clients that are cut off and come back, and the count of what they have missed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;

use super::clients::{Clients, Stated, Target};
use super::numbered::{Received, mark, numbers};
use super::protocol::{Client, Protocol};
use crate::support::{BOUND, Server, eventually};

const CLIENTS: usize = 12;

fn clients(address: SocketAddr, count: usize) -> Clients {
    let (protocol, org) = (Protocol::Nudged, "acme".to_owned());
    let target = Target { address, protocol, org, client: Client::EventSource, pending_max: 5 };
    Clients::new(target, count).unwrap()
}

/// Publishes the events with these numbers.
fn publish(server: &Server, numbers: std::ops::Range<usize>) {
    numbers.for_each(|number| drop(server.publish("acme", &[&mark(number)])));
}

/// Clients that have received events 0 to 4, and came back after 5 to 11, and then have received 12.
fn returned(server: &Server) -> Clients {
    let mut clients = clients(server.address(), CLIENTS);
    clients.come();
    assert!(clients.until(BOUND, Clients::are_open).unwrap());
    eventually("each has a seat", || server.seats() == CLIENTS as u64);
    publish(server, 0..5);
    assert!(clients.until(BOUND, |all| (0..5).all(|number| all.all_have(number))).unwrap());
    clients.cut().unwrap();
    eventually("no seat is taken", || server.seats() == 0);
    publish(server, 5..12);
    clients.come();
    assert!(clients.until(BOUND, Clients::are_open).unwrap());
    publish(server, 12..13);
    assert!(clients.until(BOUND, |all| all.all_have(12)).unwrap());
    clients
}

#[test]
fn clients_that_are_cut_off_come_back_and_receive_what_they_missed() {
    let server = Server::start(&["--coalesce", "0"]);
    let clients = returned(&server);
    assert_eq!((clients.missed(0..13), clients.duplicates()), (0, 0));
    let stated = Stated { complete: CLIENTS, ..Stated::default() };
    assert_eq!(clients.stated(), stated);
    assert!(clients.last_arrival(5..12) <= clients.last_arrival(12..13));
    assert_eq!((clients.counts.ended, clients.counts.refused.len()), (0, 0));
}

#[test]
fn clients_for_which_the_history_is_too_short_miss_all_and_are_to_read_again() {
    let server = Server::start(&["--coalesce", "0", "--history-events", "4"]);
    let clients = returned(&server);
    assert_eq!((clients.missed(0..13), clients.missed(5..12)), (CLIENTS as u64 * 7, 84));
    let stated = Stated { reread: CLIENTS, ..Stated::default() };
    assert_eq!(clients.stated(), stated);
    assert_eq!(clients.last_arrival(5..12), None);
}

/// A server that responds to the first connections with these, and ends each; returns the requests.
fn scripted(responses: &'static [&'static str]) -> (SocketAddr, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move |response: &&str| {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        socket.write_all(response.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    };
    (address, thread::spawn(move || responses.iter().map(serve).collect()))
}

#[test]
fn a_client_that_is_refused_or_whose_stream_ends_comes_back_from_its_position() {
    let (address, server) = scripted(&[
        "",
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1b\r\nid: a7\ndata: event-000002\n\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\ndata: event-000003\n\nid: a9\ndata: event-000002\n\n",
        "HTTP/1.1 200 OK\r\n\r\ndata: event-000004\n\n",
    ]);
    let mut clients = clients(address, 1);
    clients.come();
    assert!(clients.until(BOUND, |all| all.all_have(4)).unwrap());
    let requests = server.join().unwrap();
    let ids = requests.iter().map(|request| {
        assert!(request.starts_with("GET /api/acme/events HTTP/1.1\r\n"), "{request}");
        let id = request.lines().find_map(|line| line.strip_prefix("last-event-id: "));
        id.unwrap_or_default().to_owned()
    });
    assert_eq!(ids.collect::<Vec<_>>(), ["", "", "", "", "a7", "a9"]);
    let refused = ["a chunk without a valid size", "status 503", "unexpected end of file"];
    let refused: BTreeMap<_, _> = refused.map(|why| (why.to_owned(), 1)).into();
    assert_eq!(clients.counts.refused, refused);
    assert!(clients.counts.ended >= 2, "{:?}", clients.counts);
    assert_eq!((clients.missed(2..5), clients.duplicates()), (0, 1));
}

#[test]
fn the_numbers_of_events_are_found_in_whatever_data_a_server_makes_of_them() {
    let found = |text: &str| numbers(text).collect::<Vec<_>>();
    assert_eq!(mark(17), "event-000017");
    assert_eq!(found(r#"{"keys":["event-000017"]}"#), [17]);
    let two = r#"{"publications":[{"data":["event-000002"]},{"data":["event-000001"]}]}"#;
    assert_eq!(found(two), [2, 1]);
    let none =
        ["", "event-", "event-00001", "event-00001x", "event-+00001", "event-00001ä", "id-000001"];
    for text in none {
        assert_eq!(found(text), [0; 0], "{text}");
    }
}

/// What arrived of which events, counted in the plainest way.
fn naive(arrived: &[usize], wanted: std::ops::Range<usize>) -> (u64, u64) {
    let missed = wanted.filter(|number| !arrived.contains(number)).count();
    let again = |(at, number): &(usize, &usize)| arrived[..*at].contains(*number);
    (missed as u64, arrived.iter().enumerate().filter(again).count() as u64)
}

proptest! {
    #[test]
    fn what_was_missed_and_what_came_twice_is_counted_as_by_the_naive_count(
        arrived in vec(0_usize..12, 0..30),
        (from, to) in (0_usize..15, 0_usize..15),
    ) {
        let mut received = Received::default();
        let firsts = arrived.iter().filter(|number| received.add(**number)).count();
        let (missed, duplicates) = naive(&arrived, from..to);
        prop_assert_eq!((received.missed(from..to), received.duplicates()), (missed, duplicates));
        prop_assert_eq!(firsts as u64 + duplicates, arrived.len() as u64);
    }
}
