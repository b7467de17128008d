//! A broker that dies, stops for a while, or stays away.

use std::thread::sleep;
use std::time::Duration;

use crate::harness::broker::{Broker, for_each_broker};
use crate::harness::{Cluster, size};
use crate::support::eventually;
use crate::support::nats::NatsServer;
use crate::support::programs::{NATS_SERVER, requires};

for_each_broker!(
    a_killed_broker_makes_every_browser_read_again_once_and_not_all_at_the_same_time,
    a_broker_that_stops_for_a_while_delays_and_loses_nothing,
    a_broker_that_stays_away_ends_no_stream_and_no_node,
    nodes_that_start_before_their_broker_wait_for_it,
);

const TRUST: &str = "--backplane-trust-disk";

#[test]
fn a_killed_broker_whose_disk_is_trusted_is_unnoticed() {
    requires!(NATS_SERVER);
    let mut nats = NatsServer::start();
    let mut cluster = Cluster::on(&nats, 3, &[TRUST]);
    cluster.browse(12);
    cluster.publish();
    for _ in 0..size(2, 20) {
        cluster.publishers().progress(20);
        nats.kill();
        nats.start_again();
    }
    cluster.publishers().progress(20);
    cluster.settle();
    cluster.expect_no_reread();
    assert_eq!(cluster.counts().opened, 12);
}

/// Its disk may have lost records. All nodes append a barrier, and the first one in the log counts.
fn a_killed_broker_makes_every_browser_read_again_once_and_not_all_at_the_same_time<B: Broker>() {
    let mut broker = B::start();
    let mut cluster = Cluster::on(&broker, 3, &["--reread-window", "4s"]);
    cluster.browse(24);
    cluster.publish();
    cluster.publishers().progress(20);
    broker.kill();
    broker.start_again();
    eventually("the first read again", || cluster.counts().rereads > 0);
    assert!(cluster.counts().rereads < 24, "all at once: {:?}", cluster.counts());
    cluster.expect_one_reread_each();
    cluster.publishers().progress(20);
    cluster.settle();
    cluster.expect_one_reread_each();
}

fn a_broker_that_stops_for_a_while_delays_and_loses_nothing<B: Broker>() {
    let broker = B::start();
    let mut cluster = Cluster::on(&broker, 3, &["--backplane-timeout", "1s"]);
    cluster.browse(12);
    cluster.publish();
    broker.pause();
    eventually("publishes are refused", || cluster.publishers().answers().unavailable >= 4);
    // Until the nodes have given the connections up too.
    eventually("all are cut off", || cluster.nodes.iter().all(|node| node.is_cut_off()));
    sleep(size(Duration::ZERO, Duration::from_secs(20)));
    broker.go_on();
    cluster.publishers().progress(20);
    cluster.settle();
    cluster.expect_no_reread();
}

/// Streams stay, probes are answered, publishes are refused; afterwards everything arrives.
fn a_broker_that_stays_away_ends_no_stream_and_no_node<B: Broker>() {
    let mut broker = B::start();
    let mut cluster =
        Cluster::on(&broker, 3, &[B::TRUSTS[0], &["--backplane-timeout", "1s"]].concat());
    // Another node may lack the last record that theirs has read.
    (0..3).for_each(|node| cluster.browse_on(Some(node), 4));
    cluster.publish();
    let before = cluster.counts();
    broker.kill();
    eventually("all are cut off", || cluster.nodes.iter().all(|node| node.is_cut_off()));
    // Each takes a second, and its backend waits before the next. The long run is down for minutes.
    for _ in 0..size(1, 25) {
        let refused = cluster.publishers().answers().unavailable;
        eventually("publishes are refused", || {
            cluster.publishers().answers().unavailable >= refused + 20
        });
    }
    for node in &cluster.nodes {
        assert_eq!(["/livez", "/readyz"].map(|path| node.server().get(path).status()), [200, 200]);
    }
    let after = cluster.counts();
    assert_eq!((after.resumed, after.refused), (before.resumed, 0), "a stream has ended");
    // One that comes back now resumes from what its node has.
    cluster.browsers.iter().for_each(|browser| browser.disconnect());
    eventually("all come back", || cluster.counts().resumed >= before.resumed + 12);
    broker.start_again();
    cluster.publishers().progress(20);
    cluster.settle();
    if B::TRUSTED_RESTARTS {
        cluster.expect_no_reread();
    } else {
        cluster.expect_one_reread_each();
    }
}

fn nodes_that_start_before_their_broker_wait_for_it<B: Broker>() {
    let mut broker = B::start();
    broker.stop();
    let mut cluster = Cluster::new();
    (0..3).for_each(|_| _ = cluster.add(&broker, &["--backplane-timeout", "1s"]));
    for node in &mut cluster.nodes {
        node.start();
        let answer = node.server().get("/readyz");
        assert_eq!(answer.status(), 503, "{answer:?}");
        assert_eq!(node.server().get("/livez").status(), 200);
        let answer =
            node.server().post("/api/acme/events", "application/json", r#"{"keys":["a"]}"#);
        assert_eq!(answer.status(), 503, "{answer:?}");
    }
    broker.start_again();
    for (number, node) in cluster.nodes.iter().enumerate() {
        node.becomes_ready();
        cluster.directory.set(number, Some(node.server().address()));
    }
    cluster.browse(6);
    cluster.publish();
    cluster.publishers().progress(10);
    cluster.settle();
    cluster.expect_no_reread();
}
