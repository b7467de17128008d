//! Where a server listens: one server for a port, sockets that it is passed.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

use socket2::{Domain, Socket, Type};

use crate::support::certificate::Certificate;
use crate::support::killed::Killed;
use crate::support::programs::{OPENSSL, requires};
use crate::support::temp_dir::TempDir;
use crate::support::{Client, Server, Transport};

// ===== one server for a port =====

/// Servers that are started together, two at a time.
const PAIRS: usize = 50;

/// SCENARIO: two servers are started together on the same address, by a supervisor and by hand, say.
/// BUG: each checked that nothing listened and then listened, with `SO_REUSEPORT`. Once in 20 to 70 times both passed
/// the check, and each got half of the clients and half of the publishes.
/// FIX: the kernel decides, when the first socket listens, for the server's life.
#[test]
fn of_two_servers_that_start_together_exactly_one_serves() {
    for pair in 0..PAIRS {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = port.local_addr().expect("bound").to_string();
        drop(port);
        let start = || {
            let mut command = Server::command();
            command.args(["--listen", &address]).stderr(Stdio::piped());
            Killed(command.spawn().expect("the program"))
        };
        let mut servers = [start(), start()];
        let mut serving = 0;
        for Killed(server) in &mut servers {
            if first_line(server).contains("listening on") {
                serving += 1;
            } else {
                let mut message = String::new();
                let mut stderr = server.stderr.take().expect("piped");
                stderr.read_to_string(&mut message).expect("text");
                assert!(message.contains("another server does"), "{message}");
            }
        }
        assert_eq!(serving, 1, "pair {pair}");
    }
}

fn first_line(server: &mut Child) -> String {
    let mut line = String::new();
    let stdout = server.stdout.as_mut().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("text");
    line
}

// ===== sockets that it is passed =====

/// The program with this descriptor as the third, as a service manager passes it, and with what else the shell does.
fn with_descriptor(descriptor: OwnedFd, variables: &str) -> Command {
    let script = format!("exec 3<&0 0</dev/null; {variables} exec \"$0\" \"$@\"");
    let mut command = Server::command_by(&["sh", "-c", &script]);
    command.stdin(Stdio::from(descriptor));
    command
}

/// A whole TCP socket which listens, on this address.
fn listener(address: &str) -> OwnedFd {
    TcpListener::bind(address).expect("a port").into()
}

/// SCENARIO: a script passes a socket, and gets a variable or the socket wrong.
/// BUG: without `LISTEN_PID` it was taken all the same; a socket that does not listen failed every accept, for ever,
/// after the server had said that it listens.
/// FIX: each is an error at the start, which names what is wrong.
#[test]
fn a_socket_that_cannot_serve_is_refused_at_the_start() {
    let folder = TempDir::new();
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let datagrams = UnixDatagram::bind(folder.file("socket")).expect("a socket");
    let file = std::fs::File::open("/dev/null").expect("it exists");
    let ours = "LISTEN_FDS=1 LISTEN_PID=$$";
    for (descriptor, variables, why) in [
        (listener("127.0.0.1:0"), "LISTEN_FDS=1", "LISTEN_PID is missing"),
        (listener("127.0.0.1:0"), "LISTEN_FDS=all LISTEN_PID=$$", "LISTEN_FDS is no number"),
        (listener("127.0.0.1:0"), "LISTEN_FDS=1 LISTEN_PID=self", "LISTEN_PID is no number"),
        (bound.into(), ours, "descriptor 3 is a socket that does not listen"),
        (udp.into(), ours, "descriptor 3 is no TCP socket"),
        (datagrams.into(), ours, "descriptor 3 is no TCP socket"),
        (file.into(), ours, "descriptor 3 is no TCP socket"),
        (listener("127.0.0.1:0"), "LISTEN_FDS=2 LISTEN_PID=$$", "descriptor 4 is no TCP socket"),
    ] {
        let (code, message) =
            Server::refuses_to_start_as(with_descriptor(descriptor, variables), &[]);
        assert_eq!(code, Some(2), "{message}");
        assert!(message.contains("LISTEN_FDS") && message.contains(why), "{why}: {message}");
    }
}

/// As sd_listen_fds(3) has it: a process inherits variables that are not for it.
#[test]
fn sockets_for_another_process_are_ignored() {
    let passed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = passed.local_addr().expect("bound");
    let command = with_descriptor(passed.into(), "LISTEN_FDS=1 LISTEN_PID=1");
    let server = Server::start_as(command, Transport::Http1, &[]);
    assert_ne!(server.address(), address);
    assert_eq!(server.get("/livez").status(), 200);
}

/// SCENARIO: the service of `.systemd/`, whose socket says where to listen.
/// BUG: each start warned that `--listen` is ignored, which was not given. `--check` said nothing where it was.
/// FIX: both name one that was given, and no other.
///
/// SCENARIO: the server ends right after that line, while the log's thread has just found no line.
/// BUG: the thread ended too, and the line was lost: it looked for the end after it had looked for lines.
/// FIX: it looks for the end first.
#[test]
fn a_listen_flag_is_said_to_be_ignored_only_if_it_was_given() {
    let stops = [&["--internal-listen", "192.0.2.1:1", "--insecure-open"][..], &["--check"]];
    for (flags, expected) in [(&[][..], false), (&["--listen", "127.0.0.1:0"], true)] {
        for stop in stops {
            let mut command =
                with_descriptor(listener("127.0.0.1:0"), "LISTEN_FDS=1 LISTEN_PID=$$");
            let args = [&["serve"], flags, stop].concat();
            let output = command.args(args).stderr(Stdio::piped()).output().expect("the program");
            let log = String::from_utf8(output.stderr).expect("text");
            assert_eq!(log.contains("--listen is ignored"), expected, "{stop:?}: {log}");
        }
    }
}

/// SCENARIO: a server with `--plain-listen` is moved under a service manager.
/// BUG: the address was not served, and a line of the log was all that said so.
/// FIX: an error says what to use. An internal address is served beside the sockets.
#[test]
fn no_address_is_dropped_for_a_passed_socket() {
    requires!(OPENSSL);
    let passed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = passed.local_addr().expect("bound");
    let passed = || {
        let socket = passed.try_clone().expect("a descriptor");
        with_descriptor(socket.into(), "LISTEN_FDS=1 LISTEN_PID=$$")
    };
    let certificate = Certificate::of_tests();
    let plain = [&certificate.flags()[..], &["--plain-listen", "127.0.0.1:0"]].concat();
    let (code, message) = Server::refuses_to_start_as(passed(), &plain);
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("--plain-listen cannot be used with"), "{message}");

    let internal = ["--internal-listen", "127.0.0.1:0"];
    let server = Server::start_as(passed(), Transport::Http1, &internal);
    let [public, internal] = server.addresses[..] else { panic!("two addresses") };
    assert_eq!(public, address);
    for address in [public, internal] {
        let mut client = Client::connect(address);
        client.send("GET /livez HTTP/1.1\r\nhost: t\r\n\r\n");
        assert_eq!(client.read_answer().status(), 200);
    }
}

// ===== forms of addresses =====

fn is_served(address: SocketAddr) -> bool {
    let mut client = Client::connect(address);
    client.send("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n");
    client.read_answer().status() == 200
}

/// A port of both families that the kernel gives to no other socket, as long as this one lives.
fn reserved_port() -> (u16, Socket) {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a socket");
    socket.set_only_v6(false).expect("a socket");
    socket.set_reuse_address(true).expect("a socket");
    socket.bind(&"[::]:0".parse::<SocketAddr>().expect("one").into()).expect("a port");
    let address = socket.local_addr().expect("bound").as_socket().expect("IPv6");
    (address.port(), socket)
}

/// Needs IPv6, which a machine may lack.
fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn a_name_and_a_bare_port_are_served_over_both_families() {
    if !has_ipv6() {
        return;
    }
    let key = ["--publish-key", "a-key-that-is-long-enough"];
    for (host, v4, v6) in [("localhost", "127.0.0.1", "[::1]"), ("", "0.0.0.0", "[::]")] {
        for flag in ["--listen", "--internal-listen"] {
            let (port, _reserved) = reserved_port();
            let text = format!("{host}:{port}");
            let server = Server::start(&[&key[..], &[flag, &text]].concat());
            let both =
                [format!("{v4}:{port}"), format!("{v6}:{port}")].map(|a| a.parse().expect("one"));
            let ours = &server.addresses[server.addresses.len() - 2..];
            assert_eq!(ours, both, "{flag} {text}");
            for address in ["127.0.0.1", "[::1]"] {
                assert!(
                    is_served(format!("{address}:{port}").parse().expect("one")),
                    "{flag} {text}"
                );
            }
        }
    }
}

/// A server without a key listens on loopback only, whatever form the address has.
#[test]
fn an_open_server_refuses_a_form_that_a_network_reaches() {
    for flag in ["--listen", "--internal-listen"] {
        for address in [":0", "[::]:0", "0.0.0.0:0", "[::ffff:0.0.0.0]:0"] {
            let (code, message) = Server::refuses_to_start(&[flag, address]);
            assert_eq!(code, Some(2), "{message}");
            assert!(message.contains("no key is configured"), "{message}");
        }
    }
    let server = Server::start(&["--listen", "[::ffff:127.0.0.1]:0"]);
    assert!(server.address().is_ipv4());
}

/// BUG: the error was `invalid socket address syntax`.
#[test]
fn another_form_is_refused_with_what_is_allowed() {
    for flag in ["--listen", "--internal-listen", "--plain-listen"] {
        for address in ["localhost", "example.org:80", "6834", ""] {
            let (code, message) = Server::refuses_to_start(&[flag, address]);
            assert_eq!(code, Some(2), "{message}");
            let form = "write it like 127.0.0.1:6834, [::1]:6834, localhost:6834";
            assert!(message.contains(flag) && message.contains(form), "{message}");
        }
    }
}

/// SCENARIO: a service manager passes a socket of both families (`ListenStream=6834`), and clients come over IPv4.
/// FIX: limits of an address and trusted proxies know them by their IPv4 addresses.
#[test]
fn a_client_over_ipv4_of_a_socket_of_both_families_has_its_ipv4_address() {
    if !has_ipv6() {
        return;
    }
    let start = |flags: &[&str]| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a socket");
        socket.set_only_v6(false).expect("a socket");
        socket.bind(&"[::]:0".parse::<SocketAddr>().expect("one").into()).expect("a port");
        socket.listen(64).expect("a port");
        let command = with_descriptor(socket.into(), "LISTEN_FDS=1 LISTEN_PID=$$");
        let mut server =
            Server::start_as(command, Transport::Http1, &[&["--insecure-open"], flags].concat());
        let v4 = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
        server.addresses = vec![v4];
        server
    };
    // Clients over IPv4 are no clients of one IPv6 /64, which would share one place.
    let proxy = ["--trust-forwarded-for", "127.0.0.0/8", "--address-streams", "1"];
    let server = start(&proxy);
    let field = |client: &str| format!("x-forwarded-for: {client}\r\n");
    let path = "/api/acme/events";
    let mut streams =
        ["192.0.2.1", "::ffff:192.0.2.2"].map(|client| server.stream_with(path, &field(client)));
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    for again in ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: t\r\n{}\r\n", field(again));
        let streams = (server.seats(), server.request(&request).status());
        assert_eq!(streams, (2, 503), "{again}");
    }
}
