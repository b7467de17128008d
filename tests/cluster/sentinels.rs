//! A primary that dies with records that its replica lacks: the replica gives their positions to others.

use crate::harness::Cluster;
use crate::harness::broker::{Form, LogClient};
use crate::harness::exact::position;
use crate::harness::path::{Fault, FaultyPath, Protocol};
use crate::support::eventually;
use crate::support::programs::{REDIS_SERVER, requires};
use crate::support::redis::{RedisSentinels, RedisServer};
use crate::support::server::Signal;

/// A primary, and a replica that is told of no record after [`Failover::stop_replication`].
struct Failover {
    redis: RedisSentinels,
    path: FaultyPath,
    cluster: Cluster,
}

// ===== impl Failover =====

impl Failover {
    /// Three nodes with four browsers each.
    fn start() -> Self {
        let primary = RedisServer::start();
        let path = FaultyPath::to(primary.address(), Protocol::Bytes);
        let redis = RedisSentinels::start_through(primary, path.address);
        let mut cluster = Cluster::new();
        (0..3).for_each(|_| _ = cluster.add_at(&redis.url(), &[]));
        cluster.start_all();
        (0..3).for_each(|node| cluster.browse_on(Some(node), 4));
        Self { redis, path, cluster }
    }

    /// The replica has all that there is now, and nothing that comes.
    fn stop_replication(&self) {
        let [primary, replica] = &self.redis.servers;
        self.cluster.publish_row(0);
        self.cluster.catch_up();
        replica.wait_until_equal(primary);
        self.path.set(Fault::SilentBroker);
    }

    /// Stops these nodes. What comes after this does not reach them, not even as far as their sockets.
    fn stop(&self, nodes: &[usize]) {
        nodes.iter().for_each(|node| self.cluster.nodes[*node].server().signal(Signal::STOP));
        self.redis.servers[0].client().run("CLIENT KILL TYPE normal SKIPME yes");
    }

    fn go_on(&self, nodes: &[usize]) {
        nodes.iter().for_each(|node| self.cluster.nodes[*node].server().signal(Signal::CONT));
    }

    /// The primary dies, and others append to what was its replica before any node comes back. Returns the new end.
    fn fail_over(&mut self) -> u64 {
        self.redis.kill_primary();
        eventually("the replica is promoted", || {
            let mut client = self.redis.servers[1].client();
            self.redis.primary_of(0) == Some(1) && client.info("role") == "master"
        });
        let mut client = self.redis.servers[1].client();
        let other = br#"{"org":"other","keys":["a"]}"#;
        (0..10).map(|_| client.store(Form::Marked("1", "lines"), other)).max().expect("some")
    }
}

/// One node has read the records that are lost, another some of them, one none.
#[test]
fn records_that_a_failover_lost_are_found_out_by_those_that_read_them() {
    requires!(REDIS_SERVER);
    let mut failover = Failover::start();
    failover.stop_replication();
    failover.stop(&[2]);
    let mut lost: Vec<_> = (0..3).map(|n| failover.cluster.publish_row(n % 2)).collect();
    failover.stop(&[1]);
    lost.extend((0..2).map(|_| failover.cluster.publish_row(0)));
    failover.stop(&[0]);
    let newest = failover.fail_over();
    failover.go_on(&[0, 1, 2]);
    let mut cluster = failover.cluster;
    cluster.expect_rereads();
    cluster.catch_up();
    for id in &lost {
        assert!(position(id) <= newest, "its position is one of another record");
        for node in 0..3 {
            assert_eq!(cluster.stream(node, "org0", id).1.name, "connected", "{id}");
        }
    }
    cluster.finish();
    cluster.expect_rereads_after(1);
}

/// Nobody is left that has read them: the log is the one that the others know, and nothing in it shows a loss.
#[test]
fn records_that_a_failover_lost_with_their_only_reader_are_made_up_for() {
    requires!(REDIS_SERVER);
    let mut failover = Failover::start();
    failover.stop_replication();
    failover.stop(&[1, 2]);
    let lost = failover.cluster.publish_row(0);
    eventually("the browsers of its node have it", || {
        failover.cluster.browsers[..4].iter().all(|browser| browser.lacks().is_empty())
    });
    failover.cluster.kill(0);
    let newest = failover.fail_over();
    failover.go_on(&[1, 2]);
    let mut cluster = failover.cluster;
    eventually("every browser reads everything again", || {
        cluster.browsers[4..].iter().all(|browser| browser.counts().rereads > 0)
    });
    cluster.restart(0);
    cluster.connected();
    assert!(position(&lost) <= newest, "its position is one of another record");
    for node in 0..3 {
        assert_eq!(cluster.stream(node, "org0", &lost).1.name, "connected");
    }
    cluster.finish();
    cluster.expect_one_reread_each();
}
