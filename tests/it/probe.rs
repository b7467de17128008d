//! `nudged probe`, a health check.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use crate::support::certificate::Certificate;
use crate::support::port::ReservedPort;
use crate::support::server::Signal;
use crate::support::temp_dir::TempDir;
use crate::support::{Server, Transport, eventually};

/// The exit code, and what is printed about it.
fn probe(args: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Server::command();
    // As in an image that has nothing but the program.
    command.env("SSL_CERT_FILE", "/nowhere").env("SSL_CERT_DIR", "/nowhere");
    run(command.arg("probe").args(args).envs(environment.iter().copied()))
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.stderr(Stdio::piped()).output().expect("the program");
    assert_eq!(output.stdout, b"", "nothing but the exit code");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

const READY: (Option<i32>, String) = (Some(0), String::new());

/// One line says why.
fn assert_not_ready(probed: &(Option<i32>, String), why: &str) {
    let (code, said) = probed;
    assert_eq!(*code, Some(1), "{said}");
    assert!(said.starts_with("nudged: not ready: ") && said.contains(why), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_server_is_asked_where_its_settings_have_it_listen() {
    let key = ["--publish-key", "a-key-that-is-long-enough", "--listen"];
    for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
        let server = Server::start(&[&key[..], &[listen]].concat());
        let port = server.address().port();
        let address = format!("{}:{port}", listen.split(':').next().expect("an address"));
        assert_eq!(probe(&["--listen", &address], &[]), READY, "{listen}");
        assert_eq!(probe(&[], &[("NUDGED_LISTEN", &address)]), READY, "{listen}");
        assert_eq!(probe(&[], &[("NUDGED_LISTEN", &format!(":{port}"))]), READY);
        assert_eq!(probe(&[&format!("http://127.0.0.1:{port}")], &[]), READY);
    }
    let nothing = ReservedPort::new().address.to_string();
    let server = Server::start(&["--internal-listen", "127.0.0.1:0"]);
    let internal = server.addresses[1].to_string();
    let variables = [("NUDGED_LISTEN", nothing.as_str()), ("NUDGED_INTERNAL_LISTEN", &internal)];
    assert_eq!(probe(&[], &variables), READY, "the internal one comes first");
    let variables = [("NUDGED_LISTEN", internal.as_str()), ("NUDGED_INTERNAL_LISTEN", "")];
    assert_eq!(probe(&[], &variables), READY, "an empty variable is none");
}

#[test]
fn an_address_of_ipv6_is_asked_too() {
    if TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let key = ["--publish-key", "a-key-that-is-long-enough"];
    let server = Server::start(&[&key[..], &["--listen", "[::]:0"]].concat());
    let address = format!("[::]:{}", server.address().port());
    assert_eq!(probe(&["--listen", &address], &[]), READY);
}

#[test]
fn a_server_that_drains_is_not_ready() {
    let server = Server::start(&["--drain-delay", "30m", "--drain-timeout", "1h"]);
    let url = format!("http://{}", server.address());
    assert_eq!(probe(&[&url], &[]), READY);
    server.signal(Signal::TERM);
    eventually("it drains", || probe(&[&url], &[]) != READY);
    assert_not_ready(&probe(&[&url], &[]), "503 Service Unavailable: ");
}

#[test]
fn a_server_without_its_log_is_not_ready() {
    let broker = ReservedPort::new();
    let server = Server::start(&["--backplane", &format!("nats://{}", broker.address)]);
    assert_not_ready(&probe(&[&format!("http://{}", server.address())], &[]), "503 ");
}

#[test]
fn no_server_and_one_that_does_not_answer_are_not_ready() {
    let nothing = ReservedPort::new().address.to_string();
    assert_not_ready(&probe(&["--listen", &nothing], &[]), "Connection refused");
    // It accepts, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = silent.local_addr().expect("bound");
    for scheme in ["http", "https"] {
        let target = format!("{scheme}://{address}");
        assert_not_ready(&probe(&["--timeout", "200ms", &target], &[]), "within 200ms");
    }
}

#[test]
fn an_answer_that_is_no_http_is_not_ready() {
    let other = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = other.local_addr().expect("bound");
    let answer = std::thread::spawn(move || {
        let (mut peer, _) = other.accept().expect("a connection");
        read_head(&mut peer);
        peer.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").expect("a reader");
    });
    assert_not_ready(&probe(&[&format!("http://{address}")], &[]), "the connection broke");
    answer.join().expect("no panic");
}

/// The head of a request.
fn read_head(peer: &mut impl Read) -> String {
    let (mut request, mut byte) = (String::new(), [0]);
    while !request.ends_with("\r\n\r\n") {
        peer.read_exact(&mut byte).expect("a request");
        request.push(char::from(byte[0]));
    }
    request
}

/// A name that an open server does not answer for is no way to ask it.
#[test]
fn a_host_that_an_open_server_refuses_is_not_ready() {
    let server = Server::start(&[]);
    let url = format!("http://0.0.0.0:{}", server.address().port());
    assert_not_ready(&probe(&[&url], &[]), "421 Misdirected Request: ");
}

#[test]
fn a_certificate_is_not_verified() {
    let server = Server::start_on(Transport::Tls, &[]);
    let listen = server.listens_on[0].to_string();
    let certificate = Certificate::of_tests().certificate;
    let variables = [("NUDGED_LISTEN", listen.as_str()), ("NUDGED_TLS_CERT", &certificate)];
    assert_eq!(probe(&[], &variables), READY);
    assert_eq!(probe(&[&format!("https://{listen}")], &[]), READY);
    assert_not_ready(&probe(&["--listen", &listen], &[]), "");
}

#[test]
fn a_server_on_a_unix_socket_is_ready() {
    let folder = TempDir::new();
    let target = format!("unix:{}", folder.file("nudged.sock"));
    let _server = Server::start(&["--internal-listen", &target]);
    let variables = [("NUDGED_LISTEN", "127.0.0.1:1"), ("NUDGED_INTERNAL_LISTEN", &target)];
    assert_eq!(probe(&[], &variables), READY);
}

#[test]
fn a_unix_socket_is_asked() {
    let folder = TempDir::new();
    let path = folder.file("nudged.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let server = std::thread::spawn(move || {
        for status in ["200 OK", "503 Service Unavailable"] {
            let (mut peer, _) = listener.accept().expect("a connection");
            let request = read_head(&mut peer);
            assert!(
                request.starts_with("GET /readyz HTTP/1.1\r\nhost: localhost\r\n"),
                "{request}"
            );
            write!(peer, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").expect("a reader");
        }
        listener
    });
    let target = format!("unix:{path}");
    assert_eq!(probe(&[&target], &[]), READY);
    assert_not_ready(&probe(&[], &[("NUDGED_LISTEN", &target)]), "503");
    // It listens, and does not accept.
    let _listener = server.join().expect("no panic");
    assert_not_ready(&probe(&[&target, "--timeout", "200ms"], &[]), "within 200ms");
    assert_not_ready(
        &probe(&["unix:/nowhere/nudged.sock"], &[]),
        "cannot reach /nowhere/nudged.sock",
    );
}

#[test]
fn wrong_settings_are_another_error() {
    for (args, why) in [
        (["--listen", "nowhere"], "write it like"),
        (["--listen", "127.0.0.1:0"], "the port 0"),
        (["--timeout", "soon"], "write it like 50ms"),
    ] {
        let (code, said) = probe(&args, &[]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    }
}
