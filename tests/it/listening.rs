//! Where a server listens: one server for a port, sockets that it is passed.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
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
/// BUG: each checked that nobody listened and then listened, with `SO_REUSEPORT`. Once in 20 to 70 times both passed the
/// check, and each got half of the clients and half of the publishes.
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
    let unix = UnixListener::bind(folder.file("socket")).expect("a socket");
    let file = std::fs::File::open("/dev/null").expect("it exists");
    let ours = "LISTEN_FDS=1 LISTEN_PID=$$";
    for (descriptor, variables, why) in [
        (listener("127.0.0.1:0"), "LISTEN_FDS=1", "LISTEN_PID is missing"),
        (listener("127.0.0.1:0"), "LISTEN_FDS=all LISTEN_PID=$$", "LISTEN_FDS is no number"),
        (listener("127.0.0.1:0"), "LISTEN_FDS=1 LISTEN_PID=self", "LISTEN_PID is no number"),
        (bound.into(), ours, "descriptor 3 is a TCP socket that does not listen"),
        (udp.into(), ours, "descriptor 3 is no TCP socket"),
        (unix.into(), ours, "descriptor 3 is no TCP socket"),
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
