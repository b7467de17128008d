//! What the hub keeps, and how it delivers: all the configuration that the hub as a library has.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use crate::ids::OrgName;

/// What the hub keeps, and how it delivers.
#[derive(Clone, Debug)]
pub struct HubConfig {
    // Streams
    /// The longest silence of a stream: a comment comes after 75 to 100 % of it, drawn for each. Counted in whole
    /// seconds, at least 1. Whatever is drawn is at least a second less, so that a driver which is up to a second late
    /// keeps to it, too; with 1 s there is no such reserve, and a comment follows at the next whole second.
    pub keepalive: Duration,
    /// The reconnection time at the start of a stream is drawn from this range, in milliseconds, so that
    /// clients do not all reconnect at once.
    pub retry_ms: (u32, u32),
    /// A stream ends if it has had something to write and could write none of it for this long since the last pause
    /// of its driver. Counted in whole seconds, at least 1.
    pub stall_timeout: Duration,
    /// In a drain, a stream whose end is due ends if it could write nothing of what is left for this long, and less
    /// than two seconds more. Counted in whole seconds, at least 1.
    pub drain_grace: Duration,
    /// A stream ends at 80 to 100 % of this age, drawn for each; `None` for no limit.
    pub stream_age_max: Option<Duration>,

    // History
    /// Events in the history of each view of an org, the members' and the public one; at least 1.
    pub history_events: usize,
    /// How long an event is kept, and an org without subscribers.
    pub history_age: Duration,
    /// Bytes of memory for the histories of one org, of both views: what their events cost, not their text alone. The
    /// larger one gives way. The newest event of each is always kept.
    pub history_bytes: usize,
    /// Bytes of memory for the histories of all orgs together. Evicted events count too, while a stream has still to
    /// write the rest of one. Beyond it, an org that is published to keeps the newest event of each view only.
    pub history_bytes_total: usize,

    // Limits
    /// Orgs without a subscriber that are kept. The bound is this plus 1/8 of the orgs that have one; it
    /// is enforced once in 64 s.
    pub idle_channels_max: usize,
    /// Member streams of one org; `None` for no limit.
    pub org_streams_max: Option<usize>,
    /// Public streams of one org; `None` for no limit.
    pub org_public_streams_max: Option<usize>,

    // Topics
    /// Streams of one topic; `None` for no limit.
    pub topic_streams_max: Option<usize>,
    /// Events of each class that a topic keeps, of the bulk ones and of the others; at least 1.
    pub topic_events: usize,
    /// How long a topic is kept without a subscriber, from its last event or stream on. Its events do not age.
    pub topic_age: Duration,
    /// The length of a topic's event on the wire, in bytes, without the framing of HTTP, and with the longest id. A
    /// longer one is refused. The default is [`EVENT_BYTES_MAX`].
    pub topic_event_bytes_max: usize,
    /// Bytes of memory for what one topic keeps: what its events cost, not their text alone. Bulk events give way first.
    /// The newest event is always kept.
    pub topic_bytes: usize,
    /// Bytes of memory for what all topics keep together, apart from the histories of orgs. Evicted events count too,
    /// while a stream has still to write the rest of one. Beyond it, topics without a subscriber are removed, the
    /// longest idle first, and then a topic that is published to keeps its newest event only.
    pub topics_bytes_total: usize,
    /// Topics without a subscriber that are kept, the longest idle give way.
    pub idle_topics_max: usize,

    // Publishing
    /// Publishes to one org within this time of its last event become one event; zero turns it off.
    pub coalesce: Duration,
    /// Keys of one publish, and of one union of publishes.
    pub keys_max: usize,
    /// The length of a key, in bytes.
    pub key_bytes_max: usize,
    /// The length of an event on the wire, in bytes, without the framing of HTTP. An event that would be longer, of one
    /// publish or of a union, becomes `connected`. The default is [`EVENT_BYTES_MAX`].
    pub event_bytes_max: usize,
    /// What the public streams show.
    pub public: PublicPolicy,
}

/// Which orgs have a public stream, and which keys it shows.
#[derive(Clone, Debug, Default)]
pub struct PublicPolicy {
    /// The orgs that have one.
    pub orgs: PublicOrgs,
    /// The keys that it shows.
    pub keys: Allowlist,
}

/// The orgs with a public stream.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum PublicOrgs {
    /// Every org, unless the server has a key: then none. The hub itself knows no keys, and shows every org.
    #[default]
    IfOpen,
    /// Every org.
    All,
    /// These, which may be none.
    Listed(HashSet<OrgName>),
}

/// Keys by exact name, or by a prefix (written with a final `*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowlist {
    exact: BTreeSet<Box<str>>,
    prefixes: Vec<Box<str>>,
}

/// The default length of an event on the wire: clients in use read at most 64 KiB for a line or an event.
pub const EVENT_BYTES_MAX: usize = 60 * 1024;

/// The default [`Allowlist`]: the keys that are public in the system that nudged replaces.
pub const PUBLIC_KEYS: [&str; 4] =
    ["resolve-path", "entity-types", "view-template-history", "contents-filtered"];

// ===== impl HubConfig =====

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            keepalive: Duration::from_secs(20),
            retry_ms: (1_000, 5_000),
            stall_timeout: Duration::from_secs(60),
            drain_grace: Duration::from_secs(1),
            stream_age_max: None,
            history_events: 256,
            history_age: Duration::from_secs(5 * 60),
            history_bytes: 1024 * 1024,
            history_bytes_total: 256 * 1024 * 1024,
            idle_channels_max: 65_536,
            org_streams_max: None,
            org_public_streams_max: None,
            topic_streams_max: None,
            topic_events: 100,
            topic_age: Duration::from_secs(2 * 60),
            topic_event_bytes_max: EVENT_BYTES_MAX,
            topic_bytes: 256 * 1024,
            topics_bytes_total: 64 * 1024 * 1024,
            idle_topics_max: 10_000,
            coalesce: Duration::from_millis(50),
            keys_max: 256,
            key_bytes_max: 512,
            event_bytes_max: EVENT_BYTES_MAX,
            public: PublicPolicy::default(),
        }
    }
}

impl HubConfig {
    /// [`keepalive`](Self::keepalive) in the whole seconds in which it counts, at least 1.
    pub fn keepalive_seconds(&self) -> u32 {
        whole_seconds(self.keepalive)
    }
}

/// The whole seconds in which a time counts: at least 1, and far less than the hub's time can hold.
pub(crate) fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX).clamp(1, u32::MAX / 4)
}

// ===== impl PublicPolicy =====

impl PublicPolicy {
    /// Whether the org has a public stream.
    pub fn shows(&self, org: &OrgName) -> bool {
        match &self.orgs {
            PublicOrgs::IfOpen | PublicOrgs::All => true,
            PublicOrgs::Listed(orgs) => orgs.contains(org),
        }
    }
}

// ===== impl Allowlist =====

impl Allowlist {
    /// Whether public streams show the key.
    pub fn allows(&self, key: &str) -> bool {
        self.exact.contains(key) || self.prefixes.iter().any(|prefix| key.starts_with(&**prefix))
    }
}

impl<S: AsRef<str>> FromIterator<S> for Allowlist {
    /// A pattern ending in `*` is a prefix, any other an exact name; a lone `*` allows every key.
    fn from_iter<I: IntoIterator<Item = S>>(patterns: I) -> Self {
        let mut list = Self { exact: BTreeSet::new(), prefixes: Vec::new() };
        for pattern in patterns {
            match pattern.as_ref().strip_suffix('*') {
                Some(prefix) => list.prefixes.push(prefix.into()),
                None => _ = list.exact.insert(pattern.as_ref().into()),
            }
        }
        list
    }
}

impl Default for Allowlist {
    fn default() -> Self {
        PUBLIC_KEYS.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowlist_matches_exact_names_and_prefixes() {
        let list: Allowlist = ["posts", "feed:*"].into_iter().collect();
        assert!(list.allows("posts") && list.allows("feed:") && list.allows("feed:9"));
        assert!(!list.allows("post") && !list.allows("posts2") && !list.allows("fee"));
        assert!(["*"].into_iter().collect::<Allowlist>().allows("anything"));
    }
}
