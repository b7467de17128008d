//! The lines of a record of the log: what servers and backends write, and how a server reads it. Pure: no I/O, no clock.
//!
//! A record is UTF-8 text: lines of JSON (NDJSON), each one object, which end with LF; blank lines mean nothing. These
//! are the lines:
//!
//! | line | meaning |
//! |---|---|
//! | `{"org":"acme","keys":["posts","feed:9"]}` | copies of these keys are stale |
//! | `{"org":"acme","topic":"run-7","event":"output","data":{"n":1}}` | an event of a topic, with JSON |
//! | `{"org":"acme","topic":"run-7","event":"output","text":"a\nb","bulk":true}` | the same with text; `bulk` (default `false`): it may be dropped without notice |
//! | `{"org":"acme","topic":"run-7","close":"done"}` | the topic ends, for this reason of at most 256 bytes |
//! | `{"org":"acme","topic":"run-7","exclusive":"00000000c0ffee00"}` | the stream that has made this claim, 16 lower-case hexadecimal digits, is the topic's only one |
//! | `{"org":"acme","reread":true}` | the org's clients re-read everything |
//! | `{"org":"acme","end":true}` | the org's member streams end, and come back with their next tokens |
//!
//! Names, keys and events have the grammar and the limits of a publish over HTTP. Members may come in any order; members
//! that are not listed are ignored, as a newer version may add some. A line is *unusable* if it is not such an object, if
//! one of the listed members occurs twice or has a value of another kind (`null` too), if members of several lines are
//! in one, or if a name, a key or an event cannot be valid on any server. It is skipped, and the rest of the record counts.
//! What is only beyond a limit that this server has, and others may not, is [too much](Line::TooMuch): it cannot be passed
//! on, and must not be lost in silence.

mod members;
#[cfg(all(test, not(nudged_loom)))]
mod tests;
mod written;

use std::borrow::Cow;
use std::ops::Range;

use serde::de::DeserializeSeed;
use smallvec::SmallVec;

use self::members::MembersSeed;
pub(crate) use self::written::Lines;
use crate::config::HubConfig;
use crate::ids::{OrgName, StreamHash, Topic};
use crate::wire::Message;

/// A line that was read. It borrows what it can, and is bounded by the line and by the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// These keys, each within the limits, at least one and no more than a publish may have, as they were listed.
    Keys(OrgText<'a>, KeyTexts<'a>),
    /// More or longer keys than this server takes.
    TooMuch(OrgText<'a>),
    /// The org's clients re-read everything.
    Reread(OrgText<'a>),
    /// The org's member streams end.
    End(OrgText<'a>),
    /// Something for a topic.
    Topic(Topic, TopicLine<'a>),
}

/// What a line is for a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TopicLine<'a> {
    /// An event.
    Message(Message),
    /// An event that is longer than this server takes, and is bulk or not.
    TooLong { bulk: bool },
    /// The topic ends for this reason.
    Close(Cow<'a, str>),
    /// The stream that has made this claim is the only one.
    Exclusive(u64),
}

/// The text of an organisation's name, which is valid. It need not be copied to look the org up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrgText<'a>(Cow<'a, str>);

/// The keys of a line.
pub(crate) type KeyTexts<'a> = SmallVec<[Cow<'a, str>; 4]>;

/// Where in a record its lines are, in their order, without those that are blank.
pub(crate) fn lines(record: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    let lines = record.split_inclusive(|byte| *byte == b'\n').map(move |line| {
        let start = end;
        end += line.len();
        (start..end, line)
    });
    lines.filter(|(_, line)| !line.trim_ascii().is_empty()).map(|(range, _)| range)
}

// ===== impl Line =====

impl<'a> Line<'a> {
    /// Reads a line. `None` if it is unusable, which is the same on every server.
    pub(crate) fn parse(line: &'a [u8], limits: &HubConfig) -> Option<Self> {
        let mut json = serde_json::Deserializer::from_slice(line);
        let members = MembersSeed(limits).deserialize(&mut json).ok()?;
        json.end().ok()?;
        members.line(limits)
    }

    /// The stream whose chain of lines it belongs to: that of the org's members, or of its topic.
    pub(crate) fn stream(&self) -> StreamHash {
        match self {
            Self::Keys(org, _) | Self::TooMuch(org) | Self::Reread(org) | Self::End(org) => {
                StreamHash::of_members(org.as_str())
            }
            Self::Topic(topic, _) => topic.stream(),
        }
    }
}

impl Line<'_> {
    /// The org that it is for; `None` if it is for a topic.
    pub(crate) fn org(&self) -> Option<&str> {
        match self {
            Self::Keys(org, _) | Self::TooMuch(org) | Self::Reread(org) | Self::End(org) => {
                Some(org.as_str())
            }
            Self::Topic(..) => None,
        }
    }

    /// Whether what is created after it was read needs it.
    pub(crate) fn is_kept(&self) -> bool {
        !matches!(self, Self::End(_) | Self::Topic(_, TopicLine::Exclusive(_)))
    }
}

// ===== impl OrgText =====

impl OrgText<'_> {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn to_name(&self) -> OrgName {
        self.0.parse().expect("checked when it was read")
    }
}
