//! The exact bytes of streams, on every way by which they reach a client.

use crate::support::server::Signal;
use crate::support::{Server, Stream, Transport};
use crate::wire::decoders::HttpxSse;

/// How a stream reaches its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is the first request of a cleartext connection, which hyper never sees.
    Direct,
    /// It follows another request, which hyper has parsed, and leaves hyper.
    AfterAnother,
    /// The same by another transport.
    Over(Transport),
}

// ===== impl Way =====

impl Way {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let others = Transport::all().filter(|transport| *transport != Transport::Http1);
        [Self::Direct, Self::AfterAnother].into_iter().chain(others.map(Self::Over))
    }

    pub(crate) fn start(self, args: &[&str]) -> Server {
        let transport = match self {
            Self::Direct | Self::AfterAnother => Transport::Http1,
            Self::Over(transport) => transport,
        };
        Server::start_on(transport, &[&["--coalesce", "0"][..], args].concat())
    }

    pub(crate) fn open(self, server: &Server, path: &str) -> Stream {
        let mut client = server.connect();
        if self == Self::AfterAnother {
            client.send("GET /livez HTTP/1.1\r\nhost: test\r\n\r\n");
            assert_eq!(client.read_answer().status(), 200);
        }
        Stream::open(client, path, "")
    }
}

/// A comment and a last `retry:` are lines, see [`HttpxSse`]. The standard takes a `retry:` as soon as its line has
/// ended (WHATWG HTML, 9.2.6).
#[test]
fn a_keepalive_and_a_farewell_are_one_line_each() {
    for way in Way::all() {
        let mut server =
            way.start(&["--keepalive", "1s", "--retry-min", "2s", "--retry-max", "2s"]);
        let mut stream = way.open(&server, "/api/acme/events");
        let mut text = stream.next();
        for _ in 0..2 {
            let keepalive = stream.next();
            assert_eq!(keepalive, ": keepalive\n", "{way:?}");
            text += &keepalive;
        }
        server.signal(Signal::TERM);
        let mut last = stream.next();
        while last == ": keepalive\n" {
            last = stream.next();
        }
        assert_eq!(last, "retry: 2000\n", "{way:?}");
        assert_eq!(stream.client.read_to_end(), b"0\r\n\r\n");
        assert_eq!(HttpxSse::default().decode(&(text + &last)).len(), 1, "{way:?}");
        assert_eq!(server.wait(), Some(0));
    }
}

/// Over HTTP/1.0 there are no chunks, and the same bytes.
#[test]
fn a_keepalive_and_a_farewell_are_one_line_each_over_http_1_0() {
    for transport in Transport::http1() {
        let mut server = Server::start_on(
            transport,
            &["--keepalive", "1s", "--retry-min", "2s", "--retry-max", "2s"],
        );
        let mut client = server.connect();
        client.send("GET /api/acme/events HTTP/1.0\r\n\r\n");
        client.read_head();
        client.read_until(b"\n\n");
        let two = b": keepalive\n: keepalive\n";
        assert_eq!(client.read_exact(two.len()), two, "{transport:?}");
        server.signal(Signal::TERM);
        let end = String::from_utf8(client.read_to_end()).expect("UTF-8");
        assert_eq!(end.trim_start_matches(": keepalive\n"), "retry: 2000\n", "{transport:?}");
        assert_eq!(server.wait(), Some(0));
    }
}
