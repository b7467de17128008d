//! Reads the members of a line, and decides which line they are.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::{KeyTexts, Line, OrgText, TopicLine};
use crate::config::HubConfig;
use crate::ids::{OrgName, Topic, TopicName};
use crate::wire::{InvalidMessage, Message, Payload};

/// The members of a line.
#[derive(Default)]
pub(super) struct Members<'a> {
    org: Option<Text<'a>>,
    pub(super) keys: Option<KeyList<'a>>,
    topic: Option<Text<'a>>,
    event: Option<Text<'a>>,
    data: Option<&'a RawValue>,
    text: Option<Text<'a>>,
    bulk: Option<bool>,
    close: Option<Text<'a>>,
    exclusive: Option<Text<'a>>,
    reread: Option<bool>,
    end: Option<bool>,
}

/// A list of keys, of which no more is kept than the limits allow.
pub(super) struct KeyList<'a> {
    pub(super) keys: KeyTexts<'a>,
    pub(super) count: usize,
    has_empty: bool,
    has_long: bool,
}

/// A string, which borrows unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

pub(super) struct MembersSeed<'l>(pub(super) &'l HubConfig);

struct KeysSeed<'l>(&'l HubConfig);

/// A key, unless it is longer than this.
struct KeySeed(usize);

// ===== impl Members =====

impl<'a> Members<'a> {
    /// The line that has these members; `None` if there is none.
    pub(super) fn line(self, limits: &HubConfig) -> Option<Line<'a>> {
        let org = self.org.as_ref().filter(|org| OrgName::is_valid(&org.0))?;
        let org = OrgText(org.0.clone());
        let is_of_org = self.topic.is_none() && !self.has_event() && !self.has_topic_command();
        let is_of_topic = self.topic.is_some() && !self.has_org_line();
        match (is_of_org, is_of_topic) {
            (true, false) => self.org_line(org, limits),
            (false, true) => self.topic_line(org, limits),
            _ => None,
        }
    }

    fn org_line(self, org: OrgText<'a>, limits: &HubConfig) -> Option<Line<'a>> {
        match (self.keys, self.reread, self.end) {
            (Some(list), None, None) => list.line(org, limits),
            (None, Some(true), None) => Some(Line::Reread(org)),
            (None, None, Some(true)) => Some(Line::End(org)),
            _ => None,
        }
    }

    fn topic_line(self, org: OrgText<'a>, limits: &HubConfig) -> Option<Line<'a>> {
        let name = self.topic.as_ref()?.0.parse::<TopicName>().ok()?;
        let has_event = self.has_event();
        let line = match (has_event, self.close, self.exclusive) {
            (true, None, None) => {
                let event = self.event?;
                let bulk = self.bulk.unwrap_or_default();
                let payload = match (self.data, &self.text) {
                    (Some(json), None) => Payload::Json(json),
                    (None, Some(text)) => Payload::Text(&text.0),
                    _ => return None,
                };
                match Message::new(&event.0, payload, bulk, limits.topic_event_bytes_max) {
                    Ok(message) => TopicLine::Message(message),
                    Err(InvalidMessage::TooLong { .. }) => TopicLine::TooLong { bulk },
                    Err(_) => return None,
                }
            }
            (false, Some(reason), None) if reason.0.len() <= Message::REASON_BYTES_MAX => {
                TopicLine::Close(reason.0)
            }
            (false, None, Some(claim)) => TopicLine::Exclusive(parse_claim(&claim.0)?),
            _ => return None,
        };
        Some(Line::Topic(Topic { org: org.to_name(), name }, line))
    }

    fn has_event(&self) -> bool {
        self.event.is_some() || self.data.is_some() || self.text.is_some() || self.bulk.is_some()
    }

    fn has_topic_command(&self) -> bool {
        self.close.is_some() || self.exclusive.is_some()
    }

    fn has_org_line(&self) -> bool {
        self.keys.is_some() || self.reread.is_some() || self.end.is_some()
    }
}

/// Sixteen lower-case hexadecimal digits, and nothing else.
fn parse_claim(text: &str) -> Option<u64> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_claim = text.len() == 16 && text.bytes().all(is_digit);
    is_claim.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// Reads a member that may occur once.
fn once<'de, T, A>(slot: &mut Option<T>, map: &mut A) -> Result<(), A::Error>
where
    T: Deserialize<'de>,
    A: MapAccess<'de>,
{
    let value = map.next_value()?;
    set_once(slot, value)
}

fn set_once<T, E: Error>(slot: &mut Option<T>, value: T) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom("a member occurs twice")),
    }
}

impl<'de> DeserializeSeed<'de> for MembersSeed<'_> {
    type Value = Members<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Members<'de>, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MembersSeed<'_> {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        while let Some(Text(name)) = map.next_key()? {
            match &*name {
                "org" => once(&mut members.org, &mut map)?,
                "keys" => {
                    let keys = map.next_value_seed(KeysSeed(self.0))?;
                    set_once(&mut members.keys, keys)?;
                }
                "topic" => once(&mut members.topic, &mut map)?,
                "event" => once(&mut members.event, &mut map)?,
                "data" => once(&mut members.data, &mut map)?,
                "text" => once(&mut members.text, &mut map)?,
                "bulk" => once(&mut members.bulk, &mut map)?,
                "close" => once(&mut members.close, &mut map)?,
                "exclusive" => once(&mut members.exclusive, &mut map)?,
                "reread" => once(&mut members.reread, &mut map)?,
                "end" => once(&mut members.end, &mut map)?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(members)
    }
}

// ===== impl KeyList =====

impl<'a> KeyList<'a> {
    fn line(self, org: OrgText<'a>, limits: &HubConfig) -> Option<Line<'a>> {
        if self.count == 0 || self.has_empty {
            return None;
        }
        let is_too_much = self.has_long || self.count > limits.keys_max;
        Some(if is_too_much { Line::TooMuch(org) } else { Line::Keys(org, self.keys) })
    }
}

impl<'de> DeserializeSeed<'de> for KeysSeed<'_> {
    type Value = KeyList<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<KeyList<'de>, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for KeysSeed<'_> {
    type Value = KeyList<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<KeyList<'de>, A::Error> {
        let Self(HubConfig { keys_max, key_bytes_max, .. }) = self;
        let mut list =
            KeyList { keys: SmallVec::new(), count: 0, has_empty: false, has_long: false };
        while let Some(key) = seq.next_element_seed(KeySeed(*key_bytes_max))? {
            list.count += 1;
            match key {
                None => list.has_long = true,
                Some(key) if key.is_empty() => list.has_empty = true,
                Some(key) if list.count <= *keys_max => list.keys.push(key),
                Some(_) => {}
            }
        }
        Ok(list)
    }
}

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok((key.len() <= self.0).then_some(Cow::Borrowed(key)))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok((key.len() <= self.0).then(|| Cow::Owned(key.to_owned())))
    }
}
