//! What was appended comes back, whole and in order, from wherever it is read.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::super::Backplane;
use super::super::super::broker::{Appender, Broker, Kind, Reader, Record, VERSION};
use super::super::super::follower::CutReason;
use super::super::Nats;
use super::super::consumer::REQUEST_BYTES;
use super::support::temp_dir::TempDir;
use super::support::{
    NatsServer, append, config, eventually, open, open_again, positions, read, read_and_give_up,
    read_to_its_end, requires_nats, tags,
};
use crate::config::HubConfig;
use crate::hub::Hub;
use crate::sync::Ordering;
use crate::time::Clock;

#[tokio::test]
async fn records_come_back_as_they_were_appended() {
    requires_nats!();
    let server = NatsServer::start();
    let mut opened = open(&config(&server.url())).await.expect("created");
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
    assert_eq!(again.reader.bounds().await.expect("there"), again.bounds);
    for from in [5, 2, 4] {
        let entries = read(&mut again.reader, from, (6 - from) as usize).await.expect("read");
        assert_eq!(positions(&entries), (from..=5).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_long_log_comes_whole() {
    requires_nats!();
    let server = NatsServer::start();
    let mut opened = open(&config(&server.url())).await.expect("created");
    // More bytes than a request may have, then more records than one may have.
    let large = Record { tag: 1, kind: Kind::Lines, payload: vec![b'x'; 500_000].into() };
    for _ in 0..40 {
        opened.appender.append(large.clone()).await.expect("stored");
    }
    append(&opened.appender, 41..=3000).await.expect("stored");
    let entries = read(&mut opened.reader, 1, 3000).await.expect("read");
    assert_eq!(positions(&entries), (1..=3000).collect::<Vec<_>>());
    assert!(entries[..40].iter().all(|entry| entry.payload == large.payload));
    assert_eq!(tags(&entries[40..]), (41..=3000).collect::<Vec<_>>());
}

/// SCENARIO: small records, then large ones. BUG: of two open requests, between which JetStream alternates, one record that
/// fitted neither ended both, and the second end counted as a record that no request can hold: the log was opened again.
/// FIX: one request is open at a time, and only one that ends without a record was too small.
#[tokio::test]
async fn a_record_that_does_not_fit_into_the_rest_of_a_request_comes_with_the_next() {
    requires_nats!();
    let server = NatsServer::start();
    let mut opened = open(&config(&server.url())).await.expect("created");
    append(&opened.appender, 1..=520).await.expect("stored");
    assert_eq!(read(&mut opened.reader, 1, 520).await.expect("read").len(), 520);
    let large = Record { tag: 1, kind: Kind::Lines, payload: vec![b'x'; 300_000].into() };
    for from in 521..=600 {
        opened.appender.append(large.clone()).await.expect("stored");
        let entries = read(&mut opened.reader, from, 1).await.expect("read");
        assert_eq!(positions(&entries), [from]);
    }
}

/// SCENARIO: some records have together exactly as many bytes as a request. BUG: JetStream ends such a request without a
/// word, and nothing was asked for again until the log was opened anew, seconds later. FIX: bytes are counted, as JetStream
/// counts them.
#[tokio::test]
async fn a_request_whose_bytes_are_used_up_exactly_is_followed_by_another() {
    requires_nats!();
    let server = NatsServer::start();
    let mut opened = open(&config(&server.url())).await.expect("created");
    let mut client = server.client();
    let (large, all) = (REQUEST_BYTES as u64 / 500_000 + 1, 100);
    let beside = |n: u64| {
        let reply = format!("$JS.ACK.log.12345678.1.{n}.{n}.1234567890123456789.{}", all - n);
        "log.log".len() + reply.len()
    };
    let mut left = REQUEST_BYTES - (1..=large).map(beside).sum::<usize>();
    for n in 1..=all {
        let len = left / (large.saturating_sub(n) as usize + 1);
        left -= len;
        client.append("log", "", &vec![b'x'; len]);
    }
    let entries = read(&mut opened.reader, 1, all as usize).await.expect("read");
    assert_eq!(positions(&entries), (1..=all).collect::<Vec<_>>());
}

/// A stream without a limit of its own, in a broker that takes large messages.
#[tokio::test]
async fn a_record_that_is_larger_than_a_request_comes() {
    requires_nats!();
    let server = NatsServer::start_with("max_payload: 16000000");
    let config = config(&server.url());
    drop(open(&config).await.expect("created"));
    let mut client = server.client();
    client.recreate("log", |config| config["max_msg_size"] = (-1).into());
    for len in [10, 9_000_000, 10, 15_000_000, 10] {
        client.append("log", "", &vec![b'x'; len]);
    }
    let mut opened = open(&config).await.expect("found");
    let entries = read(&mut opened.reader, 1, 5).await.expect("read");
    let lens: Vec<_> = entries.iter().map(|entry| entry.payload.len()).collect();
    assert_eq!(lens, [10, 9_000_000, 10, 15_000_000, 10]);
}

/// SCENARIO: the broker limits requests to fewer records than are asked for. BUG: it refused every request, and no server
/// became ready. FIX: a consumer's limit, which its creation is answered with, is kept.
#[tokio::test]
async fn a_broker_may_limit_the_records_of_a_request() {
    requires_nats!();
    let dir = TempDir::new();
    let limits = format!(
        "jetstream {{ store_dir: {:?}, limits {{ max_request_batch: 100 }} }}",
        dir.path().display().to_string()
    );
    let server = NatsServer::start_with(&limits);
    let mut opened = open(&config(&server.url())).await.expect("created");
    append(&opened.appender, 1..=350).await.expect("stored");
    let entries = read(&mut opened.reader, 1, 350).await.expect("read");
    assert_eq!(positions(&entries), (1..=350).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_read_that_is_given_up_loses_nothing() {
    requires_nats!();
    let server = NatsServer::start();
    let mut opened = open(&config(&server.url())).await.expect("created");
    read_and_give_up(&mut opened).await;
    // All of them by one consumer.
    let consumers = server.client().stream_info("log")["state"]["consumer_count"].take();
    assert_eq!(consumers, 1);
}

#[tokio::test]
async fn what_the_library_drops_is_noticed() {
    requires_nats!();
    let server = NatsServer::start();
    let mut nats = Nats::new(&config(&server.url()));
    append(&nats.open().await.expect("created").appender, 1..=1000).await.expect("stored");
    nats.messages_max = 32;
    let (mut from, mut losses) = (1, 0);
    while from <= 1000 {
        let mut opened = open_again(&nats).await;
        while let Ok(entries) = opened.reader.read(from).await {
            for entry in entries {
                assert_eq!((entry.position, entry.tag), (from, from));
                from += 1;
            }
            if from > 1000 {
                break;
            }
        }
        losses += 1;
    }
    assert!(losses > 1, "nothing was dropped");
}

/// A server reads on where messages were dropped. Without the numbers of deliveries they would look like a hole in the
/// log, at the second time, and all clients would re-read.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_library_drops_is_no_hole_in_the_log() {
    requires_nats!();
    let server = NatsServer::start();
    let config = config(&server.url());
    let mut nats = Nats::new(&config);
    append(&nats.open().await.expect("created").appender, 1..=1000).await.expect("stored");
    nats.messages_max = 200;
    let hub = Hub::with_log(HubConfig::default(), 1, config.tail_bytes, Duration::ZERO);
    let backplane = Backplane::start(nats, &config, hub.clone(), Clock::start()).expect("a thread");
    eventually("the log is loaded", || backplane.state().is_loaded);
    let counters = backplane.counters();
    assert!(counters.opens.load(Ordering::Relaxed) > 1, "nothing was dropped");
    assert!(hub.applied().is_some_and(|mark| mark.position >= 1000));
    for reason in [CutReason::Gap, CutReason::Forgot, CutReason::Trimmed] {
        assert_eq!(counters.cuts(reason), 0, "{reason:?}");
    }
}

#[tokio::test]
async fn a_reader_at_the_end_waits() {
    requires_nats!();
    let server = NatsServer::start();
    let mut opened = open(&config(&server.url())).await.expect("created");
    assert_eq!(opened.reader.read(1).await.expect("nothing yet"), []);
    append(&opened.appender, [1]).await.expect("stored");
    assert_eq!(positions(&read(&mut opened.reader, 1, 1).await.expect("read")), [1]);
    // Longer than it takes to look at the log, which has nothing either.
    for _ in 0..6 {
        assert_eq!(opened.reader.read(2).await.expect("nothing yet"), []);
    }
    append(&opened.appender, [2]).await.expect("stored");
    assert_eq!(positions(&read(&mut opened.reader, 2, 1).await.expect("read")), [2]);
}

/// SCENARIO: a reader begins beyond the end of the log, which has been replaced by a shorter one. BUG: NATS before 2.11
/// begins at the end that there is, later versions wait for ever. FIX: the end is compared, and it is an error.
#[tokio::test]
async fn a_read_beyond_the_end_is_an_error() {
    requires_nats!();
    let server = NatsServer::start();
    let mut opened = open(&config(&server.url())).await.expect("created");
    append(&opened.appender, 1..=3).await.expect("stored");
    let why = read_to_its_end(&mut opened.reader, 5).await;
    assert!(why.contains("the log ends with record 3, and record 4 was read"), "{why}");
    assert_eq!(positions(&read(&mut opened.reader, 1, 3).await.expect("read")), [1, 2, 3]);
}

#[tokio::test]
async fn a_reader_before_the_beginning_begins_later() {
    requires_nats!();
    let server = NatsServer::start();
    let config = config(&server.url());
    drop(open(&config).await.expect("created"));
    server.client().recreate("log", |config| config["max_msgs"] = 10.into());
    let mut opened = open(&config).await.expect("found");
    append(&opened.appender, 1..=25).await.expect("stored");
    let bounds = opened.reader.bounds().await.expect("there");
    assert_eq!((bounds.oldest, bounds.newest), (16, 25));
    let entries = read(&mut opened.reader, 1, 10).await.expect("read");
    assert_eq!(positions(&entries), (16..=25).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_hole_is_seen_by_its_positions() {
    requires_nats!();
    let server = NatsServer::start();
    let mut opened = open(&config(&server.url())).await.expect("created");
    let mut client = server.client();
    // Neither of both is possible in a log as it is created.
    for (call, how) in [("MSG.DELETE", json!({ "seq": 3 })), ("PURGE", json!({ "keep": 1 }))] {
        let answer =
            client.request(&format!("$JS.API.STREAM.{call}.log"), how.to_string().as_bytes());
        assert!(answer.expect("an answer").contains("not permitted"), "{call}");
    }
    client.recreate("log", |config| {
        config["deny_delete"] = false.into();
        config["deny_purge"] = false.into();
    });
    append(&opened.appender, 1..=5).await.expect("stored");
    client.api("STREAM.MSG.DELETE.log", &json!({ "seq": 3 }));
    let entries = read(&mut opened.reader, 1, 4).await.expect("read");
    assert_eq!(positions(&entries), [1, 2, 4, 5]);
    client.api("STREAM.PURGE.log", &Value::Null);
    append(&opened.appender, 6..=7).await.expect("stored");
    assert_eq!(positions(&read(&mut opened.reader, 6, 2).await.expect("read")), [6, 7]);
    client.api("STREAM.PURGE.log", &json!({ "keep": 1 }));
    let positions: BTreeSet<_> =
        positions(&read(&mut opened.reader, 2, 1).await.expect("read")).into_iter().collect();
    assert_eq!(positions, BTreeSet::from([7]));
}
