//! Publishes by way of the log: accepted once they have come back from there, with the ids of their events.

use super::{JSON, NDJSON, RUN, id_of, member, publish_keys, ready};
use crate::bytes::Way;
use crate::support::eventually;
use crate::support::nats::NatsServer;
use crate::support::programs::{NATS_SERVER, requires};

#[test]
fn the_id_of_a_publish_is_that_of_its_event_on_every_server() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let servers = [ready(&nats, &["--coalesce", "0"]), ready(&nats, &["--coalesce", "0"])];
    let mut streams = servers.each_ref().map(|server| server.stream("acme"));
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    // Line breaks between tokens, and characters that need escapes.
    for (server, body, keys) in [
        (&servers[0], r#"{"keys":["posts"]}"#, &["posts"][..]),
        (&servers[1], " {\r\n \"keys\" :\n[\"a\", \n\"b\\n\u{e9}\"]\n}\n", &["a", "b\n\u{e9}"]),
        (&servers[0], "{\"keys\":[\"\\u0061\\ud83d\\ude00\"]}", &["a\u{1f600}"]),
    ] {
        let id = id_of(&server.post("/api/acme/events", JSON, body));
        streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, keys));
    }
}

#[test]
fn a_client_resumes_on_another_server_with_the_id_of_a_publish() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let [one, other] = [ready(&nats, &["--coalesce", "0"]), ready(&nats, &["--coalesce", "0"])];
    let mut there = other.stream("acme");
    there.connected();
    let first = id_of(&publish_keys(&one, "acme", "a"));
    let second = id_of(&publish_keys(&one, "acme", "b"));
    there.expect_invalidate(&first, &["a"]);
    there.expect_invalidate(&second, &["b"]);
    let mut stream = other.stream_with("/api/acme/events", &format!("last-event-id: {first}\r\n"));
    let (_, _, name) = stream.greeting();
    assert_eq!(name, "resumed");
    stream.expect_invalidate(&second, &["b"]);
}

#[test]
fn lines_are_one_record_and_all_or_nothing() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let server = ready(&nats, &["--coalesce", "0"]);
    let mut streams = ["acme", "other"].map(|org| server.stream(org));
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    for (bad, status) in [
        ("{\"org\":\"acme\",\"keys\":[\"no\"]}\n{\"org\":\"acme\",\"keys\":[]}\n", 422),
        ("{\"org\":\"acme\",\"keys\":[\"no\"]}\n{\"org\":\"a b\",\"keys\":[\"x\"]}", 400),
        ("{\"org\":\"acme\",\"reread\":true}\n", 400),
        ("{\"org\":\"acme\",\"end\":true}\n", 400),
        ("{\"org\":\"acme\",\"topic\":\"t\",\"close\":\"x\"}\n", 400),
        ("{\"org\":\"acme\",\"keys\":[\"no\"],\"more\":1}\n", 400),
    ] {
        let answer = server.post("/api/events", NDJSON, bad);
        assert_eq!(answer.status(), status, "{bad}: {answer:?}");
    }
    let lines = "{\"org\":\"acme\",\"keys\":[\"a\"]}\r\n\n{\"org\":\"other\",\"keys\":[\"b\"]}\n \
                 {\"org\":\"acme\", \"keys\":[\"c\",\"a\"]}";
    let answer = server.post("/api/events", NDJSON, lines);
    assert_eq!((answer.status(), member(&answer, "published")), (202, 3.into()), "{answer:?}");
    let ids = streams.each_mut().map(|stream| {
        let event = stream.next();
        let id = event.strip_prefix("id: ").and_then(|rest| rest.split('\n').next());
        (id.expect("an id").to_owned(), event)
    });
    let [(acme, event), (other, _)] = &ids;
    assert!(event.ends_with("data: {\"keys\":[\"a\",\"c\"]}\n\n"), "{event}");
    let position = |id: &str| id.split_once('-').expect("an id").1.to_owned();
    assert_eq!(position(acme), position(other), "one record");
    assert_ne!(acme, other, "each stream has ids of its own");
}

#[test]
fn the_id_of_a_topics_event_is_that_of_its_publish() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let servers = [ready(&nats, &[]), ready(&nats, &[])];
    let mut streams = servers.each_ref().map(|server| server.stream_with(RUN, ""));
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    for (server, body, event) in [
        (&servers[0], r#"{"event":"output","data":{"n":1}}"#, "data: {\"n\":1}"),
        (
            &servers[1],
            "{\"event\":\"output\",\n\"text\":\"a\\nb\",\"bulk\":true}",
            "data: a\ndata: b",
        ),
        (&servers[0], "{\"event\":\"output\",\"data\":[\n1,\n2]}", "data: [1,2]"),
    ] {
        let id = id_of(&server.post(RUN, JSON, body));
        let expected = format!("id: {id}\nevent: output\n{event}\n\n");
        streams.iter_mut().for_each(|stream| assert_eq!(stream.next(), expected));
    }
    // Events of one topic in one record have ids of their own.
    let line = |n| format!(r#"{{"org":"acme","topic":"run-7","event":"e","data":{n}}}"#);
    let answer = servers[0].post("/api/events", NDJSON, &format!("{}\n{}\n", line(1), line(2)));
    assert_eq!(answer.status(), 202, "{answer:?}");
    let events = streams.each_mut().map(|stream| [stream.next(), stream.next()]);
    assert_eq!(events[0], events[1]);
    assert_ne!(events[0][0].lines().next(), events[0][1].lines().next());
}

/// A broker whose records are smaller than the publish: the bound is named, and nothing is cut.
#[test]
fn a_publish_that_no_record_holds_is_refused_with_the_bound() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start_with("max_payload: 8000");
    let server = ready(&nats, &[]);
    let mut stream = server.stream("acme");
    stream.connected();
    let long = format!(r#"{{"keys":["{}"]}}"#, [&*"a".repeat(400); 25].join("\",\""));
    let answer = server.post("/api/acme/events", JSON, &long);
    assert_eq!(answer.status(), 413, "{answer:?}");
    let problem = answer.problem();
    assert!(problem.contains("one record of the log holds at most"), "{problem}");
    // The connection and the log are of use.
    let id = id_of(&publish_keys(&server, "acme", "small"));
    stream.expect_invalidate(&id, &["small"]);
}

/// Bodies as large as they may be, at the same time: together they are more than one record.
#[test]
fn publishes_at_once_are_all_in_the_log() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let server =
        ready(&nats, &["--publish-bytes", "523776", "--keys", "2000", "--backplane-timeout", "1m"]);
    let line = |org: usize| format!("{{\"org\":\"o{org}\",\"keys\":[\"k\"]}}\n");
    let many: String = (0..17_000).map(line).collect();
    assert!((400_000..523_776).contains(&many.len()), "{}", many.len());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let answer = server.post("/api/events", NDJSON, &many);
                assert_eq!(member(&answer, "published"), 17_000, "{answer:?}");
            });
            scope.spawn(|| assert_eq!(publish_keys(&server, "acme", "a").status(), 202));
        }
    });
    let mut stream = server.stream("o16999");
    stream.connected();
}

/// On every transport: streams of the reactor and of hyper, publishes, and an exclusive stream, which waits for the log.
#[test]
fn every_transport_publishes_by_way_of_the_log() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    for way in Way::all() {
        let server = way.start(&["--backplane", &nats.url(), "--coalesce", "0"]);
        eventually("the log is loaded", || server.get("/readyz").status() == 200);
        let mut stream = way.open(&server, "/api/acme/events");
        stream.connected();
        let id = id_of(&publish_keys(&server, "acme", "a"));
        stream.expect_invalidate(&id, &["a"]);
        let mut loser = way.open(&server, RUN);
        loser.next();
        way.open(&server, &format!("{RUN}?exclusive")).next();
        while !loser.next().contains("{\"reason\":\"replaced\"}") {}
    }
}
