//! Records as entries of a stream: `v 1 n 0123456789abcdef k lines d …` are the version of the format, the tag, the kind
//! and the payload. An entry without a version is a record by another program.

use bytes::Bytes;
use redis::Value;

use crate::backplane::broker::{Entry, Kind, VERSION};

/// What the id of an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Id {
    /// `0-N`.
    Position(u64),
    /// One with a time, as `XADD key *` makes them.
    Foreign,
}

/// The largest position: no log gets there, and what is computed with it does not overflow.
pub(super) const POSITION_MAX: u64 = u64::MAX >> 1;

/// Why a reply has no entries.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// The id of an entry.
    Id(String),
    Reply,
}

/// Takes the entries out of the reply to an `XREAD` of one stream.
pub(super) fn entries(reply: Value) -> Result<Vec<Entry>, Unreadable> {
    let streams = match reply {
        Value::Nil => return Ok(Vec::new()),
        reply => array(reply)?,
    };
    let [stream]: [Value; 1] = streams.try_into().map_err(|_| Unreadable::Reply)?;
    let [_, entries] = pair(stream)?;
    array(entries)?.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Result<Entry, Unreadable> {
    let [id, fields] = pair(value)?;
    let position = match text(&id).map(|id| (id, Id::parse(id))) {
        Some((_, Some(Id::Position(position)))) => position,
        Some((id, _)) => return Err(Unreadable::Id(id.into())),
        None => return Err(Unreadable::Reply),
    };
    let mut entry = Entry {
        position,
        tag: 0,
        version: VERSION,
        kind: Some(Kind::Lines),
        payload: Bytes::new(),
    };
    let mut fields = array(fields)?.into_iter();
    while let (Some(Value::BulkString(name)), Some(Value::BulkString(value))) =
        (fields.next(), fields.next())
    {
        let text = || str::from_utf8(&value).unwrap_or_default();
        match &name[..] {
            b"v" => entry.version = text().parse().unwrap_or(0),
            b"n" => entry.tag = tag(text()),
            b"k" => entry.kind = Kind::of(text()),
            b"d" => entry.payload = value.into(),
            _ => {}
        }
    }
    Ok(entry)
}

/// 0 if it is none.
fn tag(text: &str) -> u64 {
    let is_tag = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| is_tag).unwrap_or(0)
}

/// A string in a reply.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(text) => str::from_utf8(text).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn array(value: Value) -> Result<Vec<Value>, Unreadable> {
    if let Value::Array(values) = value { Ok(values) } else { Err(Unreadable::Reply) }
}

fn pair(value: Value) -> Result<[Value; 2], Unreadable> {
    array(value)?.try_into().map_err(|_| Unreadable::Reply)
}

// ===== impl Id =====

impl Id {
    /// `None` for what is no id, and for a position that no log has.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (time, position) = text.split_once('-')?;
        let number = |text: &str| text.parse::<u64>().ok().filter(|_| !text.starts_with('+'));
        match (number(time)?, number(position)?) {
            (0, position @ 1..=POSITION_MAX) => Some(Self::Position(position)),
            (0, _) => None,
            _ => Some(Self::Foreign),
        }
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn an_id_is_a_position_or_foreign() {
        assert_eq!(Id::parse("0-7"), Some(Id::Position(7)));
        assert_eq!(Id::parse("1795890087151-0"), Some(Id::Foreign));
        for id in ["", "0", "0-0", "0-", "-1", "0-+1", "0-9223372036854775808", "0-1-1", "a-1"] {
            assert_eq!(Id::parse(id), None, "{id}");
        }
    }

    #[test]
    fn a_tag_has_16_digits() {
        assert_eq!(tag("00000000000000ab"), 0xab);
        for text in ["", "1", "+000000000000001", "000000000000000g", "00000000000000001"] {
            assert_eq!(tag(text), 0, "{text}");
        }
    }
}
