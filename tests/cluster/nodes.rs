//! Nodes that are killed, deployed anew, or stopped for a while.

use crate::harness::broker::{Broker, Form, LogClient, for_each_broker};
use crate::harness::{Cluster, size};
use crate::support::eventually;
use crate::support::server::Signal;

for_each_broker!(
    killed_nodes_cost_no_key_and_no_reread,
    a_cluster_that_was_killed_whole_resumes_every_browser,
    a_rolling_restart_under_load_is_unnoticed,
    a_node_that_slept_through_more_than_the_log_keeps_is_cut_and_no_other,
);

fn killed_nodes_cost_no_key_and_no_reread<B: Broker>() {
    let broker = B::start();
    let mut cluster = Cluster::on(&broker, 3, &[]);
    cluster.browse(12);
    cluster.publish();
    for round in 0..size(4, 100) {
        let node = round % 3;
        cluster.kill(node);
        cluster.publishers().progress(10);
        cluster.connected();
        cluster.restart(node);
        cluster.publishers().progress(10);
    }
    cluster.settle();
    assert!(cluster.counts().resumed > 0, "{:?}", cluster.counts());
    cluster.expect_no_reread();
}

/// All at once: the log is all that is left.
fn a_cluster_that_was_killed_whole_resumes_every_browser<B: Broker>() {
    let broker = B::start();
    let mut cluster = Cluster::on(&broker, 3, &[]);
    cluster.browse(12);
    cluster.publish();
    for _ in 0..size(1, 20) {
        cluster.publishers().progress(20);
        (0..3).for_each(|node| cluster.kill(node));
        (0..3).for_each(|node| cluster.restart(node));
        cluster.connected();
    }
    cluster.settle();
    assert!(cluster.counts().resumed >= 12, "{:?}", cluster.counts());
    cluster.expect_no_reread();
}

fn a_rolling_restart_under_load_is_unnoticed<B: Broker>() {
    let broker = B::start();
    let mut cluster = Cluster::on(&broker, 3, &["--drain-delay", "2s"]);
    cluster.browse(12);
    cluster.publish();
    for _ in 0..size(1, 5) {
        for node in 0..3 {
            cluster.publishers().progress(10);
            cluster.drain(node);
            cluster.restart(node);
        }
    }
    cluster.publishers().progress(10);
    let answers = cluster.settle();
    let counts = cluster.counts();
    assert_eq!((counts.opened, counts.refused), (12, 0), "{counts:?}");
    assert!(counts.resumed > 0, "{counts:?}");
    cluster.expect_no_reread();
    assert_eq!((answers.unavailable, answers.failed), (0, 0), "{answers:?}");
}

/// A node that is stopped while more passes than the log keeps. Only its own streams are cut.
fn a_node_that_slept_through_more_than_the_log_keeps_is_cut_and_no_other<B: Broker>() {
    let broker = B::start();
    let mut cluster = Cluster::on(&broker, 3, &["--backplane-tail-bytes", "1048576"]);
    for node in 0..3 {
        cluster.browse_on(Some(node), 4);
    }
    // Backends use the nodes that run.
    cluster.directory.set(2, None);
    cluster.publish();
    cluster.nodes[2].server().signal(Signal::STOP);
    let line = format!("{{\"org\":\"other\",\"keys\":[{:?}]}}\n", "a".repeat(500));
    let record = line.repeat(200 * 1024 / line.len());
    let mut client = broker.client();
    for n in 0..size(100, 1_000) {
        client.store(Form::Bare, record.as_bytes());
        // The others keep up: what they publish is answered once they have read that far.
        if n % 5 == 4 {
            [0, 1].iter().for_each(|node| _ = cluster.publish_at(*node, "other", &["a"]));
        }
    }
    let memory = cluster.nodes[0].server().memory();
    assert!(memory < 256 << 20, "{memory} bytes");
    cluster.nodes[2].server().signal(Signal::CONT);
    eventually("the node is cut", || cluster.nodes[2].cuts() > 0);
    cluster.expect_rereads_on(2);
    cluster.settle();
    for browser in &cluster.browsers {
        let rereads = browser.counts().rereads;
        assert_eq!(rereads > 0, browser.node() == Some(2), "{}", browser.trace());
    }
    assert_eq!([0, 1].map(|node| cluster.nodes[node].cuts()), [0, 0]);
}
