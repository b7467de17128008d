//! Brokers that die, stand still, lose what they had, and come back.

use std::fs;
use std::time::Duration;

use super::super::super::Backplane;
use super::super::super::broker::{Appender, Broker, Reader};
use super::super::super::follower::CutReason;
use super::super::Redis;
use super::support::redis::APPEND_ONLY;
use super::support::{
    RedisServer, append, config, eventually, open_again, read, read_to_its_end, record,
    requires_redis, tags,
};
use crate::config::HubConfig;
use crate::hub::Hub;
use crate::time::Clock;

#[tokio::test]
async fn a_broker_that_is_killed_has_what_its_disk_has() {
    requires_redis!();
    let mut server = RedisServer::start_with(APPEND_ONLY);
    let redis = Redis::new(&config(&server.url()));
    let mut opened = redis.open().await.expect("a server");
    append(&opened.appender, 1..=200).await.expect("stored");
    assert_eq!(read(&mut opened.reader, 1, 200).await.expect("read").len(), 200);
    server.kill();
    let why = read_to_its_end(&mut opened.reader, 201).await;
    assert!(why.contains("the connection to the broker was lost"), "{why}");
    assert!(opened.appender.append(record(201)).await.is_err());
    server.start_again();
    // What was opened before stays of no use: nothing connects again behind our back.
    for _ in 0..3 {
        let why = opened.appender.append(record(202)).await.expect_err("closed");
        assert!(why.0.contains("the connection to the broker was lost"), "{why}");
        assert!(opened.reader.bounds().await.is_err());
        assert!(opened.reader.read(201).await.is_err());
    }
    let mut again = open_again(&redis).await;
    assert_eq!((again.bounds.oldest, again.bounds.newest), (1, 200));
    assert_ne!(again.bounds.identity, opened.bounds.identity, "it may have forgotten");
    assert_eq!(tags(&read(&mut again.reader, 200, 1).await.expect("read")), [200]);
    assert_eq!(append(&again.appender, [300]).await.expect("stored"), 201);
}

#[tokio::test]
async fn a_broker_without_a_disk_begins_anew() {
    requires_redis!();
    let mut server = RedisServer::start();
    let redis = Redis::new(&config(&server.url()));
    let opened = redis.open().await.expect("a server");
    append(&opened.appender, 1..=20).await.expect("stored");
    server.stop();
    server.start_again();
    let again = open_again(&redis).await;
    assert_eq!((again.bounds.oldest, again.bounds.newest), (1, 0));
    assert_ne!(again.bounds.identity, opened.bounds.identity);
}

#[tokio::test]
async fn a_disk_that_lost_five_records_reuses_their_positions() {
    requires_redis!();
    let mut server = RedisServer::start_with(APPEND_ONLY);
    let redis = Redis::new(&config(&server.url()));
    let opened = redis.open().await.expect("a server");
    append(&opened.appender, 1..=15).await.expect("stored");
    let file = server.append_only_file();
    let shorter = fs::metadata(&file).expect("a file").len();
    append(&opened.appender, 16..=20).await.expect("stored");
    server.kill();
    fs::File::options().write(true).open(&file).expect("a file").set_len(shorter).expect("shorter");
    server.start_again();
    let mut again = open_again(&redis).await;
    assert_eq!(again.bounds.newest, 15);
    assert_ne!(again.bounds.identity, opened.bounds.identity);
    assert_eq!(append(&again.appender, 100..=105).await.expect("stored"), 21);
    // The tags differ, so no id of before is taken for one of these.
    let entries = read(&mut again.reader, 15, 7).await.expect("read");
    assert_eq!(tags(&entries), [15, 100, 101, 102, 103, 104, 105]);
}

#[tokio::test]
async fn a_broker_that_stands_still_is_left() {
    requires_redis!();
    let server = RedisServer::start();
    let mut config = config(&server.url());
    config.timeout = Duration::from_secs(1);
    let redis = Redis::new(&config);
    let mut opened = redis.open().await.expect("a server");
    append(&opened.appender, [1]).await.expect("stored");
    assert_eq!(read(&mut opened.reader, 1, 1).await.expect("read").len(), 1);
    server.pause();
    let why = opened.appender.append(record(2)).await.expect_err("no answer");
    assert!(why.0.contains("no answer in 3s"), "{why}");
    let why = read_to_its_end(&mut opened.reader, 2).await;
    assert!(why.contains("no answer in"), "{why}");
    assert!(redis.open().await.is_err(), "it does not answer");
    server.go_on();
    // The record that was not acknowledged may be there, once. Its reply is for no other request.
    for _ in 0..3 {
        assert!(opened.appender.append(record(9)).await.is_err());
        assert!(opened.reader.read(2).await.is_err());
    }
    let mut again = open_again(&redis).await;
    let position = append(&again.appender, [3]).await.expect("stored");
    assert!(position == 2 || position == 3, "{position}");
    let entries = read(&mut again.reader, 1, position as usize).await.expect("read");
    assert_eq!(tags(&entries).first(), Some(&1));
    assert_eq!(tags(&entries).last(), Some(&3));
}

/// SCENARIO: the stream is deleted while a reader waits. BUG: `XREAD` from the old head waits for ever, whatever is
/// appended. FIX: a reader that has nothing to read looks at the end of the log.
#[tokio::test]
async fn a_log_that_is_deleted_ends_its_reader() {
    requires_redis!();
    for command in ["FLUSHALL", "DEL log:log"] {
        let server = RedisServer::start();
        let redis = Redis::new(&config(&server.url()));
        let mut opened = redis.open().await.expect("a server");
        append(&opened.appender, 1..=3).await.expect("stored");
        assert_eq!(read(&mut opened.reader, 1, 3).await.expect("read").len(), 3);
        server.client().run(command);
        assert_eq!(append(&opened.appender, [4]).await.expect("stored"), 1);
        let why = read_to_its_end(&mut opened.reader, 4).await;
        assert!(why.contains("record 3 is no longer the one that was read"), "{why}");
        // Foreign records have no tag, by which the log would be recognised.
        server.client().run(command);
        let mut opened = redis.open().await.expect("a server");
        let mut client = server.client();
        (1..=3).for_each(|_| _ = client.append("log", "0-*", &["d", "{}"]));
        assert_eq!(read(&mut opened.reader, 1, 3).await.expect("read").len(), 3);
        client.run(command);
        client.append("log", "0-*", &["d", "{}"]);
        let why = read_to_its_end(&mut opened.reader, 4).await;
        assert!(why.contains("the log ends with record 1, and record 3 was read"), "{why}");
    }
}

/// A server whose log is gone cuts, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_cuts_what_the_broker_lost() {
    requires_redis!();
    let server = RedisServer::start();
    let config = config(&server.url());
    let hub = Hub::with_log(HubConfig::default(), 1, config.tail_bytes, Duration::ZERO);
    let backplane = Backplane::start(Redis::new(&config), &config, hub.clone(), Clock::start())
        .expect("a thread");
    let applied = || hub.applied().map_or(0, |mark| mark.position);
    let cuts = || {
        let reasons = [CutReason::Gap, CutReason::Forgot, CutReason::Trimmed];
        reasons.map(|reason| backplane.counters().cuts(reason)).iter().sum::<u64>()
    };
    eventually("the log is loaded", || backplane.state().is_loaded);
    for command in ["FLUSHALL", "DEL log:log"] {
        let before = cuts();
        let mut client = server.client();
        let mut last = 0;
        for _ in 0..20 {
            let id = client.append("log", "0-*", &["d", "{}"]);
            last = id.trim_start_matches("0-").parse().expect("a position");
        }
        eventually("all is applied", || applied() >= last);
        client.run(command);
        eventually("it cuts", || cuts() > before);
        eventually("it goes on", || {
            let id = client.append("log", "0-*", &["d", "{}"]);
            let position: u64 = id.trim_start_matches("0-").parse().expect("a position");
            backplane.state().is_connected && applied().abs_diff(position) < 5
        });
    }
}
