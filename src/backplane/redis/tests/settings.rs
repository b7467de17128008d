//! Servers that cannot be trusted with a log, and keys that are none.

use std::time::Instant;

use super::super::super::broker::{Appender, Record};
use super::super::super::broker::{Kind, Reader};
use super::support::{
    BOUND, RedisServer, append, config, open, read_to_its_end, record, refusal, requires_redis,
};
use crate::config::RECORD_BYTES_MAX;

#[tokio::test]
async fn a_server_that_may_delete_the_log_is_refused() {
    requires_redis!();
    let server = RedisServer::start_with("maxmemory-policy allkeys-lru");
    let config = config(&server.url());
    let why = refusal(&config).await;
    assert!(why.contains("its maxmemory-policy is allkeys-lru"), "{why}");
    assert!(why.contains("CONFIG SET maxmemory-policy noeviction"), "{why}");
    // What the error says helps, and what is changed meanwhile is noticed.
    server.client().run("CONFIG SET maxmemory-policy noeviction");
    let mut opened = open(&config).await.expect("it is safe");
    server.client().run("CONFIG SET maxmemory-policy volatile-lru");
    let why = read_to_its_end(&mut opened.reader, 1).await;
    assert!(why.contains("its maxmemory-policy is volatile-lru"), "{why}");
    assert!(opened.reader.bounds().await.is_err());
}

/// SCENARIO: records come all the time, when an operator changes a setting. BUG: only a reader without a record to read looked
/// at the settings. FIX: each looks every few seconds.
#[tokio::test]
async fn a_setting_that_changes_is_noticed_while_records_come() {
    requires_redis!();
    let server = RedisServer::start();
    let mut opened = open(&config(&server.url())).await.expect("a server");
    server.client().run("CONFIG SET maxmemory-policy allkeys-lru");
    let start = Instant::now();
    let why = loop {
        let position = append(&opened.appender, [1]).await.expect("stored");
        match opened.reader.read(position).await {
            Ok(read) => assert_eq!(read.len(), 1),
            Err(down) => break down.0,
        }
        assert!(start.elapsed() < BOUND, "it reads on");
    };
    assert!(why.contains("its maxmemory-policy is allkeys-lru"), "{why}");
}

#[tokio::test]
async fn a_replica_is_refused_and_names_its_primary() {
    requires_redis!();
    let primary = RedisServer::start();
    let replica = RedisServer::start_replica(&primary);
    let why = refusal(&config(&replica.url())).await;
    let expected = format!("it is a replica; its primary is 127.0.0.1:{}", primary.port());
    assert!(why.contains(&expected), "{why}");
    open(&config(&primary.url())).await.expect("a primary");
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_left() {
    requires_redis!();
    let (server, other) = (RedisServer::start(), RedisServer::start());
    let mut opened = open(&config(&server.url())).await.expect("a primary");
    append(&opened.appender, 1..=3).await.expect("stored");
    server.client().run(&format!("REPLICAOF 127.0.0.1 {}", other.port()));
    let why = opened.appender.append(record(4)).await.expect_err("a replica");
    assert!(why.0.contains("READONLY"), "{why}");
    let why = read_to_its_end(&mut opened.reader, 4).await;
    assert!(why.contains("replica") || why.contains("UNBLOCKED"), "{why}");
    // As a primary again it has another history.
    server.client().run("REPLICAOF NO ONE");
    let why = opened.reader.bounds().await.expect_err("another history");
    assert!(why.0.contains("another history"), "{why}");
    let again = open(&config(&server.url())).await.expect("a primary");
    assert_ne!(again.bounds.identity, opened.bounds.identity);
}

#[tokio::test]
async fn a_cluster_is_refused() {
    requires_redis!();
    let server = RedisServer::start_with("cluster-enabled yes");
    let why = refusal(&config(&server.url())).await;
    assert!(why.contains("part of a Redis Cluster"), "{why}");
}

#[tokio::test]
async fn a_key_of_another_type_is_refused() {
    requires_redis!();
    let server = RedisServer::start();
    let config = config(&server.url());
    server.client().run("SET log:log x");
    let why = refusal(&config).await;
    assert!(why.contains("key log:log cannot be the log: it is no stream"), "{why}");
    server.client().run("DEL log:log");
    let opened = open(&config).await.expect("no key");
    server.client().run("SET log:log x");
    let why = opened.appender.append(record(1)).await.expect_err("no stream");
    assert!(why.0.contains("WRONGTYPE"), "{why}");
}

#[tokio::test]
async fn a_record_is_as_large_as_it_may_be() {
    requires_redis!();
    let server = RedisServer::start();
    let mut opened = open(&config(&server.url())).await.expect("a server");
    assert_eq!(opened.bounds.payload_max, RECORD_BYTES_MAX);
    let large = Record { tag: 1, kind: Kind::Lines, payload: vec![b'x'; RECORD_BYTES_MAX].into() };
    assert_eq!(opened.appender.append(large.clone()).await.expect("stored"), 1);
    assert_eq!(opened.reader.read(1).await.expect("read")[0].payload, large.payload);
}

#[tokio::test]
async fn a_memory_that_is_full_refuses_records() {
    requires_redis!();
    let server = RedisServer::start_with("maxmemory 4mb");
    let config = config(&server.url());
    let opened = open(&config).await.expect("a server");
    let large = Record { tag: 1, kind: Kind::Lines, payload: vec![b'x'; 500_000].into() };
    let mut stored = 0;
    let why = loop {
        match opened.appender.append(large.clone()).await {
            Ok(position) => stored = position,
            Err(why) => break why,
        }
        assert!(stored < 20, "it has no bound");
    };
    assert!(why.0.contains("OOM"), "{why}");
    assert_eq!(open(&config).await.expect("a server").bounds.newest, stored);
}

#[tokio::test]
async fn each_database_and_each_name_is_a_log_of_its_own() {
    requires_redis!();
    let server = RedisServer::start();
    let first = config(&server.url());
    let mut other = first.clone();
    other.log = "other".parse().expect("a name");
    let database = config(&format!("{}/5", server.url()));
    for config in [&first, &other, &database] {
        let opened = open(config).await.expect("a server");
        assert_eq!(append(&opened.appender, [1]).await.expect("stored"), 1);
    }
    let why = refusal(&config(&format!("{}/50", server.url()))).await;
    assert!(why.contains("out of range") || why.contains("database"), "{why}");
}
