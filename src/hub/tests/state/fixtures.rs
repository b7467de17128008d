//! Version 1 of the format, as an independent encoder wrote it: it is read as the same for ever.

use proptest::prelude::*;

use crate::fuzzing::state::Any;
use crate::hub::state::{
    CountersState, DeadlineState, EventState, FeedState, KeptState, LogState, OrgState, SeatState,
    TopicState,
};
use crate::state::{InvalidRecords, Record, RecordReader, RecordWriter};

const VERSION_1: &[u8] = include_bytes!("../../../../fuzz/corpus/state/version_1");

/// The same with additional elements, and a record of an optional kind.
const NEWER: &[u8] = include_bytes!("../../../../fuzz/corpus/state/newer");

const MEMBER: u64 = 0x0123_4567_89ab_cdef;
const PUBLIC: u64 = 0xfedc_ba98_7654_3210;
const TOPIC: u64 = 0x00ff_00ff_00ff_00ff;

fn read(bytes: &[u8]) -> Result<Vec<Any>, InvalidRecords> {
    let mut reader = RecordReader::new(bytes);
    let mut records = Vec::new();
    while let Some(record) = reader.next()? {
        records.push(record);
    }
    Ok(records)
}

fn written(records: &[Any]) -> Vec<u8> {
    let mut writer = RecordWriter::new(Vec::new());
    records.iter().for_each(|record| writer.write(record).expect("to memory"));
    writer.finish().expect("to memory")
}

fn text(epoch: u64, seq: u64, lines: &str) -> Vec<u8> {
    format!("id: {epoch:016x}-{seq}\n{lines}\n\n").into_bytes()
}

fn events() -> Vec<EventState> {
    let event = |age_ms, seq, keys| EventState {
        age_ms,
        text: text(MEMBER, seq, &format!("event: invalidate\ndata: {{\"keys\":[{keys}]}}")),
    };
    vec![event(9_000, 299, r#""posts""#), event(20, 300, r#""feed:9","a""#)]
}

fn org() -> OrgState {
    OrgState {
        org: "acme".to_owned(),
        member: FeedState { epoch: MEMBER, head: 300, events: events() },
        public: Some(FeedState { epoch: PUBLIC, head: 0, events: Vec::new() }),
        idle_ms: 70_000,
        in_use: true,
        window_ms: 50,
    }
}

fn topic() -> TopicState {
    let event = |seq, bulk, age_ms, data| KeptState {
        seq,
        bulk,
        age_ms,
        text: text(TOPIC, seq, &format!("event: output\ndata: {data}")),
    };
    TopicState {
        org: "acme".to_owned(),
        topic: "run-7".to_owned(),
        epoch: TOPIC,
        head: 5,
        gone: 2,
        events: vec![
            event(1, true, 4_000, "a\ndata: b"),
            event(3, false, 3_000, r#"{"n":1}"#),
            event(5, true, 0, "c"),
        ],
        idle_ms: 100,
        in_use: false,
    }
}

fn counters() -> CountersState {
    CountersState {
        opened: vec![10, 2, 3],
        closed: vec![("client".to_owned(), vec![4, 1, 0]), ("max_age".to_owned(), vec![0, 0, 1])],
        published: 50,
        coalesced: 6,
        delivered: 40,
        keepalives: 7,
        rereads: 8,
        // They came later.
        ..CountersState::default()
    }
}

fn of_topic() -> SeatState {
    SeatState {
        org: "acme".to_owned(),
        topic: Some("run-7".to_owned()),
        public: false,
        epoch: TOPIC,
        seq: 1,
        reread: false,
        silent_ms: 1_500,
        blocked_ms: Some(2_500),
        filter: u64::MAX,
        ping: true,
        exclusive: false,
        deadlines: vec![DeadlineState { in_ms: 60_000, reason: "max_age".to_owned() }],
        expires_s: Some(1_900_000_000),
        notified: Some(2),
    }
}

fn of_org() -> SeatState {
    SeatState {
        org: "acme".to_owned(),
        topic: None,
        public: true,
        epoch: PUBLIC,
        seq: 0,
        reread: true,
        silent_ms: 0,
        blocked_ms: None,
        filter: 0x8001,
        ping: false,
        exclusive: true,
        deadlines: Vec::new(),
        expires_s: None,
        notified: None,
    }
}

fn version_1() -> Vec<Any> {
    vec![
        Any::Hub(Record::Org(org())),
        Any::Hub(Record::Topic(topic())),
        Any::Hub(Record::Counters(counters())),
        Any::Hub(Record::Log(LogState { tag: 0xa1b2_c3d4_e5f6_0718, position: 99 })),
        Any::Seat(of_topic()),
        Any::Seat(of_org()),
    ]
}

#[test]
fn version_1_is_read_as_ever() {
    assert_eq!(read(VERSION_1).expect("whole"), version_1());
    assert_eq!(read(&written(&version_1())).expect("whole"), version_1());
}

#[test]
fn what_a_newer_version_adds_is_skipped() {
    let newer_org = OrgState { public: None, in_use: false, window_ms: 0, ..org() };
    let newer_seat = SeatState { epoch: MEMBER, seq: 299, ..of_topic() };
    let expected = [Any::Hub(Record::Org(newer_org)), Any::Seat(newer_seat)];
    assert_eq!(read(NEWER).expect("whole"), expected);
}

proptest! {
    /// Whatever happened to the bytes.
    #[test]
    fn changed_bytes_do_no_harm(
        changes in prop::collection::vec((0..VERSION_1.len(), any::<u8>()), 1..8),
        end in 0..VERSION_1.len() * 2,
    ) {
        let mut bytes = VERSION_1.to_vec();
        changes.into_iter().for_each(|(at, to)| bytes[at] = to);
        bytes.truncate(end);
        crate::fuzzing::state(&bytes);
    }
}
