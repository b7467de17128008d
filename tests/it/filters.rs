//! Streams with `?keys=`, on every way by which they reach a client: whole events, exact bytes, refusals.

use crate::bytes::Way;
use crate::support::server::Signal;
use crate::support::{Server, Transport, after};

const ROUTES: [&str; 2] = ["/api/acme/events", "/api/acme/public/events"];
const FLAGS: [&str; 6] =
    ["--coalesce", "0", "--public-orgs", "acme", "--public-keys", "posts,feed:*,users"];

fn start(way: Way, more: &[&str]) -> Server {
    way.start(&[&FLAGS[..], more].concat())
}

fn invalidate(id: &str, keys: &str) -> String {
    format!("id: {id}\nevent: invalidate\ndata: {{\"keys\":{keys}}}\n\n")
}

/// `users` shares no bit with the patterns, so its events are not sent.
#[test]
fn a_filtered_stream_gets_whole_events_with_a_matching_key_and_no_others() {
    for way in Way::all() {
        let server = start(way, &[]);
        for route in ROUTES {
            let mut all = way.open(&server, route);
            let mut filtered =
                way.open(&server, &format!("{route}?keys=posts%2Cnever&keys=feed:*"));
            let first = filtered.connected();
            assert_eq!(all.connected(), first);
            let published: [&[&str]; 6] = [
                &["users"],
                &["users", "feed:7", "users:1"],
                &["users"],
                &["posts"],
                &["feed:7:likes"],
                &["users"],
            ];
            for keys in published {
                server.publish("acme", keys);
            }
            let id = |n| after(&first, n);
            for (n, keys) in [
                (1, r#"["users"]"#),
                (3, r#"["users"]"#),
                (4, r#"["posts"]"#),
                (5, r#"["feed:7:likes"]"#),
                (6, r#"["users"]"#),
            ] {
                let mut event = all.next_event();
                if n == 3 {
                    assert!(event.starts_with(&format!("id: {}\n", id(2))), "{event}");
                    event = all.next_event();
                }
                assert_eq!(event, invalidate(&id(n), keys), "{way:?}");
            }
            let mixed = match route == ROUTES[0] {
                true => r#"["users","feed:7","users:1"]"#,
                // The allowlist hides one of them.
                false => r#"["users","feed:7"]"#,
            };
            assert_eq!(filtered.next_event(), invalidate(&id(2), mixed), "{way:?}");
            assert_eq!(filtered.next_event(), invalidate(&id(4), r#"["posts"]"#), "{way:?}");
            let likes = invalidate(&id(5), r#"["feed:7:likes"]"#);
            assert_eq!(filtered.next_event(), likes, "{way:?}");
            // The last one was skipped: the next is another.
            server.publish("acme", &["posts"]);
            assert_eq!(filtered.next_event(), invalidate(&id(7), r#"["posts"]"#), "{way:?}");
        }
    }
}

/// SCENARIO: a filtered stream gets nothing for a day, while its org is busy, and then its connection ends.
/// BUG: the last id that its client had was forgotten long ago, so that each such client read everything again.
/// FIX: the keepalive of a filtered stream is an event with the stream's position.
#[test]
fn the_keepalive_of_a_filtered_stream_has_its_position() {
    for way in Way::all() {
        let flags = ["--workers", "1", "--keepalive", "1s", "--history-events", "2"];
        let server = start(way, &flags);
        for (org, query) in [("a", "?keys=posts"), ("b", "?keys=posts&ping=event")] {
            let route = format!("/api/{org}/events");
            let path = format!("{route}{query}");
            let mut stream = way.open(&server, &path);
            let first = stream.connected();
            let mut all = way.open(&server, &route);
            all.connected();
            // A sweep visits the stream that was opened later after the other one, which has then skipped the event.
            let skipped: Vec<_> = (0..5)
                .filter_map(|_| server.publish(org, &["users"]))
                .inspect(|id| {
                    assert_eq!(all.next_event(), invalidate(id, r#"["users"]"#), "{way:?}");
                })
                .collect();
            let [.., last] = &skipped[..] else { panic!("five events") };
            let ping = |id: &str| format!("id: {id}\nevent: ping\ndata: {{}}\n\n");
            let mut got = stream.next();
            while got != ping(last) {
                // That of the time before.
                let known = skipped.iter().chain([&first]).any(|id| got == ping(id));
                assert!(known, "{way:?} {query}: {got:?}");
                got = stream.next();
            }
            assert_eq!(stream.next(), ping(last), "{way:?} {query}");
            let resume = |id: &str| {
                let mut again = way.open(&server, &format!("{path}&last_event_id={id}"));
                again.greeting().2
            };
            assert_eq!(resume(last), "resumed", "{way:?} {query}");
            assert_eq!(resume(&first), "connected", "{way:?} {query}");
            // Nothing else has changed.
            assert_eq!(all.next(), ": keepalive\n", "{way:?}");
        }
    }
}

#[test]
fn the_keepalive_of_a_filtered_stream_over_http_1_0_is_the_same() {
    for transport in Transport::http1() {
        let mut server = Server::start_on(transport, &["--keepalive", "1s"]);
        let mut client = server.connect();
        client.send("GET /api/acme/events?keys=posts HTTP/1.0\r\n\r\n");
        client.read_head();
        let greeting = String::from_utf8(client.read_until(b"\n\n")).expect("UTF-8");
        let id = greeting.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id");
        let ping = format!("id: {id}\nevent: ping\ndata: {{}}\n\n");
        assert_eq!(client.read_exact(2 * ping.len()), ping.repeat(2).as_bytes(), "{transport:?}");
        server.signal(Signal::TERM);
        let end = String::from_utf8(client.read_to_end()).expect("UTF-8");
        assert!(end.trim_start_matches(&*ping).starts_with("retry: "), "{transport:?} {end:?}");
        assert_eq!(server.wait(), Some(0));
    }
}

#[test]
fn a_resumed_stream_is_filtered_too() {
    for way in Way::all() {
        let server = start(way, &[]);
        // As long as there is one, what is published is compared with patterns.
        let mut other = way.open(&server, &format!("{}?keys=posts", ROUTES[0]));
        let first = other.connected();
        for keys in [["users"], ["posts"], ["users"], ["feed:1"], ["users"]] {
            server.publish("acme", &keys);
        }
        let path = format!("{}?keys=feed:*&last_event_id={first}", ROUTES[0]);
        let mut resumed = way.open(&server, &path);
        assert_eq!(resumed.greeting().2, "resumed");
        let expected = invalidate(&after(&first, 4), r#"["feed:1"]"#);
        assert_eq!(resumed.next_event(), expected, "{way:?}");
        server.publish("acme", &["feed:2"]);
        let expected = invalidate(&after(&first, 6), r#"["feed:2"]"#);
        assert_eq!(resumed.next_event(), expected, "{way:?}");
    }
}

#[test]
fn a_bad_filter_is_refused_with_what_is_allowed() {
    for way in Way::all() {
        let server = start(way, &["--key-bytes", "9"]);
        for (query, problem) in [
            ("keys=", "the parameter keys: there is no key; at least one is needed; it has keys"),
            ("keys", "the parameter keys: there is no key; "),
            ("a=b&keys=,,", "the parameter keys: there is no key; "),
            ("keys=posts,feed*", "the parameter keys: key 1 has a * that is neither alone"),
            ("keys=a%2ab", "the parameter keys: key 0 has a * that is neither alone"),
            ("keys=posts&keys=tenletters", "the parameter keys: key 1 has 10 bytes; at most 9"),
            ("keys=%ff", "the parameter keys has to be UTF-8, percent-encoded"),
        ] {
            for route in ROUTES {
                let path = format!("{route}?{query}");
                let refused = server.get(&path);
                assert_eq!(refused.status(), 400, "{way:?} {path}");
                assert!(refused.problem().starts_with(problem), "{path}: {refused:?}");
                let mut client = server.connect();
                client.send(&format!("HEAD {path} HTTP/1.1\r\nhost: t\r\n\r\n"));
                assert!(client.read_head().starts_with("HTTP/1.1 400 "), "{way:?} {path}");
            }
        }
        // A topic has no keys, so that a filter would do nothing.
        let refused = server.get("/api/acme/topics/run/events?keys=posts");
        assert_eq!(refused.status(), 400, "{way:?}");
        assert!(refused.problem().starts_with("a topic has no keys; "), "{refused:?}");
        assert_eq!(server.metric("nudged_streams_opened_total"), 0);
        for query in ["keys=nineBytes", "keys=*", "keys=a,b,c,d,e,f,g,h,i", "keys=posts,"] {
            way.open(&server, &format!("{}?{query}", ROUTES[0])).connected();
        }
    }
}
