//! Peers that vanish without a packet: clients in a network namespace whose link goes down, or whose
//! answers stop. Nobody tells the server; it has to find out, within a documented bound.
//!
//! This needs root and `ip` (Debian's iproute2).

#![allow(clippy::disallowed_methods, reason = "bounds are measured with the clock")]

mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use support::frames::{Frames, WIDE};
use support::{BOUND, Client, PLAIN_PATHS, Server, Stream, eventually};

/// A machine of its own at the other end of a cable; gone when this is dropped.
struct Machine {
    name: String,
    /// Our end of the cable.
    ours: Ipv4Addr,
    theirs: Ipv4Addr,
}

/// How a peer vanishes. Neither sends a packet.
#[derive(Clone, Copy, Debug)]
enum Vanishes {
    /// The cable is pulled: the server's own kernel sees it, which must not matter.
    Link,
    /// Its packets get lost: the path is gone, and both ends still have a link.
    Packets,
}

const WAYS: [Vanishes; 2] = [Vanishes::Link, Vanishes::Packets];

const STREAMS: u64 = 20;

const PEER_TIMEOUT: Duration = Duration::from_secs(1);
const KEEPALIVE: Duration = Duration::from_secs(1);
/// Of the kernel's retransmission timer, which is when it looks at the peer timeout; and of a busy
/// machine.
const SLACK: Duration = Duration::from_secs(3);

#[rustfmt::skip]
const SETTINGS: &[&str] = &[
    "--coalesce", "0", "--insecure-open", "--peer-timeout", "1s", "--body-timeout", "2s",
];

/// What is written to it is acknowledged by nobody: it is gone after the peer timeout.
#[test]
fn with_events_flowing() {
    for (path, way) in cases() {
        let (machine, server) = start(path, &["--keepalive", "30s"]);
        let held = machine.streams(&server);
        machine.vanish(way);
        server.publish("acme", &["posts"]);
        is_gone_within(&server, path, PEER_TIMEOUT + SLACK, way);
        drop(held);
    }
}

/// The next keepalive is what nobody acknowledges: a quarter more than its time (the jitter), and a
/// tick of the wheel, come before the peer timeout.
#[test]
fn with_nothing_but_keepalives() {
    for (path, way) in cases() {
        let (machine, server) = start(path, &["--keepalive", "1s"]);
        let held = machine.streams(&server);
        machine.vanish(way);
        let tick = Duration::from_secs(1);
        is_gone_within(&server, path, KEEPALIVE * 5 / 4 + tick + PEER_TIMEOUT + SLACK, way);
        drop(held);
    }
}

/// While its packets get lost the way to it goes too: what the kernel says of it in the end is that there
/// is no way to it, and not that its time is over. It is a peer that vanished all the same.
#[test]
fn with_no_route_to_it() {
    for path in PLAIN_PATHS {
        let (machine, server) = start(path, &["--keepalive", "30s"]);
        let held = machine.streams(&server);
        machine.vanish(Vanishes::Packets);
        server.publish("acme", &["posts"]);
        let delivered = || server.metric("nudged_events_delivered_total");
        eventually("the event is on its way", || delivered() == STREAMS);
        ip(&format!("route add unreachable {}", machine.theirs));
        is_gone_within(&server, path, PEER_TIMEOUT + SLACK, Vanishes::Packets);
        drop(held);
    }
}

/// Many streams on a few connections, which answer no ping and acknowledge nothing.
#[test]
fn many_streams_over_http2() {
    const EACH: u64 = 5;
    for way in WAYS {
        let (machine, server) = start(&[], &["--keepalive", "1s"]);
        let address = machine.server(&server);
        let held = machine.run(|| {
            let client = |_| {
                let mut client = Frames::on(TcpStream::connect(address).expect("it listens"), WIDE);
                for _ in 0..EACH {
                    let stream = client.get("/api/acme/events");
                    assert!(client.event(stream).contains("connected"));
                }
                client
            };
            (0..STREAMS / EACH).map(client).collect::<Vec<_>>()
        });
        machine.vanish(way);
        is_gone_within(&server, PLAIN_PATHS[0], KEEPALIVE + PEER_TIMEOUT + SLACK, way);
        drop(held);
    }
}

/// The server waits for the rest of the body, which no peer timeout bounds: the body timeout does.
#[test]
fn a_publisher_in_the_middle_of_its_body() {
    for (path, way) in cases() {
        let (machine, server) = start(path, &[]);
        let before = server.descriptors_at_rest();
        let held = machine.run(|| {
            let publisher = |_| {
                let mut client = connect(machine.server(&server));
                client.send(
                    "POST /api/acme/events HTTP/1.1\r\nhost: test\r\n\
                     content-type: application/json\r\ncontent-length: 99\r\n\r\n{\"keys\":",
                );
                client
            };
            (0..STREAMS).map(publisher).collect::<Vec<_>>()
        });
        // All but a few: a connection that asked for metrics may still have been counted before.
        let most = before + usize::try_from(STREAMS).expect("few") - 4;
        eventually("the publishes have begun", || server.descriptors() >= most);
        machine.vanish(way);
        let start = Instant::now();
        eventually("every descriptor is closed", || server.descriptors() <= before);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(2) + SLACK, "{took:?} on {path:?}, {way:?}");
        drop(held);
    }
}

fn cases() -> impl Iterator<Item = (&'static [&'static str], Vanishes)> {
    PLAIN_PATHS.into_iter().flat_map(|path| WAYS.map(|way| (path, way)))
}

fn start(path: &[&str], more: &[&str]) -> (Machine, Server) {
    let machine = Machine::new();
    let listen = format!("127.0.0.1:0,{}:0", machine.ours);
    let server = Server::start(&[path, SETTINGS, more, &["--listen", &listen]].concat());
    (machine, server)
}

fn is_gone_within(server: &Server, path: &[&str], bound: Duration, way: Vanishes) {
    assert!(bound < BOUND);
    let start = Instant::now();
    eventually(&format!("every seat is free, {way:?} on {path:?}"), || server.seats() == 0);
    let took = start.elapsed();
    assert!(took < bound, "after {took:?}, not {bound:?}, {way:?} on {path:?}");
    let closed = server.closed();
    let closed: Vec<_> = closed.into_iter().collect();
    assert_eq!(closed, [("timeout".into(), STREAMS)], "{way:?} on {path:?}");
}

// ===== impl Machine =====

impl Machine {
    fn new() -> Self {
        static NUMBER: AtomicU8 = AtomicU8::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Two runs at once have different numbers of their process, and so, nearly always, networks.
        let run = std::process::id();
        let name = format!("nd{run}-{number}");
        let network = |last| Ipv4Addr::new(10, (run % 251) as u8, number, last);
        let machine = Self { name, ours: network(1), theirs: network(2) };
        let Self { name, ours, theirs } = &machine;
        ip(&format!("netns add {name}"));
        ip(&format!("link add {name} type veth peer name veth0 netns {name}"));
        ip(&format!("addr add {ours}/30 dev {name}"));
        ip(&format!("link set {name} up"));
        ip(&format!("-n {name} addr add {theirs}/30 dev veth0"));
        ip(&format!("-n {name} link set veth0 up"));
        machine
    }

    fn server(&self, server: &Server) -> SocketAddr {
        let ours = |address: &&SocketAddr| address.ip() == self.ours;
        *server.addresses.iter().find(ours).expect("it listens for this machine")
    }

    fn streams(&self, server: &Server) -> Vec<Stream> {
        let address = self.server(server);
        let open = || Stream::open(connect(address), "/api/acme/events", "");
        let mut streams: Vec<_> = self.run(|| (0..STREAMS).map(|_| open()).collect());
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        assert_eq!(server.seats(), STREAMS);
        streams
    }

    /// Runs on this machine: its sockets stay there when they are handed out.
    fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(format!("/run/netns/{}", self.name)).expect("a namespace");
        thread::scope(|scope| {
            let on_it = scope.spawn(move || {
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(file.as_fd(), network).expect("root enters a namespace");
                act()
            });
            on_it.join().expect("it worked over there")
        })
    }

    fn vanish(&self, way: Vanishes) {
        let Self { name, ours, .. } = self;
        match way {
            Vanishes::Link => ip(&format!("-n {name} link set veth0 down")),
            Vanishes::Packets => ip(&format!("-n {name} route add blackhole {ours}")),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The cable first: a socket that is still open keeps the namespace alive, and it in it.
        _ = run_ip(&format!("link del {}", self.name));
        _ = run_ip(&format!("netns del {}", self.name));
        _ = run_ip(&format!("route del unreachable {}", self.theirs));
    }
}

fn connect(address: SocketAddr) -> Client {
    Client::on(TcpStream::connect(address).expect("the server is reached over the cable"))
}

fn ip(arguments: &str) {
    let done = run_ip(arguments);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "`ip {arguments}` failed; this test needs root (it makes network namespaces): {said}"
    );
}

fn run_ip(arguments: &str) -> Output {
    let done = Command::new("ip").args(arguments.split(' ')).output();
    done.expect("ip is needed: apt-get install iproute2")
}
