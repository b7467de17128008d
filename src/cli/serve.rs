//! The settings of the server: every one is a flag and an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::Args;
use ipnet::IpNet;

use super::doors::Doors;
use super::values::{LogFormat, PublicOrg, Span, count, millis, network, public_org, span};
use crate::config::{self, Config, HubConfig, PublicOrgs, PublicPolicy, PublishRate, TlsFiles};

/// Settings of the server. Durations are written like 50ms, 30s or 5m.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// Where to listen; several addresses are separated by commas, or given one by one
    #[arg(long, env = "NUDGED_LISTEN", value_name = "IP:PORT", value_delimiter = ',', default_value = LISTEN.as_str())]
    listen: Vec<SocketAddr>,

    /// File with the PEM certificate chain, its own certificate first: --listen speaks TLS and HTTP/2. It
    /// and the key are read again when they change, and on SIGHUP
    #[arg(long, env = "NUDGED_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// File with the PEM private key of the certificate
    #[arg(long, env = "NUDGED_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Where to listen without TLS beside --listen, for probes and publishers of the same machine
    #[arg(
        long,
        env = "NUDGED_PLAIN_LISTEN",
        value_name = "IP:PORT",
        value_delimiter = ',',
        requires = "tls_cert"
    )]
    plain_listen: Vec<SocketAddr>,

    /// Requests, streams among them, that one HTTP/2 connection may have open at the same time
    #[arg(long, env = "NUDGED_CONNECTION_STREAMS", value_name = "N", default_value_t = CONFIG.connection_streams_max as usize, value_parser = count(1..=65_536))]
    connection_streams: usize,

    /// Worker threads [default: one for each core]
    #[arg(long, env = "NUDGED_WORKERS", value_name = "N", value_parser = count(1..=1024))]
    workers: Option<usize>,

    /// Listen beyond loopback although no key is configured: whoever reaches the server may
    /// subscribe and publish
    #[arg(long, env = "NUDGED_INSECURE_OPEN")]
    insecure_open: bool,

    /// Silence after which a stream gets a comment, ±25 %; whole seconds
    #[arg(long, env = "NUDGED_KEEPALIVE", value_name = "TIME", default_value_t = Span(HUB.keepalive), value_parser = span(1_000..=86_400_000))]
    keepalive: Span,

    /// Publishes to one org within this time of its last event become one event; 0 turns it off
    #[arg(long, env = "NUDGED_COALESCE", value_name = "TIME", default_value_t = Span(HUB.coalesce), value_parser = span(0..=60_000))]
    coalesce: Span,

    /// Shortest reconnection time that is given to a client
    #[arg(long, env = "NUDGED_RETRY_MIN", value_name = "TIME", default_value_t = millis(HUB.retry_ms.0), value_parser = span(1..=3_600_000))]
    retry_min: Span,

    /// Longest reconnection time that is given to a client
    #[arg(long, env = "NUDGED_RETRY_MAX", value_name = "TIME", default_value_t = millis(HUB.retry_ms.1), value_parser = span(1..=3_600_000))]
    retry_max: Span,

    /// Events that each org remembers, for clients that come back
    #[arg(long, env = "NUDGED_HISTORY_EVENTS", value_name = "N", default_value_t = HUB.history_events, value_parser = count(1..=1_000_000))]
    history_events: usize,

    /// How long an event is remembered, and an org without subscribers
    #[arg(long, env = "NUDGED_HISTORY_AGE", value_name = "TIME", default_value_t = Span(HUB.history_age), value_parser = span(1_000..=86_400_000))]
    history_age: Span,

    /// Bytes of events that each org remembers
    #[arg(long, env = "NUDGED_HISTORY_BYTES", value_name = "BYTES", default_value_t = HUB.history_bytes)]
    history_bytes: usize,

    /// Bytes of events that all orgs together remember; beyond it, only the newest of each
    #[arg(long, env = "NUDGED_HISTORY_BYTES_TOTAL", value_name = "BYTES", default_value_t = HUB.history_bytes_total)]
    history_bytes_total: usize,

    /// Orgs without subscribers that are remembered
    #[arg(long, env = "NUDGED_IDLE_CHANNELS", value_name = "N", default_value_t = HUB.idle_channels_max, value_parser = count(64..=100_000_000))]
    idle_channels: usize,

    /// Keys that one publish may have
    #[arg(long, env = "NUDGED_KEYS", value_name = "N", default_value_t = HUB.keys_max, value_parser = count(1..=65_536))]
    keys: usize,

    /// Length of a key
    #[arg(long, env = "NUDGED_KEY_BYTES", value_name = "BYTES", default_value_t = HUB.key_bytes_max, value_parser = count(1..=65_536))]
    key_bytes: usize,

    /// Body of a publish
    #[arg(long, env = "NUDGED_PUBLISH_BYTES", value_name = "BYTES", default_value_t = CONFIG.publish_bytes_max, value_parser = count(64..=1 << 30))]
    publish_bytes: usize,

    /// Orgs that anyone may listen to, separated by commas; * for all
    #[arg(long, env = "NUDGED_PUBLIC_ORGS", value_name = "ORG", value_delimiter = ',', default_value = "*", value_parser = public_org)]
    public_orgs: Vec<PublicOrg>,

    /// Keys that anyone may hear of, separated by commas; a final * stands for any ending
    #[arg(long, env = "NUDGED_PUBLIC_KEYS", value_name = "KEY", value_delimiter = ',', default_values = config::PUBLIC_KEYS)]
    public_keys: Vec<String>,

    /// How long a peer may acknowledge nothing before its connection is given up (TCP_USER_TIMEOUT)
    #[arg(long, env = "NUDGED_PEER_TIMEOUT", value_name = "TIME", default_value_t = Span(CONFIG.peer_timeout), value_parser = span(1_000..=3_600_000))]
    peer_timeout: Span,

    /// How long a request head may take from its first byte, and a connection may idle before and between
    /// requests
    #[arg(long, env = "NUDGED_HEAD_TIMEOUT", value_name = "TIME", default_value_t = Span(CONFIG.head_timeout), value_parser = span(100..=3_600_000))]
    head_timeout: Span,

    /// How long the body of a publish may take
    #[arg(long, env = "NUDGED_BODY_TIMEOUT", value_name = "TIME", default_value_t = Span(CONFIG.body_timeout), value_parser = span(100..=3_600_000))]
    body_timeout: Span,

    /// When the server ends at the latest, counted from when it was told to stop (SIGTERM, SIGINT);
    /// at least --drain-delay and --drain-window together
    #[arg(long, env = "NUDGED_DRAIN_TIMEOUT", value_name = "TIME", default_value_t = Span(CONFIG.drain_timeout), value_parser = span(0..=3_600_000))]
    drain_timeout: Span,

    #[command(flatten)]
    doors: Doors,

    /// Which log lines go to standard error: error, warn, info, debug, or targets with levels
    #[arg(long, env = "NUDGED_LOG", value_name = "FILTER", default_value = "warn")]
    pub log: String,

    /// How a log line is written
    #[arg(long, env = "NUDGED_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// How long a client may take nothing of what there is to write before its stream is cut; whole
    /// seconds. Over HTTP/2 one that took some of it, and then no more, may have up to twice as long. One
    /// whose window stays shut (zero) is given up by the kernel after --peer-timeout if that is shorter,
    /// which is counted as timeout and not as stalled
    #[arg(long, env = "NUDGED_STALL_TIMEOUT", value_name = "TIME", default_value_t = Span(HUB.stall_timeout), value_parser = span(1_000..=86_400_000))]
    stall_timeout: Span,

    /// End each stream at 80 to 100 % of this age, so that the clients of a fleet spread again
    /// [default: never]
    #[arg(long, env = "NUDGED_MAX_STREAM_AGE", value_name = "TIME", value_parser = span(1_000..=31_536_000_000))]
    max_stream_age: Option<Span>,

    /// How long the server goes on accepting once it was told to stop, while /readyz says 503: what a
    /// load balancer takes to notice
    #[arg(long, env = "NUDGED_DRAIN_DELAY", value_name = "TIME", default_value_t = Span(CONFIG.drain_delay), value_parser = span(0..=3_600_000))]
    drain_delay: Span,

    /// The time after --drain-delay over which the streams end, evenly, so that their clients do not
    /// come back as one; 0 ends them at once
    #[arg(long, env = "NUDGED_DRAIN_WINDOW", value_name = "TIME", default_value_t = Span(CONFIG.drain_window), value_parser = span(0..=3_600_000))]
    drain_window: Span,

    /// Connections in total [default: as many as the limit of open files allows, less a reserve]
    #[arg(long, env = "NUDGED_CONNECTIONS", value_name = "N", value_parser = count(1..=100_000_000))]
    connections: Option<usize>,

    /// Connections from one address (IPv6: one /64), or streams of one client behind a trusted proxy
    /// [default: no limit]
    #[arg(long, env = "NUDGED_ADDRESS_CONNECTIONS", value_name = "N", value_parser = count(1..=100_000_000))]
    address_connections: Option<usize>,

    /// Proxies whose X-Forwarded-For or Forwarded tells the client's address, separated by commas
    #[arg(long, env = "NUDGED_TRUST_FORWARDED_FOR", value_name = "IP/BITS", value_delimiter = ',', value_parser = network)]
    trust_forwarded_for: Vec<IpNet>,

    /// Streams that one org may have [default: no limit]
    #[arg(long, env = "NUDGED_ORG_STREAMS", value_name = "N", value_parser = count(1..=100_000_000))]
    org_streams: Option<usize>,

    /// Publishes to one org a second [default: no limit]
    #[arg(long, env = "NUDGED_PUBLISH_RATE", value_name = "N", value_parser = count(1..=1_000_000))]
    publish_rate: Option<usize>,

    /// Publishes to one org at once, after a silence [default: those of one second]
    #[arg(long, env = "NUDGED_PUBLISH_BURST", value_name = "N", value_parser = count(1..=1_000_000), requires = "publish_rate")]
    publish_burst: Option<usize>,

    /// Head of a request; its header fields may be 100 at most
    #[arg(long, env = "NUDGED_HEAD_BYTES", value_name = "BYTES", default_value_t = CONFIG.head_bytes_max, value_parser = count(8_192..=1 << 20))]
    head_bytes: usize,
}

static CONFIG: LazyLock<Config> = LazyLock::new(Config::default);
static HUB: LazyLock<HubConfig> = LazyLock::new(HubConfig::default);
static LISTEN: LazyLock<String> = LazyLock::new(|| config::LISTEN.to_string());

// ===== impl Serve =====

impl Serve {
    /// The settings as the server takes them.
    ///
    /// # Errors
    /// Says which settings contradict each other.
    pub fn into_config(self) -> Result<Config, String> {
        let retry_ms = (self.retry_min.millis(), self.retry_max.millis());
        if retry_ms.0 > retry_ms.1 {
            return Err(format!(
                "--retry-min {} is longer than --retry-max {}",
                self.retry_min, self.retry_max
            ));
        }
        if self.drain_delay.0 + self.drain_window.0 > self.drain_timeout.0 {
            return Err(format!(
                "--drain-delay {} and --drain-window {} together are longer than --drain-timeout {}, \
                 which would cut streams",
                self.drain_delay, self.drain_window, self.drain_timeout
            ));
        }
        let orgs = self.public_orgs.into_iter().map(|entry| match entry {
            PublicOrg::All => None,
            PublicOrg::One(org) => Some(org),
        });
        let orgs = orgs.collect::<Option<_>>().map_or(PublicOrgs::All, PublicOrgs::Listed);
        let hub = HubConfig {
            coalesce: self.coalesce.0,
            keepalive: self.keepalive.0,
            retry_ms,
            history_events: self.history_events,
            history_age: self.history_age.0,
            history_bytes: self.history_bytes,
            history_bytes_total: self.history_bytes_total,
            idle_channels_max: self.idle_channels,
            keys_max: self.keys,
            key_bytes_max: self.key_bytes,
            public: PublicPolicy { orgs, keys: self.public_keys.iter().collect() },
            stall_timeout: self.stall_timeout.0,
            stream_age_max: self.max_stream_age.map(|age| age.0),
            org_streams_max: self.org_streams,
        };
        let small = |n: usize| u32::try_from(n).expect("its parser has a bound");
        let publish_rate = self.publish_rate.map(|per_second| PublishRate {
            per_second: small(per_second),
            burst: small(self.publish_burst.unwrap_or(per_second)),
        });
        Ok(Config {
            listen: self.listen,
            tls: self
                .tls_cert
                .zip(self.tls_key)
                .map(|(certificate, key)| TlsFiles { certificate, key }),
            plain_listen: self.plain_listen,
            connection_streams_max: small(self.connection_streams),
            workers: self.workers.unwrap_or(CONFIG.workers),
            insecure_open: self.insecure_open,
            peer_timeout: self.peer_timeout.0,
            head_timeout: self.head_timeout.0,
            body_timeout: self.body_timeout.0,
            publish_bytes_max: self.publish_bytes,
            drain_timeout: self.drain_timeout.0,
            hub,
            drain_delay: self.drain_delay.0,
            drain_window: self.drain_window.0,
            connections_max: self.connections,
            address_connections_max: self.address_connections,
            trusted_proxies: self.trust_forwarded_for,
            publish_rate,
            head_bytes_max: self.head_bytes,
            cors: self.doors.cors()?,
            auth: self.doors.into_auth()?,
        })
    }
}
