//! What is served over a Unix socket: everything, for clients that have no address.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Place;
use crate::support::certificate::Certificate;
use crate::support::large::LARGE;
use crate::support::programs::{CURL, requires};
use crate::support::{Server, Stream, Transport, eventually};

/// A curl that prints what it receives.
struct Curl(Child);

// ===== impl Curl =====

impl Curl {
    fn start(path: &Path, args: &[&str]) -> Self {
        let mut curl = Command::new("curl");
        curl.args(["-sN", "--max-time", "60", "--unix-socket"]).arg(path).args(args);
        Self(curl.stdout(Stdio::piped()).spawn().expect("a program"))
    }

    /// Reads up to a line that begins so.
    fn expect(&mut self, start: &str) {
        let lines = BufReader::new(self.0.stdout.as_mut().expect("piped")).lines();
        let found = lines.map_while(Result::ok).any(|line| line.starts_with(start));
        assert!(found, "no {start:?}");
    }
}

impl Drop for Curl {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// The lines that a server prints as it starts.
fn first_lines(args: &[&str]) -> String {
    let mut command = Server::command();
    let mut child = command.args(args).spawn().expect("the server starts");
    let mut text = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    while stdout.read_line(&mut text).expect("text") > 0 && !text.contains("try: ") {}
    child.kill().expect("it runs");
    child.wait().expect("it has ended");
    text
}

#[test]
fn the_first_lines_say_what_does_not_apply_and_how_to_connect() {
    let place = Place::new();
    let lines = first_lines(&["--workers", "1", "--listen", &place.flag()]);
    let path = place.path.display();
    for line in [
        format!("listening on unix:{path} (1 worker)\n"),
        "peers: those of Unix sockets have no address, and no limit of an address applies to them\n"
            .into(),
        format!("try: curl -N --unix-socket {path} http://localhost/api/acme/events\n"),
    ] {
        assert!(lines.contains(&line), "{lines}");
    }
    let trusting = ["--trust-forwarded-for", "unix", "--address-streams", "1"];
    let lines = first_lines(&[&["--listen", &place.flag()], &trusting[..]].concat());
    let line =
        "peers: those of Unix sockets have no address; their clients are those in X-Forwarded-For";
    assert!(lines.contains(line), "{lines}");
    let named = ["--proxy-protocol-from", "unix", "--listen", &place.flag()];
    let lines = first_lines(&named);
    let line = "peers: those of Unix sockets have no address; their clients are those in the header of the PROXY protocol";
    assert!(lines.contains(line), "{lines}");
    let lines = first_lines(&["--listen", "127.0.0.1:0"]);
    assert!(!lines.contains("peers:"), "{lines}");
}

/// SCENARIO: HAProxy sends a header of the PROXY protocol to a Unix socket, and `--trust-forwarded-for unix` is given too.
/// BUG: the first lines named X-Forwarded-For, or said that no limit of an address applies; but the header names the client.
/// FIX: they name the header.
#[test]
fn the_first_lines_name_the_header_of_a_balancer_at_a_unix_socket() {
    let place = Place::new();
    let header = ["--listen", &place.flag(), "--proxy-protocol-from", "unix"];
    let trusting = ["--trust-forwarded-for", "unix", "--access-log"];
    for more in [&[][..], &trusting] {
        let lines = first_lines(&[&header, more].concat());
        let line = "peers: those of Unix sockets have no address; their clients are those in the header of the PROXY \
                    protocol (--proxy-protocol-from unix)\n";
        assert!(lines.contains(line), "{lines}");
    }
}

/// As it stands in the first lines.
#[test]
fn the_proposed_command_opens_a_stream() {
    requires!(CURL);
    let place = Place::new();
    let server = place.serve(&[]);
    let mut curl = Curl::start(&place.path, &["http://localhost/api/acme/events"]);
    curl.expect("event: connected");
    server.publish("acme", &["a"]).expect("subscribed");
    curl.expect("data: {\"keys\":[\"a\"]}");
    drop(curl);
    eventually("its seat is free", || server.seats() == 0);
}

#[test]
fn http2_and_tls_are_served_as_over_tcp() {
    requires!(CURL);
    let secure = Certificate::of_tests();
    let (plain, tls) = (Place::new(), Place::new());
    let (listen, plain_listen) = (tls.flag(), plain.flag());
    let places = ["--listen", &listen, "--plain-listen", &plain_listen];
    let flags = secure.flags();
    let args = [&places[..], &flags, &["--internal-listen", "127.0.0.1:0"]].concat();
    let server = Server::start_as(Server::command(), Transport::Http1, &args);
    let url = "http://localhost/api/acme/events";
    let https = "https://localhost/api/acme/events";
    let mut clients = [
        Curl::start(&plain.path, &[url]),
        Curl::start(&plain.path, &["--http2-prior-knowledge", url]),
        Curl::start(&tls.path, &["-k", "--http1.1", https]),
        Curl::start(&tls.path, &["-k", "--http2", https]),
    ];
    clients.iter_mut().for_each(|client| client.expect("event: connected"));
    assert_eq!(server.seats(), 4);
    server.publish("acme", &["a"]).expect("subscribed");
    clients.iter_mut().for_each(|client| client.expect("data: {\"keys\":[\"a\"]}"));
    drop(clients);
    eventually("every seat is free", || server.seats() == 0);
}

#[test]
fn an_internal_socket_serves_what_a_public_one_does_not() {
    let (public, internal) = (Place::new(), Place::new());
    let mut command = Server::command();
    command.args(["--listen", &public.flag(), "--internal-listen", &internal.flag()]);
    let _server = Server::start_as(command, Transport::Http1, &["--listen", &public.flag()]);
    assert_eq!(public.get("/metrics", "host: test\r\n").status(), 404);
    assert_eq!(internal.get("/metrics", "host: test\r\n").status(), 200);
}

/// A proxy passes the host on that a browser sends, so it is checked as over TCP.
#[test]
fn an_open_server_answers_for_its_hosts_only() {
    let place = Place::new();
    let _server = place.serve(&[]);
    for (host, status) in [("localhost", 200), ("127.0.0.1:1", 200), ("evil.example", 421)] {
        let answer = place.get("/api/acme/position", &format!("host: {host}\r\n"));
        assert_eq!(answer.status(), status, "{host}");
    }
}

/// The field that a client sends is not believed either.
#[test]
fn limits_of_an_address_do_not_apply_unless_the_peers_name_their_clients() {
    let limits = ["--address-streams", "1", "--address-connections", "8", "--access-log"];
    let of = |client: &str| format!("x-forwarded-for: {client}\r\n");
    let place = Place::new();
    let server = place.serve(&limits);
    let held: Vec<_> = (0..12).map(|_| place.stream("acme")).collect();
    assert_eq!(server.seats(), 12);
    drop(held);
    drop(server);

    let server = place.serve(&[&limits[..], &["--trust-forwarded-for", "unix"]].concat());
    let _first = Stream::open(place.connect(), "/api/acme/events", &of("192.0.2.1"));
    let second = place.get("/api/acme/events", &format!("host: test\r\n{}", of("192.0.2.1")));
    assert_eq!(second.status(), 503, "its second stream");
    let _other = Stream::open(place.connect(), "/api/acme/events", &of("192.0.2.2"));
    let _unnamed: Vec<_> = (0..3).map(|_| place.stream("acme")).collect();
    assert_eq!(server.seats(), 5, "without the field there is nothing to count");
    assert_eq!(server.metric("nudged_refused_total{limit=\"address_streams\"}"), 1);
    // Peers of TCP are not trusted by that.
    let _tcp = server.stream_with("/api/acme/events", &of("192.0.2.9"));
    assert_eq!(server.seats(), 6);
}

#[test]
fn the_access_log_names_a_client_only_if_it_is_known() {
    use crate::support::log::Log;
    let place = Place::new();
    for (trust, client) in
        [(&[][..], None), (&["--trust-forwarded-for", "unix"], Some("192.0.2.7"))]
    {
        let mut command = Server::command();
        command.stderr(Stdio::piped());
        let listen = format!("127.0.0.1:0,{}", place.flag());
        let args = [&["--listen", &listen, "--access-log"], trust].concat();
        let mut server = Server::start_as(command, Transport::Http1, &args);
        let log = Log::of(&mut server);
        drop(Stream::open(place.connect(), "/api/acme/events", "x-forwarded-for: 192.0.2.7\r\n"));
        let line = log.line(&["a stream ended"]);
        assert_eq!(line.contains("client="), client.is_some(), "{line}");
        assert!(client.is_none_or(|client| line.contains(&format!("client={client} "))), "{line}");
    }
}

/// Each of them accepts on the one socket.
#[test]
fn all_workers_serve_the_connections_of_one_socket() {
    let place = Place::new();
    let server = place.serve(&[LARGE, &["--workers", "3"]].concat());
    let _streams = place.streams("acme", 300);
    assert_eq!(server.seats(), 300);
}
