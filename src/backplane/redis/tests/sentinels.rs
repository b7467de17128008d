//! A primary, a replica, and the Sentinels that know which is which.

use std::time::{Duration, Instant};

use super::super::super::broker::{Appender, Broker};
use super::super::Redis;
use super::support::certificate::Certificate;
use super::support::port::ReservedPort;
use super::support::programs::{OPENSSL, REDIS_SERVER, are_available};
use super::support::temp_dir::TempDir;
use super::support::{
    BOUND, FakeSentinel, RedisSentinels, RedisServer, append, config, eventually, open, open_again,
    read, read_to_its_end, refusal, requires_redis, tags,
};
use crate::config::BackplaneConfig;

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

/// SCENARIO: most of the Sentinels stand still. BUG: each took five seconds, which was all the time that there is. FIX: a
/// Sentinel has two.
#[tokio::test]
async fn sentinels_that_stand_still_are_passed() {
    requires_redis!();
    let group = RedisSentinels::start();
    group.sentinels[..2].iter().for_each(RedisServer::pause);
    let config = config(&group.url());
    // Whichever is asked first.
    for _ in 0..2 {
        open(&config).await.expect("a primary");
    }
    group.sentinels[2].pause();
    let why = refusal(&config).await;
    assert_eq!(why.matches("no answer in 2s").count(), 3, "{why}");
    group.sentinels.iter().for_each(RedisServer::go_on);
}

/// SCENARIO: the primary stands still, and the Sentinels still name it. BUG: it was tried once for each of them. FIX: once.
#[tokio::test]
async fn a_primary_that_stands_still_is_tried_once() {
    requires_redis!();
    let server = RedisServer::start();
    server.pause();
    let sentinels: Vec<_> = (0..3).map(|_| FakeSentinel::start(server.address())).collect();
    let addresses: Vec<_> = sentinels.iter().map(|sentinel| sentinel.address.to_string()).collect();
    let url = format!("redis+sentinel://{}/main", addresses.join(","));
    let why = refusal(&config(&url)).await;
    assert_eq!(why.matches("no answer in 5s").count(), 1, "{why}");
    let again = format!("this Sentinel names {} too", server.address());
    assert_eq!(why.matches(&again).count(), 2, "{why}");
    server.go_on();
}

/// Sentinels may ask for the login of their servers, and have no other one.
#[tokio::test]
async fn a_sentinel_may_ask_for_the_login() {
    requires_redis!();
    let server = RedisServer::start_with_password("pass");
    let monitor = format!("sentinel monitor main 127.0.0.1 {} 1", server.port());
    let sentinel = RedisServer::start_sentinel(&monitor, "pass");
    let with =
        |login: &str| config(&format!("redis+sentinel://{login}{}/main", sentinel.address()));
    let opened = open(&with(":pass@")).await.expect("the login of both");
    append(&opened.appender, [1]).await.expect("stored");
    let why = refusal(&with("")).await;
    assert!(why.contains("it asks for a login: Redis refuses SENTINEL"), "{why}");
    let why = refusal(&with(":wrong@")).await;
    assert!(
        why.contains("this Sentinel asks for a login, which has to be that of the servers"),
        "{why}"
    );
    assert!(why.contains("it refuses the user or the password"), "{why}");
    // One that asks for none gets none.
    let open_one = FakeSentinel::start(server.address());
    let url = open_one.url().replace("//", "//:pass@");
    open(&config(&url)).await.expect("the login of the server");
}

/// With TLS the certificates of the Sentinel and of the server that it names are verified, the latter for the name that it
/// gives.
#[tokio::test]
async fn sentinels_and_servers_are_encrypted_alike() {
    if !are_available(&[&REDIS_SERVER, &OPENSSL]) {
        return;
    }
    let dir = TempDir::new();
    let extensions = ["basicConstraints=critical,CA:TRUE"];
    let authority = Certificate::make_with(&extensions, &dir.path().join("trusted"), "trusted");
    let Certificate { certificate, key, .. } =
        &authority.sign(&dir.path().join("server"), "server");
    let server = RedisServer::start_with_tls(certificate, key);
    let monitor = format!("sentinel monitor main 127.0.0.1 {} 1", server.port());
    let sentinel = RedisServer::start_with_tls_and(certificate, key, &monitor);
    let with = |scheme: &str| BackplaneConfig {
        ca: Some((&authority.certificate).into()),
        ..config(&format!("{scheme}://{}/main", sentinel.address()))
    };
    let opened = open(&with("rediss+sentinel")).await.expect("trusted");
    assert_eq!(append(&opened.appender, [1]).await.expect("stored"), 1);
    // Each of both without the other.
    let why = refusal(&with("redis+sentinel")).await;
    assert!(why.contains("was lost") || why.contains("does not speak"), "{why}");
    let cleartext = RedisSentinels::start();
    let url = cleartext.url().replace("redis+", "rediss+");
    let why = refusal(&BackplaneConfig { ca: with("rediss+sentinel").ca, ..config(&url) }).await;
    assert!(why.contains("without TLS the URL is redis+sentinel://"), "{why}");
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
    group.kill_primary();
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
    group.kill_primary();
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
