//! What was appended comes back, whole and in order, from wherever it is read.

use std::time::Duration;

use super::super::super::broker::{Appender, Kind, Reader, Record, VERSION};
use super::support::{
    RedisServer, append, config, open, positions, read, read_and_give_up, read_to_its_end,
    requires_redis, tags,
};

#[tokio::test]
async fn records_come_back_as_they_were_appended() {
    requires_redis!();
    let server = RedisServer::start();
    let mut opened = open(&config(&server.url())).await.expect("a server");
    assert_eq!((opened.bounds.oldest, opened.bounds.newest), (1, 0));
    let kinds = [Kind::Lines, Kind::Barrier, Kind::Beat];
    for (n, kind) in (1..).zip(kinds) {
        let record = Record { tag: n << 60, kind, payload: vec![0, b'\r', b'\n', 0xff].into() };
        assert_eq!(opened.appender.append(record).await.expect("stored"), n);
    }
    let entries = read(&mut opened.reader, 1, 3).await.expect("read");
    assert_eq!(positions(&entries), [1, 2, 3]);
    assert_eq!(tags(&entries), [1 << 60, 2 << 60, 3 << 60]);
    for (entry, kind) in entries.iter().zip(kinds) {
        assert_eq!((entry.version, entry.kind), (VERSION, Some(kind)));
        assert_eq!(&entry.payload[..], [0, b'\r', b'\n', 0xff]);
    }
    // What follows comes to the same reader, and anything to a new one.
    append(&opened.appender, 4..=5).await.expect("stored");
    assert_eq!(positions(&read(&mut opened.reader, 4, 2).await.expect("read")), [4, 5]);
    let mut again = open(&config(&server.url())).await.expect("found");
    assert_eq!((again.bounds.oldest, again.bounds.newest), (1, 5));
    assert_eq!(again.bounds.identity, opened.bounds.identity);
    assert_eq!(again.reader.bounds().await.expect("there"), again.bounds);
    for from in [5, 2, 4] {
        let entries = read(&mut again.reader, from, (6 - from) as usize).await.expect("read");
        assert_eq!(positions(&entries), (from..=5).collect::<Vec<_>>());
    }
}

/// Records by other versions of nudged rely on what is written.
#[tokio::test]
async fn a_record_is_an_entry_with_four_fields() {
    requires_redis!();
    let server = RedisServer::start();
    let opened = open(&config(&server.url())).await.expect("a server");
    let record = Record { tag: 0xab, kind: Kind::Lines, payload: "{}".into() };
    opened.appender.append(record).await.expect("stored");
    let mut entries = server.client().run("XRANGE log:log - +").items();
    let entry = entries.remove(0).items();
    assert_eq!(entry[0].text(), "0-1");
    let fields: Vec<_> =
        entry[1].clone().items().iter().map(|field| field.text().to_owned()).collect();
    assert_eq!(fields, ["v", "1", "n", "00000000000000ab", "k", "lines", "d", "{}"]);
}

#[tokio::test]
async fn a_long_log_comes_whole() {
    requires_redis!();
    let server = RedisServer::start();
    let mut opened = open(&config(&server.url())).await.expect("a server");
    // More bytes than a read may have, then more records than one may have, then bytes again.
    let large = Record { tag: 1, kind: Kind::Lines, payload: vec![b'x'; 500_000].into() };
    for _ in 0..40 {
        opened.appender.append(large.clone()).await.expect("stored");
    }
    append(&opened.appender, 41..=3000).await.expect("stored");
    for _ in 0..40 {
        opened.appender.append(large.clone()).await.expect("stored");
    }
    let (mut from, mut most) = (1, 0);
    while from <= 3040 {
        let entries = opened.reader.read(from).await.expect("read");
        most = most.max(entries.iter().map(|entry| entry.payload.len()).sum());
        for entry in entries {
            assert_eq!(entry.position, from);
            if (41..=3000).contains(&from) {
                assert_eq!(entry.tag, from);
            } else {
                assert_eq!(entry.payload, large.payload);
            }
            from += 1;
        }
    }
    assert!(most > 1_000_000, "{most}");
}

#[tokio::test]
async fn a_read_that_is_given_up_loses_nothing() {
    requires_redis!();
    let server = RedisServer::start();
    let mut opened = open(&config(&server.url())).await.expect("a server");
    read_and_give_up(&mut opened).await;
}

/// SCENARIO: reads of a silent log are given up, one after the other. Redis would answer each of them only once the one before
/// it has had its time, so the next read goes on with the first of them.
#[tokio::test]
async fn a_read_that_is_given_up_does_not_delay_the_next_ones() {
    requires_redis!();
    let server = RedisServer::start();
    let mut opened = open(&config(&server.url())).await.expect("a server");
    let mut given_up = 0;
    for _ in 0..20 {
        match tokio::time::timeout(Duration::from_millis(5), opened.reader.read(1)).await {
            // On a busy machine the first of them may have had its time.
            Ok(read) => assert_eq!(read.expect("nothing yet"), []),
            Err(_) => given_up += 1,
        }
    }
    assert!(given_up > 1, "{given_up}");
    assert_eq!(opened.reader.read(1).await.expect("nothing yet"), []);
}

#[tokio::test]
async fn a_reader_at_the_end_waits() {
    requires_redis!();
    let server = RedisServer::start();
    let mut opened = open(&config(&server.url())).await.expect("a server");
    assert_eq!(opened.reader.read(1).await.expect("nothing yet"), []);
    append(&opened.appender, [1]).await.expect("stored");
    assert_eq!(positions(&read(&mut opened.reader, 1, 1).await.expect("read")), [1]);
    for _ in 0..2 {
        assert_eq!(opened.reader.read(2).await.expect("nothing yet"), []);
    }
    // It comes to a reader that waits.
    let appender = opened.appender.clone();
    let appending = tokio::spawn(async move { append(&appender, [2]).await });
    assert_eq!(positions(&read(&mut opened.reader, 2, 1).await.expect("read")), [2]);
    appending.await.expect("no panic").expect("stored");
}

#[tokio::test]
async fn a_read_beyond_the_end_is_an_error() {
    requires_redis!();
    let server = RedisServer::start();
    let mut opened = open(&config(&server.url())).await.expect("a server");
    append(&opened.appender, 1..=3).await.expect("stored");
    let why = read_to_its_end(&mut opened.reader, 5).await;
    assert!(why.contains("the log ends with record 3, and record 4 was read"), "{why}");
    assert_eq!(positions(&read(&mut opened.reader, 1, 3).await.expect("read")), [1, 2, 3]);
}

#[tokio::test]
async fn a_reader_before_the_beginning_begins_later() {
    requires_redis!();
    let server = RedisServer::start();
    let mut opened = open(&config(&server.url())).await.expect("a server");
    append(&opened.appender, 1..=25).await.expect("stored");
    server.client().run("XTRIM log:log MINID 0-16");
    let bounds = opened.reader.bounds().await.expect("there");
    assert_eq!((bounds.oldest, bounds.newest), (16, 25));
    let entries = read(&mut opened.reader, 1, 10).await.expect("read");
    assert_eq!(positions(&entries), (16..=25).collect::<Vec<_>>());
    // Of a log without records the end is known all the same.
    server.client().run("XTRIM log:log MAXLEN 0");
    let bounds = opened.reader.bounds().await.expect("there");
    assert_eq!((bounds.oldest, bounds.newest), (26, 25));
    assert_eq!(append(&opened.appender, [26]).await.expect("stored"), 26);
}

#[tokio::test]
async fn a_hole_is_seen_by_its_positions() {
    requires_redis!();
    let server = RedisServer::start();
    let mut opened = open(&config(&server.url())).await.expect("a server");
    append(&opened.appender, 1..=5).await.expect("stored");
    server.client().run("XDEL log:log 0-3");
    let entries = read(&mut opened.reader, 1, 4).await.expect("read");
    assert_eq!(positions(&entries), [1, 2, 4, 5]);
}

/// SCENARIO: a log grows, and its servers start again and again. BUG: without a bound it fills the memory of Redis. FIX:
/// each append trims what is before the bytes that have to be kept, which are counted as they are read, and taken from
/// the size of the stream for what was there before.
#[tokio::test]
async fn a_log_has_a_length() {
    requires_redis!();
    let server = RedisServer::start();
    let mut config = config(&server.url());
    config.tail_bytes = 1024 * 1024;
    let large = |tag| Record { tag, kind: Kind::Lines, payload: vec![b'x'; 50_000].into() };
    for _ in 0..5 {
        let mut opened = open(&config).await.expect("a server");
        // With a reader it counts what it reads, and after each opening what there is.
        for _ in 0..150 {
            let position = opened.appender.append(large(1)).await.expect("stored");
            let read = read(&mut opened.reader, position, 1).await.expect("read");
            assert_eq!(read[0].position, position);
        }
        let bounds = opened.reader.bounds().await.expect("there");
        let kept = (bounds.newest - bounds.oldest + 1) * 50_000;
        assert!((4 * 1024 * 1024..6 * 1024 * 1024).contains(&kept), "{kept}");
    }
    // It is trimmed even if each server only begins, and ends.
    for tag in 0..40 {
        let opened = open(&config).await.expect("a server");
        for _ in 0..5 {
            opened.appender.append(large(tag + 1)).await.expect("stored");
        }
    }
    let bounds = open(&config).await.expect("a server").bounds;
    let kept = (bounds.newest - bounds.oldest + 1) * 50_000;
    assert!((3 * 1024 * 1024..7 * 1024 * 1024).contains(&kept), "{kept}");
}
