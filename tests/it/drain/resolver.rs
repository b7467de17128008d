//! A name server that never answers. `getaddrinfo` blocks a thread of the runtime's pool until it gives up; nothing
//! that ends may wait for it.
//!
//! This needs root and `unshare` (Debian's util-linux): the program gets a resolv.conf of its own.

use std::fs;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::support::killed::Killed;
use crate::support::programs::{MOUNTS, requires};
use crate::support::server::{Signal, signal};
use crate::support::temp_dir::TempDir;
use crate::support::{BOUND, Client, Server, Transport, eventually};

/// A name server that receives queries and answers none, with the resolver's settings that name it.
struct SilentResolver {
    socket: UdpSocket,
    settings: TempDir,
}

/// A token whose key is in no set: a request with it waits for the set.
const REQUEST: &str = "GET /api/acme/events HTTP/1.1\r\nhost: t\r\nauthorization: Bearer \
                       eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.e30.AA\r\n\r\n";

/// SCENARIO: the name server is silent when a token names an unknown key, and the server is asked to stop.
/// BUG: a worker ended with its runtime, which waited until `getaddrinfo` gave up: 19.5 s, past `--drain-timeout`; the
/// thread that receives signals waited for the worker, so a second signal did not help.
/// FIX: nothing waits for the runtime's blocking tasks.
#[test]
fn a_pending_name_lookup_does_not_delay_the_exit() {
    requires!(MOUNTS);
    // The request waits for the keys longer than the test may take; without the limit, for the lookup.
    // Without a second signal the worker ends, at the drain timeout; with it, the program does.
    for (timeout, second, code) in [("200ms", None, 0), ("1h", Some(Signal::INT), 130)] {
        let resolver = SilentResolver::new();
        let drain = ["--drain-window", "0", "--drain-timeout", timeout];
        let (mut server, _client) = resolver.server(&[&drain[..], &["--jwks-timeout", "60s"]]);
        server.signal(Signal::TERM);
        if let Some(second) = second {
            // Of two signals that wait, the one with the lower number comes first.
            eventually("it stops", || TcpStream::connect(server.address()).is_err());
            server.signal(second);
        }
        assert_eq!(server.wait(), Some(code));
    }
}

/// SCENARIO: as above, and the fetch has timed out long before the server is asked to stop; its request was refused.
#[test]
fn an_abandoned_name_lookup_does_not_delay_the_exit() {
    requires!(MOUNTS);
    let resolver = SilentResolver::new();
    let (mut server, mut client) = resolver.server(&[&["--jwks-timeout", "100ms"]]);
    client.read_head();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
}

/// SCENARIO: `nudged listen` and `nudged publish` resolve the name of the server, and the user presses ^C.
#[test]
fn an_interrupt_ends_a_client_that_resolves() {
    requires!(MOUNTS);
    let commands: [&[&str]; 2] = [&["listen", "acme"], &["publish", "acme", "posts"]];
    for args in commands {
        let resolver = SilentResolver::new();
        let mut client = resolver.client(args);
        resolver.expect_query();
        signal(client.0.id(), Signal::INT).expect("it runs");
        client.wait();
    }
}

/// SCENARIO: `nudged publish` resolves the name of the server for longer than it may take.
/// BUG: the error was there after 10 s, but the program ended when `getaddrinfo` gave up.
/// FIX: it does not wait for it.
#[test]
fn a_client_that_gave_up_resolving_ends() {
    requires!(MOUNTS);
    let resolver = SilentResolver::new();
    let mut client = resolver.client(&["publish", "acme", "posts"]);
    assert_eq!(client.wait(), Some(1));
}

// ===== impl SilentResolver =====

impl SilentResolver {
    fn new() -> Self {
        static NUMBER: AtomicU8 = AtomicU8::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // An address of loopback that concurrent runs do not share.
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 128 | (high & 0x7f), low, number);
        let socket = UdpSocket::bind((address, 53)).expect("root may bind port 53");
        socket.set_read_timeout(Some(BOUND)).expect("a socket");
        let settings = TempDir::new();
        // At most 5 attempts of 30 s (resolv.conf(5)): longer than the bound of any wait.
        let text = format!("nameserver {address}\noptions timeout:30 attempts:5\n");
        fs::write(settings.path().join("resolv.conf"), text).expect("a folder");
        fs::write(settings.path().join("nsswitch.conf"), "hosts: dns\n").expect("a folder");
        Self { socket, settings }
    }

    /// The program, whose names are looked up here. A shell that runs these tests in the background has SIGINT ignored.
    fn command(&self) -> Command {
        let folder = self.settings.path().display();
        let script = format!(
            "for file in resolv.conf nsswitch.conf; do \
             mount --bind {folder}/$file /etc/$file || exit; done; \
             exec env --default-signal=INT \"$0\" \"$@\""
        );
        Server::command_by(&["unshare", "-m", "sh", "-c", &script])
    }

    /// A server that looks up a name here, for the request of this client.
    fn server(&self, settings: &[&[&str]]) -> (Server, Client) {
        let keys: &[&str] = &["--jwks-url", "https://keys.example/keys", "--jwt-audience", "any"];
        let settings = [&[keys], settings].concat().concat();
        let server = Server::start_as(self.command(), Transport::Http1, &settings);
        let mut client = Client::connect(server.address());
        client.send(REQUEST);
        self.expect_query();
        (server, client)
    }

    /// A client of a server whose name is looked up here.
    fn client(&self, args: &[&str]) -> Killed {
        let mut command = self.command();
        command.args(args).args(["--url", "http://server.example"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Killed(command.spawn().expect("the program"))
    }

    /// Returns once a query was received.
    fn expect_query(&self) {
        self.socket.recv(&mut [0; 512]).expect("a query within the bound");
    }
}
