//! What outlives a process: whatever is in a file of records, restoring it and serving its streams does not panic, what was
//! restored is restored again as it is, and each stream gets what it lacks, a `connected`, or its end.

use std::task::{Poll, Waker};
use std::time::Duration;

use minicbor::decode;

use crate::config::HubConfig;
use crate::hub::state::SeatState;
use crate::hub::{Batch, Hub, Keys, SocketId};
use crate::ids::OrgName;
use crate::metrics::CloseReason;
use crate::state::{Record, RecordReader, Recorded, append, kinds};
use crate::time::{Tick, Time};
use crate::wire::{Message, Payload};

/// What the two kinds of files have, in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Any {
    Hub(Record),
    Seat(SeatState),
}

impl Recorded for Any {
    fn kind(&self) -> u8 {
        match self {
            Self::Hub(record) => record.kind(),
            Self::Seat(_) => kinds::STREAM,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hub(record) => record.encode(out),
            Self::Seat(seat) => append(seat, out),
        }
    }

    fn decode(kind: u8, body: &[u8]) -> Option<Result<Self, decode::Error>> {
        match kind {
            kinds::STREAM => Some(decode(body).map(Self::Seat)),
            _ => Some(Record::decode(kind, body)?.map(Self::Hub)),
        }
    }
}

/// Times are a week after the beginning of time.
const NOW: Time = Time(7 * 86_400_000);

/// The bytes of a file. Its records count up to where it is torn, so that no checksum has to be guessed.
pub fn state(input: &[u8]) {
    let mut reader = RecordReader::<_, Any>::new(input);
    let hub = hub();
    let mut seats = Vec::new();
    while let Ok(Some(record)) = reader.next() {
        match record {
            // An error concerns one record.
            Any::Hub(record) => _ = hub.restore(record, Duration::from_millis(5), NOW),
            Any::Seat(seat) => seats.push(seat),
        }
    }
    is_restored_again(&hub);
    serve(&hub, &seats);
}

/// Limits are small, so that some are reached.
fn hub() -> Hub {
    Hub::with_shards(
        HubConfig {
            history_events: 3,
            history_age: Duration::from_secs(86_400),
            topic_events: 2,
            topic_age: Duration::from_secs(86_400),
            topic_event_bytes_max: 200,
            event_bytes_max: 200,
            ..HubConfig::default()
        },
        2,
    )
}

fn saved(hub: &Hub) -> Vec<Record> {
    let mut records = Vec::new();
    let mut keep = |record| {
        records.push(record);
        Ok(())
    };
    hub.save(NOW, &mut keep).expect("to memory");
    records.sort_by_cached_key(|record| format!("{record:?}"));
    records
}

fn is_restored_again(hub: &Hub) {
    let (again, records) = (self::hub(), saved(hub));
    for record in &records {
        again.restore(record.clone(), Duration::ZERO, NOW).expect("what was saved is valid");
    }
    assert_eq!(saved(&again), records);
}

/// Every stream that can be served gets what is published, or `connected`.
fn serve(hub: &Hub, seats: &[SeatState]) {
    let mut streams = Vec::new();
    for (n, seat) in seats.iter().enumerate() {
        if let Ok(subscription) = hub.on_shard(n % 2).import(seat, NOW) {
            subscription.attach(SocketId(u32::try_from(n).expect("few")));
            streams.push(subscription);
        }
    }
    hub.end_restore(NOW);
    let event = Message::new("last", Payload::Text("x"), false, 1_000).expect("short");
    for stream in &streams {
        match (stream.topic(), stream.org()) {
            (None, org) => publish(hub, org),
            (Some(name), org) => {
                let topic = crate::ids::Topic { org: org.clone(), name: name.clone() };
                hub.publish_message(&topic, &event, NOW);
            }
        }
    }
    tick(hub);
    for mut stream in streams {
        let mut received = String::new();
        while let Poll::Ready(Some(frame)) = stream.poll_next(Waker::noop()) {
            received += std::str::from_utf8(frame.bytes(false)).expect("UTF-8");
        }
        // An org's stream may have a filter. Others were due to end, or stalled.
        let restarts =
            ["resolve-path", "last", "connected"].iter().any(|what| received.contains(what));
        let ends = stream.ends_for() != CloseReason::Client;
        assert!(restarts || ends || stream.topic().is_none() && received.is_empty(), "{received}");
    }
    assert_eq!(hub.seats(), 0);
}

fn publish(hub: &Hub, org: &OrgName) {
    let keys = Keys::new(["resolve-path"], hub.config()).expect("a key");
    hub.publish(org, &keys, NOW);
}

fn tick(hub: &Hub) {
    for shard in [0, 1] {
        let (driver, mut batch) = (hub.on_shard(shard).driver(), Batch::default());
        let (mut silent, mut due) = (Vec::new(), Vec::new());
        driver.tick(Tick(NOW.tick().0 + 1), &mut silent);
        driver.timers(Tick(NOW.tick().0 + 1), &mut due);
        driver.expire(Tick(1_000_000_000), &mut due);
        driver.keep_alive(&silent[..silent.len().min(32)], &mut batch);
        driver.fire(&due[..due.len().min(32)], &mut batch);
        while let Some(mut sweep) = driver.next_sweep() {
            while sweep.collect(&mut batch) {
                batch.clear();
            }
            batch.clear();
        }
    }
}
