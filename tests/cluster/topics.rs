//! Topics travel in the same log: events, resumes, ends, and streams that take the place of others.

use crate::harness::Cluster;
use crate::harness::broker::{Broker, for_each_broker};
use crate::harness::exact::next;
use crate::support::{Stream, eventually};

for_each_broker!(
    a_topic_has_the_same_events_at_every_node_for_those_who_come_late_too,
    a_topic_that_is_deleted_at_one_node_ends_at_all,
    an_exclusive_stream_takes_the_place_of_those_at_other_nodes,
    of_exclusive_streams_that_race_exactly_one_remains,
    the_members_of_an_org_are_ended_at_every_node,
);

const RUN: &str = "/api/acme/topics/run-7/events";
const EXACT: [&str; 4] = ["--coalesce", "0", "--keepalive", "1h"];

// ===== impl Cluster =====

impl Cluster {
    /// Publishes an event of the topic at a node, whose data is this number. Returns its id.
    fn run(&self, node: usize, n: usize) -> String {
        let body = format!(r#"{{"event":"output","data":{n}}}"#);
        let answer = self.nodes[node].server().post(RUN, "application/json", &body);
        assert_eq!(answer.status(), 202, "{answer:?}");
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        body["id"].as_str().expect("an id").to_owned()
    }

    /// Opens a stream of the topic at a node, and reads the name of its first event.
    fn follow(&self, node: usize, query: &str) -> (Stream, String) {
        let mut stream = self.nodes[node].server().stream_with(&format!("{RUN}{query}"), "");
        let name = next(&mut stream).name;
        (stream, name)
    }

    fn end_run(&self, node: usize) {
        let answer = self.nodes[node].server().request(&format!(
            "DELETE {RUN} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
             content-length: 17\r\n\r\n{{\"reason\":\"done\"}}"
        ));
        assert_eq!(answer.status(), 202, "{answer:?}");
    }
}

fn expect_output(stream: &mut Stream, id: &str, n: usize) {
    let event = next(stream);
    assert_eq!((&event.name[..], &event.id[..], event.data), ("output", id, n.to_string()));
}

fn a_topic_has_the_same_events_at_every_node_for_those_who_come_late_too<B: Broker>() {
    let broker = B::start();
    let mut cluster = Cluster::on(&broker, 3, &EXACT);
    let (mut early, _) = cluster.follow(2, "");
    let ids: Vec<_> = (0..12).map(|n| cluster.run(n % 3, n)).collect();
    ids.iter().enumerate().for_each(|(n, id)| expect_output(&mut early, id, n));
    cluster.catch_up();
    // One that starts now has them from the log.
    cluster.kill(1);
    cluster.restart(1);
    for node in 0..3 {
        let (mut late, name) = cluster.follow(node, "");
        assert_eq!(name, "connected");
        ids.iter().enumerate().for_each(|(n, id)| expect_output(&mut late, id, n));
        let (mut resumed, name) = cluster.follow(node, &format!("?last_event_id={}", ids[7]));
        assert_eq!(name, "resumed");
        (8..12).for_each(|n| expect_output(&mut resumed, &ids[n], n));
        assert!(resumed.client.is_silent());
    }
}

/// When the answer to the request comes, nothing of the topic is delivered anywhere.
fn a_topic_that_is_deleted_at_one_node_ends_at_all<B: Broker>() {
    let broker = B::start();
    let cluster = Cluster::on(&broker, 3, &EXACT);
    let first = cluster.run(0, 1);
    cluster.catch_up();
    let mut streams: Vec<_> = (0..3).map(|node| cluster.follow(node, "").0).collect();
    cluster.end_run(0);
    for stream in &mut streams {
        expect_output(stream, &first, 1);
        let end = next(stream);
        assert_eq!((&end.name[..], &end.data[..]), ("closed", r#"{"reason":"done"}"#));
        assert_eq!(stream.client.read_to_end(), b"0\r\n\r\n");
    }
    cluster.catch_up();
    for node in 0..3 {
        let (stream, name) = cluster.follow(node, &format!("?last_event_id={first}"));
        assert_eq!(name, "connected", "what was kept is gone");
        assert!(stream.client.is_silent());
    }
}

fn an_exclusive_stream_takes_the_place_of_those_at_other_nodes<B: Broker>() {
    let broker = B::start();
    let cluster = Cluster::on(&broker, 3, &EXACT);
    let mut holder = cluster.follow(0, "?exclusive").0;
    for round in 0..6 {
        let (newcomer, name) = cluster.follow((round + 1) % 3, "?exclusive");
        assert_eq!(name, "connected");
        let end = next(&mut holder);
        assert_eq!((&end.name[..], &end.data[..]), ("closed", r#"{"reason":"replaced"}"#));
        holder = newcomer;
    }
    let id = cluster.run(1, 7);
    expect_output(&mut holder, &id, 7);
    eventually("it is the only one", || {
        let seats = cluster.nodes.iter().map(|node| node.server().seats());
        seats.sum::<u64>() == 1
    });
}

/// Of newcomers at all nodes at once, one remains.
fn of_exclusive_streams_that_race_exactly_one_remains<B: Broker>() {
    let broker = B::start();
    let cluster = Cluster::on(&broker, 3, &EXACT);
    for _ in 0..5 {
        let path = format!("{RUN}?exclusive");
        let streams: Vec<_> = std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for n in 0..6 {
                let (cluster, path) = (&cluster, &path);
                let open = move || cluster.nodes[n % 3].server().stream_with(path, "");
                threads.push(scope.spawn(open));
            }
            threads.into_iter().map(|thread| thread.join().expect("opened")).collect()
        });
        eventually("one remains", || {
            let seats = cluster.nodes.iter().map(|node| node.server().seats());
            seats.sum::<u64>() == 1
        });
        drop(streams);
    }
}

fn the_members_of_an_org_are_ended_at_every_node<B: Broker>() {
    let broker = B::start();
    let mut cluster = Cluster::on(&broker, 3, &[]);
    for node in 0..3 {
        cluster.browse_on(Some(node), 4);
    }
    let answer =
        cluster.nodes[1].server().request("DELETE /api/org0/events HTTP/1.1\r\nhost: test\r\n\r\n");
    assert!((200..300).contains(&answer.status()), "{answer:?}");
    eventually("its browsers come back", || cluster.counts().resumed == 3);
    cluster.expect_no_reread();
    let resumed = |n: &usize| cluster.browsers[*n].counts().resumed == 1;
    assert_eq!((0..12).filter(resumed).collect::<Vec<_>>(), [0, 4, 8]);
}
