//! Writes the lines of a record.

use bytes::Bytes;

#[cfg(any(test, fuzzing))]
use crate::hub::Keys;
use crate::ids::{OrgName, StreamHash, Topic};
#[cfg(any(test, fuzzing))]
use crate::wire::Payload;

/// Lines to append as one record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    text: Vec<u8>,
    topics: Vec<StreamHash>,
    /// There is a line among them that counts again if it is in the log twice.
    once: bool,
}

const TO_MEMORY: &str = "writing to memory does not fail";

// ===== impl Lines =====

impl Lines {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Copies of these keys are stale.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn keys(&mut self, org: &OrgName, keys: &Keys<'_>) -> &mut Self {
        self.begin(org);
        for (key, before) in
            keys.iter().zip([",\"keys\":["].into_iter().chain(std::iter::repeat(",")))
        {
            self.push(before);
            self.string(key);
        }
        self.end_line("]}")
    }

    /// An event of a topic, which [`Message::new`] accepts.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn message(
        &mut self,
        topic: &Topic,
        event: &str,
        payload: Payload<'_>,
        bulk: bool,
    ) -> &mut Self {
        self.begin_topic(topic).push(",\"event\":");
        self.string(event);
        match payload {
            Payload::Json(json) => {
                self.push(",\"data\":");
                self.without_breaks(json.get().as_bytes());
            }
            Payload::Text(text) => {
                self.push(",\"text\":");
                self.string(text);
            }
        }
        self.event(topic.stream());
        self.end_line(if bulk { ",\"bulk\":true}" } else { "}" })
    }

    /// A line as it was published, which was checked. `topic` is that of its event, if it is one.
    pub(crate) fn raw(&mut self, line: &[u8], topic: Option<StreamHash>) -> &mut Self {
        self.without_breaks(line.trim_ascii());
        if let Some(topic) = topic {
            self.event(topic);
        }
        self.end_line("")
    }

    /// The body of a publish to an org, a JSON object that was checked and has a member, as it came but for its line
    /// breaks.
    pub(crate) fn body(&mut self, org: &OrgName, body: &[u8]) -> &mut Self {
        self.begin(org).members(body)
    }

    /// The body of a publish to a topic, as [`Self::body`].
    pub(crate) fn topic_body(&mut self, topic: &Topic, body: &[u8]) -> &mut Self {
        self.event(topic.stream());
        self.begin_topic(topic).members(body)
    }

    /// The org's clients re-read everything.
    pub(crate) fn reread(&mut self, org: &OrgName) -> &mut Self {
        self.begin(org).end_line(",\"reread\":true}")
    }

    /// The org's member streams end.
    pub(crate) fn end(&mut self, org: &OrgName) -> &mut Self {
        self.begin(org).end_line(",\"end\":true}")
    }

    /// A topic ends, for a reason of at most [`Message::REASON_BYTES_MAX`] bytes.
    pub(crate) fn close(&mut self, topic: &Topic, reason: &str) -> &mut Self {
        self.once = true;
        self.begin_topic(topic).push(",\"close\":");
        self.string(reason);
        self.end_line("}")
    }

    /// The stream that has made this claim is the topic's only one.
    pub(crate) fn exclusive(&mut self, topic: &Topic, claim: u64) -> &mut Self {
        self.once = true;
        self.begin_topic(topic).push(",\"exclusive\":");
        self.string(&format!("{claim:016x}"));
        self.end_line("}")
    }

    /// Adds the lines of another one.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.text.extend_from_slice(&other.text);
        self.topics.extend_from_slice(&other.topics);
        self.once |= other.once;
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    /// The topics of its events, one for each, in their order.
    pub(crate) fn topics(&self) -> &[StreamHash] {
        &self.topics
    }

    /// Whether they may be in the log once at most. An event would come twice; a topic that was closed, or claimed, may be
    /// another one by then: begun anew, or claimed by another stream.
    pub(crate) fn only_once(&self) -> bool {
        self.once
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.text.into()
    }

    /// There is an event of this topic among them.
    fn event(&mut self, topic: StreamHash) {
        self.topics.push(topic);
        self.once = true;
    }

    /// A name needs no escapes.
    fn begin(&mut self, org: &OrgName) -> &mut Self {
        self.push("{\"org\":\"").push(org.as_str()).push("\"")
    }

    fn begin_topic(&mut self, topic: &Topic) -> &mut Self {
        self.begin(&topic.org).push(",\"topic\":\"").push(topic.name.as_str()).push("\"")
    }

    /// The members of an object, after others.
    fn members(&mut self, object: &[u8]) -> &mut Self {
        let object = object.trim_ascii();
        self.push(",");
        self.without_breaks(object.strip_prefix(b"{").unwrap_or(object));
        self.end_line("")
    }

    fn push(&mut self, text: &str) -> &mut Self {
        self.text.extend_from_slice(text.as_bytes());
        self
    }

    fn string(&mut self, text: &str) {
        serde_json::to_writer(&mut self.text, text).expect(TO_MEMORY);
    }

    /// JSON has line breaks only between its tokens, where they mean nothing.
    fn without_breaks(&mut self, json: &[u8]) {
        for part in json.split(|byte| matches!(byte, b'\r' | b'\n')) {
            self.text.extend_from_slice(part);
        }
    }

    fn end_line(&mut self, end: &str) -> &mut Self {
        self.push(end).push("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_count_again_is_appended_once() {
        let org: OrgName = "acme".parse().expect("a name");
        let topic = Topic { org: org.clone(), name: "run".parse().expect("a name") };
        let line = |write: &dyn Fn(&mut Lines)| {
            let mut lines = Lines::new();
            write(&mut lines);
            lines
        };
        let again = [
            line(&|lines| _ = lines.body(&org, br#"{"keys":["a"]}"#)),
            line(&|lines| _ = lines.raw(br#"{"org":"acme","keys":["a"]}"#, None)),
            line(&|lines| _ = lines.reread(&org)),
            line(&|lines| _ = lines.end(&org)),
        ];
        let once = [
            line(&|lines| _ = lines.topic_body(&topic, br#"{"event":"a","data":1}"#)),
            line(&|lines| _ = lines.raw(b"{}", Some(topic.stream()))),
            line(&|lines| _ = lines.message(&topic, "a", Payload::Text("x"), false)),
            line(&|lines| _ = lines.close(&topic, "done")),
            line(&|lines| _ = lines.exclusive(&topic, 7)),
        ];
        let mut all = Lines::new();
        for lines in again {
            all.extend(&lines);
            assert!(!lines.only_once() && !all.only_once(), "{lines:?}");
        }
        for lines in once {
            assert!(lines.only_once(), "{lines:?}");
            all.extend(&lines);
            assert!(all.only_once());
        }
    }
}
