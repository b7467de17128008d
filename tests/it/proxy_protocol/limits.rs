//! The address in a header counts in place of the proxy's: for limits, in the access log, and as the peer that may be a
//! trusted proxy.

use std::io::BufRead;
use std::net::SocketAddr;

use super::balancer::{Balancer, LIVEZ, LOCAL, connect, expect_none_refused, header, server};
use crate::support::bridge::Bridge;
use crate::support::server::Signal;
use crate::support::{Answer, Client, Server, Stream, Transport, eventually};

/// The clients behind balancers of their own, over a transport.
struct Clients<'a> {
    server: &'a Server,
    transport: Transport,
}

/// Where one client reaches the server.
struct Way {
    address: SocketAddr,
    _bridge: Option<Bridge>,
}

impl Clients<'_> {
    fn way(&self, client: &str) -> Way {
        let balancer = Balancer::start(self.server.listens_on[0], client);
        match self.transport {
            Transport::Http1 => Way { address: balancer.address, _bridge: None },
            transport => {
                let bridge = Bridge::to(balancer.address, transport);
                Way { address: bridge.address, _bridge: Some(bridge) }
            }
        }
    }
}

impl Way {
    fn stream(&self, headers: &str) -> Stream {
        let client = Client::connect(self.address);
        let mut stream = Stream::open(client, "/api/acme/events", headers);
        stream.connected();
        stream
    }

    /// The response to a client that is no browser.
    fn ask(&self, headers: &str) -> Answer {
        let mut client = Client::connect(self.address);
        client.send(&format!("GET /api/acme/events HTTP/1.1\r\nhost: t\r\n{headers}\r\n"));
        client.read_answer()
    }

    fn expect_refused(&self, headers: &str, because: &str) {
        let answer = self.ask(headers);
        assert_eq!(answer.status(), 503, "{answer:?}");
        assert!(answer.problem().contains(because), "{answer:?}");
    }
}

#[test]
fn the_connections_of_the_named_address_are_limited() {
    for transport in Transport::all() {
        let server = server(transport, &["--address-connections", "2"]);
        let clients = Clients { server: &server, transport };
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|client| clients.way(client));
        let mut streams = [one.stream(""), one.stream("")];
        let because = "your address has as many connections as it may, 2";
        one.expect_refused("", because);
        let others = [other.stream(""), other.stream("")];
        other.expect_refused("", because);
        // Of the proxy itself there may be any number.
        let mut checks: Vec<_> = (0..5).map(|_| connect(&server)).collect();
        if transport == Transport::Http1 {
            for check in &mut checks {
                check.send_bytes(&[&LOCAL[..], LIVEZ.as_bytes()].concat());
                assert_eq!(check.read_answer().header("connection"), None);
            }
        }
        drop(checks);
        let id = server.publish("acme", &["a"]).expect("subscribed");
        streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["a"]));
        drop((streams, others));
        eventually("there is room", || one.ask_is_stream());
        expect_none_refused(&server);
    }
}

impl Way {
    fn ask_is_stream(&self) -> bool {
        let mut client = Client::connect(self.address);
        let request = "GET /api/acme/events HTTP/1.1\r\nhost: t\r\n\r\n";
        if client.try_send_bytes(request.as_bytes()).is_err() {
            return false;
        }
        client.try_read_until(b"\r\n\r\n").is_ok_and(|head| head.starts_with(b"HTTP/1.1 200 "))
    }
}

#[test]
fn the_streams_of_the_named_address_are_limited() {
    for transport in Transport::all() {
        let server = server(transport, &["--address-streams", "1"]);
        let clients = Clients { server: &server, transport };
        let because = "your address has as many streams as it may, 1";
        for group in [
            // One network of a provider's customer is one client.
            &["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::"][..],
            &["2001:db8:0:1::1"],
            // One client, however the balancer writes it.
            &["192.0.2.1", "::ffff:192.0.2.1"],
            &["192.0.2.2"],
        ] {
            let first = clients.way(group[0]);
            let _stream = first.stream("");
            for same in group {
                clients.way(same).expect_refused("", because);
            }
        }
    }
}

/// An idle connection of the address is closed for the next, as for one without a proxy.
#[test]
fn idle_connections_of_the_named_address_make_room() {
    let server = server(Transport::Http1, &["--address-connections", "2"]);
    let first = [&header("192.0.2.1")[..], LIVEZ.as_bytes()].concat();
    let mut idle: Vec<_> = (0..2).map(|_| connect(&server)).collect();
    for client in &mut idle {
        client.send_bytes(&first);
        assert_eq!(client.read_answer().status(), 200);
    }
    let way = Clients { server: &server, transport: Transport::Http1 }.way("192.0.2.1");
    let _streams = [way.stream(""), way.stream("")];
    for client in &mut idle {
        assert_eq!(client.try_read_to_end().unwrap_or_default(), b"");
    }
    way.expect_refused("", "your address");
}

/// SCENARIO: behind the balancer is a proxy of HTTP, or a client that says so.
#[test]
fn the_named_address_may_be_that_of_a_trusted_proxy() {
    for transport in Transport::all() {
        let args = ["--address-streams", "1", "--trust-forwarded-for", "192.0.2.7,127.0.0.2"];
        let server = server(transport, &args);
        let clients = Clients { server: &server, transport };
        let [trusted, other] = ["192.0.2.7", "192.0.2.8"].map(|client| clients.way(client));
        let from = |client: &str| format!("x-forwarded-for: {client}\r\n");
        let _of_trusted =
            ["198.51.100.1", "198.51.100.2"].map(|client| trusted.stream(&from(client)));
        trusted.expect_refused(&from("198.51.100.1"), "your address");
        // The balancer is trusted too, and what its clients say of themselves is not.
        let _of_other = other.stream(&from("198.51.100.3"));
        other.expect_refused(&from("198.51.100.4"), "your address");
    }
}

#[test]
fn the_access_log_has_the_named_address() {
    for transport in Transport::all() {
        let mut server = server(transport, &["--access-log"]);
        let clients = Clients { server: &server, transport };
        for client in ["192.0.2.1", "2001:db8::1"] {
            drop(clients.way(client).stream(""));
            eventually("it has ended", || server.seats() == 0);
        }
        let log = std::io::BufReader::new(server.take_stderr());
        server.signal(Signal::TERM);
        server.wait();
        let log: Vec<_> = log.lines().map(|line| line.expect("text")).collect();
        let log: Vec<_> = log.iter().filter(|line| line.contains("nudged::access")).collect();
        assert_eq!(log.len(), 2, "{log:?}");
        assert!(log[0].contains(" client=192.0.2.1 "), "{log:?}");
        assert!(log[1].contains(" client=2001:db8::1 "), "{log:?}");
    }
}
