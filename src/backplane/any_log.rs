//! What tests do with a log, whichever broker has it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "brokers run in real time")]

use std::time::{Duration, Instant};

use super::broker::{Appender, Broker, Down, Entry, Kind, NotStored, Opened, Reader, Record};
use super::servers::BOUND;
use crate::config::BackplaneConfig;

pub(super) fn config(url: &str) -> BackplaneConfig {
    let mut config = BackplaneConfig::new(url.parse().expect("a URL"));
    config.log = "log".parse().expect("a name");
    config
}

/// Why it cannot be opened.
pub(super) async fn refusal<B: Broker>(broker: B) -> String {
    match broker.open().await {
        Ok(opened) => panic!("opened: {:?}", opened.bounds),
        Err(Down(why)) => why,
    }
}

/// Opens it as soon as that is possible.
pub(super) async fn open_again<B: Broker>(broker: &B) -> Opened<B::Reader, B::Appender> {
    let start = Instant::now();
    loop {
        match broker.open().await {
            Ok(opened) => return opened,
            Err(Down(why)) => assert!(start.elapsed() < BOUND, "{why}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) fn record(tag: u64) -> Record {
    Record { tag, kind: Kind::Lines, payload: format!("record {tag}").into() }
}

/// Appends records with these tags, one after the other. Returns the last position.
pub(super) async fn append(
    appender: &impl Appender,
    tags: impl IntoIterator<Item = u64>,
) -> Result<u64, NotStored> {
    let mut position = 0;
    for tag in tags {
        position = appender.append(record(tag)).await?;
    }
    Ok(position)
}

/// Reads from a position until this many have come.
pub(super) async fn read(
    reader: &mut impl Reader,
    mut from: u64,
    count: usize,
) -> Result<Vec<Entry>, Down> {
    let (start, mut entries) = (Instant::now(), Vec::new());
    while entries.len() < count {
        assert!(start.elapsed() < BOUND, "only {} of {count}", entries.len());
        entries.extend(reader.read(from).await?);
        from = entries.last().map_or(from, |last: &Entry| last.position + 1);
    }
    Ok(entries)
}

/// Reads until there is an error, which has to come in time.
pub(super) async fn read_to_its_end(reader: &mut impl Reader, mut from: u64) -> String {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < BOUND, "the reader goes on at {from}");
        match reader.read(from).await {
            Ok(entries) => from = entries.last().map_or(from, |last| last.position + 1),
            Err(Down(why)) => return why,
        }
    }
}

pub(super) fn positions(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.position).collect()
}

pub(super) fn tags(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.tag).collect()
}

/// Reads what is appended meanwhile, and gives most reads up, the first one at once.
pub(super) async fn read_and_give_up<R, A>(opened: &mut Opened<R, A>)
where
    R: Reader,
    A: Appender + Sync,
{
    let appender = opened.appender.clone();
    let appending = tokio::spawn(async move { append(&appender, 1..=500).await });
    let (mut from, mut given_up) = (1, 0);
    while from <= 500 {
        let bound = Duration::from_micros(if given_up == 0 { 0 } else { fastrand::u64(0..300) });
        match tokio::time::timeout(bound, opened.reader.read(from)).await {
            Ok(entries) => {
                for entry in entries.expect("read") {
                    assert_eq!((entry.position, entry.tag), (from, from));
                    from += 1;
                }
            }
            Err(_) => given_up += 1,
        }
    }
    assert_eq!(appending.await.expect("no panic").expect("stored"), 500);
    assert!(given_up > 0, "none was");
}
