//! Each limit and its response. Admitted connections stay; each that ends makes room; idle connections keep no
//! subscriber out.

use std::net::TcpStream;

use crate::support::exclusive::many_connections;
use crate::support::{Answer, Client, Server, Transport, eventually, header};

const JSON: &str = "application/json";
const KEYS: &str = r#"{"keys":["a"]}"#;

fn server(transport: Transport, args: &[&str]) -> Server {
    Server::start_on(transport, &[&["--coalesce", "0"][..], args].concat())
}

/// A browser's `EventSource` receives a reconnection time and the end of the body instead of a stream.
fn expect_retry(answer: &Answer, because: &str) {
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let retry = answer.body.strip_prefix("retry: ").and_then(|rest| rest.split_once('\n'));
    let (millis, rest) = retry.unwrap_or_else(|| panic!("{answer:?}"));
    assert!((1_000..=5_000).contains(&millis.parse::<u32>().expect("milliseconds")), "{millis}");
    assert!(
        rest.starts_with(": ") && rest.matches('\n').count() == 1 && rest.contains(because),
        "{rest}"
    );
}

fn expect_unavailable(answer: &Answer, because: &str) {
    assert_eq!(answer.status(), 503, "{answer:?}");
    let seconds: u32 = answer.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=5).contains(&seconds), "{seconds}");
    assert!(answer.problem().contains(because), "{answer:?}");
}

/// The response to a browser that requests this org's stream.
fn ask(server: &Server, org: &str, headers: &str) -> Answer {
    server.request(&format!(
        "GET /api/{org}/events HTTP/1.1\r\nhost: t\r\naccept: text/event-stream\r\n{headers}\r\n"
    ))
}

#[test]
fn a_full_server_answers_with_a_reconnection_time_and_keeps_its_streams() {
    for transport in Transport::http1() {
        let server = server(transport, &["--connections", "8"]);
        let mut streams = server.streams("acme", 8);

        let because = "the server has as many connections as it may, 8";
        let browser = ask(&server, "acme", "");
        expect_retry(&browser, because);
        assert_eq!(browser.header("connection"), Some("close"));
        expect_unavailable(&server.get("/api/acme/events"), because);
        // Health and metrics are served at the limit too, and so are publishers (see places.rs).
        assert_eq!(server.get("/livez").status(), 200);
        assert_eq!(server.get("/readyz").status(), 200);
        assert_eq!(server.metric("nudged_refused_total{limit=\"connections\"}"), 2);
        assert_eq!(server.seats(), 8);

        // Admitted connections stay.
        assert_eq!(server.post("/api/acme/events", JSON, KEYS).status(), 202);
        streams.iter_mut().for_each(|stream| assert!(stream.next().contains("invalidate")));

        // Once one has ended, there is room for another.
        streams.pop().expect("eight").client.reset();
        eventually("there is room", || ask_is_stream(&server, "acme", ""));
        drop(streams);
        eventually(&format!("every permit is released on {transport:?}"), || open(&server) == 0);
    }
}

/// Open connections, without the one that reads the metric.
fn open(server: &Server) -> u64 {
    server.metric("nudged_connections") - 1
}

#[test]
fn the_streams_of_an_org_are_limited() {
    for transport in Transport::all() {
        let server = server(transport, &["--org-streams", "2"]);
        let mut streams = server.streams("acme", 2);
        let because = "this organisation has as many streams as it may, 2";
        expect_retry(&ask(&server, "acme", ""), because);
        expect_unavailable(&server.get("/api/acme/events"), because);
        server.stream("other").connected();
        let id = server.publish("acme", &["posts"]).expect("publishes are accepted");
        streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["posts"]));
        streams.pop().expect("two").client.reset();
        eventually("there is room", || ask_is_stream(&server, "acme", ""));
        assert_eq!(server.metric("nudged_refused_total{limit=\"address\"}"), 0);
    }
}

/// SCENARIO: an org limits its streams, and clients without a token open its public ones.
/// BUG: `--org-streams` counted both kinds, so they took the seats of its members.
/// FIX: it counts members' streams; public ones have a limit of their own, `--org-public-streams`.
#[test]
fn public_streams_take_no_seat_of_a_member() {
    const PUBLIC: &str = "/api/acme/public/events";
    for transport in Transport::all() {
        let server = server(transport, &["--org-streams", "2", "--org-public-streams", "3"]);
        let mut public: Vec<_> = (0..3).map(|_| server.stream_with(PUBLIC, "")).collect();
        public.iter_mut().for_each(|stream| _ = stream.connected());
        let because = "this organisation has as many public streams as it may, 3";
        expect_unavailable(&server.get(PUBLIC), because);
        let mut members = server.streams("acme", 2);
        let because = "this organisation has as many streams as it may, 2";
        expect_retry(&ask(&server, "acme", ""), because);
        let refused = |limit| server.metric(&format!("nudged_refused_total{{limit=\"{limit}\"}}"));
        assert_eq!((refused("org_public"), refused("org")), (1, 1));

        // What ends makes room for its own kind only.
        public.pop().expect("three").client.reset();
        eventually("there is room", || server.metric("nudged_seats") == 4);
        expect_unavailable(&server.get("/api/acme/events"), because);
        server.stream_with(PUBLIC, "").connected();
        members.pop().expect("two").client.reset();
        eventually("there is room", || ask_is_stream(&server, "acme", ""));
    }
}

/// Whether the response is a stream. There may be no response: of the connections beyond a limit, a few at a time are
/// refused with a response, and the oldest are closed for further ones.
fn ask_is_stream(server: &Server, org: &str, headers: &str) -> bool {
    let mut client = server.connect();
    let request = format!(
        "GET /api/{org}/events HTTP/1.1\r\nhost: t\r\naccept: text/event-stream\r\n{headers}\r\n"
    );
    if client.try_send_bytes(request.as_bytes()).is_err() {
        return false;
    }
    let Ok(head) = client.try_read_until(b"\r\n\r\n") else { return false };
    let head = String::from_utf8(head).expect("ASCII");
    head.starts_with("HTTP/1.1 200 ") && header(&head, "content-length").is_none()
}

#[test]
fn the_connections_of_an_address_are_limited() {
    for transport in Transport::all() {
        let server = server(transport, &["--address-connections", "3"]);
        let mut streams = server.streams("acme", 3);
        let because = "your address has as many connections as it may, 3";
        expect_retry(&ask(&server, "acme", ""), because);
        expect_unavailable(&server.get("/api/acme/events"), because);
        assert_eq!(server.post("/api/acme/events", JSON, KEYS).status(), 202);
        streams.truncate(1);
        eventually("there is room", || ask_is_stream(&server, "acme", ""));
    }
}

#[test]
fn behind_a_trusted_proxy_each_client_has_its_own_limit() {
    for transport in Transport::all() {
        // Its own connections are not limited.
        let limits = [
            "--address-streams",
            "2",
            "--address-connections",
            "1",
            "--trust-forwarded-for",
            "127.0.0.1,10.0.0.0/8",
        ];
        let server = server(transport, &limits);
        let from = |client: &str| format!("x-forwarded-for: 198.51.100.1, {client}, 10.0.0.2\r\n");
        let events = "/api/acme/events";
        let mut first: Vec<_> =
            (0..2).map(|_| server.stream_with(events, &from("192.0.2.1"))).collect();
        first.iter_mut().for_each(|stream| _ = stream.connected());
        expect_retry(&ask(&server, "acme", &from("192.0.2.1")), "your address");
        for n in 2..10 {
            let mut other = server.stream_with(events, &from(&format!("192.0.2.{n}")));
            other.connected();
        }
        first.pop().expect("two").client.reset();
        eventually("there is room", || ask_is_stream(&server, "acme", &from("192.0.2.1")));
    }
}

/// SCENARIO: one client opens streams, on as many connections as it may, or over HTTP/2 on a single one.
/// BUG: only connections were limited, and what costs is a stream, of which HTTP/2 has 256 on a connection.
/// FIX: streams are limited, in total and for each address, and connections are a limit of their own.
#[test]
fn streams_have_their_limits_on_every_transport() {
    for transport in Transport::all() {
        for (limit, label, because) in [
            ("--streams", "streams", "the server has as many streams as it may, 3"),
            (
                "--address-streams",
                "address_streams",
                "your address has as many streams as it may, 3",
            ),
        ] {
            let server = server(transport, &[limit, "3"]);
            let mut streams = server.streams("acme", 3);
            expect_retry(&ask(&server, "other", ""), because);
            expect_unavailable(&server.get("/api/acme/public/events"), because);
            let id = server.publish("acme", &["posts"]).expect("publishing goes on");
            streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["posts"]));
            let refused = server.metric(&format!("nudged_refused_total{{limit=\"{label}\"}}"));
            assert_eq!((refused, server.seats()), (2, 3), "{transport:?}, {limit}");
            streams.pop().expect("three").client.reset();
            drop(streams);
            for _ in 0..8 {
                eventually("there is room", || ask_is_stream(&server, "acme", ""));
            }
        }
    }
}

/// The field is ignored unless the peer is a listed proxy.
#[test]
fn a_client_cannot_choose_its_address() {
    let server = server(
        Transport::Http1,
        &["--address-connections", "2", "--trust-forwarded-for", "10.0.0.0/8"],
    );
    let _streams: Vec<_> = (0..2).map(|_| server.stream("acme")).collect();
    expect_retry(&ask(&server, "acme", "x-forwarded-for: 192.0.2.9\r\n"), "your address");
}

#[test]
fn the_publishes_to_an_org_are_rate_limited() {
    let server = server(Transport::Http1, &["--publish-rate", "1", "--publish-burst", "2"]);
    let mut stream = server.stream("acme");
    stream.connected();
    for key in ["a", "b"] {
        let id = server.publish("acme", &[key]).expect("subscribed");
        stream.expect_invalidate(&id, &[key]);
    }
    let answer = server.post("/api/acme/events", JSON, KEYS);
    assert_eq!((answer.status(), answer.header("retry-after")), (429, Some("1")));
    let detail = answer.problem();
    assert!(detail.contains("1 times a second, and 2 times at once"), "{detail}");
    assert_eq!(server.publish("other", &["a"]), None, "another org has its own rate");

    let batch = "{\"org\":\"third\",\"keys\":[\"a\"]}\n{\"org\":\"acme\",\"keys\":[\"c\"]}\n";
    let batch = batch.repeat(2);
    let answer = server.post("/api/events", "application/x-ndjson", &batch);
    assert_eq!(answer.status(), 429, "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    assert!(answer.problem().starts_with("line "), "{answer:?}");
    assert!(server.metric("nudged_refused_total{limit=\"rate\"}") >= 2);
    // The refused batch has not used up the third org's burst.
    assert_eq!(server.publish("third", &["a"]), None);
    assert_eq!(server.publish("third", &["a"]), None);
}

#[test]
fn the_size_and_the_fields_of_a_request_head_are_limited() {
    let server = server(Transport::Http1, &["--head-bytes", "8192"]);
    let get = |fields: &str| {
        server.request(&format!("GET /livez HTTP/1.1\r\nhost: t\r\n{fields}\r\n")).status()
    };
    assert_eq!(get(&format!("x: {}\r\n", "y".repeat(7_000))), 200);
    assert_eq!(get(&format!("x: {}\r\n", "y".repeat(9_000))), 431);
    assert_eq!(get(&"x: y\r\n".repeat(99)), 200);
    assert_eq!(get(&"x: y\r\n".repeat(100)), 431);
}

/// Each costs a bounded amount of memory, and a subscriber that connects after them is served.
#[test]
fn connections_that_send_one_byte_keep_no_subscriber_out() {
    const SLOW: usize = 5_000;
    let _alone = many_connections();
    rlimit::increase_nofile_limit(u64::MAX).expect("more files");
    let server = server(Transport::Http1, &["--head-timeout", "60s"]);
    let mut first = server.stream("acme");
    first.connected();
    let before = memory(&server);
    let slow: Vec<TcpStream> = (0..SLOW)
        .map(|_| {
            let socket = TcpStream::connect(server.address()).expect("it listens");
            std::io::Write::write_all(&mut &socket, b"G").expect("it reads");
            socket
        })
        .collect();
    eventually("all of them are accepted", || open(&server) == SLOW as u64 + 1);
    let mut late = server.stream("acme");
    late.connected();
    let id = server.publish("acme", &["posts"]).expect("subscribed");
    first.expect_invalidate(&id, &["posts"]);
    late.expect_invalidate(&id, &["posts"]);
    let each = (memory(&server) - before) / SLOW as u64;
    println!("{each} bytes each");
    assert!(each < 24 * 1024, "{each} bytes each");
    drop(slow);
    eventually("they are closed", || open(&server) == 2);
}

/// Resident bytes of the process (`proc_pid_status(5)`).
fn memory(server: &Server) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// A slow connection counts against the limit no longer than the head timeout.
#[test]
fn an_unfinished_request_is_closed_at_the_head_timeout_and_makes_room() {
    for transport in Transport::http1() {
        let server = server(transport, &["--connections", "4", "--head-timeout", "1s"]);
        let mut first = server.stream("acme");
        first.connected();
        let slow: Vec<Client> = (0..20)
            .map(|_| {
                let mut client = server.connect();
                client.send("G");
                client
            })
            .collect();
        eventually("there is room", || ask_is_stream(&server, "acme", ""));
        let id = server.publish("acme", &["posts"]).expect("subscribed");
        first.expect_invalidate(&id, &["posts"]);
        drop(slow);
    }
}

/// Open connections are served while the process has no descriptor left; new ones are accepted once it has.
#[test]
fn streams_are_served_while_no_descriptor_is_left() {
    for transport in Transport::http1() {
        let args = ["--workers", "1", "--coalesce", "0", "--connections", "1000"];
        let server = Server::start_with_files(80, transport, &args);
        let mut first = server.stream("acme");
        first.connected();
        let mut publisher = server.connect();
        let mut publish = || {
            publisher.send(&format!("POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\r\n{KEYS}", KEYS.len()));
            let answer = publisher.read_answer();
            assert_eq!(answer.status(), 202);
            let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
            body["id"].as_str().expect("subscribed").to_owned()
        };
        publish();
        first.next();
        let waiting: Vec<_> = (0..200).map(|_| server.connect()).collect();
        eventually("no descriptor is left", || server.descriptors() >= 80);
        let id = publish();
        first.expect_invalidate(&id, &["a"]);
        drop(waiting);
        let mut late = server.stream("acme");
        late.connected();
        let id = publish();
        first.expect_invalidate(&id, &["a"]);
        late.expect_invalidate(&id, &["a"]);
    }
}
