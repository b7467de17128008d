//! The path between a node and the broker: cut, silent, silent in one direction, slow to acknowledge. Nothing is lost,
//! and no browser has to read everything again.

use std::time::Duration;

use crate::harness::Cluster;
use crate::harness::broker::{Broker, for_each_broker};
use crate::harness::path::Fault;
use crate::support::eventually;
use crate::support::nats::NatsServer;
use crate::support::programs::{NATS_SERVER, requires};

for_each_broker!(
    a_path_that_is_reset_again_and_again_loses_nothing,
    a_node_finds_out_that_its_connection_is_half_open,
    a_node_that_is_cut_off_catches_up,
    a_node_that_receives_nothing_from_its_broker_catches_up,
    lost_acknowledgements_cost_repetitions_at_most,
    late_acknowledgements_cost_repetitions_at_most,
);

/// Three nodes with four browsers each, while backends publish at all of them.
fn start<B: Broker>(broker: &B) -> Cluster {
    let mut cluster = Cluster::on(broker, 3, &["--backplane-timeout", "1s"]);
    for node in 0..3 {
        cluster.browse_on(Some(node), 4);
    }
    cluster.publish();
    cluster
}

fn finish(mut cluster: Cluster) {
    cluster.publishers().progress(20);
    cluster.settle();
    cluster.expect_no_reread();
    assert_eq!(cluster.counts().resumed, 0, "a stream has ended: {:?}", cluster.counts());
}

fn a_path_that_is_reset_again_and_again_loses_nothing<B: Broker>() {
    let broker = B::start();
    let cluster = start(&broker);
    for round in 0..6 {
        cluster.publishers().progress(10);
        let path = cluster.nodes[round % 3].path();
        path.set(Fault::Reset);
        path.set(Fault::None);
    }
    finish(cluster);
}

/// No packet shows it: what the node appends does not come back.
fn a_node_finds_out_that_its_connection_is_half_open<B: Broker>() {
    let broker = B::start();
    let mut cluster = start(&broker);
    // It has nothing to publish either, so that only its beat can show it.
    cluster.directory.set(0, None);
    cluster.nodes[0].path().half_open();
    cluster.publishers().progress(20);
    cluster.settle();
    cluster.expect_no_reread();
}

fn a_node_that_is_cut_off_catches_up<B: Broker>() {
    let broker = B::start();
    let cluster = start(&broker);
    cluster.nodes[0].path().set(Fault::Silence);
    eventually("it notices", || cluster.nodes[0].is_cut_off());
    cluster.publishers().progress(20);
    cluster.nodes[0].path().set(Fault::None);
    finish(cluster);
}

fn a_node_that_receives_nothing_from_its_broker_catches_up<B: Broker>() {
    let broker = B::start();
    let cluster = start(&broker);
    cluster.nodes[0].path().set(Fault::SilentBroker);
    eventually("it notices", || cluster.nodes[0].is_cut_off());
    cluster.publishers().progress(20);
    cluster.nodes[0].path().set(Fault::None);
    finish(cluster);
}

/// The positions of those that arrive have holes, which are read again. NATS sends records as it has them.
#[test]
fn records_that_are_lost_on_the_way_are_missed() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let cluster = start(&nats);
    let path = cluster.nodes[0].path();
    path.set(Fault::LostRecords);
    eventually("records are lost", || path.lost() >= 5);
    path.set(Fault::None);
    finish(cluster);
}

/// A record may be stored without an acknowledgement: publishing again is harmless.
fn lost_acknowledgements_cost_repetitions_at_most<B: Broker>() {
    let broker = B::start();
    let cluster = start(&broker);
    let path = cluster.nodes[0].path();
    path.set(Fault::NoAcks);
    eventually("acknowledgements are lost", || path.acks() >= 5);
    path.set(Fault::None);
    finish(cluster);
}

fn late_acknowledgements_cost_repetitions_at_most<B: Broker>() {
    let broker = B::start();
    let cluster = start(&broker);
    let path = cluster.nodes[0].path();
    path.set(Fault::LateAcks(Duration::from_millis(2500)));
    eventually("acknowledgements are late", || path.acks() >= 3);
    path.set(Fault::None);
    finish(cluster);
}
