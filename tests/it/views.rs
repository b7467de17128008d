//! The ids of both views of an organisation: those of the public view resume public streams only, and count what the
//! public sees.

use crate::support::{Client, Server, Stream, Transport, after, eventually};

const MEMBER: &str = "/api/acme/events";
const PUBLIC: &str = "/api/acme/public/events";

/// How a stream comes into being.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// It is the first request of its connection.
    First,
    /// hyper has served another request of its connection before.
    AfterAnother,
}

fn server(transport: Transport, more: &[&str]) -> Server {
    let flags = ["--coalesce", "0", "--public-orgs", "*", "--public-keys", "posts,news"];
    Server::start_on(transport, &[&flags[..], more].concat())
}

/// Every transport, and both ways of a stream on it.
fn everywhere(test: impl Fn(&dyn Fn(&[&str]) -> Server, Way)) {
    for transport in Transport::all() {
        for way in [Way::First, Way::AfterAnother] {
            println!("{transport:?}, {way:?}");
            test(&|more| server(transport, more), way);
        }
    }
}

fn open(server: &Server, way: Way, path: &str, last: Option<&str>) -> Stream {
    let mut client = server.connect();
    if matches!(way, Way::AfterAnother) {
        get(&mut client, "/livez");
    }
    let field = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
    Stream::open(client, path, &field)
}

fn get(client: &mut Client, path: &str) {
    client.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
    assert_eq!(client.read_answer().status(), 200);
}

fn resumed(mut stream: Stream, id: &str) -> Stream {
    let (_, greeted, name) = stream.greeting();
    assert_eq!((&*name, &*greeted), ("resumed", id));
    stream
}

fn epoch(id: &str) -> &str {
    id.split_once('-').expect("an id").0
}

/// SCENARIO: a visitor logs in: the page opens the member stream with the last id that the public stream had. Or a
/// page that has been open since an older server, whose views shared their ids, comes back with one of those.
/// BUG: the id was covered, so the stream `resumed` behind it, and the private events before it were lost silently.
/// FIX: each view has an epoch of its own. An id of the other view is not covered: `connected`.
#[test]
fn an_id_of_one_view_resumes_no_stream_of_the_other() {
    everywhere(|start, way| {
        let server = start(&[]);
        let (mut member, mut public) =
            (open(&server, way, MEMBER, None), open(&server, way, PUBLIC, None));
        let start = [member.connected(), public.connected()];
        assert_ne!(epoch(&start[0]), epoch(&start[1]));
        server.publish("acme", &["secret"]);
        let id = server.publish("acme", &["posts"]).expect("subscribed");
        let public_id = after(&start[1], 1);
        member.expect_invalidate(&after(&start[0], 1), &["secret"]);
        member.expect_invalidate(&id, &["posts"]);
        public.expect_invalidate(&public_id, &["posts"]);

        for other in [&public_id, &start[1]] {
            assert_eq!(open(&server, way, MEMBER, Some(other)).connected(), id);
        }
        for other in [&id, &start[0], &after(&start[0], 1)] {
            assert_eq!(open(&server, way, PUBLIC, Some(other)).connected(), public_id);
        }
        resumed(open(&server, way, MEMBER, Some(&id)), &id);
        let mut back = resumed(open(&server, way, PUBLIC, Some(&start[1])), &start[1]);
        back.expect_invalidate(&public_id, &["posts"]);
    });
}

/// SCENARIO: a stranger reads the ids of a public stream.
/// BUG: between two of them it read how many private events there were.
/// FIX: public ids count the events that the public sees, without a gap, from the first public stream on.
#[test]
fn public_ids_count_only_what_the_public_sees() {
    everywhere(|start, way| {
        let server = start(&[]);
        server.streams("acme", 1);
        (0..3).for_each(|_| _ = server.publish("acme", &["secret"]));
        let mut public = open(&server, way, PUBLIC, None);
        let first = public.connected();
        assert!(first.ends_with("-0"), "{first}");
        for n in 1..6 {
            (0..n).for_each(|_| _ = server.publish("acme", &["secret"]));
            server.publish("acme", &["secret", "posts", "other", "news"]);
            public.expect_invalidate(&after(&first, n), &["posts", "news"]);
        }
        (0..3).for_each(|_| _ = server.publish("acme", &["secret"]));
        let head = after(&first, 5);
        assert_eq!(open(&server, way, PUBLIC, None).connected(), head);
    });
}

/// SCENARIO: an organisation has many private events; a visitor's connection is cut and comes back.
/// BUG: its id was counted in private events too, and aged out of the history.
/// FIX: each view has a history of its own.
#[test]
fn a_public_id_stays_covered_while_only_private_events_come() {
    everywhere(|start, way| {
        let server = start(&["--history-events", "4"]);
        let mut public = open(&server, way, PUBLIC, None);
        let first = public.connected();
        server.publish("acme", &["posts"]);
        public.expect_invalidate(&after(&first, 1), &["posts"]);
        drop(public);
        eventually("the seat is free", || server.seats() == 0);
        (0..50).for_each(|_| _ = server.publish("acme", &["secret"]));
        let second = after(&first, 1);
        let mut at_head = resumed(open(&server, way, PUBLIC, Some(&second)), &second);
        let mut behind = resumed(open(&server, way, PUBLIC, Some(&first)), &first);
        behind.expect_invalidate(&second, &["posts"]);
        server.publish("acme", &["news"]);
        for stream in [&mut at_head, &mut behind] {
            stream.expect_invalidate(&after(&first, 2), &["news"]);
        }
        // It does age with public events.
        (0..4).for_each(|_| _ = server.publish("acme", &["posts"]));
        let head = after(&first, 6);
        assert_eq!(open(&server, way, PUBLIC, Some(&second)).connected(), head);
    });
}

/// SCENARIO: more private keys are published in a burst than one event may have.
/// BUG: public streams got `connected` too, which made every visitor re-read everything, and revealed the burst.
/// FIX: of a union that is too large for members, the public keys are kept for the public.
#[test]
fn a_union_of_too_many_private_keys_is_hidden_from_the_public() {
    for transport in Transport::all() {
        let flags = ["--coalesce", "1s", "--keys", "3", "--public-keys", "posts,news"];
        let server = Server::start_on(transport, &flags);
        let bursts: [(&str, [&[&str]; 3]); 2] = [
            ("private", [&["posts"], &["a", "b"], &["c", "d"]]),
            ("mixed", [&["posts"], &["a", "news"], &["b", "c", "posts"]]),
        ];
        for (org, publishes) in bursts {
            let paths = [format!("/api/{org}/events"), format!("/api/{org}/public/events")];
            let [mut member, mut public] =
                paths.each_ref().map(|path| server.stream_with(path, ""));
            let (at_member, at_public) = (member.connected(), public.connected());
            let line = |keys: &&[&str]| serde_json::json!({ "org": org, "keys": keys }).to_string();
            let lines: Vec<_> = publishes.iter().map(line).collect();
            server.post("/api/events", "application/x-ndjson", &lines.join("\n"));
            member.expect_invalidate(&after(&at_member, 1), &["posts"]);
            let reread = after(&at_member, 2);
            assert_eq!(
                member.next(),
                format!("id: {reread}\nevent: connected\ndata: {{\"keepalive\":20}}\n\n")
            );
            server.publish(org, &["posts"]);
            let union = (org == "mixed").then_some(&["news", "posts"][..]);
            let expected = [Some(&["posts"][..]), union, Some(&["posts"])];
            for (keys, seq) in expected.into_iter().flatten().zip(1..) {
                public.expect_invalidate(&after(&at_public, seq), keys);
            }
        }
        eventually("the members' are counted", || server.metric("nudged_rereads_total") == 2);
    }
}
