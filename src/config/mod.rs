//! Every limit of the server, with its default and its unit, in one place.

#[cfg(feature = "server")]
mod auth;
#[cfg(feature = "server")]
mod cors;
#[cfg(feature = "jwt")]
mod jwt;
#[cfg(feature = "server")]
mod network;
#[cfg(all(feature = "server", feature = "tls"))]
mod tls;

use std::collections::{BTreeSet, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::ids::OrgName;

#[cfg(feature = "jwt")]
pub use self::jwt::{
    JWKS_BYTES_MAX, JWKS_KEYS_MAX, JwksConfig, JwksUrl, TOKEN_BYTES_MAX, TOKEN_SKEW, TokenKey,
};
#[cfg(all(feature = "server", feature = "tls"))]
pub use self::tls::TlsFiles;
#[cfg(feature = "server")]
pub use self::{
    auth::{AuthConfig, InvalidKey, Secret},
    cors::{CorsPolicy, InvalidOrigin, Origin},
    network::{InvalidNetwork, Network},
};

/// What the server does and where it ends. Built by the command line, or by hand from
/// [`Config::default`]: some of its fields come with features.
#[cfg(feature = "server")]
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. Every worker accepts on every one of them.
    pub listen: Vec<SocketAddr>,
    /// With it, what is in `listen` speaks TLS, and HTTP/2 where the client does.
    #[cfg(feature = "tls")]
    pub tls: Option<TlsFiles>,
    /// Where to listen without TLS all the same.
    pub plain_listen: Vec<SocketAddr>,
    /// Requests that one HTTP/2 connection may have open at the same time, streams among them.
    pub connection_streams_max: u32,
    /// Worker threads, each with its own runtime, poller, wheel and listeners; at least 1.
    pub workers: usize,
    /// Serve the whole network although no key is configured.
    pub insecure_open: bool,
    /// A peer that acknowledges nothing for this long is dead (`TCP_USER_TIMEOUT`).
    pub peer_timeout: Duration,
    /// How long a request head may take from its first byte, and how long a connection may idle before and
    /// between requests.
    pub head_timeout: Duration,
    /// How long a request body may take.
    pub body_timeout: Duration,
    /// The largest request head, in bytes; at least 8,192.
    pub head_bytes_max: usize,
    /// The largest body of a publish, in bytes.
    pub publish_bytes_max: usize,
    /// When the server ends at the latest, counted from when it was told to stop. What is shorter than
    /// `drain_delay` and `drain_window` together cuts streams.
    pub drain_timeout: Duration,
    /// What the hub keeps and how it delivers.
    pub hub: HubConfig,
    /// How long the server goes on accepting once it was told to stop, while `/readyz` already says
    /// that it is not ready: what a load balancer takes to notice.
    pub drain_delay: Duration,
    /// The time after that over which the streams end, evenly.
    pub drain_window: Duration,
    /// Connections in total; `None` for as many as the descriptor limit allows when the server
    /// starts, less a reserve.
    pub connections_max: Option<usize>,
    /// Connections from one IPv4 address, or from one IPv6 /64; through a trusted proxy, streams of
    /// one such client. `None` for no limit.
    pub address_connections_max: Option<usize>,
    /// Proxies that are believed when they tell, in `X-Forwarded-For` or `Forwarded`, for whom they
    /// speak. They are not counted as an address themselves.
    pub trusted_proxies: Vec<Network>,
    /// How fast one org may be published to; `None` for no limit.
    pub publish_rate: Option<PublishRate>,
    /// Which tokens are good.
    pub auth: AuthConfig,
    /// Which pages of other origins may read answers.
    pub cors: CorsPolicy,
}

/// What the hub keeps and how it delivers.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Publishes to one org within this time of the last event become one event; zero turns it off.
    pub coalesce: Duration,
    /// The silence after which a stream gets a comment; each is drawn from ±25 % of it. Counted in
    /// whole seconds, at least 1.
    pub keepalive: Duration,
    /// The reconnection time that streams begin with is drawn from this range, in milliseconds, so
    /// that a herd does not come back as one.
    pub retry_ms: (u32, u32),
    /// Events that each org remembers; at least 1.
    pub history_events: usize,
    /// How long an event is remembered, and an org without subscribers.
    pub history_age: Duration,
    /// Bytes that one org remembers. The newest event is always kept.
    pub history_bytes: usize,
    /// Bytes that all orgs together remember. Beyond it an org keeps its newest event only.
    pub history_bytes_total: usize,
    /// Orgs without a subscriber that are remembered; where far more orgs have one, up to an eighth of
    /// those more, until the registry is tidied (each part of it once in 64 seconds).
    pub idle_channels_max: usize,
    /// Keys of one publish, and of one union of publishes.
    pub keys_max: usize,
    /// The length of a key, in bytes.
    pub key_bytes_max: usize,
    /// What anyone may see.
    pub public: PublicPolicy,
    /// A stream that had something to write and could write none of it for this long is ended. Counted
    /// in whole seconds, at least 1.
    pub stall_timeout: Duration,
    /// A stream ends at 80 to 100 % of this age, drawn for each; `None` lets it become as old as it may.
    pub stream_age_max: Option<Duration>,
    /// Streams that one org may have, of both kinds together; `None` for no limit.
    pub org_streams_max: Option<usize>,
}

/// How fast one org may be published to.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishRate {
    /// Publishes a second that it can go on with for ever; 1 to 1,000,000.
    pub per_second: u32,
    /// Publishes at once after a silence; at least 1.
    pub burst: u32,
}

/// Which orgs have a public stream, and which keys it shows.
#[derive(Clone, Debug, Default)]
pub struct PublicPolicy {
    /// The orgs that have one.
    pub orgs: PublicOrgs,
    /// The keys that may be seen on it.
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

/// What the system that nudged replaces shows to anyone.
pub const PUBLIC_KEYS: [&str; 4] =
    ["resolve-path", "entity-types", "view-template-history", "contents-filtered"];

/// Where nudged listens unless told otherwise.
pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6834);

#[cfg(feature = "server")]
impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![LISTEN],
            #[cfg(feature = "tls")]
            tls: None,
            plain_listen: Vec::new(),
            connection_streams_max: 256,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            insecure_open: false,
            peer_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            head_bytes_max: 16 * 1024,
            publish_bytes_max: 64 * 1024,
            drain_timeout: Duration::from_secs(30),
            hub: HubConfig::default(),
            drain_delay: Duration::ZERO,
            drain_window: Duration::from_secs(5),
            connections_max: None,
            address_connections_max: None,
            trusted_proxies: Vec::new(),
            publish_rate: None,
            auth: AuthConfig::default(),
            cors: CorsPolicy::default(),
        }
    }
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            coalesce: Duration::from_millis(50),
            keepalive: Duration::from_secs(30),
            retry_ms: (1_000, 5_000),
            history_events: 256,
            history_age: Duration::from_secs(5 * 60),
            history_bytes: 1024 * 1024,
            history_bytes_total: 256 * 1024 * 1024,
            idle_channels_max: 65_536,
            keys_max: 256,
            key_bytes_max: 512,
            public: PublicPolicy::default(),
            stall_timeout: Duration::from_secs(60),
            stream_age_max: None,
            org_streams_max: None,
        }
    }
}

// ===== impl PublicPolicy =====

impl PublicPolicy {
    /// Whether anyone may listen to this org.
    pub fn shows(&self, org: &OrgName) -> bool {
        match &self.orgs {
            PublicOrgs::All => true,
            PublicOrgs::Listed(orgs) => orgs.contains(org),
        }
    }
}

// ===== impl Allowlist =====

impl Allowlist {
    /// Whether the key may be seen.
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
    fn an_allowlist_takes_names_and_prefixes() {
        let list: Allowlist = ["posts", "feed:*"].into_iter().collect();
        assert!(list.allows("posts") && list.allows("feed:") && list.allows("feed:9"));
        assert!(!list.allows("post") && !list.allows("posts2") && !list.allows("fee"));
        assert!(["*"].into_iter().collect::<Allowlist>().allows("anything"));
    }
}
