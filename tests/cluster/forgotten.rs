//! A log that has forgotten records: deleted, replaced by an older copy, purged. Every browser reads everything again,
//! whatever positions look like afterwards.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::Cluster;
use crate::harness::exact::position;
use crate::harness::path::Fault;
use crate::support::eventually;
use crate::support::nats::NatsServer;
use crate::support::programs::{NATS_SERVER, requires};
use crate::support::temp_dir::TempDir;

const LOG: &str = "nudged";
const OTHER: &[u8] = br#"{"org":"other","keys":["a"]}"#;

// ===== impl Cluster =====

impl Cluster {
    fn fault(&self, fault: Fault) {
        self.nodes.iter().for_each(|node| node.path().set(fault));
    }

    /// Cuts every node off, has the log do something of which no node learns, and lets them come back.
    fn while_cut_off(&self, act: impl FnOnce()) {
        self.fault(Fault::Reset);
        act();
        self.fault(Fault::None);
    }

    fn expect_rereads(&self) {
        eventually("every browser reads everything again", || {
            self.browsers.iter().all(|browser| browser.counts().rereads > 0)
        });
    }

    /// An acknowledged row whose record is lost before any node has read it.
    fn write_a_row_that_nodes_do_not_see(&self, nats: &NatsServer) -> u64 {
        let (org, key) = (0, self.database.keys(0) - 1);
        let version = self.database.update(org, key);
        let line = json!({ "org": self.database.name(org), "keys": [format!("k{key}")] });
        let position = nats.client().append(LOG, "", line.to_string().as_bytes());
        self.database.acknowledge(org, key, version);
        position
    }
}

fn newest(nats: &NatsServer) -> u64 {
    nats.client().stream_info(LOG)["state"]["last_seq"].as_u64().expect("a number")
}

/// Three nodes with browsers at each, at which something has been published.
fn published(nats: &NatsServer, args: &[&str]) -> Cluster {
    let mut cluster = Cluster::on(nats, 3, args);
    (0..3).for_each(|node| cluster.browse_on(Some(node), 4));
    cluster.publish();
    cluster.publishers().progress(20);
    cluster
}

/// Deletes the log, and creates one with more records.
fn recreate_longer(nats: &NatsServer) {
    let old = newest(nats);
    let mut client = nats.client();
    client.recreate(LOG, |_| {});
    while client.append(LOG, "", OTHER) < old + 50 {}
}

/// As SignalR lost what came after a restart of its broker: the positions begin anew, and pass those that were.
#[test]
fn a_log_that_was_deleted_and_grew_past_the_old_head_is_found_out() {
    requires!(NATS_SERVER);
    for trust in [&[][..], &["--backplane-trust-disk"]] {
        let nats = NatsServer::start();
        let mut cluster = published(&nats, trust);
        cluster.while_cut_off(|| {
            cluster.write_a_row_that_nodes_do_not_see(&nats);
            recreate_longer(&nats);
        });
        cluster.expect_rereads();
        cluster.publishers().progress(20);
        cluster.settle();
    }
}

/// The same while they are connected: nothing resets a connection, and consumers fall silent.
#[test]
fn a_log_that_is_deleted_while_its_nodes_are_connected_is_found_out() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let mut cluster = published(&nats, &[]);
    recreate_longer(&nats);
    cluster.expect_rereads();
    cluster.publishers().progress(20);
    cluster.settle();
}

/// Deleted, and created by a node.
#[test]
fn a_deleted_log_is_created_again() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let mut cluster = published(&nats, &[]);
    nats.client().delete(LOG);
    cluster.expect_rereads();
    cluster.publishers().progress(20);
    cluster.settle();
}

/// Its disk is trusted, wrongly: the records that nodes have seen are other ones now.
#[test]
fn an_older_copy_of_the_store_is_found_out() {
    requires!(NATS_SERVER);
    for trust in [&["--backplane-trust-disk"][..], &[]] {
        let mut nats = NatsServer::start();
        let mut cluster = published(&nats, trust);
        nats.stop();
        let copies = TempDir::new();
        let copy = copies.path().join("store");
        copy_folder(&nats.store(), &copy);
        nats.start_again();
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
        nats.stop();
        std::fs::remove_dir_all(nats.store()).expect("a folder");
        copy_folder(&copy, &nats.store());
        nats.start_again();
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
        while nats.client().append(LOG, "", OTHER) < 100 {}
    });
    eventually("publishes are refused", || cluster.publishers().answers().unavailable > 4);
    cluster.add(&[nats.address()], &[]).start();
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
