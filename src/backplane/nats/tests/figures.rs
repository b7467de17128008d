//! What a log costs. Run by hand, on an idle machine:
//! `cargo test --release --all-features --lib -- --ignored --nocapture backplane::nats::tests::figures`

use std::time::{Duration, Instant};

use super::super::super::broker::{Appender, Kind, Reader, Record};
use super::support::{NatsServer, config, open, requires_nats};

#[tokio::test]
#[ignore = "prints figures"]
async fn an_append_and_a_load() {
    requires_nats!();
    let server = NatsServer::start();
    let config = config(&server.url());
    let opened = open(&config).await.expect("created");
    let record = |len: usize| Record { tag: 1, kind: Kind::Lines, payload: vec![b'x'; len].into() };
    let mut times = Vec::new();
    for _ in 0..2000 {
        let start = Instant::now();
        opened.appender.append(record(100)).await.expect("stored");
        times.push(start.elapsed());
    }
    times.sort();
    let at = |share: f64| times[(times.len() as f64 * share) as usize];
    println!("append of 100 B: p50 {:?}, p99 {:?}, max {:?}", at(0.5), at(0.99), at(0.9995));

    for (len, total) in [(250_000, 64 << 20), (4_000, 64 << 20), (300, 64 << 20)] {
        let mut client = server.client();
        client.delete("log");
        let mut opened = open(&config).await.expect("created");
        let count = total / len;
        let appender = opened.appender.clone();
        let mut appends = tokio::task::JoinSet::new();
        for lane in 0..32 {
            let (appender, record) = (appender.clone(), record(len));
            appends.spawn(async move {
                for _ in (lane..count).step_by(32) {
                    appender.append(record.clone()).await.expect("stored");
                }
            });
        }
        let start = Instant::now();
        appends.join_all().await;
        let stored = start.elapsed();
        let (start, mut from, mut first) = (Instant::now(), 1, Duration::ZERO);
        while from <= count as u64 {
            let entries = opened.reader.read(from).await.expect("read");
            from = entries.last().expect("in time").position + 1;
            first = if first.is_zero() { start.elapsed() } else { first };
        }
        println!(
            "64 MiB of {count} records of {len} B: stored by 32 at once in {stored:?}, loaded in {:?}, the first after {first:?}",
            start.elapsed(),
        );
    }
}
