//! Internal addresses: what is served there only, and that nothing else takes their connections.

use std::net::{SocketAddr, TcpStream};

use crate::support::bridge::Bridge;
use crate::support::certificate::Certificate;
use crate::support::client::post;
use crate::support::{Answer, Client, Server, Stream, Transport, eventually};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const KEYS: &str = r#"{"keys":["a"]}"#;
const LINE: &str = r#"{"org":"acme","keys":["b"]}"#;
const TOPIC: &str = "/api/acme/topics/run-7/events";
const EVENT: &str = r#"{"event":"output","data":1}"#;
const TOPIC_LINE: &str = r#"{"org":"acme","topic":"run-7","event":"output","data":1}"#;

/// More than may be open.
const MANY: usize = 100;

/// A server whose public address is reached over a transport.
struct Split {
    _server: Server,
    _bridge: Option<Bridge>,
    public: SocketAddr,
    internal: SocketAddr,
}

// ===== impl Split =====

impl Split {
    fn start(transport: Transport, more: &[&str]) -> Self {
        let mut flags = vec!["--internal-listen", "127.0.0.1:0", "--coalesce", "0"];
        flags.extend(["--workers", "1", "--head-timeout", "1h"]);
        let certificate = transport.is_secure().then(Certificate::of_tests);
        flags.extend(certificate.iter().flat_map(Certificate::flags));
        flags.extend(more);
        // Enough for ten connections, and those of the internal address.
        let server = Server::start_with_files(200, Transport::Http1, &flags);
        let [public, internal] = server.addresses[..] else { panic!("two addresses") };
        let bridge = (transport != Transport::Http1).then(|| Bridge::to(public, transport));
        let public = bridge.as_ref().map_or(public, |bridge| bridge.address);
        Self { _server: server, _bridge: bridge, public, internal }
    }
}

fn request(address: SocketAddr, text: &str) -> Answer {
    let mut client = Client::connect(address);
    client.send(text);
    client.read_answer()
}

fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, &format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n"))
}

fn stream(address: SocketAddr) -> Stream {
    let mut stream = Stream::open(Client::connect(address), "/api/acme/events", "");
    stream.connected();
    stream
}

#[test]
fn publishing_and_metrics_leave_the_public_addresses() {
    for transport in Transport::all() {
        let split = Split::start(transport, &[]);
        let refused = [
            request(split.public, &post("/api/acme/events", JSON, KEYS)),
            request(split.public, &post("/api/events", NDJSON, LINE)),
            get(split.public, "/metrics"),
            get(split.public, "/api/acme/position"),
            request(split.public, "DELETE /api/acme/events HTTP/1.1\r\nhost: t\r\n\r\n"),
            request(split.public, &post("/api/acme/reread", JSON, "")),
            request(split.public, &post("/api/reread", JSON, "")),
            request(split.public, &post(TOPIC, JSON, EVENT)),
            request(split.public, &post("/api/events", NDJSON, TOPIC_LINE)),
            request(split.public, &format!("DELETE {TOPIC} HTTP/1.1\r\nhost: t\r\n\r\n")),
        ];
        for answer in refused {
            assert_eq!(answer.status(), 404, "{transport:?}: {answer:?}");
            let named = "publishing, DELETE, reread, positions and /metrics";
            assert!(answer.problem().contains(named), "{answer:?}");
        }
        for address in [split.public, split.internal] {
            for path in ["/livez", "/readyz", "/nudged.js", "/nudged-adapters.js"] {
                assert_eq!(get(address, path).status(), 200, "{transport:?}, {path}");
            }
        }
        let mut streams = [split.public, split.internal].map(stream);
        for (path, kind, body) in [("/api/acme/events", JSON, KEYS), ("/api/events", NDJSON, LINE)]
        {
            assert_eq!(request(split.internal, &post(path, kind, body)).status(), 202);
            for stream in &mut streams {
                assert!(stream.next().contains("event: invalidate"), "{transport:?}");
            }
        }
        assert_eq!(get(split.internal, "/api/acme/position").status(), 200);
        let metrics = get(split.internal, "/metrics").body;
        assert!(metrics.contains("\nnudged_streams_open{kind=\"member\"} 2\n"), "{metrics}");
        // That of the stream, and that of this request.
        eventually("the others have ended", || {
            get(split.internal, "/metrics").body.contains("\nnudged_internal_connections 2\n")
        });
    }
}

#[test]
fn the_public_addresses_serve_everything_without_an_internal_one() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/metrics").status(), 200);
    assert_eq!(server.post("/api/acme/events", JSON, KEYS).status(), 202);
}

/// Nor does the limit of an address.
#[test]
fn no_public_connection_takes_an_internal_one() {
    for limit in ["--connections", "--address-connections"] {
        let split = Split::start(Transport::Http1, &[limit, "2"]);
        let _streams = [split.public, split.public].map(stream);
        let _silent: Vec<_> =
            (0..MANY).map(|_| TcpStream::connect(split.public).expect("it listens")).collect();
        let mut publishers: Vec<_> = (0..20).map(|_| Client::connect(split.internal)).collect();
        for publisher in &mut publishers {
            publisher.send(&post("/api/acme/events", JSON, KEYS));
            let answer = publisher.read_answer();
            assert_eq!((answer.status(), answer.header("connection")), (202, None), "{limit}");
        }
        let mut internal = stream(split.internal);
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(get(split.internal, path).status(), 200, "{limit}, {path}");
            let public = if path == "/metrics" { 404 } else { 200 };
            assert_eq!(get(split.public, path).status(), public, "{limit}, {path}");
        }
        publishers[0].send(&post("/api/acme/events", JSON, KEYS));
        assert_eq!(publishers[0].read_answer().status(), 202, "{limit}");
        assert!(internal.next().contains("event: invalidate"), "{limit}");
    }
}

/// It has places of its own, with the same rules.
#[test]
fn silence_on_the_internal_address_keeps_no_publisher_out() {
    let split = Split::start(Transport::Http1, &["--internal-connections", "3"]);
    let _silent: Vec<_> =
        (0..MANY).map(|_| TcpStream::connect(split.internal).expect("it listens")).collect();
    let mut publisher = Client::connect(split.internal);
    for _ in 0..3 {
        publisher.send(&post("/api/acme/events", JSON, KEYS));
        assert_eq!(publisher.read_answer().status(), 202);
    }
    assert_eq!(get(split.internal, "/livez").status(), 200);
    assert_eq!(get(split.internal, "/api/acme/events").status(), 503);
    stream(split.public);
}

#[test]
fn an_internal_address_that_a_network_reaches_needs_a_key() {
    let open = ["--listen", "127.0.0.1:0", "--internal-listen", "0.0.0.0:0"];
    let (code, message) = Server::refuses_to_start(&open);
    assert_eq!(code, Some(2));
    assert!(message.contains("no key is configured"), "{message}");
}
