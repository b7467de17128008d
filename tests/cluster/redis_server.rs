//! What can happen to a server of Redis: its connections are closed, it stands still, its memory is full, it becomes a
//! replica. Nothing is lost by that.

use crate::forgotten::published;
use crate::redis_log::browsed;
use crate::support::eventually;
use crate::support::programs::{REDIS_SERVER, requires};
use crate::support::redis::{APPEND_ONLY, RedisServer};

#[test]
fn connections_that_the_server_closes_cost_nothing() {
    requires!(REDIS_SERVER);
    let redis = RedisServer::start_with(APPEND_ONLY);
    let mut cluster = published(&redis, &[]);
    for _ in 0..4 {
        redis.client().run("CLIENT KILL TYPE normal SKIPME yes");
        cluster.publishers().progress(20);
    }
    cluster.settle();
    cluster.expect_no_reread();
    assert_eq!(cluster.counts().resumed, 0, "a stream has ended");
}

#[test]
fn a_server_that_stands_still_by_a_command_delays_and_loses_nothing() {
    requires!(REDIS_SERVER);
    let settings = format!("{APPEND_ONLY}\nenable-debug-command local");
    let redis = RedisServer::start_with(&settings);
    let mut cluster = published(&redis, &["--backplane-timeout", "1s"]);
    for command in ["CLIENT PAUSE 2500 ALL", "CLIENT PAUSE 2500 WRITE", "DEBUG SLEEP 2.5"] {
        let before = cluster.publishers().answers().unavailable;
        redis.client().run(command);
        eventually("publishes are refused", || cluster.publishers().answers().unavailable > before);
        cluster.publishers().progress(20);
    }
    cluster.settle();
    cluster.expect_no_reread();
    assert_eq!(cluster.counts().resumed, 0, "a stream has ended");
}

/// Nothing is deleted to make room, so publishes are refused, which the server's log explains.
#[test]
fn a_server_whose_memory_is_full_refuses_publishes_and_loses_nothing() {
    requires!(REDIS_SERVER);
    let redis = RedisServer::start_with(APPEND_ONLY);
    let mut cluster = published(&redis, &["--backplane-timeout", "1s"]);
    redis.client().run("CONFIG SET maxmemory 1");
    eventually("publishes are refused", || cluster.publishers().answers().unavailable > 8);
    let server = cluster.nodes[0].server();
    let answer = server.post("/api/acme/events", "application/json", r#"{"keys":["a"]}"#);
    assert_eq!(answer.status(), 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert!(answer.body.contains("\"type\":\"backplane-"), "{answer:?}");
    for node in &cluster.nodes {
        eventually("its log says why", || node.log().contains("Redis refuses XADD: OOM"));
    }
    redis.client().run("CONFIG SET maxmemory 0");
    cluster.publishers().progress(20);
    cluster.settle();
    cluster.expect_no_reread();
    assert_eq!(cluster.counts().resumed, 0, "a stream has ended");
    for node in &cluster.nodes {
        let said = |text: &str| node.log().lines().filter(|line| line.contains(text)).count();
        eventually("its log says that it is over", || said("the log is followed") == 2);
        assert_eq!(said("Redis refuses XADD: OOM"), 1, "{}", node.log());
    }
}

/// A replica would give what its primary has, and lose what is appended to it.
#[test]
fn a_replica_is_refused_and_one_that_becomes_a_replica_is_left() {
    requires!(REDIS_SERVER);
    let (redis, other) = (RedisServer::start_with(APPEND_ONLY), RedisServer::start());
    let mut cluster = browsed(&redis, &["--backplane-timeout", "1s"]);
    cluster.add(&other, &[]).start();
    cluster.nodes[3].becomes_ready();
    other.client().run(&format!("REPLICAOF 127.0.0.1 {}", redis.port()));
    eventually("it is left", || cluster.nodes[3].is_cut_off());
    let log = cluster.nodes[3].log();
    let primary = format!("it is a replica; its primary is 127.0.0.1:{}", redis.port());
    eventually("its log says why", || cluster.nodes[3].log().contains(&primary));
    cluster.add(&other, &[]).start();
    let new = cluster.nodes[4].server();
    eventually("a new node says why", || new.get("/readyz").body.contains(&primary));
    assert!(!log.contains("panicked"), "{log}");
    // The primary of the others is one no more, and is one again: it may have lost what they have.
    cluster.publish_row(0);
    redis.client().run("REPLICAOF 127.0.0.1 1");
    eventually("all are cut off", || cluster.nodes[..3].iter().all(|node| node.is_cut_off()));
    redis.client().run("REPLICAOF NO ONE");
    cluster.expect_rereads();
    cluster.finish();
}

/// SCENARIO: the first replica is attached. BUG: Redis gives its history another name (`master_replid`), and every browser
/// read everything again, although nothing was lost. FIX: what counts is the run of the server, and what it has copied.
#[test]
fn a_replica_that_comes_and_goes_is_unnoticed() {
    requires!(REDIS_SERVER);
    let redis = RedisServer::start_with(APPEND_ONLY);
    let mut cluster = published(&redis, &[]);
    let before = redis.client().info("master_replid");
    let replica = RedisServer::start_replica(&redis);
    assert_ne!(redis.client().info("master_replid"), before);
    cluster.publishers().progress(20);
    drop(replica);
    // They ask for the name again.
    redis.client().run("CLIENT KILL TYPE normal SKIPME yes");
    cluster.publishers().progress(20);
    cluster.settle();
    cluster.expect_no_reread();
}
