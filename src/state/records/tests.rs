use proptest::prelude::*;

use super::*;
use crate::hub::state::{EventState, FeedState, LogState, OrgState};
use crate::state::Record;

fn log(position: u64) -> Record {
    Record::Log(LogState { tag: 7, position })
}

fn written(records: &[Record]) -> Vec<u8> {
    let mut writer = RecordWriter::new(Vec::new());
    records.iter().for_each(|record| writer.write(record).expect("to memory"));
    writer.finish().expect("to memory")
}

fn read(bytes: &[u8]) -> Result<Vec<Record>, InvalidRecords> {
    let mut reader = RecordReader::new(bytes);
    let mut records = Vec::new();
    while let Some(record) = reader.next()? {
        records.push(record);
    }
    assert!(reader.next()?.is_none(), "it is over");
    Ok(records)
}

/// A record as another version might write it.
struct Foreign(u8, Vec<u8>);

impl Recorded for Foreign {
    fn kind(&self) -> u8 {
        self.0
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.1);
    }

    fn decode(_: u8, _: &[u8]) -> Option<Result<Self, decode::Error>> {
        None
    }
}

fn with_foreign(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut writer = RecordWriter::new(Vec::new());
    writer.write(&log(1)).expect("to memory");
    writer.write(&Foreign(kind, body.to_vec())).expect("to memory");
    writer.write(&log(2)).expect("to memory");
    writer.finish().expect("to memory")
}

#[test]
fn what_is_written_is_read() {
    let event = EventState { age_ms: 3, text: b"id: x\n\n".to_vec() };
    let member = FeedState { epoch: u64::MAX, head: 1, events: vec![event] };
    let org = OrgState {
        org: "acme".to_owned(),
        public: Some(FeedState { epoch: 5, head: 0, events: Vec::new() }),
        member,
        idle_ms: 0,
        in_use: true,
        window_ms: 50,
    };
    let records = [Record::Org(org), log(1)];
    assert_eq!(read(&written(&records)).expect("whole"), records);
    assert_eq!(read(&written(&[])).expect("whole"), []);
}

#[test]
fn every_part_of_a_sequence_is_torn() {
    let whole = written(&[log(1), log(2)]);
    for end in 0..whole.len() {
        assert!(matches!(read(&whole[..end]), Err(InvalidRecords::Truncated)), "up to {end}");
    }
    let mut longer = whole;
    longer.push(0);
    assert!(matches!(read(&longer), Err(InvalidRecords::Excess)));
}

#[test]
fn an_optional_kind_is_skipped_and_any_other_has_to_be_known() {
    assert_eq!(read(&with_foreign(128, b"no CBOR")).expect("whole"), [log(1), log(2)]);
    assert_eq!(read(&with_foreign(255, b"")).expect("whole"), [log(1), log(2)]);
    for kind in [8, 100, 127] {
        let refused = read(&with_foreign(kind, b""));
        assert!(matches!(refused, Err(InvalidRecords::Kind(k)) if k == kind), "{refused:?}");
    }
}

/// A newer version may have added an element, which an older one skips; one that is missing is an error.
#[test]
fn an_additional_element_is_skipped() {
    // LogState has two.
    let (longer, shorter) = ([0x83, 7, 9, 0x82, 1, 0x61, b'x'], [0x81, 7]);
    let mut bytes = with_foreign(kinds::LOG, &longer);
    let expected = Record::Log(LogState { tag: 7, position: 9 });
    assert_eq!(read(&bytes).expect("whole"), [log(1), expected, log(2)]);
    bytes = with_foreign(kinds::LOG, &shorter);
    assert!(matches!(read(&bytes), Err(InvalidRecords::Cbor(kinds::LOG, _))));
}

/// A length that lies costs no memory.
#[test]
fn a_length_that_is_not_there_allocates_nothing() {
    let claims = |length: u32| [&[kinds::ORG][..], &length.to_le_bytes(), b"abc"].concat();
    let mut reader = RecordReader::<_, Record>::new(io::Cursor::new(claims(RECORD_BYTES_MAX)));
    assert!(matches!(reader.next(), Err(InvalidRecords::Truncated)));
    assert!(reader.buffer.capacity() < 1_024, "{}", reader.buffer.capacity());
    let refused = read(&claims(RECORD_BYTES_MAX + 1));
    assert!(matches!(refused, Err(InvalidRecords::TooLong(kinds::ORG, _))), "{refused:?}");
}

proptest! {
    /// Of whatever is changed by a byte, the records may have been read, but the end is not reached.
    #[test]
    fn a_changed_byte_is_noticed(position in 0..usize::MAX, by in 1..=255u8) {
        let whole = written(&[log(1), log(1 << 40), log(3)]);
        let mut bytes = whole.clone();
        bytes[position % whole.len()] ^= by;
        prop_assert!(read(&bytes).is_err());
    }
}
