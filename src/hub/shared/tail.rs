//! The last records of the log that several servers share: which of their marks are known, and what they had for each
//! stream. Pure: no I/O, no clock.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::mem;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::ids::{Mark, StreamHash, spread};
use crate::time::Time;

/// Contiguous records. The lines of one stream are a chain, from its last one back.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The record before the oldest; its tag may be unknown.
    start: Mark,
    records: VecDeque<Record>,
    /// The lines of all records, in their order.
    lines: VecDeque<Line>,
    /// The number of the oldest of these lines.
    first_line: u64,
    /// The number of each stream's last line.
    last: HashMap<StreamHash, u64, Spread>,
    /// What the texts cost.
    payloads: usize,
    /// How many streams the table has room for: with each that is removed it claims to have less.
    room: usize,
    bytes_max: usize,
}

/// What a tail has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TailUse {
    /// Records.
    pub records: usize,
    /// Bytes of memory.
    pub bytes: usize,
    /// The time between the arrivals of the oldest and of the newest one.
    pub span: Duration,
}

/// What a tail has of one stream.
#[derive(Debug)]
pub(crate) struct Chain {
    /// A client that has everything up to this record has missed nothing but what follows.
    pub(crate) base: Mark,
    /// Records with lines of the stream, oldest first.
    pub(crate) records: Vec<Link>,
    /// The newest record of the log.
    pub(crate) head: Mark,
}

/// The lines of a stream in one record.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) mark: Mark,
    pub(crate) at: Time,
    payload: Bytes,
    lines: SmallVec<[Range<u32>; 1]>,
}

/// How much of a chain is wanted: what is beyond one of these is not. The newest record counts as within the bytes,
/// however long it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    pub(crate) oldest: Time,
}

#[derive(Debug)]
struct Record {
    tag: u64,
    at: Time,
    payload: Bytes,
    /// The number of its first line, or of the next record's.
    first_line: u64,
}

#[derive(Debug)]
struct Line {
    stream: StreamHash,
    start: u32,
    length: u32,
    /// How many lines before it the stream's one before is; 0 if there is none.
    back: u32,
}

/// Hashes the bits of a [`StreamHash`] again, with a random key: publishers choose names, and that hash has none.
#[derive(Clone, Copy, Debug)]
struct Spread {
    key: u64,
}

/// The key, and then the hash of one stream.
struct Spreading(u64);

/// What is allocated for a text beside its bytes, if it is not empty: the rest of its block, and that of its count.
const TEXT_COST: usize = 64;

/// An entry of the table, with its byte of control.
const ENTRY_COST: usize = size_of::<(StreamHash, u64)>() + 1;

// ===== impl Tail =====

impl Tail {
    /// An empty one of a log that begins after `start`.
    pub(crate) fn new(start: Mark, bytes_max: usize) -> Self {
        Self {
            start,
            records: VecDeque::new(),
            lines: VecDeque::new(),
            first_line: 0,
            last: HashMap::with_hasher(Spread::new()),
            payloads: 0,
            room: 0,
            bytes_max,
        }
    }

    /// Begins anew: the log goes on after `start`. Returns what there was, which may take long to free: not under a
    /// lock.
    #[must_use]
    pub(crate) fn restart(&mut self, start: Mark) -> Self {
        let new = Self::new(start, self.bytes_max);
        mem::replace(self, new)
    }

    /// Appends the next record, for which the oldest ones give way, but not the newest. `lines` are where its text has
    /// something for which streams, in their order. The text is a block of its own, and is empty if there are none.
    pub(crate) fn push(
        &mut self,
        tag: u64,
        payload: Bytes,
        lines: impl Iterator<Item = (StreamHash, Range<usize>)>,
        at: Time,
    ) {
        let first_line = self.next_line();
        for (stream, range) in lines {
            let number = self.next_line();
            let before = self.last.insert(stream, number);
            self.room = self.room.max(self.last.capacity());
            let back = before.map_or(0, |before| number - before);
            grow(&mut self.lines);
            self.lines.push_back(Line {
                stream,
                start: offset(range.start),
                length: offset(range.len()),
                // A chain that is cut here was that of a record long gone.
                back: u32::try_from(back).unwrap_or(0),
            });
        }
        self.payloads += text_cost(&payload);
        grow(&mut self.records);
        self.records.push_back(Record { tag, at, payload, first_line });
        while self.bytes() > self.bytes_max && self.records.len() > 1 {
            self.evict();
        }
    }

    /// The newest record.
    pub(crate) fn head(&self) -> Mark {
        self.mark(self.records.len())
    }

    /// Whether this very record is one of these, or the one before them.
    pub(crate) fn has(&self, mark: Mark) -> bool {
        let index = mark.position.checked_sub(self.start.position);
        let index = index.and_then(|index| usize::try_from(index).ok());
        index.is_some_and(|index| index <= self.records.len() && self.mark(index).is(mark))
    }

    /// What there is of a stream, as far as it is wanted.
    pub(crate) fn chain(&self, stream: StreamHash, extent: Extent) -> Chain {
        let (mut base, mut records, mut bytes) = (self.start, Vec::<Link>::new(), 0);
        let mut next = self.last.get(&stream).copied();
        while let Some(number) = next
            && let Some(line) = self.line(number)
        {
            let index = self.record_of(number);
            let (record, mark) = (&self.records[index], self.mark(index + 1));
            bytes += line.length as usize;
            let is_of_last = records.last().is_some_and(|last| last.mark.position == mark.position);
            let count = records.len() + usize::from(!is_of_last);
            let is_within = count <= extent.records
                && (bytes <= extent.bytes || count == 1)
                && record.at >= extent.oldest;
            if !is_within {
                // What there is of a record is all of it, or nothing.
                records.pop_if(|last| last.mark.position == mark.position);
                base = mark;
                break;
            }
            if !is_of_last {
                let payload = record.payload.clone();
                records.push(Link { mark, at: record.at, payload, lines: SmallVec::new() });
            }
            let lines = &mut records.last_mut().expect("pushed").lines;
            lines.push(line.start..line.start + line.length);
            next = (line.back != 0).then(|| number.checked_sub(u64::from(line.back))).flatten();
        }
        records.reverse();
        records.iter_mut().for_each(|link| link.lines.reverse());
        Chain { base, records, head: self.head() }
    }

    /// What it has.
    pub(crate) fn usage(&self) -> TailUse {
        let at = |record: Option<&Record>| record.map_or(0, |record| record.at.0);
        let span = at(self.records.back()).saturating_sub(at(self.records.front()));
        let (records, bytes) = (self.records.len(), self.bytes());
        TailUse { records, bytes, span: Duration::from_millis(span) }
    }

    /// Bytes of memory that it has allocated.
    fn bytes(&self) -> usize {
        let records = self.records.capacity() * size_of::<Record>();
        let lines = self.lines.capacity() * size_of::<Line>();
        // The table is never more than seven eighths full, and its size a power of two.
        let table = if self.room == 0 { 0 } else { (self.room * 8 / 7).next_power_of_two() };
        self.payloads + records + lines + table * ENTRY_COST
    }

    /// The mark of the record with this number from the oldest one on, which is 1; 0 for the one before it.
    fn mark(&self, number: usize) -> Mark {
        match number.checked_sub(1) {
            None => self.start,
            Some(index) => {
                Mark { tag: self.records[index].tag, position: self.start.position + number as u64 }
            }
        }
    }

    /// The number of the next line.
    fn next_line(&self) -> u64 {
        self.first_line + self.lines.len() as u64
    }

    fn line(&self, number: u64) -> Option<&Line> {
        self.lines.get(usize::try_from(number.checked_sub(self.first_line)?).ok()?)
    }

    /// The index of the record that has this line.
    fn record_of(&self, line: u64) -> usize {
        self.records.partition_point(|record| record.first_line <= line) - 1
    }

    /// Removes the oldest record, and gives back memory as there are fewer.
    fn evict(&mut self) {
        let start = self.mark(1);
        let Some(record) = self.records.pop_front() else { return };
        self.start = start;
        self.payloads -= text_cost(&record.payload);
        let end = self.records.front().map_or_else(|| self.next_line(), |next| next.first_line);
        while self.first_line < end
            && let Some(line) = self.lines.pop_front()
        {
            if self.last.get(&line.stream) == Some(&self.first_line) {
                self.last.remove(&line.stream);
            }
            self.first_line += 1;
        }
        give_back(&mut self.records);
        give_back(&mut self.lines);
        self.give_back_table();
    }

    /// Gives back half of the table, or more, once that leaves room for some growth.
    fn give_back_table(&mut self) {
        if self.last.len() * 8 >= self.room * 3 || self.room <= 32 {
            return;
        }
        // A new one has no traces of what was removed, so that its size is known.
        let spread = *self.last.hasher();
        let mut table = HashMap::with_capacity_and_hasher(self.last.len() * 5 / 4, spread);
        table.extend(self.last.drain());
        self.room = table.capacity();
        self.last = table;
    }
}

fn text_cost(text: &Bytes) -> usize {
    if text.is_empty() { 0 } else { text.len() + TEXT_COST }
}

/// A record is far shorter than 4 GiB.
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("within a record")
}

/// Makes room for one more. Doubling would leave half of a large list empty.
fn grow<T>(list: &mut VecDeque<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 4 + 1);
    }
}

/// Gives back memory again and again as there are fewer, so that no more than a third of a list is empty.
fn give_back<T>(list: &mut VecDeque<T>) {
    if list.len() * 3 < list.capacity() * 2 {
        list.shrink_to(list.len() * 9 / 8);
    }
}

// ===== impl Link =====

impl Link {
    /// The lines, in their order.
    pub(crate) fn lines(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.lines.iter().map(|line| &self.payload[line.start as usize..line.end as usize])
    }
}

// ===== impl Spread =====

impl Spread {
    fn new() -> Self {
        Self { key: RandomState::new().hash_one(0) }
    }
}

impl BuildHasher for Spread {
    type Hasher = Spreading;

    fn build_hasher(&self) -> Spreading {
        Spreading(self.key)
    }
}

// ===== impl Spreading =====

impl Hasher for Spreading {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a stream's hash is a number");
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = spread(self.0 ^ bits);
    }
}

#[cfg(all(test, not(nudged_loom)))]
#[path = "../tests/log_tail.rs"]
mod tests;
