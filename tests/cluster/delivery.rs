//! What is published at one node arrives at all, and a stream resumes at any of them.

use nudged::wire::Parser;

use crate::harness::Cluster;
use crate::harness::broker::{Broker, for_each_broker};
use crate::harness::exact::{keys, next, position};
use crate::harness::path::Fault;
use crate::support::eventually;

for_each_broker!(
    every_node_delivers_every_publish_under_the_same_id_and_in_the_same_order,
    a_stream_resumes_at_another_node_with_exactly_what_it_missed,
    an_idle_browser_resumes_at_another_node_after_other_orgs_filled_the_tail_twice,
    a_resume_within_a_union_repeats_some_keys_and_misses_none,
    a_new_node_is_ready_only_once_it_can_resume_ids_from_before_its_start,
    no_id_covers_keys_that_a_window_still_holds,
);

/// Without windows, so that events are publishes; without keepalives between them.
const EXACT: [&str; 4] = ["--coalesce", "0", "--keepalive", "1h"];
/// The least that a tail may be set to would do as well.
const TAIL: usize = 1 << 20;
const TAIL_FLAG: &str = "1048576";

fn every_node_delivers_every_publish_under_the_same_id_and_in_the_same_order<B: Broker>() {
    let broker = B::start();
    let cluster = Cluster::on(&broker, 3, &EXACT);
    let mut streams: Vec<_> = (0..3).map(|node| cluster.stream(node, "acme", "").0).collect();
    let published = (0..30).map(|n| {
        let key = format!("k{n}");
        (cluster.publish_at(n % 3, "acme", &[&key]), vec![key])
    });
    let published: Vec<_> = published.collect();
    for stream in &mut streams {
        let delivered = (0..30).map(|_| next(stream)).map(|event| (event.id.clone(), keys(&event)));
        assert_eq!(delivered.collect::<Vec<_>>(), published);
    }
}

fn a_stream_resumes_at_another_node_with_exactly_what_it_missed<B: Broker>() {
    let broker = B::start();
    let cluster = Cluster::on(&broker, 2, &EXACT);
    let (mut stream, greeting) = cluster.stream(0, "acme", "");
    assert_eq!(greeting.name, "connected");
    cluster.publish_at(0, "acme", &["seen"]);
    let seen = next(&mut stream);
    drop(stream);
    let missed = (0..50).map(|n| {
        let key = format!("k{n}");
        (cluster.publish_at(0, "acme", &[&key]), vec![key])
    });
    let missed: Vec<_> = missed.collect();
    cluster.catch_up();
    for (id, rest) in [(&seen.id, &missed[..]), (&missed[24].0, &missed[25..])] {
        let (mut stream, greeting) = cluster.stream(1, "acme", id);
        assert_eq!((&greeting.name[..], &greeting.id), ("resumed", id));
        for expected in rest {
            let event = next(&mut stream);
            assert_eq!((&event.id, &keys(&event)), (&expected.0, &expected.1));
        }
        assert!(stream.client.is_silent(), "more than it missed");
    }
    // At the head: nothing was missed, and what is published next arrives.
    let (mut stream, greeting) = cluster.stream(1, "acme", &missed[49].0);
    assert_eq!(greeting.name, "resumed");
    let id = cluster.publish_at(0, "acme", &["next"]);
    assert_eq!(next(&mut stream).id, id);
}

/// Other orgs' events push everything out of the tail while a browser receives nothing but keepalives.
fn an_idle_browser_resumes_at_another_node_after_other_orgs_filled_the_tail_twice<B: Broker>() {
    let broker = B::start();
    let mut cluster = Cluster::on(&broker, 2, &["--backplane-tail-bytes", TAIL_FLAG]);
    cluster.browse(4);
    let (_, old) = cluster.stream(0, "acme", "");
    cluster.fill(TAIL * 2);
    let filled = position(&cluster.publish_at(0, "other1", &["the-last"]));
    eventually("keepalives move the ids of all", || {
        cluster.browsers.iter().all(|browser| position(&browser.last_id()) >= filled)
    });
    assert!(cluster.counts().pings > 0);
    for node in [0, 1] {
        let on_it = cluster.browsers.iter().filter(|browser| browser.node() == Some(node)).count();
        let before = cluster.counts();
        cluster.kill(node);
        eventually("its browsers come back", || cluster.counts().resumed >= before.resumed + on_it);
        cluster.restart(node);
    }
    cluster.expect_no_reread();
    // Without keepalives the id would have been this one.
    assert_eq!(cluster.stream(1, "acme", &old.id).1.name, "connected");
}

/// One node unites the keys of five seconds, the other none.
fn a_resume_within_a_union_repeats_some_keys_and_misses_none<B: Broker>() {
    let broker = B::start();
    let mut cluster = Cluster::new();
    cluster.add(&broker, &EXACT);
    cluster.add(&broker, &["--keepalive", "1h", "--coalesce", "3s"]);
    cluster.start_all();
    let (mut exact, _) = cluster.stream(0, "acme", "");
    let (mut united, _) = cluster.stream(1, "acme", "");
    let names: Vec<_> = (0..10).map(|n| format!("k{n}")).collect();
    names.iter().for_each(|name| _ = cluster.publish_at(0, "acme", &[name]));
    let events: Vec<_> = names.iter().map(|_| next(&mut exact)).collect();
    cluster.catch_up();
    // While the window is open, and once it has ended.
    for _ in 0..2 {
        let (mut stream, greeting) = cluster.stream(1, "acme", &events[5].id);
        assert_eq!(greeting.name, "resumed");
        let mut received = Vec::new();
        while !names[6..].iter().all(|name| received.contains(name)) {
            received.extend(keys(&next(&mut stream)));
        }
        assert!(
            received.iter().all(|name| names[1..].contains(name)),
            "beyond the union: {received:?}"
        );
    }
    // The stream that was open received each key once.
    let mut received = Vec::new();
    while received.len() < names.len() {
        received.extend(keys(&next(&mut united)));
    }
    assert_eq!(received, names);
}

/// A node that has not loaded the log would answer every id from before its start with `connected`.
fn a_new_node_is_ready_only_once_it_can_resume_ids_from_before_its_start<B: Broker>() {
    let broker = B::start();
    let mut cluster = Cluster::on(&broker, 1, &EXACT);
    let (_, greeting) = cluster.stream(0, "acme", "");
    let published = cluster.publish_at(0, "acme", &["k1"]);
    cluster.add(&broker, &EXACT).path().set(Fault::Silence);
    cluster.nodes[1].start();
    let server = cluster.nodes[1].server();
    for _ in 0..3 {
        let answer = server.get("/readyz");
        assert_eq!(answer.status(), 503, "{answer:?}");
        assert!(answer.body.contains("log"), "it does not say why: {answer:?}");
        assert_eq!(server.get("/livez").status(), 200);
    }
    cluster.nodes[1].path().set(Fault::None);
    cluster.nodes[1].path().set(Fault::Reset);
    cluster.nodes[1].path().set(Fault::None);
    cluster.nodes[1].becomes_ready();
    let (mut stream, resumed) = cluster.stream(1, "acme", &greeting.id);
    assert_eq!(resumed.name, "resumed");
    assert_eq!(next(&mut stream).id, published);
}

/// SCENARIO: a node holds keys for its window while a keepalive is due, or a stream resumes; then the client comes back
/// to another node. An id of now would say that it has the keys.
fn no_id_covers_keys_that_a_window_still_holds<B: Broker>() {
    let broker = B::start();
    let mut cluster = Cluster::new();
    cluster.add(&broker, &["--coalesce", "30s"]);
    cluster.add(&broker, &["--coalesce", "0"]);
    cluster.start_all();
    let (mut stream, _) = cluster.stream(0, "acme", "");
    cluster.publish_at(0, "acme", &["first"]);
    let first = next(&mut stream);
    assert_eq!(keys(&first), ["first"]);
    cluster.publish_at(0, "acme", &["held"]);
    cluster.catch_up();
    let (_, resumed) = cluster.stream(0, "acme", &first.id);
    let mut client = Parser::resume(first.id);
    for _ in 0..2 {
        let keepalive = stream.next();
        assert!(!keepalive.contains("held"), "the window is too short for this machine");
        client.push(keepalive.as_bytes(), |_| {}).expect("a short event");
    }
    for id in [client.last_event_id(), &resumed.id] {
        for node in [1, 0] {
            let (mut again, greeting) = cluster.stream(node, "acme", id);
            assert_eq!(greeting.name, "resumed");
            if node == 1 {
                assert!(keys(&next(&mut again)).contains(&"held".to_owned()));
            }
        }
    }
}
