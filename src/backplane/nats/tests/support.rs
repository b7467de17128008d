//! Servers of NATS, as the tests of the program start them, and logs in them.

use std::time::{Duration, Instant};

pub(super) use super::super::super::servers::nats::{NatsCluster, NatsServer};
pub(super) use super::super::super::servers::{
    BOUND, certificate, eventually, port, programs, temp_dir,
};
use super::super::Nats;
use super::super::appender::NatsAppender;
use super::super::reader::NatsReader;
use crate::backplane::broker::{
    Appender, Broker, Down, Entry, Kind, NotStored, Opened, Reader, Record,
};
use crate::config::BackplaneConfig;

pub(crate) type Open = Opened<NatsReader, NatsAppender>;

/// Returns from a test where nats-server is not installed.
macro_rules! requires_nats {
    () => {
        if !$crate::backplane::nats::tests::support::is_installed() {
            return;
        }
    };
}
pub(super) use requires_nats;

pub(crate) fn is_installed() -> bool {
    programs::are_available(&[&programs::NATS_SERVER])
}

pub(super) fn config(url: &str) -> BackplaneConfig {
    let mut config = BackplaneConfig::new(url.parse().expect("a URL"));
    config.log = "log".parse().expect("a name");
    config
}

pub(super) async fn open(config: &BackplaneConfig) -> Result<Open, Down> {
    Nats::new(config).open().await
}

/// Why it cannot be opened.
pub(super) async fn refusal(config: &BackplaneConfig) -> String {
    match open(config).await {
        Ok(opened) => panic!("opened: {:?}", opened.bounds),
        Err(Down(why)) => why,
    }
}

/// Opens it as soon as that is possible.
pub(super) async fn open_again(nats: &Nats) -> Open {
    let start = Instant::now();
    loop {
        match nats.open().await {
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
    appender: &NatsAppender,
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
    reader: &mut NatsReader,
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
pub(super) async fn read_to_its_end(reader: &mut NatsReader, mut from: u64) -> String {
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
