//! A log that becomes another one between two reads, or whose server does, and one that stays the same although its server
//! says otherwise.

use std::time::Duration;

use super::super::super::Backplane;
use super::super::super::broker::{Appender, Broker, Kind, Reader, Record};
use super::super::super::follower::CutReason;
use super::super::Redis;
use super::support::redis_client::RedisClient;
use super::support::{
    FakeSentinel, RedisServer, append, config, eventually, last_position, open, open_again,
    positions, read, read_to_its_end, record, requires_redis, tags,
};
use crate::config::HubConfig;
use crate::hub::Hub;
use crate::sync::Ordering;
use crate::time::Clock;

/// SCENARIO: the log is deleted, and has more records than before when its reader looks again: they were appended at once.
/// BUG: the next one followed the last one that had been read, so those before it were never applied, and nothing was cut.
/// FIX: each read comes with a record that was read before, whose tag shows that the log is still the same.
#[tokio::test]
async fn a_log_that_is_deleted_and_outgrows_its_reader_ends_it() {
    requires_redis!();
    for other in ["{}", "record 2"] {
        let server = RedisServer::start();
        let redis = Redis::new(&config(&server.url()));
        let mut opened = redis.open().await.expect("a server");
        append(&opened.appender, 1..=3).await.expect("stored");
        assert_eq!(read(&mut opened.reader, 1, 3).await.expect("read").len(), 3);
        let mut client = server.client();
        client.run("MULTI");
        client.run("DEL log:log");
        for _ in 0..5 {
            client.append("log", "0-*", &["d", other]);
        }
        client.run("EXEC");
        let why = read_to_its_end(&mut opened.reader, 4).await;
        assert!(why.contains("record 3 is no longer the one that was read"), "{why}");
        // What has nothing to lose reads on.
        let entries = read(&mut open_again(&redis).await.reader, 1, 5).await.expect("read");
        assert_eq!(positions(&entries), [1, 2, 3, 4, 5]);
    }
}

/// The same, as it looks to clients.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_cuts_a_log_that_outgrew_it() {
    requires_redis!();
    let server = RedisServer::start();
    let config = config(&server.url());
    let hub = Hub::with_log(HubConfig::default(), 1, config.tail_bytes, Duration::ZERO);
    let backplane = Backplane::start(Redis::new(&config), &config, hub.clone(), Clock::start())
        .expect("a thread");
    eventually("the log is loaded", || backplane.state().is_loaded);
    for round in 1..=3 {
        let cuts = || backplane.counters().cuts(CutReason::Forgot);
        // Until its barrier is back it has read nothing with a tag, and would be cut by that alone.
        let barriers = || backplane.counters().cuts(CutReason::Barrier);
        eventually("its barrier is back", || barriers() + 1 >= round);
        // Of a log that it has not read yet it would miss nothing.
        let mut client = server.client();
        client.append("log", "0-*", &["d", "{}"]);
        let last = last_position(&server);
        eventually("it is followed", || {
            let has_read = hub.applied().is_some_and(|mark| mark.position >= last);
            has_read && backplane.state().is_connected
        });
        client.run("MULTI");
        client.run("DEL log:log");
        for _ in 0..100 * round {
            client.append("log", "0-*", &["d", "{}"]);
        }
        client.run("EXEC");
        eventually("it cuts", || cuts() >= round);
    }
}

/// SCENARIO: the first replica is attached, and one leaves: an hour later (`repl-backlog-ttl`) Redis gives its history
/// another name (`master_replid`). BUG: all clients re-read each time, although nothing was lost. FIX: what counts is the run
/// of the server, and whether it has been a replica since.
#[tokio::test]
async fn a_replica_that_comes_and_goes_changes_nothing() {
    requires_redis!();
    let server = RedisServer::start_with("repl-backlog-ttl 1");
    let mut opened = open(&config(&server.url())).await.expect("a server");
    append(&opened.appender, 1..=3).await.expect("stored");
    let history = || server.client().info("master_replid");
    let before = history();
    let replica = RedisServer::start_replica(&server);
    let with_replica = history();
    assert_ne!(with_replica, before);
    drop(replica);
    eventually("the replica is forgotten", || history() != with_replica);
    assert_eq!(opened.reader.bounds().await.expect("the same").identity, opened.bounds.identity);
    let again = open(&config(&server.url())).await.expect("the same");
    assert_eq!(again.bounds.identity, opened.bounds.identity);
    assert_eq!(tags(&read(&mut opened.reader, 1, 3).await.expect("read")), [1, 2, 3]);
}

/// SCENARIO: a primary dies with five acknowledged records that its replica has not, and others get their positions before
/// this server reads on. What it has of the five is not in the log any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_reuses_positions_cuts() {
    requires_redis!();
    let mut primary = RedisServer::start();
    let replica = RedisServer::start_replica(&primary);
    let sentinel = FakeSentinel::start(primary.address());
    let config = config(&sentinel.url());
    let hub = Hub::with_log(HubConfig::default(), 1, config.tail_bytes, Duration::ZERO);
    let backplane = Backplane::start(Redis::new(&config), &config, hub.clone(), Clock::start())
        .expect("a thread");
    eventually("the log is loaded", || backplane.state().is_loaded);
    let applied = || hub.applied().map_or(0, |mark| mark.position);
    replica.wait_until_equal(&primary);
    replica.client().run("REPLICAOF NO ONE");
    let shared: u64 = last_position(&replica);
    let tagged = |client: &mut RedisClient, n: u64| {
        client.append("log", "0-*", &["v", "1", "n", &format!("{n:016x}"), "k", "lines", "d", "{}"])
    };
    let mut client = primary.client();
    (1..=5).for_each(|n| _ = tagged(&mut client, n));
    eventually("all five are applied", || applied() >= shared + 5);
    sentinel.set(replica.address());
    let mut client = replica.client();
    (11..=30).for_each(|n| _ = tagged(&mut client, n));
    let before = backplane.counters().cuts(CutReason::Forgot);
    primary.kill();
    eventually("it cuts", || backplane.counters().cuts(CutReason::Forgot) > before);
    eventually("it goes on", || {
        tagged(&mut client, fastrand::u64(100..));
        let last = last_position(&replica);
        backplane.state().is_connected && applied() >= shared + 20 && last.abs_diff(applied()) < 5
    });
}

/// SCENARIO: another program appended the newest record, which has no tag, when the connection is lost. The one before it
/// with a tag proves the log, so no client re-reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_a_tag_at_the_head_survives_a_lost_connection() {
    requires_redis!();
    let server = RedisServer::start();
    let config = config(&server.url());
    let hub = Hub::with_log(HubConfig::default(), 1, config.tail_bytes, Duration::ZERO);
    let backplane = Backplane::start(Redis::new(&config), &config, hub.clone(), Clock::start())
        .expect("a thread");
    eventually("the log is loaded", || backplane.state().is_loaded);
    let cuts = || {
        let reasons = [CutReason::Gap, CutReason::Forgot, CutReason::Trimmed, CutReason::Barrier];
        reasons.map(|reason| backplane.counters().cuts(reason)).iter().sum::<u64>()
    };
    let opens = || backplane.counters().opens.load(Ordering::Relaxed);
    eventually("it is followed", || backplane.state().is_connected);
    let cuts_before = cuts();
    for _ in 0..5 {
        let mut client = server.client();
        for _ in 0..3 {
            client.append("log", "0-*", &["d", "{}"]);
        }
        let before = opens();
        client.run("CLIENT KILL TYPE normal SKIPME yes");
        client.append("log", "0-*", &["d", "{}"]);
        let last = last_position(&server);
        eventually("it is opened again", || opens() > before);
        eventually("all is applied", || hub.applied().is_some_and(|mark| mark.position >= last));
    }
    assert_eq!(cuts(), cuts_before);
}

/// SCENARIO: records are small for a while, and then as large as they may be. BUG: as many of these were asked for as of the
/// small ones, which is more than a reply may have: the connection was lost. FIX: no more than fit in any case.
#[tokio::test]
async fn small_records_and_large_ones_come_over_one_connection() {
    requires_redis!();
    let server = RedisServer::start();
    let mut opened = open(&config(&server.url())).await.expect("a server");
    let payload = vec![b'x'; crate::config::RECORD_BYTES_MAX];
    let large = Record { tag: 1, kind: Kind::Lines, payload: payload.into() };
    append(&opened.appender, 1..=1000).await.expect("stored");
    for _ in 0..80 {
        opened.appender.append(large.clone()).await.expect("stored");
    }
    assert_eq!(read(&mut opened.reader, 1, 1080).await.expect("read").len(), 1080);
    // What the first read has shows how large records are.
    let mut again = open(&config(&server.url())).await.expect("a server");
    assert!(again.reader.read(1).await.expect("read").len() > 10);
    opened.appender.append(record(1)).await.expect("stored");
}
