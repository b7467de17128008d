//! What can happen to a log in Redis that no other broker allows: it is emptied, trimmed, cut short or mixed up by
//! programs that may write to it. Browsers read everything again where records may have been lost, and only there.

use std::fs::{self, File};

use crate::forgotten::published;
use crate::harness::Cluster;
use crate::harness::broker::{Broker, Form, LOG, LogClient};
use crate::harness::exact::position;
use crate::harness::path::Fault;
use crate::support::eventually;
use crate::support::programs::{REDIS_SERVER, requires};
use crate::support::redis::{APPEND_ONLY, RedisServer};

const OTHER: &[u8] = br#"{"org":"other","keys":["a"]}"#;

// ===== impl Cluster =====

impl Cluster {
    /// Writes a row of the first org and publishes it at a node. Returns the id of the answer.
    pub(crate) fn publish_row(&self, node: usize) -> String {
        let key = self.database.keys(0) - 1;
        let version = self.database.update(0, key);
        let id = self.publish_at(node, self.database.name(0), &[&format!("k{key}")]);
        self.database.acknowledge(0, key, version);
        id
    }

    /// Has backends publish once more, and expects that no browser lacks anything.
    pub(crate) fn finish(&mut self) {
        self.publish();
        self.publishers().progress(20);
        self.settle();
    }

    /// No browser has read everything again more often than after so many losses: each time, each node that finds the
    /// loss at the same moment stores a barrier for the others.
    pub(crate) fn expect_rereads_after(&self, losses: usize) {
        let count = losses * (1 + self.nodes.len());
        for browser in &self.browsers {
            assert!(browser.counts().rereads <= count, "{}", browser.trace());
        }
    }
}

/// Three nodes with four browsers each.
pub(crate) fn browsed<B: Broker>(broker: &B, args: &[&str]) -> Cluster {
    let mut cluster = Cluster::on(broker, 3, args);
    (0..3).for_each(|node| cluster.browse_on(Some(node), 4));
    cluster
}

#[test]
fn a_log_that_is_flushed_or_renamed_is_found_out() {
    requires!(REDIS_SERVER);
    let redis = RedisServer::start_with(APPEND_ONLY);
    let mut cluster = published(&redis, &[]);
    for command in ["FLUSHALL", "RENAME nudged:log away"] {
        cluster.publishers().progress(20);
        let before: Vec<_> = cluster.browsers.iter().map(|b| b.counts().rereads).collect();
        redis.client().run(command);
        eventually("every browser reads everything again", || {
            cluster.browsers.iter().zip(&before).all(|(b, before)| b.counts().rereads > *before)
        });
    }
    cluster.publishers().progress(20);
    cluster.settle();
}

/// SCENARIO: while nothing is published, the log is replaced by a longer one at once, as RESTORE … REPLACE does. BUG: each
/// node read the record after its head, as if it followed, and never those before it. FIX: a read comes with a record
/// that was read before.
#[test]
fn a_log_that_is_replaced_by_a_longer_one_at_once_is_found_out() {
    requires!(REDIS_SERVER);
    let redis = RedisServer::start_with(APPEND_ONLY);
    let mut cluster = browsed(&redis, &[]);
    cluster.catch_up();
    let mut client = redis.client();
    let old = client.newest();
    let key = cluster.database.keys(0) - 1;
    let version = cluster.database.update(0, key);
    client.run("MULTI");
    client.delete_log();
    let line = format!("{{\"org\":\"org0\",\"keys\":[\"k{key}\"]}}");
    client.append(LOG, "0-*", &["d", &line]);
    for _ in 0..old + 20 {
        client.append(LOG, "0-*", &["d", "{}"]);
    }
    client.run("EXEC");
    cluster.database.acknowledge(0, key, version);
    cluster.expect_rereads();
    cluster.finish();
}

/// Only a node that had not read what is gone has lost something.
#[test]
fn what_is_trimmed_or_deleted_cuts_those_that_had_not_read_it() {
    requires!(REDIS_SERVER);
    let redis = RedisServer::start_with(APPEND_ONLY);
    let mut cluster = browsed(&redis, &[]);
    let mut client = redis.client();
    // All have read what is gone.
    let id = cluster.publish_row(1);
    let kept = cluster.publish_row(2);
    cluster.catch_up();
    client.run(&format!("XDEL nudged:log 0-{}", position(&id)));
    client.run(&format!("XTRIM nudged:log MINID 0-{}", position(&kept)));
    cluster.publish_row(0);
    cluster.catch_up();
    let cuts = |node: usize| cluster.nodes[node].cuts();
    assert_eq!([0, 1, 2].map(cuts), [0, 0, 0]);
    // One that was away has not read one in the middle, and then not what is before the last.
    for is_trimmed in [false, true] {
        let before = cuts(2);
        cluster.nodes[2].path().set(Fault::Reset);
        eventually("it is cut off", || cluster.nodes[2].is_cut_off());
        let id = cluster.publish_row(0);
        // What is published at a node is answered once it has read that far.
        let [_, _, last] = [1, 1, 0].map(|node| cluster.publish_at(node, "other", &["a"]));
        if is_trimmed {
            client.run(&format!("XTRIM nudged:log MINID 0-{}", position(&last)));
        } else {
            client.run(&format!("XDEL nudged:log 0-{}", position(&id)));
        }
        cluster.nodes[2].path().set(Fault::None);
        eventually("it is cut", || cuts(2) > before);
        cluster.catch_up();
        assert_eq!([0, 1].map(cuts), [0, 0]);
    }
    cluster.expect_rereads_on(2);
    cluster.finish();
    for browser in &cluster.browsers {
        assert_eq!(browser.counts().rereads > 0, browser.node() == Some(2), "{}", browser.trace());
    }
}

/// The last record is deleted before any node has read it: the log says that it ended with it.
#[test]
fn a_last_record_that_no_server_has_read_is_missed() {
    requires!(REDIS_SERVER);
    let redis = RedisServer::start_with(APPEND_ONLY);
    let mut cluster = browsed(&redis, &[]);
    cluster.catch_up();
    cluster.while_cut_off(|| {
        let position = cluster.write_a_row_that_nodes_do_not_see(&redis);
        redis.client().run(&format!("XDEL nudged:log 0-{position}"));
    });
    cluster.expect_rereads();
    cluster.finish();
}

/// It begins anew, and has passed the old positions when nodes come back.
#[test]
fn a_broker_without_files_that_is_started_again_has_another_log() {
    requires!(REDIS_SERVER);
    let mut redis = RedisServer::start();
    let mut cluster = published(&redis, &[]);
    redis.kill();
    redis.start_again();
    cluster.expect_rereads();
    cluster.publishers().progress(20);
    let old = redis.client().newest();
    cluster.fault(Fault::Reset);
    cluster.write_a_row_that_nodes_do_not_see(&redis);
    redis.kill();
    redis.start_again();
    let mut client = redis.client();
    while client.store(Form::Bare, OTHER) < old + 50 {}
    let before: Vec<_> = cluster.browsers.iter().map(|b| b.counts().rereads).collect();
    cluster.fault(Fault::None);
    eventually("every browser reads everything again", || {
        cluster.browsers.iter().zip(&before).all(|(b, before)| b.counts().rereads > *before)
    });
    cluster.publishers().progress(20);
    cluster.settle();
    cluster.expect_rereads_after(2);
}

/// As after a power cut with `appendfsync everysec`. The positions of five records are those of others then.
#[test]
fn a_file_that_lacks_the_last_five_records_is_found_out() {
    requires!(REDIS_SERVER);
    // Nodes have read them, or none has.
    for are_read in [true, false] {
        let mut redis = RedisServer::start_with(APPEND_ONLY);
        let mut cluster = browsed(&redis, &[]);
        cluster.catch_up();
        let file = redis.append_only_file();
        let shorter = fs::metadata(&file).expect("a file").len();
        let mut lost = Vec::new();
        if are_read {
            lost.extend((0..5).map(|n| cluster.publish_row(n % 3)));
            cluster.fault(Fault::Reset);
        } else {
            cluster.fault(Fault::Reset);
            (0..5).for_each(|_| _ = cluster.write_a_row_that_nodes_do_not_see(&redis));
        }
        redis.kill();
        File::options().write(true).open(&file).expect("a file").set_len(shorter).expect("shorter");
        redis.start_again();
        let mut client = redis.client();
        (0..10).for_each(|_| _ = client.store(Form::Marked("1", "lines"), OTHER));
        cluster.fault(Fault::None);
        cluster.expect_rereads();
        // A client that was away has an id of a lost record.
        cluster.catch_up();
        for id in &lost {
            assert!(position(id) <= client.newest());
            for node in 0..3 {
                assert_eq!(cluster.stream(node, "org0", id).1.name, "connected", "{id}");
            }
        }
        cluster.finish();
        if are_read {
            cluster.expect_rereads_after(1);
        } else {
            cluster.expect_one_reread_each();
        }
    }
}

/// `XADD key *` by another program: the numbers go on from its time, and no position can follow.
#[test]
fn an_entry_with_a_time_stops_the_log_until_it_is_deleted() {
    requires!(REDIS_SERVER);
    let redis = RedisServer::start_with(APPEND_ONLY);
    let mut cluster = Cluster::on(&redis, 3, &["--backplane-timeout", "1s"]);
    (0..3).for_each(|node| cluster.browse_on(Some(node), 4));
    cluster.publish();
    redis.client().append(LOG, "*", &["d", "{}"]);
    eventually("publishes are refused", || cluster.publishers().answers().unavailable > 4);
    cluster.add(&redis, &[]).start();
    let new = cluster.nodes[3].server();
    let says = |text: &str| text.contains("XADD … *") && text.contains("DEL nudged:log");
    eventually("a new node says why it is not ready", || says(&new.get("/readyz").body));
    for node in &cluster.nodes {
        eventually("its log says it", || says(&node.log()));
        assert_eq!(node.server().get("/livez").status(), 200);
    }
    cluster.expect_no_reread();
    assert_eq!(cluster.counts().resumed, 0, "a stream has ended");
    redis.client().delete_log();
    cluster.expect_rereads();
    cluster.publishers().progress(20);
    cluster.settle();
    cluster.nodes[3].becomes_ready();
}
