//! How streams over TLS end: with close_notify, by which an HTTP/1.0 client, whose body has no other end, knows that
//! nothing was cut off.

use std::io::{Read, Write};

use rustls::ALL_VERSIONS;

use super::{Session, client, handshake, start};
use crate::support::certificate::Certificate;
use crate::support::programs::{OPENSSL, requires};
use crate::support::server::Signal;
use crate::support::{Server, eventually, large};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A server with these flags, what a request adds to its head, and what ends its streams.
type End = (&'static [&'static str], fn() -> String, fn(&Server));

fn open(server: &Server, version: &str, fields: &str) -> Session {
    let config = client(&Certificate::of_tests(), ALL_VERSIONS);
    let mut session = handshake(server, &config.into()).expect("a handshake");
    let request = format!("GET /api/acme/events {version}\r\nhost: t\r\n{fields}\r\n");
    session.write_all(request.as_bytes()).expect("sent");
    session
}

/// A token that ends soon.
fn short_lived() -> String {
    let mut command = Server::command();
    command.args(["token", "--secret", SECRET, "--org", "acme", "--ttl", "6s"]);
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8(output.stdout).expect("ASCII");
    format!("authorization: Bearer {}\r\n", token.trim())
}

/// SCENARIO: a stream over HTTP/1.0 and TLS ends because its token or its maximum age does.
/// BUG: only chunked bodies ended with close_notify, so its client could not tell the end from a cut, and some report
/// an error.
/// FIX: every stream that the server ends does, as long as its client reads.
#[test]
fn every_end_of_a_stream_is_announced() {
    requires!(OPENSSL);
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let ends: [End; 3] = [
            (&["--drain-window", "0"], String::new, |server| server.signal(Signal::TERM)),
            (&["--max-stream-age", "1s"], String::new, |_| ()),
            (&["--jwt-secret", SECRET], short_lived, |_| ()),
        ];
        for (flags, fields, end) in ends {
            let server = start(flags);
            let mut session = open(&server, version, &fields());
            let mut text = String::new();
            while !text.contains("event: connected\n") {
                let mut bytes = [0; 1024];
                let length = session.read(&mut bytes).expect("the stream is open");
                assert!(length > 0, "{flags:?}: it ended after {text:?}");
                text += std::str::from_utf8(&bytes[..length]).expect("ASCII");
            }
            end(&server);
            let ended = session.read_to_string(&mut text);
            assert!(ended.is_ok(), "{version} {flags:?}: {ended:?} after {text:?}");
            assert_eq!(text.ends_with("\r\n0\r\n\r\n"), version == "HTTP/1.1", "{text:?}");
        }
    }
}

/// A client that has not received all of an event must not take what it has for the whole: there is no close_notify.
#[test]
fn a_cut_is_not_announced_as_an_end() {
    requires!(OPENSSL);
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        #[rustfmt::skip]
        let server = start(&[
            "--stall-timeout", "1s", "--peer-timeout", "10m", "--publish-bytes", "2000000", "--key-bytes", "65536",
            "--event-bytes", "1048576", "--history-bytes", "100000000",
        ]);
        let mut session = open(&server, version, "");
        eventually("it has a seat", || server.seats() == 1);
        for n in 0..12 {
            let keys = large::keys(n);
            server.publish("acme", &keys.iter().map(String::as_str).collect::<Vec<_>>());
        }
        eventually("it has stalled", || server.seats() == 0);
        let ended = session.read_to_end(&mut Vec::new());
        assert!(ended.is_err(), "{version}: {ended:?}");
    }
}
