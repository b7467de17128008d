//! Filters of streams: which keys a stream is for, as a hint that saves writes.
//!
//! Both sides are 64 bits. A stream's filter has a bit for each of its patterns, an event's [`KeyBits`] those of each of
//! its keys and of each prefix of a key that ends with a colon. Without a common bit no key of the event matches,
//! and the stream's cursor moves past it. With one there may be: different strings may have the same bit.

use std::fmt;

use super::feed::Feed;
use super::seat::Seat;
use super::seats::SeatKey;
use super::shard::ShardId;
use crate::config::HubConfig;

/// Which keys a stream is for: a hint that saves writes, and no access control. An event none of whose keys
/// matches is not sent, but for one now and then; any other is sent, and whole.
///
/// A pattern is a key, or a prefix with a colon and `*` at its end, or `*` alone: `feed:*` matches every key that begins
/// with `feed:`, and `*` every key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter(u64);

/// Why patterns are invalid. Positions count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidFilter {
    /// There is no pattern.
    Missing,
    /// The pattern at `position` has `len` bytes; at most `max` are allowed, as of a key.
    TooLong {
        /// The position of the pattern.
        position: usize,
        /// Its length.
        len: usize,
        /// The allowed length.
        max: usize,
    },
    /// The pattern at `position` has a `*` elsewhere than at its end after a colon, or alone.
    Pattern {
        /// The position of the pattern.
        position: usize,
    },
}

/// The bits of an event's keys, and of their prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyBits(u64);

/// The filters of a slab's seats, by index. Seats beyond the last one have none.
#[derive(Debug, Default)]
pub(super) struct Filters {
    of: Vec<Filter>,
    /// Seats with a filter.
    count: usize,
}

/// This many patterns have so many bits that most events would pass: they are no filter.
const PATTERNS_MAX: usize = 8;

// ===== impl Filter =====

impl Filter {
    /// Every event, which is what a stream gets without a filter.
    pub const ALL: Self = Self(u64::MAX);

    /// A filter with these patterns: keys, prefixes like `feed:*`, or `*` for every key. From eight patterns on it is
    /// [`Filter::ALL`]. Empty patterns do not count: no key is empty.
    ///
    /// # Errors
    /// The first pattern that is invalid and why, or that there is none.
    pub fn new<'p>(
        patterns: impl IntoIterator<Item = &'p str>,
        limits: &HubConfig,
    ) -> Result<Self, InvalidFilter> {
        let (mut bits, mut count, max) = (0, 0, limits.key_bytes_max);
        let patterns = patterns.into_iter().enumerate().filter(|(_, pattern)| !pattern.is_empty());
        for (position, pattern) in patterns {
            if pattern.len() > max {
                return Err(InvalidFilter::TooLong { position, len: pattern.len(), max });
            }
            bits |= match pattern.strip_suffix(":*").unwrap_or(pattern) {
                _ if pattern == "*" => Self::ALL.0,
                literal if literal.contains('*') => {
                    return Err(InvalidFilter::Pattern { position });
                }
                _ => bit(pattern.bytes().fold(NO_BYTES, add)),
            };
            count += 1;
        }
        match count {
            0 => Err(InvalidFilter::Missing),
            PATTERNS_MAX.. => Ok(Self::ALL),
            _ => Ok(Self(bits)),
        }
    }

    /// Its bits.
    #[cfg(feature = "server")]
    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// The filter with these bits; without one, it passes no event.
    #[cfg(feature = "server")]
    pub(super) fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether every event passes.
    #[inline]
    pub(crate) fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// Whether an event with these bits may have a key that matches.
    #[inline]
    pub(crate) fn meets(self, event: KeyBits) -> bool {
        self.0 & event.0 != 0
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::ALL
    }
}

// ===== impl KeyBits =====

impl KeyBits {
    /// Those of an event whose keys are not known.
    pub(crate) const UNKNOWN: Self = Self(u64::MAX);

    pub(crate) fn of<'k>(keys: impl IntoIterator<Item = &'k str>) -> Self {
        Self(keys.into_iter().fold(0, |bits, key| bits | of_key(key)))
    }
}

/// The bits of a key: its own, and that of `prefix:*` for each of its prefixes.
fn of_key(key: &str) -> u64 {
    let (mut hash, mut bits) = (NO_BYTES, 0);
    for byte in key.bytes() {
        hash = add(hash, byte);
        if byte == b':' {
            bits |= bit(add(hash, b'*'));
        }
    }
    bits | bit(hash)
}

/// The hash of no bytes (FNV-1a), which goes on with [`add`]. Keys that collide cost writes, and a backend that may
/// publish can cause these anyway, so it needs no secret.
const NO_BYTES: u64 = 0xcbf2_9ce4_8422_2325;

#[inline]
fn add(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
}

/// One bit of 64. The last bytes have hardly reached the high bits of the hash, so all of it is mixed.
fn bit(hash: u64) -> u64 {
    1 << ((hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
}

// ===== impl Filters =====

impl Filters {
    #[inline]
    pub(super) fn at(&self, index: usize) -> Filter {
        self.of.get(index).copied().unwrap_or_default()
    }

    /// Sets the filter of a seat, or clears it with [`Filter::ALL`], and gives back memory that is not needed. Returns
    /// whether any seat has one.
    pub(super) fn set(&mut self, index: usize, filter: Filter) -> bool {
        self.count -= usize::from(!self.at(index).is_all());
        self.count += usize::from(!filter.is_all());
        if index >= self.of.len() && !filter.is_all() {
            self.of.resize(index + 1, Filter::ALL);
        }
        if let Some(of) = self.of.get_mut(index) {
            *of = filter;
        }
        while self.of.last().is_some_and(|last| last.is_all()) {
            self.of.pop();
        }
        if self.of.len() * 4 <= self.of.capacity() {
            self.of.shrink_to(self.of.len() * 2);
        }
        self.count > 0
    }
}

// ===== impl Feed =====

impl Feed {
    /// Whether the bits of what is published are of use.
    pub(super) fn has_filters(&self) -> bool {
        self.shards.iter().any(|seats| seats.filters.is_some())
    }

    /// Has a stream receive only what may interest it from now on.
    pub(super) fn set_filter(&mut self, shard: ShardId, key: SeatKey, filter: Filter) {
        self.shards[shard.index()].set_filter(key, filter);
        self.forget_hints();
    }

    /// Frees a seat.
    pub(super) fn free_seat(&mut self, shard: ShardId, key: SeatKey) -> Option<Seat> {
        let seat = self.shards[shard.index()].remove(key);
        self.forget_hints();
        seat
    }

    /// Gives back what is kept for filtered streams once there is none.
    fn forget_hints(&mut self) {
        if self.history.has_hints() && !self.has_filters() {
            self.history.forget_hints();
        }
    }
}

// ===== impl InvalidFilter =====

impl fmt::Display for InvalidFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no key; at least one is needed"),
            Self::TooLong { position, len, max } => {
                write!(f, "key {position} has {len} bytes; at most {max} are allowed")
            }
            Self::Pattern { position } => write!(
                f,
                "key {position} has a * that is neither alone, for every key, nor at the end after a colon, like feed:*"
            ),
        }
    }
}

impl std::error::Error for InvalidFilter {}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter<const N: usize>(patterns: [&str; N]) -> Result<Filter, InvalidFilter> {
        Filter::new(patterns, &HubConfig::default())
    }

    fn meets(pattern: &str, key: &str) -> bool {
        filter([pattern]).expect(pattern).meets(KeyBits::of([key]))
    }

    #[test]
    fn a_pattern_meets_its_key_and_the_keys_of_its_prefix() {
        for (pattern, key) in [
            ("posts", "posts"),
            ("feed:*", "feed:1"),
            ("feed:*", "feed:1:x"),
            ("feed:1:*", "feed:1:x"),
            ("feed:1:x", "feed:1:x"),
            ("feed:*", "feed:"),
            ("feed:*", "feed:*"),
            (":*", ":x"),
            ("a::*", "a::"),
            ("*", "anything"),
            ("\u{e9}:*", "\u{e9}:\u{1f600}"),
        ] {
            assert!(meets(pattern, key), "{pattern} {key}");
        }
    }

    #[test]
    fn other_keys_rarely_meet_a_pattern() {
        for pattern in ["posts", "feed:*", "feed:1:x"] {
            let others = (0..10_000).map(|n| format!("other{n}"));
            let met = others.filter(|key| meets(pattern, key)).count();
            // One of 64 is expected.
            assert!((100..220).contains(&met), "{met} of 10,000 for {pattern}");
        }
        let (near, far) = (filter(["feed"]).expect("a key"), filter(["feed:1"]).expect("a key"));
        assert!(!near.meets(KeyBits::of(["feed:1"])) && !far.meets(KeyBits::of(["feed:10"])));
    }

    #[test]
    fn eight_patterns_are_no_filter() {
        assert!(!filter(["a", "b", "c", "d", "e", "f", "g"]).expect("seven").is_all());
        assert!(filter(["a", "b", "c", "d", "e", "f", "g", "h"]).expect("eight").is_all());
        assert!(filter(["a", "*"]).expect("every key").is_all());
    }

    #[test]
    fn invalid_patterns_are_refused() {
        assert_eq!(filter([]), Err(InvalidFilter::Missing));
        assert_eq!(filter(["", ""]), Err(InvalidFilter::Missing));
        assert!(filter(["", "a"]).is_ok());
        for pattern in ["feed*", "*feed", "a*b:*", "**", "*:*", "feed:**", "feed:*:x"] {
            assert_eq!(
                filter(["a", pattern]),
                Err(InvalidFilter::Pattern { position: 1 }),
                "{pattern}"
            );
        }
        let max = HubConfig::default().key_bytes_max;
        let (fits, long) = ("x".repeat(max), "x".repeat(max + 1));
        assert!(filter([&*fits]).is_ok());
        let refused = InvalidFilter::TooLong { position: 0, len: max + 1, max };
        assert_eq!(filter([&*long]), Err(refused));
    }

    #[test]
    fn filters_give_memory_back() {
        let one = filter(["a"]).expect("a key");
        let mut filters = Filters::default();
        assert!((0..10_000).all(|index| filters.set(index, one)));
        assert!((10..10_000).all(|index| filters.set(index, Filter::ALL)));
        assert!(filters.of.capacity() <= 40, "{}", filters.of.capacity());
        assert!((0..10).all(|index| filters.at(index) == one) && filters.at(10).is_all());
        assert!(filters.set(77, Filter::ALL), "a seat without one");
        assert!((0..9).all(|index| filters.set(index, Filter::ALL)));
        assert!(!filters.set(9, Filter::ALL), "the last one");
    }
}
