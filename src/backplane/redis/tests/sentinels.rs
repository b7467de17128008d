//! A primary, a replica, and the Sentinels that know which is which.

use std::time::{Duration, Instant};

use super::super::super::broker::{Appender, Broker};
use super::super::Redis;
use super::support::port::ReservedPort;
use super::support::{
    BOUND, RedisSentinels, RedisServer, append, config, eventually, open, open_again, read,
    read_to_its_end, refusal, requires_redis, tags,
};

#[tokio::test]
async fn a_sentinel_names_the_primary() {
    requires_redis!();
    let group = RedisSentinels::start();
    let opened = open(&config(&group.url())).await.expect("a primary");
    assert_eq!(append(&opened.appender, [1]).await.expect("stored"), 1);
    // One of several is enough.
    let closed = ReservedPort::new();
    let one = group.sentinels[0].address();
    let url = |service: &str| format!("redis+sentinel://{},{one}/{service}", closed.address);
    assert_eq!(open(&config(&url("main"))).await.expect("a primary").bounds.newest, 1);
    let why = refusal(&config(&url("other"))).await;
    assert!(why.contains(&format!("{one}: this Sentinel knows no other")), "{why}");
    assert!(why.contains(&format!("{}: Connection refused", closed.address)), "{why}");
    // What is no Sentinel, and what is one.
    let server = RedisServer::start();
    let why = refusal(&config(&format!("redis+sentinel://{}/main", server.address()))).await;
    assert!(why.contains("it is no Sentinel"), "{why}");
    let why = refusal(&config(&format!("redis://{one}"))).await;
    assert!(why.contains("it is a Sentinel, which redis+sentinel:// is for"), "{why}");
}

/// SCENARIO: replication stands still, and the primary dies with records that its replica has not. BUG: the replica gives
/// their positions to others, and a client with an id of the lost ones would miss what is there now. FIX: the tags
/// differ, and the identity does.
#[tokio::test]
async fn a_failover_that_reuses_positions_changes_the_identity() {
    requires_redis!();
    let mut group = RedisSentinels::start();
    let mut config = config(&group.url());
    config.timeout = Duration::from_secs(2);
    let redis = Redis::new(&config);
    let mut opened = redis.open().await.expect("a primary");
    append(&opened.appender, 1..=10).await.expect("stored");
    assert_eq!(read(&mut opened.reader, 1, 10).await.expect("read").len(), 10);
    group.servers[1].wait_until_equal(&group.servers[0]);
    group.servers[1].pause();
    append(&opened.appender, 11..=15).await.expect("stored");
    group.servers[0].kill();
    group.servers[1].go_on();
    read_to_its_end(&mut opened.reader, 11).await;
    eventually("the replica is promoted", || group.primary_of(0) == Some(1));
    let mut again = open_again(&redis).await;
    assert_ne!(again.bounds.identity, opened.bounds.identity);
    // Some of the last ones may have been on their way.
    let newest = again.bounds.newest;
    assert!((10..=15).contains(&newest), "{newest}");
    assert_eq!(append(&again.appender, 100..=105).await.expect("stored"), newest + 6);
    let entries = read(&mut again.reader, newest + 1, 6).await.expect("read");
    assert_eq!(tags(&entries), (100..=105).collect::<Vec<_>>());
}

/// Until the Sentinels agree, the old primary is named: it is asked for again and again.
#[tokio::test]
async fn every_record_that_is_acknowledged_after_a_failover_is_there() {
    requires_redis!();
    let mut group = RedisSentinels::start();
    let mut config = config(&group.url());
    config.timeout = Duration::from_secs(2);
    let redis = Redis::new(&config);
    let mut opened = open_again(&redis).await;
    append(&opened.appender, 1..=10).await.expect("stored");
    group.servers[1].wait_until_equal(&group.servers[0]);
    group.servers[0].kill();
    let start = Instant::now();
    let position = loop {
        assert!(start.elapsed() < BOUND, "nothing is stored");
        match opened.appender.append(super::support::record(11)).await {
            Ok(position) => break position,
            Err(_) => opened = open_again(&redis).await,
        }
    };
    assert_eq!(position, 11);
    assert_eq!(
        tags(&read(&mut opened.reader, 1, 11).await.expect("read")),
        (1..=11).collect::<Vec<_>>()
    );
}
