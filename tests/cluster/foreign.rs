//! Records by others, commands, clocks, and crowds.

use serde_json::json;

use crate::harness::Cluster;
use crate::harness::broker::{Broker, Form, LogClient, for_each_broker};
use crate::harness::exact::{keys, next};
use crate::support::eventually;

for_each_broker!(
    a_record_by_a_backend_is_delivered_by_every_node,
    garbage_in_the_log_is_skipped_and_harms_no_stream,
    a_line_beyond_the_limits_of_a_node_makes_its_org_read_again,
    a_record_of_an_unknown_version_makes_every_browser_read_again,
    a_reread_of_all_reaches_the_browsers_of_every_node_once,
    a_reread_of_an_org_reaches_its_browsers_at_every_node_and_no_others,
);

const LINES: Form = Form::Marked("1", "lines");

/// Three nodes with four browsers each, while publishers publish.
fn three_nodes<B: Broker>(broker: &B) -> Cluster {
    let mut cluster = Cluster::on(broker, 3, &[]);
    for node in 0..3 {
        cluster.browse_on(Some(node), 4);
    }
    cluster.publish();
    cluster
}

/// How often each browser of the first org has read everything again.
fn rereads_of_org0(cluster: &Cluster) -> Vec<usize> {
    let browsers = cluster.browsers.iter().step_by(4);
    browsers.map(|browser| browser.counts().rereads).collect()
}

/// A backend with a client of the broker of its own appends what nudged would.
fn a_record_by_a_backend_is_delivered_by_every_node<B: Broker>() {
    let broker = B::start();
    let cluster = Cluster::on(&broker, 3, &["--keepalive", "1h", "--coalesce", "0"]);
    let mut streams: Vec<_> = (0..3).map(|node| cluster.stream(node, "acme", "").0).collect();
    let lines = "{\"org\":\"acme\",\"keys\":[\"a\",\"b\"],\"from\":\"a newer version\"}\n\
                 {\"org\":\"other\",\"keys\":[\"c\"]}\n";
    for form in [Form::Bare, LINES] {
        broker.client().store(form, lines.as_bytes());
        let events: Vec<_> = streams.iter_mut().map(next).collect();
        assert_eq!(keys(&events[0]), ["a", "b"]);
        assert!(events.iter().all(|event| *event == events[0]), "{events:?}");
        // It resumes elsewhere as any other.
        let missed = cluster.publish_at(0, "acme", &["next"]);
        streams.iter_mut().for_each(|stream| assert_eq!(next(stream).id, missed));
        let (mut stream, greeting) = cluster.stream(1, "acme", &events[0].id);
        if B::TAGS_BARE_RECORDS || form == LINES {
            assert_eq!(greeting.name, "resumed");
            assert_eq!(next(&mut stream).id, missed);
        } else {
            assert_eq!(greeting.name, "connected", "nothing tells it from another record");
        }
    }
}

fn garbage_in_the_log_is_skipped_and_harms_no_stream<B: Broker>() {
    let broker = B::start();
    let mut cluster = Cluster::on(&broker, 3, &[]);
    cluster.browse(6);
    cluster.publish();
    let mut client = broker.client();
    let long = format!("{{\"org\":\"{}\",\"keys\":[\"a\"]}}", "o".repeat(100_000));
    let nested = "[".repeat(100_000);
    for payload in [
        &b""[..],
        b"\0\xff\xfe\x80",
        b"not json\n{\"org\":\n\n\n",
        br#"{"org":"../../etc","keys":["a"]}"#,
        br#"{"org":"","keys":["a"]}"#,
        br#"{"org":7,"keys":{"a":1}}"#,
        br#"{"org":"org0"}"#,
        br#"{"org":"org0","topic":"t"}"#,
        br#"{"org":"org0","keys":[]}"#,
        br#"{"org":"org0","exclusive":true}"#,
        long.as_bytes(),
        nested.as_bytes(),
    ] {
        for form in [Form::Bare, LINES, Form::Marked("1", "beat")] {
            client.store(form, payload);
        }
    }
    client.store(Form::Marked("1", "news"), b"{}");
    broker.client().store_garbage(br#"{"org":"other","keys":["a"]}"#);
    // And a good one.
    let version = cluster.database.update(0, 19_999);
    client.store(Form::Bare, br#"{"org":"org0","keys":["k19999"]}"#);
    cluster.database.acknowledge(0, 19_999, version);
    cluster.publishers().progress(20);
    cluster.settle();
    for node in &cluster.nodes {
        let skipped = node.metrics("nudged_backplane_lines_skipped_total");
        assert!(skipped.values().sum::<f64>() > 0.0, "{skipped:?}");
    }
}

/// A line that this node's limits do not allow cannot be delivered, and must not be lost.
fn a_line_beyond_the_limits_of_a_node_makes_its_org_read_again<B: Broker>() {
    let broker = B::start();
    let mut cluster = Cluster::on(&broker, 2, &[]);
    cluster.browse(8);
    let names: Vec<_> = (0..1_000).map(|n| format!("key{n}")).collect();
    let line = json!({ "org": "org0", "keys": names }).to_string();
    broker.client().store(Form::Bare, line.as_bytes());
    eventually("the org reads again", || rereads_of_org0(&cluster) == [1, 1]);
    cluster.publish();
    cluster.publishers().progress(10);
    cluster.settle();
    assert_eq!(cluster.counts().rereads, 2, "{:?}", cluster.counts());
}

/// A newer version may mean anything.
fn a_record_of_an_unknown_version_makes_every_browser_read_again<B: Broker>() {
    let broker = B::start();
    let mut cluster = Cluster::on(&broker, 3, &[]);
    cluster.browse(12);
    cluster.publish();
    broker.client().store(Form::Marked("2", "lines"), b"\x01\x02");
    cluster.expect_one_reread_each();
    cluster.publishers().progress(20);
    cluster.settle();
    cluster.expect_one_reread_each();
}

fn a_reread_of_all_reaches_the_browsers_of_every_node_once<B: Broker>() {
    let broker = B::start();
    let mut cluster = three_nodes(&broker);
    let answer = cluster.nodes[0].server().post("/api/reread", "application/json", "");
    assert!((200..300).contains(&answer.status()), "{answer:?}");
    cluster.expect_one_reread_each();
    cluster.publishers().progress(20);
    cluster.settle();
    cluster.expect_one_reread_each();
}

fn a_reread_of_an_org_reaches_its_browsers_at_every_node_and_no_others<B: Broker>() {
    let broker = B::start();
    let mut cluster = three_nodes(&broker);
    let answer = cluster.nodes[0].server().post("/api/org0/reread", "application/json", "");
    assert!((200..300).contains(&answer.status()), "{answer:?}");
    eventually("the org reads again", || rereads_of_org0(&cluster) == [1, 1, 1]);
    cluster.publishers().progress(20);
    cluster.settle();
    assert_eq!(cluster.counts().rereads, 3, "{:?}", cluster.counts());
}
