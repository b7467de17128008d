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

    // Publishing
    /// Publishes to one org within this time of its last event become one event; zero turns it off.
    pub coalesce: Duration,
    /// Keys of one publish, and of one union of publishes.
    pub keys_max: usize,
    /// The length of a key, in bytes.
    pub key_bytes_max: usize,
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
    /// Every org.
    #[default]
    All,
    /// These.
    Listed(HashSet<OrgName>),
}

/// Keys by exact name, or by a prefix (written with a final `*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowlist {
    exact: BTreeSet<Box<str>>,
    prefixes: Vec<Box<str>>,
}

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
            coalesce: Duration::from_millis(50),
            keys_max: 256,
            key_bytes_max: 512,
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
            PublicOrgs::All => true,
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
