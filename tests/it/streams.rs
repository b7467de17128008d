//! The contract of the two streams, byte by byte.

use crate::support::server::Signal;
use crate::support::{Client, Server, Stream, Transport, after, eventually, header};

/// A server without coalescing.
fn plain(transport: Transport, more: &[&str]) -> Server {
    Server::start_on(transport, &[&["--coalesce", "0"][..], more].concat())
}

fn seq(id: &str) -> u64 {
    id.split_once('-').expect("epoch-seq").1.parse().expect("a number")
}

#[test]
fn the_head_has_every_field_of_the_contract() {
    for transport in Transport::http1() {
        let server = plain(transport, &[]);
        for route in ["/api/acme/events", "/api/acme/public/events"] {
            let stream = server.stream_with(route, "accept-encoding: gzip, br\r\n");
            let date = header(&stream.head, "date").expect("a date").to_owned();
            let expected = "HTTP/1.1 200 OK\r\n\
                content-type: text/event-stream\r\n\
                cache-control: no-cache, no-store, no-transform\r\n\
                x-accel-buffering: no\r\n\
                x-content-type-options: nosniff\r\n\
                transfer-encoding: chunked\r\n\
                connection: close\r\n";
            assert_eq!(stream.head, format!("{expected}date: {date}\r\n\r\n"), "{transport:?}");
        }
    }
}

#[test]
fn a_stream_begins_with_retry_an_id_and_connected() {
    for transport in Transport::all() {
        let server = plain(transport, &["--retry-min", "2s", "--retry-max", "3s"]);
        let (retry, id, name) = server.stream("acme").greeting();
        assert_eq!(name, "connected");
        assert!((2_000..=3_000).contains(&retry), "{retry}");
        let (epoch, seq) = id.split_once('-').expect("epoch-seq");
        assert!(
            epoch.len() == 16 && epoch.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
            "{id}"
        );
        assert_eq!(seq, "0");
    }
}

#[test]
fn an_invalidation_reaches_its_org_and_no_other() {
    for transport in Transport::all() {
        let server = plain(transport, &["--workers", "2"]);
        let mut ours = server.streams("acme", 6);
        let mut other = server.stream("other");
        other.connected();
        for n in 1..=3u64 {
            let id = server.publish("acme", &["posts", "feed:123"]).expect("there are subscribers");
            assert_eq!(seq(&id), n);
            ours.iter_mut().for_each(|s| s.expect_invalidate(&id, &["posts", "feed:123"]));
        }
        let id = server.publish("other", &["theirs"]).expect("there is one");
        other.expect_invalidate(&id, &["theirs"]);
        // An event of the other org would arrive before this one.
        let id = server.publish("acme", &["last"]).expect("there are subscribers");
        ours.iter_mut().for_each(|s| s.expect_invalidate(&id, &["last"]));
    }
}

#[test]
fn http_1_0_gets_a_body_that_ends_with_the_connection() {
    for transport in Transport::http1() {
        let mut server = plain(transport, &[]);
        let mut client = server.connect();
        client.send("GET /api/acme/events HTTP/1.0\r\n\r\n");
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        assert_eq!(header(&head, "transfer-encoding"), None);
        let first = String::from_utf8(client.read_until(b"\n\n")).expect("UTF-8");
        assert!(
            first.starts_with("retry: ")
                && first.ends_with("event: connected\ndata: {\"keepalive\":20}\n\n"),
            "{first:?}"
        );
        let id = server.publish("acme", &["posts"]).expect("there is a subscriber");
        let event = format!("id: {id}\nevent: invalidate\ndata: {{\"keys\":[\"posts\"]}}\n\n");
        assert_eq!(client.read_exact(event.len()), event.as_bytes());
        server.signal(Signal::TERM);
        let end = String::from_utf8(client.read_to_end()).expect("UTF-8");
        assert!(end.starts_with("retry: ") && end.matches('\n').count() == 1, "{end:?}");
        assert_eq!(server.wait(), Some(0));
    }
}

#[test]
fn a_head_request_gets_the_head_and_takes_no_seat() {
    for transport in Transport::all() {
        let server = plain(transport, &[]);
        let mut client = server.connect();
        client.send("HEAD /api/acme/events HTTP/1.1\r\nhost: test\r\n\r\n");
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(header(&head, "content-type"), Some("text/event-stream"));
        // The connection stays open: there was no body.
        client.send("GET /livez HTTP/1.1\r\nhost: test\r\n\r\n");
        assert_eq!(client.read_answer().body, "live\n");
        assert_eq!(server.metric("nudged_streams_opened_total"), 0);
    }
}

/// A body without a length ends with its connection, so that `keep-alive` cannot be honoured (RFC 9112, 6.3).
#[test]
fn http_1_0_is_not_kept_alive_after_a_stream() {
    for transport in Transport::http1() {
        let server = plain(transport, &[]);
        let mut client = server.connect();
        client.send("GET /api/acme/events HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
        let head = client.read_head();
        assert_ne!(header(&head, "connection"), Some("keep-alive"), "{head}");
        assert_eq!(header(&head, "content-length"), None, "{head}");
        assert_eq!(header(&head, "transfer-encoding"), None, "{head}");
    }
}

#[test]
fn a_request_head_may_arrive_byte_by_byte() {
    for transport in Transport::all() {
        let server = plain(transport, &[]);
        let mut client = server.connect();
        for byte in "GET /api/acme/events HTTP/1.1\r\nhost: test\r\n\r\n".bytes() {
            client.send_bytes(&[byte]);
        }
        let head = client.read_head();
        let mut stream = Stream { client, head };
        stream.connected();
        let id = server.publish("acme", &["posts"]).expect("there is a subscriber");
        stream.expect_invalidate(&id, &["posts"]);
    }
}

#[test]
fn a_silent_stream_gets_keepalives() {
    for transport in Transport::all() {
        let server = plain(transport, &["--keepalive", "1s"]);
        let mut stream = server.stream("acme");
        stream.connected();
        assert_eq!(stream.next(), ": keepalive\n");
        assert_eq!(stream.next(), ": keepalive\n");
        eventually("both are counted", || server.metric("nudged_keepalives_total") >= 2);
    }
}

#[test]
fn the_public_stream_shows_public_keys_only() {
    for transport in Transport::all() {
        let server = plain(transport, &["--public-orgs", "acme", "--public-keys", "posts,feed:*"]);
        let mut member = server.stream("acme");
        let mut public = server.stream_with("/api/acme/public/events", "");
        member.connected();
        let start = public.connected();

        let hidden = server.publish("acme", &["secret"]).expect("subscribed");
        let mixed =
            server.publish("acme", &["feed:2", "secret", "posts", "post"]).expect("subscribed");
        let open = server.publish("acme", &["posts"]).expect("subscribed");
        member.expect_invalidate(&hidden, &["secret"]);
        member.expect_invalidate(&mixed, &["feed:2", "secret", "posts", "post"]);
        member.expect_invalidate(&open, &["posts"]);
        public.expect_invalidate(&after(&start, 1), &["feed:2", "posts"]);
        public.expect_invalidate(&after(&start, 2), &["posts"]);

        let refused = server.get("/api/other/public/events");
        assert_eq!(refused.status(), 404);
        assert_eq!(refused.problem(), "this organisation has no public stream");
    }
}

#[test]
fn the_public_allowlist_defaults_to_that_of_the_replaced_system() {
    let server = plain(Transport::Http1, &[]);
    let mut public = server.stream_with("/api/acme/public/events", "");
    let start = public.connected();
    let keys = [
        "organizations",
        "resolve-path",
        "entity-types",
        "view-template-history",
        "contents-filtered",
    ];
    server.publish("acme", &keys);
    public.expect_invalidate(&after(&start, 1), &keys[1..]);
}

#[test]
fn a_client_that_reconnects_gets_exactly_the_events_it_missed() {
    for transport in Transport::all() {
        let server = plain(transport, &[]);
        let mut stream = server.stream("acme");
        let at_first = stream.connected();
        let ids: Vec<_> = ["a", "b", "c"]
            .iter()
            .map(|key| server.publish("acme", &[key]).expect("an id"))
            .collect();
        drop(stream);

        let by_header =
            |id: &str| server.stream_with("/api/acme/events", &format!("last-event-id: {id}\r\n"));
        let by_query =
            |id: &str| server.stream_with(&format!("/api/acme/events?x=1&last_event_id={id}"), "");
        let mut both = [by_header(&ids[0]), by_query(&ids[0])];
        for resumed in &mut both {
            let (_, id, name) = resumed.greeting();
            assert_eq!((&*name, &id), ("resumed", &ids[0]));
            resumed.expect_invalidate(&ids[1], &["b"]);
            resumed.expect_invalidate(&ids[2], &["c"]);
        }
        let mut from_the_start = by_header(&at_first);
        assert_eq!(from_the_start.greeting().2, "resumed");
        from_the_start.expect_invalidate(&ids[0], &["a"]);
        let mut from_the_end = by_header(&ids[2]);
        assert_eq!(from_the_end.greeting().2, "resumed");
        let live = server.publish("acme", &["d"]).expect("an id");
        from_the_end.expect_invalidate(&live, &["d"]);
        both.iter_mut().for_each(|resumed| resumed.expect_invalidate(&live, &["d"]));
    }
}

#[test]
fn an_id_that_is_not_covered_means_connected_and_never_an_error() {
    for transport in Transport::all() {
        let server = plain(transport, &["--history-events", "2"]);
        let mut stream = server.stream("acme");
        let first = stream.connected();
        let ids: Vec<_> = ["a", "b", "c"]
            .iter()
            .map(|key| server.publish("acme", &[key]).expect("an id"))
            .collect();
        let (epoch, _) = first.split_once('-').expect("epoch-seq");
        let other_epoch = format!("{:016x}-1", u64::from_str_radix(epoch, 16).expect("hex") ^ 1);
        let ahead = format!("{epoch}-4");
        let long = "9".repeat(2_000);
        let mut streams = Vec::new();
        for id in [&*first, "", "garbage", "-", "0-0", &*other_epoch, &*ahead, &*long, "\u{e9}"] {
            let mut stream =
                server.stream_with("/api/acme/events", &format!("last-event-id: {id}\r\n"));
            assert_eq!(stream.connected(), ids[2], "{id:?} on {transport:?}");
            streams.push(stream);
        }
        let mut covered =
            server.stream_with("/api/acme/events", &format!("last-event-id: {}\r\n", ids[0]));
        assert_eq!(covered.greeting().2, "resumed");
        // Nothing was sent to any of them between its greeting and the next event.
        let live = server.publish("acme", &["d"]).expect("an id");
        streams.iter_mut().for_each(|stream| stream.expect_invalidate(&live, &["d"]));
    }
}

#[test]
fn a_restarted_server_does_not_resume_an_old_id() {
    let server = plain(Transport::Http1, &[]);
    let old = server.stream("acme").connected();
    drop(server);
    let server = plain(Transport::Http1, &[]);
    let mut stream = server.stream_with("/api/acme/events", &format!("last-event-id: {old}\r\n"));
    assert_ne!(stream.connected(), old);
}

#[test]
fn sigterm_and_sigint_end_every_stream_in_order() {
    for transport in Transport::all() {
        for signal in [Signal::TERM, Signal::INT] {
            let mut server = plain(transport, &["--workers", "2", "--drain-window", "100ms"]);
            let mut streams = server.streams("acme", 8);
            let mut idle = server.connect();
            idle.send("GET /livez HTTP/1.1\r\nhost: test\r\n\r\n");
            idle.read_answer();
            server.signal(signal);
            for stream in &mut streams {
                stream.farewell();
            }
            assert_eq!(server.wait(), Some(0));
        }
    }
}

#[test]
fn several_addresses_are_served() {
    let server = Server::start(&["--listen", "127.0.0.1:0,[::1]:0"]);
    assert_eq!(server.addresses.len(), 2);
    for address in &server.addresses {
        let mut client = Client::connect(*address);
        client.send("GET /livez HTTP/1.1\r\nhost: test\r\n\r\n");
        assert_eq!(client.read_answer().status(), 200);
    }
}

#[test]
fn starting_on_an_occupied_address_reports_the_other_server() {
    let server = Server::start(&[]);
    let address = server.address().to_string();
    let (code, message) = Server::refuses_to_start(&["--listen", &address]);
    assert_eq!(code, Some(2));
    assert!(
        message.contains(&format!("cannot listen on {address}: another server does")),
        "{message}"
    );
}

#[test]
fn a_server_without_keys_refuses_an_address_beyond_loopback() {
    let (code, message) = Server::refuses_to_start(&["--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(2));
    assert!(
        message.contains("no key is configured") && message.contains("--insecure-open"),
        "{message}"
    );
}

/// hyper reads the request of a stream that follows another request on its connection; the reactor reads a first one.
/// The responses are the same, and a refusal is counted once.
#[test]
fn a_stream_after_another_request_gets_the_same_response_as_a_first_one() {
    let flags = ["--cors-origin", "https://app.example", "--org-streams", "4", "--insecure-open"];
    let server = Server::start(&flags);
    let origin = "origin: https://app.example\r\n";
    for (version, fields, query) in [
        ("1.1", "", ""),
        ("1.1", origin, "?last_event_id=0"),
        ("1.0", origin, ""),
        ("1.0", "connection: keep-alive\r\nlast-event-id: 0123456789abcdef-7\r\n", "?token=x"),
    ] {
        let ask = format!("GET /api/acme/events{query} HTTP/{version}\r\nhost: t\r\n{fields}\r\n");
        let begin = |mut client: Client| {
            client.send(&ask);
            let head = client.read_head();
            let date = header(&head, "date").expect("a date").to_owned();
            let greeting = String::from_utf8(client.read_until(b"data: {\"keepalive\":20}\n\n"))
                .expect("UTF-8");
            let lines = greeting.lines().filter(|line| !line.starts_with("retry: "));
            let lines: Vec<_> = lines.map(str::to_owned).collect();
            (head.replace(&date, "now"), lines, client)
        };
        let mut second = server.connect();
        second.send("GET /livez HTTP/1.1\r\nhost: t\r\n\r\n");
        assert_eq!(second.read_answer().status(), 200);
        let ((head, lines, _first), (by_hyper, later, _second)) =
            (begin(server.connect()), begin(second));
        assert_eq!((head, lines), (by_hyper, later), "{ask}");
    }
    eventually("the streams have ended", || server.seats() == 0);
    let _full = server.streams("acme", 4);
    let ask = "GET /api/acme/events HTTP/1.1\r\nhost: t\r\n\r\n";
    assert_eq!(server.request(ask).status(), 503);
    assert_eq!(server.metric("nudged_refused_total{limit=\"org\"}"), 1);
}
