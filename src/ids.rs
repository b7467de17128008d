//! Names of organisations ([`OrgName`]), of their topics ([`Topic`]), and of events ([`EventId`]). Each is checked where it is parsed, and
//! nowhere else.

use std::fmt;
use std::ops::Add;
use std::str::FromStr;
use std::sync::Arc;

/// An organisation's name: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`. Cloning shares the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrgName(Arc<str>);

/// A topic's name: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`. Cloning shares the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

/// One topic of an organisation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic {
    /// The organisation.
    pub org: OrgName,
    /// The topic's name, of which each organisation has its own.
    pub name: TopicName,
}

/// One run of one view of an organisation's channel, or of a topic. No two runs share one, across views, topics and
/// restarts too, so that a history never covers an id from an earlier run or from another channel or view.
///
/// In a log that servers share there are no runs: it is the tag of a record, by which of its events it is and by the
/// name of the view or topic. So it differs from id to id, and is the same on every server and after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub(crate) u64);

/// The sequence number of an event in one run of a view or of a topic, from 1, without gaps; and a position in it, the
/// number of the last event before it. 0 is the position before the first event.
///
/// In the ids of a log that servers share it is the position of a record: most records have nothing for a view, so
/// there are gaps, and one may have several events of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seq(pub u64);

/// A position in a view of a channel, or in a topic: `<epoch>-<seq>`, sixteen hexadecimal digits and a decimal number. The browser
/// sends it back as `Last-Event-ID` (WHATWG HTML, 9.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    /// The run of the view, or what proves the record.
    pub epoch: Epoch,
    /// The position in it, or in the log.
    pub seq: Seq,
}

/// One record of a log that several servers share: its position, from 1, and its tag, which was drawn at random for the
/// attempt to append it. Two logs that have an equal mark are the same up to there. Tag 0 equals no other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    /// What proves that a record at this position is this one.
    pub tag: u64,
    /// The position in the log.
    pub position: u64,
}

/// The name of a stream of events, as 64 bits that are the same on every server: a view of an organisation, or a topic.
/// Tags differ by it, so that no stream covers an id of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamHash(u64);

/// Why a text is not an organisation's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidOrgName;

/// Why a text is not a topic's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTopicName;

/// Why a text is not an event id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidEventId;

// ===== impl OrgName =====

impl OrgName {
    /// The longest allowed name, in bytes.
    pub const LEN_MAX: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text is such a name.
    pub(crate) fn is_valid(text: &str) -> bool {
        is_name(text, Self::LEN_MAX)
    }
}

impl FromStr for OrgName {
    type Err = InvalidOrgName;

    fn from_str(text: &str) -> Result<Self, InvalidOrgName> {
        if Self::is_valid(text) { Ok(Self(text.into())) } else { Err(InvalidOrgName) }
    }
}

impl std::borrow::Borrow<str> for OrgName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OrgName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for InvalidOrgName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an organisation's name is 1 to 64 of A-Z a-z 0-9 . _ - and starts with a letter or digit",
        )
    }
}

impl std::error::Error for InvalidOrgName {}

/// Whether a text is a letter or digit with more of `[A-Za-z0-9._-]`, of at most `len_max` bytes.
fn is_name(text: &str, len_max: usize) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let starts_well = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    starts_well && text.len() <= len_max && text.bytes().all(allowed)
}

// ===== impl TopicName =====

impl TopicName {
    /// The longest allowed name, in bytes.
    pub const LEN_MAX: usize = 128;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TopicName {
    type Err = InvalidTopicName;

    fn from_str(text: &str) -> Result<Self, InvalidTopicName> {
        if is_name(text, Self::LEN_MAX) { Ok(Self(text.into())) } else { Err(InvalidTopicName) }
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for InvalidTopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a topic's name is 1 to 128 of A-Z a-z 0-9 . _ - and starts with a letter or digit",
        )
    }
}

impl std::error::Error for InvalidTopicName {}

// ===== impl Seq =====

impl Seq {
    /// How many numbers this is ahead of `earlier`.
    pub(crate) fn since(self, earlier: Self) -> u64 {
        self.0 - earlier.0
    }
}

impl Add<u64> for Seq {
    type Output = Self;

    fn add(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

// ===== impl Topic =====

impl Topic {
    /// The stream of its events.
    pub(crate) fn stream(&self) -> StreamHash {
        StreamHash::of_topic(self.org.as_str(), self.name.as_str())
    }
}

// ===== impl Mark =====

impl Mark {
    /// What is equal to no record, not even to one without a tag.
    pub(crate) const NONE: Self = Self { tag: 0, position: 0 };

    /// The id of an event whose last record is this one, in a stream. Of several events of a topic in one record, each
    /// but the last has another tag: `later` is how many follow in it. Without a tag, none has one.
    pub(crate) fn id(self, stream: StreamHash, later: u32) -> EventId {
        let tag = match self.tag {
            0 => 0,
            tag => tag.wrapping_add(u64::from(later).wrapping_mul(SPREAD)),
        };
        EventId { epoch: Epoch(tag ^ stream.0), seq: Seq(self.position) }
    }

    /// The mark of the record that an id of this stream names.
    pub(crate) fn of(id: EventId, stream: StreamHash) -> Self {
        Self { tag: id.epoch.0 ^ stream.0, position: id.seq.0 }
    }

    /// The later one of two records of one log, unless nothing proves that one.
    pub(crate) fn or_later(self, other: Self) -> Self {
        if other.position > self.position && other.tag != 0 { other } else { self }
    }

    /// Whether both are one record.
    pub(crate) fn is(self, other: Self) -> bool {
        self.tag != 0 && (self.tag, self.position) == (other.tag, other.position)
    }
}

// ===== impl StreamHash =====

impl StreamHash {
    /// That of a stream whose ids are of a log: it stands in the place of the epoch.
    pub(crate) fn of_epoch(epoch: Epoch) -> Self {
        Self(epoch.0)
    }

    /// What stands in the place of the epoch, for a stream whose ids are of a log.
    pub(crate) fn epoch(self) -> Epoch {
        Epoch(self.0)
    }

    /// Its bits, which are spread well.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// What the members of an organisation receive.
    pub(crate) fn of_members(org: &str) -> Self {
        Self::of(&[b"m", org.as_bytes()])
    }

    /// What the public receives of it.
    pub(crate) fn of_public(org: &str) -> Self {
        Self::of(&[b"p", org.as_bytes()])
    }

    /// A topic of it.
    pub(crate) fn of_topic(org: &str, topic: &str) -> Self {
        Self::of(&[b"t", org.as_bytes(), topic.as_bytes()])
    }

    /// FNV-1a over the parts, each behind a byte that no name has, with the finalizer of splitmix64.
    fn of(parts: &[&[u8]]) -> Self {
        let bytes = parts.iter().flat_map(|part| part.iter().copied().chain([b'/']));
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(spread(hash))
    }
}

/// The finalizer of splitmix64: each bit of the result depends on all bits.
#[inline]
pub(crate) fn spread(bits: u64) -> u64 {
    let bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// An odd number whose multiples are spread over 64 bits: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

// ===== impl EventId =====

impl EventId {
    /// The same position in an epoch that no history has: it is never covered.
    pub(crate) fn uncovered(self) -> Self {
        Self { epoch: Epoch(self.epoch.0 ^ 1 << 63), ..self }
    }

    /// Appends what [`fmt::Display`] writes, in a tenth of its instructions: every stream begins with one.
    pub(crate) fn append_to(self, out: &mut Vec<u8>) {
        let digits: [u8; 16] = std::array::from_fn(|i| hex_digit(self.epoch.0 >> (60 - 4 * i)));
        out.extend_from_slice(&digits);
        out.push(b'-');
        out.extend_from_slice(itoa::Buffer::new().format(self.seq.0).as_bytes());
    }
}

/// The digit of the lowest four bits.
pub(crate) const fn hex_digit(bits: u64) -> u8 {
    b"0123456789abcdef"[(bits & 15) as usize]
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    /// Accepts what [`fmt::Display`] writes and nothing else: one spelling for one position.
    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let (epoch, seq) = text.split_once('-').ok_or(InvalidEventId)?;
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if epoch.len() != 16 || !epoch.bytes().all(lower_hex) {
            return Err(InvalidEventId);
        }
        let canonical =
            seq.bytes().all(|b| b.is_ascii_digit()) && (seq == "0" || !seq.starts_with('0'));
        if !canonical {
            return Err(InvalidEventId);
        }
        Ok(Self {
            epoch: Epoch(u64::from_str_radix(epoch, 16).map_err(|_| InvalidEventId)?),
            seq: Seq(seq.parse().map_err(|_| InvalidEventId)?),
        })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch.0, self.seq.0)
    }
}

impl fmt::Display for InvalidEventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event id is <16 lower-case hexadecimal digits>-<decimal number>")
    }
}

impl std::error::Error for InvalidEventId {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_org_name_has_1_to_64_allowed_characters() {
        for good in ["a", "9", "acme", "a.b_c-d", "A".repeat(64).as_str()] {
            assert_eq!(good.parse::<OrgName>().map(|org| org.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", ".a", "-a", "_a", "a b", "a/b", "é", "a\n", "a\0", "A".repeat(65).as_str()]
        {
            assert_eq!(bad.parse::<OrgName>(), Err(InvalidOrgName), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_event_id_has_one_spelling(epoch: u64, seq: u64) {
            let id = EventId { epoch: Epoch(epoch), seq: Seq(seq) };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            let mut out = Vec::new();
            id.append_to(&mut out);
            prop_assert_eq!(out, id.to_string().into_bytes());
        }

        #[test]
        fn an_event_id_is_printed_as_it_was_parsed(text in "[0-9a-fA-F+-]{0,24}|[0-9a-f]{16}-[0-9+]{1,21}") {
            if let Ok(id) = text.parse::<EventId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
