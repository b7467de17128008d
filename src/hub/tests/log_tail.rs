//! The tail against a naive twin.

use proptest::prelude::*;

use super::*;
use crate::ids::Epoch;

fn stream(n: u64) -> StreamHash {
    StreamHash::of_epoch(Epoch(n))
}

/// Every record, and none of it forgotten.
#[derive(Default)]
struct Twin {
    start: Mark,
    records: Vec<(u64, Vec<u64>, Time)>,
}

impl Twin {
    fn position(&self, index: usize) -> u64 {
        self.start.position + 1 + index as u64
    }

    /// What the newest records have for a stream, the oldest first: position and lines.
    fn chain(&self, of: u64, from: usize) -> Vec<(u64, Vec<String>)> {
        let texts = |index: usize| {
            let lines =
                self.records[index].1.iter().enumerate().filter(|(_, of_line)| **of_line == of);
            lines.map(|(line, of)| text(self.position(index), line, *of)).collect::<Vec<_>>()
        };
        let records = (from..self.records.len()).map(|index| (self.position(index), texts(index)));
        records.filter(|(_, lines)| !lines.is_empty()).collect()
    }
}

/// Some are longer than the bytes of an extent.
fn text(position: u64, line: usize, of: u64) -> String {
    let length = usize::try_from(position % 7).expect("few") * 12;
    format!("{position}.{line}.{of:.<length$}")
}

fn push(tail: &mut Tail, twin: &mut Twin, tag: u64, lines: Vec<u64>, at: Time) {
    let (mut payload, mut ranges) = (String::new(), Vec::new());
    let position = twin.position(twin.records.len());
    for (line, of) in lines.iter().enumerate() {
        let start = payload.len();
        payload += &text(position, line, *of);
        ranges.push((stream(*of), start..payload.len()));
        payload += "\n";
    }
    tail.push(tag, payload.into(), ranges.into_iter(), at);
    twin.records.push((tag, lines, at));
}

fn known(tail: &Tail, position: u64, tag: u64) -> bool {
    tail.has(Mark { tag, position })
}

fn lines_of(chain: &Chain) -> Vec<(u64, Vec<String>)> {
    let texts = |link: &Link| {
        let text = |line: &[u8]| String::from_utf8(line.to_vec()).expect("UTF-8");
        link.lines().map(text).collect()
    };
    chain.records.iter().map(|link| (link.mark.position, texts(link))).collect()
}

const ALL: Extent = Extent { records: usize::MAX, bytes: usize::MAX, oldest: Time(0) };

proptest! {
    /// It knows its records and the one before them by their tags, and no others; each stream's chain is what these
    /// records have for it; and its memory is bounded.
    #[test]
    fn a_tail_is_the_end_of_the_log(
        oldest in 1..5u64,
        bytes_max in 200..4_000usize,
        records in prop::collection::vec((0..4u64, prop::collection::vec(0..4u64, 0..5)), 0..60),
        restart in 0..80usize,
        extent in (1..9usize, 1..60usize, 0..60u64),
    ) {
        let mut twin = Twin { start: Mark { tag: 0, position: oldest - 1 }, ..Twin::default() };
        let mut tail = Tail::new(twin.start, bytes_max);
        for (number, (tag, lines)) in records.into_iter().enumerate() {
            if number == restart {
                twin = Twin { start: Mark { tag: 9, position: 2 }, ..Twin::default() };
                drop(tail.restart(twin.start));
            }
            push(&mut tail, &mut twin, tag, lines, Time(number as u64));
            let count = tail.usage().records;
            let from = twin.records.len() - count;
            prop_assert!(tail.usage().bytes <= bytes_max || count == 1);
            prop_assert_eq!(tail.head().position, twin.position(twin.records.len()) - 1);
            for (index, (tag, ..)) in twin.records.iter().enumerate() {
                let is_known = *tag != 0 && index + 1 >= from;
                prop_assert_eq!(known(&tail, twin.position(index), *tag), is_known);
                prop_assert!(!known(&tail, twin.position(index), tag + 1));
            }
            prop_assert!(!known(&tail, tail.head().position + 1, 1));
            for of in 0..4 {
                let chain = tail.chain(stream(of), ALL);
                prop_assert_eq!(lines_of(&chain), twin.chain(of, from));
                prop_assert_eq!(chain.base.position, twin.position(from) - 1);
                let (records, bytes, oldest) = extent;
                let some = tail.chain(stream(of), Extent { records, bytes, oldest: Time(oldest) });
                let (all, some_lines) = (lines_of(&chain), lines_of(&some));
                prop_assert!(all.ends_with(&some_lines), "{:?} of {:?}", some_lines, all);
                let base = match all.len() - some_lines.len() {
                    0 => chain.base.position,
                    left => all[left - 1].0,
                };
                prop_assert_eq!(some.base.position, base, "the newest one that is not there");
                let length: usize = some_lines.iter().flat_map(|(_, lines)| lines).map(String::len).sum();
                // The newest record of the stream is there whole, unless it is too old.
                prop_assert!(some_lines.len() <= records);
                prop_assert!(length <= bytes || some_lines.len() == 1);
                let newest = all.last().map(|(position, _)| *position);
                let is_wanted = newest.is_some_and(|position| {
                    twin.records[usize::try_from(position - twin.position(0)).expect("few")].2.0 >= oldest
                });
                prop_assert_eq!(some_lines.last().map(|(position, _)| *position), newest.filter(|_| is_wanted));
            }
        }
    }
}

/// As many streams as lines, then records without any: the table and the lists are given back.
#[test]
fn memory_is_given_back() {
    let (mut tail, mut twin) = (Tail::new(Mark::NONE, 1 << 20), Twin::default());
    for n in 0..50_000 {
        push(&mut tail, &mut twin, 1, vec![n << 20 | n], Time(0));
    }
    for _ in 0..50_000 {
        tail.push(1, vec![b'x'; 64].into(), std::iter::once((stream(1), 0..64)), Time(0));
    }
    assert_eq!(tail.last.len(), 1);
    assert!(tail.last.capacity() < 1_000, "{}", tail.last.capacity());
    for (len, capacity) in
        [(tail.lines.len(), tail.lines.capacity()), (tail.records.len(), tail.records.capacity())]
    {
        assert!(capacity * 2 <= len * 3, "{len} of {capacity}");
    }
}

/// The table claims to have less room with each stream that is removed, until it is rebuilt.
#[test]
fn the_table_is_counted_as_it_is() {
    let (mut tail, mut twin) = (Tail::new(Mark::NONE, 1 << 18), Twin::default());
    for n in 0..30_000 {
        push(&mut tail, &mut twin, 1, vec![n, n << 20], Time(0));
        let mut rebuilt = tail.last.clone();
        rebuilt.reserve(0);
        assert!(tail.room >= tail.last.capacity() && tail.room >= rebuilt.capacity());
    }
}

/// SCENARIO: a publisher of topics, or of organisations, computes names whose hashes agree in many bits: the hash has
/// no key.
/// BUG: the bits were used as they are, so all of these names were in one place of the table, and each was compared
/// with all of them, on the one thread that applies records.
/// FIX: each table has a random key, with which it hashes them again.
#[test]
fn streams_whose_hashes_are_alike_are_spread_over_the_table() {
    use std::collections::HashSet;
    use std::hash::BuildHasher;
    for shift in [0, 10, 20, 32, 44, 54] {
        let tails = [(); 2].map(|()| Tail::new(Mark::NONE, 0));
        let places = tails.each_ref().map(|tail| {
            let hashes = (0..1_024).map(|n| tail.last.hasher().hash_one(stream(n << shift)));
            // The place in a table of this size is in the low bits, and the seven highest tell those of a place apart.
            hashes.map(|hash| (hash % 1_024, hash >> 57)).collect::<Vec<_>>()
        });
        for places in &places {
            let lows: HashSet<_> = places.iter().map(|(low, _)| low).collect();
            let highs: HashSet<_> = places.iter().map(|(_, high)| high).collect();
            // At random there are 647 and 128.
            assert!(
                lows.len() > 400 && highs.len() > 90,
                "{shift}: {} {}",
                lows.len(),
                highs.len()
            );
        }
        assert_ne!(places[0], places[1], "no two tables are alike");
    }
}
