//! Peers that vanish without a packet: clients in a network namespace whose link goes down, or whose
//! packets are dropped. No socket reports it; the server detects it by its timeouts. And what their kernel counts while
//! their server is replaced.
//!
//! This needs root and `ip` (Debian's iproute2).

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the real clock, and loom does not replace their locks"
)]

#[allow(dead_code, unused_imports, reason = "this binary uses a part of the support of tests/it")]
#[path = "it/support/mod.rs"]
mod support;
#[path = "../benches/shared"]
#[allow(dead_code, reason = "other programs use the rest")]
mod shared {
    pub(crate) mod group;
    pub(crate) mod machine;
}
#[allow(dead_code, reason = "tests/it uses the rest")]
#[path = "it/upgrade/upgradable.rs"]
mod upgradable;

use std::net::{SocketAddr, TcpStream};

use shared::machine::{Machine, Vanishes, ip};
use support::client::post;
use support::http2_client::{Http2Client, WIDE};
use support::programs::{Program, requires};
use support::{Client, Server, Stream, eventually};
use upgradable::Upgradable;

const WAYS: [Vanishes; 2] = [Vanishes::Link, Vanishes::Packets];

const STREAMS: u64 = 20;

static NAMESPACES: Program = Program::new(
    &["sh", "-c", "ip netns add nudged-probe-$$ && ip netns del nudged-probe-$$"],
    "network namespaces cannot be made: apt-get install iproute2, and run as root",
);

/// Nothing but these timeouts ends a connection within the bound of a test: the kernel itself would
/// retransmit for a quarter of an hour.
#[rustfmt::skip]
const SETTINGS: &[&str] = &[
    "--coalesce", "0", "--insecure-open", "--peer-timeout", "1s", "--body-timeout", "2s",
];

#[test]
fn an_unacknowledged_event_frees_the_seats_of_a_vanished_peer() {
    requires!(NAMESPACES);
    for way in WAYS {
        let (machine, server) = start(&["--keepalive", "1h"]);
        let held = streams(&machine, &server);
        vanish(&machine, way);
        server.publish("acme", &["posts"]);
        expect_timeouts(&server, way);
        drop(held);
    }
}

#[test]
fn an_unacknowledged_keepalive_frees_the_seats_of_a_vanished_peer() {
    requires!(NAMESPACES);
    for way in WAYS {
        let (machine, server) = start(&["--keepalive", "1s"]);
        let held = streams(&machine, &server);
        vanish(&machine, way);
        expect_timeouts(&server, way);
        drop(held);
    }
}

/// The route is removed while packets are lost: the kernel then reports "no route" instead of a timeout. The stream
/// must count as timed out all the same.
#[test]
fn a_vanished_peer_counts_as_timeout_even_without_a_route() {
    requires!(NAMESPACES);
    let (machine, server) = start(&["--keepalive", "1h"]);
    let held = streams(&machine, &server);
    vanish(&machine, Vanishes::Packets);
    server.publish("acme", &["posts"]);
    let delivered = || server.metric("nudged_events_delivered_total");
    eventually("the event is on its way", || delivered() == STREAMS);
    ip(&format!("route add unreachable {}", machine.theirs)).expect("a route");
    expect_timeouts(&server, Vanishes::Packets);
    drop(held);
}

/// So do clients of other servers vanish in the comparison, whose servers listen on 127.0.0.1 only.
#[test]
fn a_peer_of_a_server_on_loopback_vanishes_as_another_does() {
    requires!(NAMESPACES);
    let machine = machine();
    machine.reach_our_loopback().expect("packets to 127.0.0.1 leave the namespace");
    let listen = ["--keepalive", "1s", "--listen", "127.0.0.1:0"];
    let server = Server::start(&[SETTINGS, &listen].concat());
    let held = streams_at(&machine, &server, server.addresses[0]);
    vanish(&machine, Vanishes::Packets);
    expect_timeouts(&server, Vanishes::Packets);
    drop(held);
}

/// Many streams on a few connections, whose peer neither answers a PING nor acknowledges a packet.
#[test]
fn a_vanished_peer_frees_all_its_streams_over_http2() {
    requires!(NAMESPACES);
    const EACH: u64 = 5;
    for way in WAYS {
        let (machine, server) = start(&["--keepalive", "1s"]);
        let address = address(&machine, &server);
        let held = within(&machine, || {
            let client = |_| {
                let socket = TcpStream::connect(address).expect("it listens");
                let mut client = Http2Client::on(socket, WIDE);
                for _ in 0..EACH {
                    let stream = client.get("/api/acme/events");
                    assert!(client.event(stream).contains("connected"));
                }
                client
            };
            (0..STREAMS / EACH).map(client).collect::<Vec<_>>()
        });
        vanish(&machine, way);
        expect_timeouts(&server, way);
        drop(held);
    }
}

/// The server waits for the rest of the body, which no peer timeout bounds: the body timeout does.
#[test]
fn a_publisher_that_vanishes_within_its_body_is_closed() {
    requires!(NAMESPACES);
    for way in WAYS {
        let (machine, server) = start(&[]);
        let before = server.descriptors_at_rest();
        let held = within(&machine, || {
            let publisher = |_| {
                let mut client = connect(address(&machine, &server));
                client.send(
                    "POST /api/acme/events HTTP/1.1\r\nhost: test\r\n\
                     content-type: application/json\r\ncontent-length: 99\r\n\r\n{\"keys\":",
                );
                client
            };
            (0..STREAMS).map(publisher).collect::<Vec<_>>()
        });
        // A few less, because `before` may include a connection that read the metrics.
        let most = before + usize::try_from(STREAMS).expect("few") - 4;
        eventually("the publishes have begun", || server.descriptors() >= most);
        vanish(&machine, way);
        let closed = format!("every descriptor is closed, {way:?}");
        eventually(&closed, || server.descriptors() <= before);
        drop(held);
    }
}

/// As the kernel of the clients counts them: no connection is opened, and no RST is sent or received.
#[test]
fn no_connection_is_opened_or_reset_while_a_server_is_replaced() {
    requires!(NAMESPACES);
    let machine = machine();
    let listen = format!("127.0.0.1:0,{}:0", machine.ours);
    let flags = ["--coalesce", "0", "--insecure-open", "--workers", "2", "--listen", &listen];
    let mut server = Upgradable::start(&flags);
    let mut streams = streams(&machine, &server);
    let address = address(&machine, &server);
    let mut publisher = within(&machine, || connect(address));
    let mut publish = |key: &str| {
        let body = format!("{{\"keys\":[\"{key}\"]}}");
        publisher.send(&post("/api/acme/events", "application/json", &body));
        assert_eq!(publisher.read_answer().status(), 202);
    };
    publish("first");
    let before = counters(&machine);
    for key in ["second", "third", "fourth"] {
        server.upgrade();
        publish(key);
    }
    for stream in &mut streams {
        for key in ["first", "second", "third", "fourth"] {
            assert!(stream.next().contains(&format!("[\"{key}\"]")));
        }
    }
    assert_eq!(counters(&machine), before);
    // They count.
    let another = within(&machine, || connect(address));
    assert_eq!(counters(&machine)[0], before[0] + 1);
    drop(another);
}

fn machine() -> Machine {
    Machine::new().expect("network namespaces can be made")
}

fn start(more: &[&str]) -> (Machine, Server) {
    let machine = machine();
    let listen = format!("127.0.0.1:0,{}:0", machine.ours);
    let server = Server::start(&[SETTINGS, more, &["--listen", &listen]].concat());
    (machine, server)
}

fn expect_timeouts(server: &Server, way: Vanishes) {
    eventually(&format!("every seat is free, {way:?}"), || server.seats() == 0);
    let closed: Vec<_> = server.closed().into_iter().collect();
    assert_eq!(closed, [("timeout".into(), STREAMS)], "{way:?}");
}

/// The address of the server that this machine reaches.
fn address(machine: &Machine, server: &Server) -> SocketAddr {
    let ours = |address: &&SocketAddr| address.ip() == machine.ours;
    *server.addresses.iter().find(ours).expect("it listens for this machine")
}

fn streams(machine: &Machine, server: &Server) -> Vec<Stream> {
    streams_at(machine, server, address(machine, server))
}

fn streams_at(machine: &Machine, server: &Server, address: SocketAddr) -> Vec<Stream> {
    let open = || Stream::open(connect(address), "/api/acme/events", "");
    let mut streams: Vec<_> = within(machine, || (0..STREAMS).map(|_| open()).collect());
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    assert_eq!(server.seats(), STREAMS);
    streams
}

fn within<T: Send>(machine: &Machine, act: impl FnOnce() -> T + Send) -> T {
    machine.run(act).expect("root enters a namespace")
}

fn vanish(machine: &Machine, way: Vanishes) {
    machine.vanish(way).expect("the path is cut");
}

/// Connections that its kernel has opened, attempts that failed, connections that were reset, and RSTs that it has sent.
fn counters(machine: &Machine) -> [u64; 4] {
    let text = within(machine, || std::fs::read_to_string("/proc/thread-self/net/snmp"));
    let text = text.expect("it is there");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    ["ActiveOpens", "AttemptFails", "EstabResets", "OutRsts"].map(|wanted| {
        let both = names.split(' ').zip(values.split(' '));
        let value = both.into_iter().find(|(name, _)| *name == wanted).expect("it is counted");
        value.1.parse().expect("a number")
    })
}

fn connect(address: SocketAddr) -> Client {
    Client::on(TcpStream::connect(address).expect("the server is reached over the cable"))
}
