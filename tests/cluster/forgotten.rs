//! A log that has forgotten records: deleted, replaced by an older copy, purged. Every browser reads everything again,
//! whatever positions look like afterwards.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::Cluster;
use crate::harness::broker::{Broker, Form, LOG, LogClient, for_each_broker};
use crate::harness::exact::position;
use crate::harness::path::Fault;
use crate::support::eventually;
use crate::support::nats::NatsServer;
use crate::support::programs::{NATS_SERVER, requires};
use crate::support::temp_dir::TempDir;

for_each_broker!(
    a_log_that_was_deleted_and_grew_past_the_old_head_is_found_out,
    a_log_that_is_deleted_while_its_nodes_are_connected_is_found_out,
    a_deleted_log_is_created_again,
    an_older_copy_of_the_store_is_found_out,
);

const OTHER: &[u8] = br#"{"org":"other","keys":["a"]}"#;

// ===== impl Cluster =====

impl Cluster {
    pub(crate) fn fault(&self, fault: Fault) {
        self.nodes.iter().for_each(|node| node.path().set(fault));
    }

    /// Cuts every node off, has the log do something of which no node learns, and lets them come back.
    pub(crate) fn while_cut_off(&self, act: impl FnOnce()) {
        self.fault(Fault::Reset);
        act();
        self.fault(Fault::None);
    }

    /// Waits until each browser of a node that was cut has re-read: a cut is spread over the window, and one that follows
    /// it spreads what is left of it anew.
    pub(crate) fn expect_rereads_on(&self, node: usize) {
        eventually("each browser of the node has re-read", || {
            let mut browsers = self.browsers.iter().filter(|browser| browser.node() == Some(node));
            browsers.all(|browser| browser.counts().rereads > 0)
        });
    }

    pub(crate) fn expect_rereads(&self) {
        eventually("every browser reads everything again", || {
            self.browsers.iter().all(|browser| browser.counts().rereads > 0)
        });
    }

    /// An acknowledged row whose record is lost before any node has read it.
    pub(crate) fn write_a_row_that_nodes_do_not_see<B: Broker>(&self, broker: &B) -> u64 {
        let (org, key) = (0, self.database.keys(0) - 1);
        let version = self.database.update(org, key);
        let line = json!({ "org": self.database.name(org), "keys": [format!("k{key}")] });
        let position = broker.client().store(Form::Bare, line.to_string().as_bytes());
        self.database.acknowledge(org, key, version);
        position
    }
}

/// Three nodes with browsers at each, at which something has been published.
pub(crate) fn published<B: Broker>(broker: &B, args: &[&str]) -> Cluster {
    let mut cluster = Cluster::on(broker, 3, args);
    (0..3).for_each(|node| cluster.browse_on(Some(node), 4));
    cluster.publish();
    cluster.publishers().progress(20);
    cluster
}

/// Deletes the log, and creates one with more records.
fn recreate_longer<B: Broker>(broker: &B) {
    let mut client = broker.client();
    let old = client.newest();
    client.recreate_log();
    while client.store(Form::Bare, OTHER) < old + 50 {}
}

/// As SignalR lost what came after a restart of its broker: the positions begin anew, and pass those that were.
fn a_log_that_was_deleted_and_grew_past_the_old_head_is_found_out<B: Broker>() {
    for trust in B::TRUSTS {
        let broker = B::start();
        let mut cluster = published(&broker, trust);
        cluster.while_cut_off(|| {
            cluster.write_a_row_that_nodes_do_not_see(&broker);
            recreate_longer(&broker);
        });
        cluster.expect_rereads();
        cluster.publishers().progress(20);
        cluster.settle();
    }
}

/// The same while they are connected: nothing resets a connection, and consumers fall silent.
fn a_log_that_is_deleted_while_its_nodes_are_connected_is_found_out<B: Broker>() {
    let broker = B::start();
    let mut cluster = published(&broker, &[]);
    recreate_longer(&broker);
    cluster.expect_rereads();
    cluster.publishers().progress(20);
    cluster.settle();
}

/// Deleted, and created by a node.
fn a_deleted_log_is_created_again<B: Broker>() {
    let broker = B::start();
    let mut cluster = published(&broker, &[]);
    broker.client().delete_log();
    cluster.expect_rereads();
    cluster.publishers().progress(20);
    cluster.settle();
}

/// Its disk is trusted, wrongly: the records that nodes have seen are other ones now.
fn an_older_copy_of_the_store_is_found_out<B: Broker>() {
    for trust in B::TRUSTS {
        let mut broker = B::start();
        let mut cluster = published(&broker, trust);
        broker.stop();
        let copies = TempDir::new();
        let copy = copies.path().join("store");
        copy_folder(&broker.files(), &copy);
        broker.start_again();
        cluster.publishers().progress(40);
        if trust.is_empty() {
            // Every node has seen this run of the broker.
            cluster.expect_rereads();
        }
        let before = cluster.counts().rereads;
        if trust.len() == 1 {
            assert_eq!(before, 0, "nothing was lost yet");
        }
        let lost = cluster.publish_at(0, "acme", &["lost"]);
        broker.stop();
        std::fs::remove_dir_all(broker.files()).expect("a folder");
        copy_folder(&copy, &broker.files());
        broker.start_again();
        eventually("every browser reads everything again", || {
            let rereads = cluster.browsers.iter().map(|browser| browser.counts().rereads);
            rereads.min() >= Some(if trust.len() == 1 { 1 } else { 2 })
        });
        // A client that was away has an id of the other history, at a position that this one has too.
        while position(&cluster.publish_at(0, "acme", &["new"])) <= position(&lost) {}
        cluster.catch_up();
        for node in 0..3 {
            assert_eq!(cluster.stream(node, "acme", &lost).1.name, "connected");
        }
        cluster.publishers().progress(20);
        cluster.settle();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.expect("cp(1)").success());
}

/// A log that an operator created without what forbids to delete records could lose some that no server has read, and
/// nothing would prove it.
#[test]
fn a_log_whose_records_can_be_deleted_is_refused() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let mut cluster = Cluster::on(&nats, 2, &["--backplane-timeout", "1s"]);
    cluster.browse(8);
    cluster.publish();
    cluster.while_cut_off(|| {
        cluster.write_a_row_that_nodes_do_not_see(&nats);
        nats.client().recreate(LOG, |config| {
            config["deny_delete"] = false.into();
            config["deny_purge"] = false.into();
        });
        while nats.client().store(Form::Bare, OTHER) < 100 {}
    });
    eventually("publishes are refused", || cluster.publishers().answers().unavailable > 4);
    cluster.add(&nats, &[]).start();
    let new = cluster.nodes[2].server();
    eventually("a new node says why it is not ready", || {
        new.get("/readyz").body.contains("deny_delete") && new.get("/livez").status() == 200
    });
    assert_eq!(cluster.counts().rereads, 0, "nothing is followed");
    nats.client().delete(LOG);
    cluster.expect_rereads();
    cluster.publishers().progress(20);
    cluster.settle();
}
