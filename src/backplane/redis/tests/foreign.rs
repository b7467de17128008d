//! Records by programs that are no nudged.

use super::super::super::broker::{Appender, Broker, Down, Kind, Reader, VERSION};
use super::super::Redis;
use super::super::meter::REPLY_BYTES_MAX;
use super::support::{
    RedisServer, append, config, open, open_again, positions, read, read_to_its_end, record,
    refusal, requires_redis, tags,
};

#[tokio::test]
async fn a_record_needs_no_more_than_its_lines() {
    requires_redis!();
    let server = RedisServer::start();
    let mut opened = open(&config(&server.url())).await.expect("a server");
    let mut client = server.client();
    client.append("log", "0-*", &["d", "{}"]);
    client.append("log", "0-*", &["other", "x"]);
    client.append(
        "log",
        "0-*",
        &["k", "beat", "d", "{}", "other", "x", "n", "000000000000000a", "v", "1"],
    );
    client.append("log", "0-*", &["d", ""]);
    let entries = read(&mut opened.reader, 1, 4).await.expect("read");
    assert_eq!(tags(&entries), [0, 0, 10, 0]);
    assert!(entries.iter().all(|entry| entry.version == VERSION));
    assert_eq!(entries[0].kind, Some(Kind::Lines));
    assert_eq!(entries[2].kind, Some(Kind::Beat));
    let payloads: Vec<_> = entries.iter().map(|entry| &entry.payload[..]).collect();
    assert_eq!(payloads, [b"{}".as_slice(), b"", b"{}", b""]);
}

#[tokio::test]
async fn a_record_of_another_version_keeps_its_version() {
    requires_redis!();
    let server = RedisServer::start();
    let mut opened = open(&config(&server.url())).await.expect("a server");
    let mut client = server.client();
    for version in ["2", "x", "", "-1", "4294967296"] {
        let fields = ["v", version, "n", "000000000000000b", "k", "dance", "d", "{}"];
        client.append("log", "0-*", &fields);
    }
    let entries = read(&mut opened.reader, 1, 5).await.expect("read");
    let versions: Vec<_> = entries.iter().map(|entry| entry.version).collect();
    assert_eq!(versions, [2, 0, 0, 0, 0]);
    assert!(entries.iter().all(|entry| entry.kind.is_none() && entry.tag == 11));
}

#[tokio::test]
async fn an_id_with_a_time_is_named_with_its_cure() {
    requires_redis!();
    let server = RedisServer::start();
    let config = config(&server.url());
    let mut opened = open(&config).await.expect("a server");
    append(&opened.appender, 1..=3).await.expect("stored");
    assert_eq!(read(&mut opened.reader, 1, 3).await.expect("read").len(), 3);
    let id = server.client().append("log", "*", &["d", "{}"]);
    let is_named = |why: &str| {
        assert!(why.contains("that was added with an id of another form (XADD … *)"), "{why}");
        assert!(why.contains("DEL log:log: all clients re-read once"), "{why}");
    };
    is_named(&opened.appender.append(record(4)).await.expect_err("refused").0);
    let why = read_to_its_end(&mut opened.reader, 4).await;
    is_named(&why);
    assert!(why.contains(&id), "{why}");
    let why = refusal(&config).await;
    is_named(&why);
    assert!(why.contains(&id), "{why}");
    server.client().run("DEL log:log");
    let opened = open(&config).await.expect("cured");
    assert_eq!(append(&opened.appender, [1]).await.expect("stored"), 1);
}

#[tokio::test]
async fn a_position_that_jumps_is_a_hole() {
    requires_redis!();
    let server = RedisServer::start();
    let config = config(&server.url());
    let mut opened = open(&config).await.expect("a server");
    append(&opened.appender, [1]).await.expect("stored");
    server.client().append("log", "0-1000", &["d", "{}"]);
    assert_eq!(append(&opened.appender, [2]).await.expect("stored"), 1001);
    let entries = read(&mut opened.reader, 1, 3).await.expect("read");
    assert_eq!(positions(&entries), [1, 1000, 1001]);
    // Where no log gets to.
    server.client().append("log", "0-18446744073709551615", &["d", "{}"]);
    let why = refusal(&config).await;
    assert!(why.contains("is no count of records"), "{why}");
}

/// SCENARIO: another program appends entries of 12 MB. BUG: with several of them a read is larger than its bound, after
/// each opening anew: no server reads on. FIX: they are read one by one then; one that is too large alone is named.
#[tokio::test]
async fn large_entries_of_others_are_read_one_by_one() {
    requires_redis!();
    let server = RedisServer::start();
    let redis = Redis::new(&config(&server.url()));
    let mut opened = redis.open().await.expect("a server");
    append(&opened.appender, 1..=10).await.expect("stored");
    let mut client = server.client();
    let large = "x".repeat(12_000_000);
    for _ in 0..5 {
        client.append("log", "0-*", &["d", &large]);
    }
    append(&opened.appender, 16..=20).await.expect("stored");
    let (mut from, mut losses) = (1, 0);
    while from <= 20 {
        match opened.reader.read(from).await {
            Ok(entries) => from = entries.last().map_or(from, |last| last.position + 1),
            Err(why) => {
                assert!(why.0.contains("more than was asked for"), "{why}");
                losses += 1;
                assert_eq!(losses, 1, "one by one");
                opened = open_again(&redis).await;
            }
        }
    }
    assert_eq!(losses, 1);
    let larger = "x".repeat(REPLY_BYTES_MAX);
    client.append("log", "0-*", &["d", &larger]);
    let why = read_to_its_end(&mut opened.reader, 21).await;
    if why.contains("0-21") {
        assert!(why.contains("entry 0-21 in log:log is larger than 32 MiB"), "{why}");
        assert!(why.contains("XDEL log:log 0-21"), "{why}");
    } else {
        assert!(why.contains("more than was asked for"), "{why}");
    }
    // Even to describe the log takes too much.
    let Err(Down(why)) = redis.open().await else { panic!("it has been read") };
    assert!(why.contains("the first or the last entry in log:log is larger than 32 MiB"), "{why}");
    assert!(why.contains("DEL log:log: all clients re-read once"), "{why}");
    client.run("XDEL log:log 0-21");
    assert_eq!(open_again(&redis).await.bounds.newest, 21);
}
