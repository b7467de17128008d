//! A cluster of three brokers that keeps three copies of the log.

use crate::harness::{Cluster, size};
use crate::support::eventually;
use crate::support::nats::NatsCluster;
use crate::support::programs::{NATS_SERVER, requires};

fn start(nats: &NatsCluster) -> Cluster {
    let mut cluster = Cluster::new();
    (0..3).for_each(|_| _ = cluster.add_at(&nats.url(), &["--backplane-replicas", "3"]));
    cluster.start_all();
    cluster.browse(12);
    cluster.publish();
    cluster
}

fn leader(nats: &NatsCluster) -> usize {
    let mut leader = None;
    eventually("the log has a leader and copies", || {
        leader = nats.leader_with_copies("nudged");
        leader.is_some()
    });
    leader.expect("elected")
}

#[test]
fn a_leader_that_is_killed_under_load_is_unnoticed() {
    requires!(NATS_SERVER);
    let mut nats = NatsCluster::start();
    let mut cluster = start(&nats);
    for _ in 0..size(2, 20) {
        cluster.publishers().progress(20);
        let leader = leader(&nats);
        nats.servers[leader].kill();
        cluster.publishers().progress(20);
        nats.servers[leader].start_again();
    }
    cluster.publishers().progress(20);
    cluster.settle();
    cluster.expect_no_reread();
}

/// One of three is no majority: publishes wait, and are refused.
#[test]
fn a_cluster_of_brokers_that_lost_its_majority_comes_back() {
    requires!(NATS_SERVER);
    let mut nats = NatsCluster::start();
    let mut cluster = start(&nats);
    cluster.publishers().progress(20);
    let leader = leader(&nats);
    let other = (leader + 1) % 3;
    nats.servers[leader].kill();
    nats.servers[other].kill();
    eventually("publishes are refused", || cluster.publishers().answers().unavailable > 0);
    nats.servers[leader].spawn();
    nats.servers[other].spawn();
    cluster.publishers().progress(20);
    cluster.settle();
}
