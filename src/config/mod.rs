//! Every limit of the server, with its default and its unit, in one place.

#[cfg(feature = "server")]
mod auth;
#[cfg(feature = "server")]
mod backplane;
#[cfg(feature = "server")]
mod broker_url;
#[cfg(feature = "server")]
mod cors;
#[cfg(feature = "server")]
mod credentials;
#[cfg(feature = "server")]
mod endpoint;
#[cfg(feature = "server")]
mod hosts;
mod hub;
#[cfg(feature = "server")]
mod input;
#[cfg(feature = "jwt")]
mod jwt;
#[cfg(feature = "jwt")]
mod key_file;
#[cfg(feature = "server")]
mod network;
#[cfg(feature = "server")]
mod outbox;
#[cfg(feature = "server")]
mod percent;
#[cfg(all(feature = "server", feature = "tls"))]
mod tls;

#[cfg(feature = "server")]
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
#[cfg(feature = "server")]
use std::path::PathBuf;
use std::time::Duration;

#[cfg(any(feature = "nats", feature = "redis"))]
pub(crate) use self::backplane::RECORD_OVERHEAD_MAX;
#[cfg(feature = "server")]
pub(crate) use self::credentials::{
    EXCLUSIVE_PARAMETER, KEYS_PARAMETER, PING_PARAMETER, POSITION_PARAMETERS, SINCE_PARAMETER,
};
pub(crate) use self::hub::whole_seconds;
pub use self::hub::{Allowlist, EVENT_BYTES_MAX, HubConfig, PUBLIC_KEYS, PublicOrgs, PublicPolicy};
#[cfg(feature = "jwt")]
pub use self::jwt::{
    JWKS_BYTES_MAX, JWKS_KEYS_MAX, JwksConfig, JwksUrl, TOKEN_BYTES_MAX, TOKEN_KEYS_MAX,
    TOKEN_SKEW, TokenKey,
};
#[cfg(feature = "jwt")]
pub use self::key_file::{InvalidKeyFile, KEY_FILE_BYTES_MAX, KeyFile, SECRETS_MAX};
#[cfg(all(feature = "server", feature = "tls"))]
pub use self::tls::{TLS_RECORDS_MAX, TlsFiles, TlsRecords, TlsSessions};
#[cfg(feature = "server")]
pub use self::{
    auth::{AuthConfig, InvalidKey, Secret},
    backplane::{BackplaneConfig, InvalidLogName, LogName, RECORD_BYTES_MAX},
    broker_url::{BackplaneLogin, BackplaneUrl, BrokerKind, InvalidBackplaneUrl},
    cors::{CorsPolicy, InvalidOrigin, Origin},
    credentials::{CREDENTIALS_MAX, ClaimPointer, CookieName, InvalidName, ParameterName},
    endpoint::Endpoint,
    hosts::{HostName, InvalidHost},
    input::{
        PROXY_HEADER_BYTES_MAX, READS_PER_TURN, STREAM_INPUT_MAX, STREAM_INPUT_PER_TURN,
        STREAM_INPUT_WINDOW, TLS_KEY_UPDATES_MAX, TLS_OVERHEAD_MAX, TLS_OVERHEAD_PER_BYTE,
    },
    network::{ForwardedField, InvalidNetwork, Network, Peers},
    outbox::{InvalidPostgresUrl, OutboxConfig, PostgresTls, PostgresUrl},
};

#[cfg(feature = "server")]
use crate::metrics::SharedCount;

/// The settings of a server. Built from the command line, or by hand from [`Config::default`]: some of its
/// fields come with features.
#[cfg(feature = "server")]
#[derive(Clone, Debug)]
pub struct Config {
    // Listening
    /// Where to listen. Every worker accepts on each of these addresses.
    pub listen: Vec<Endpoint>,
    /// Further addresses, in cleartext even if `tls` is set.
    pub plain_listen: Vec<Endpoint>,
    /// Internal addresses, in cleartext: they serve everything, on connections of their own. If there is one,
    /// publishing, `/metrics` and `/ops` are served there only.
    pub internal_listen: Vec<Endpoint>,
    /// The permissions of the files of Unix sockets: a process that may write to one may connect.
    pub listen_mode: u32,
    /// Worker threads, each with its own runtime, poller, wheel and listeners; at least 1.
    pub workers: usize,
    /// Let others than the users of this machine reach a server without keys: listen beyond loopback, answer for any
    /// host, and allow pages of other origins.
    pub insecure_open: bool,
    /// Hosts that requests may be for, beside `localhost` and loopback addresses. If there is none, a server that has a
    /// key, or is open on purpose (`insecure_open`), answers for any; if there is one, it answers for any address too.
    pub hosts: Vec<HostName>,

    // TLS
    /// If set, the addresses in `listen` speak TLS, and HTTP/2 with clients that negotiate it.
    #[cfg(feature = "tls")]
    pub tls: Option<TlsFiles>,
    /// What becomes of TLS 1.3 sessions when an HTTP/1 stream begins.
    #[cfg(feature = "tls")]
    pub tls_sessions: TlsSessions,
    /// For tests.
    #[cfg(feature = "tls")]
    #[doc(hidden)]
    pub tls_records: TlsRecords,

    // Streams and history
    /// What the hub keeps, and how it delivers.
    pub hub: HubConfig,

    // Limits
    /// Connections in total; `None` for as many as the descriptor limit allows when the server starts, less
    /// a reserve.
    pub connections_max: Option<usize>,
    /// Connections to `internal_listen`, at least 1; they count against no other limit of connections. At most a
    /// quarter of the descriptors.
    pub internal_connections_max: usize,
    /// Connections from one IPv4 address or one IPv6 /64; `None` for no limit.
    pub address_connections_max: Option<usize>,
    /// Streams in total; `None` for as many as connections, and not less than [`STREAMS_MIN`].
    pub streams_max: Option<usize>,
    /// Streams of one IPv4 address or one IPv6 /64, on all of its connections. Behind a trusted proxy it is the
    /// client's address that counts. `None` for no limit.
    pub address_streams_max: Option<usize>,
    /// Proxies whose `forwarded_field` names the client. Their own addresses are not limited.
    pub trusted_proxies: Vec<Peers>,
    /// The field that these proxies write. The other one is not read: the client may have sent it.
    pub forwarded_field: ForwardedField,
    /// Proxies that begin each connection to a public address, before TLS or HTTP, with a header of the PROXY protocol,
    /// version 2, which names its client: at most [`PROXY_HEADER_BYTES_MAX`] bytes, within `head_timeout`. A connection
    /// of them without it is closed. Their own connections, for health checks, are not limited for each address. Others
    /// cannot send it.
    pub proxy_protocol_from: Vec<Peers>,
    /// Requests, streams among them, that one HTTP/2 connection may have open at the same time.
    pub connection_streams_max: u32,
    /// The largest request head, in bytes; at least 8,192.
    pub head_bytes_max: usize,
    /// How long a request head may take from its first byte, and how long a connection may send nothing before its
    /// first one.
    pub head_timeout: Duration,
    /// How long a connection may be idle after a request. At the limit of connections, those that have been idle for
    /// the longest time are closed earlier, to make room for others.
    pub idle_timeout: Duration,
    /// A peer that acknowledges nothing for this long is dead (`TCP_USER_TIMEOUT`).
    pub peer_timeout: Duration,

    // Publishing
    /// The largest body of a publish, in bytes.
    pub publish_bytes_max: usize,
    /// How long a request body may take. Over HTTP/2 also how long a client may take to receive a response that is no
    /// stream; over HTTP/1, how long it may receive nothing of one.
    pub body_timeout: Duration,
    /// Bytes of unfinished request bodies that one HTTP/2 connection may have; `publish_bytes_max` if that is more. A
    /// publish beyond it is refused.
    pub connection_body_bytes_max: usize,
    /// The rate limit of publishes to one org; `None` for no limit.
    pub publish_rate: Option<PublishRate>,

    // Several servers as one
    /// The log that it shares with others; `None` if it serves alone.
    pub backplane: Option<BackplaneConfig>,

    // Publishes that happen when a transaction is committed
    /// The table whose rows are published; `None` for no table.
    pub outbox: Option<OutboxConfig>,

    // Requests about open streams
    /// The time over which the streams end, or re-read everything, that are requested to.
    pub reread_window: Duration,

    // Tokens and origins
    /// The keys that requests are authorised with. Without any, the server is open.
    pub auth: AuthConfig,
    /// Which pages of other origins may read responses. Without any key it needs `insecure_open`.
    pub cors: CorsPolicy,
    /// Header fields that these pages may send, beside the usual ones.
    pub cors_headers: Vec<http::HeaderName>,

    // Shutdown
    /// How long the server still accepts after it was asked to stop, while `/readyz` already answers 503:
    /// the time that a load balancer takes to notice.
    pub drain_delay: Duration,
    /// The time after `drain_delay` over which the streams end, evenly. Connections without a complete request
    /// are closed [`HubConfig::drain_grace`] after the delay.
    pub drain_window: Duration,
    /// The server has ended after this time at the latest, counted from when it was asked to stop. If it is
    /// less than `drain_delay` and `drain_window` together, the remaining streams are cut.
    pub drain_timeout: Duration,
    /// The file in which histories and topics outlive a restart, with the payloads of their events; `None` for none. It
    /// is written at the end of a drain, which may take 8 s after `drain_timeout`, and removed at the start. Beside it lies a
    /// file of the same name with `.tmp`. Not with a `backplane`, from whose log clients resume.
    pub state: Option<PathBuf>,

    // Operations
    /// Whether `/ops` is served, the page for operators, and what it shows beside `/metrics`.
    pub ops: bool,

    // Logging
    /// A line for each stream that ends, by `tracing`, with the target `nudged::access` and the level `info`: its org,
    /// kind and client address, the cause of its end, how long it was open, and how many events it delivered.
    pub access_log: bool,
    /// Lines of its log that the application has dropped: `nudged_log_lines_dropped_total` in `/metrics`. The
    /// server itself logs by `tracing`, and keeps nothing.
    pub log_lines_dropped: SharedCount,
}

/// The rate limit of publishes to one org.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishRate {
    /// Publishes a second in the long run; 1 to 1,000,000.
    pub per_second: u32,
    /// Publishes at once after a silence; at least 1.
    pub burst: u32,
}

/// The default address to listen on.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6834);

/// The least default of [`Config::streams_max`]: HTTP/2 has many streams on a connection.
#[cfg(feature = "server")]
pub const STREAMS_MIN: usize = 65_536;

// ===== impl Config =====

#[cfg(feature = "server")]
impl Config {
    /// Whether every client that reaches the server may use it, without a setting that allows it.
    pub(crate) fn is_open_by_default(&self) -> bool {
        self.auth.is_open() && !self.insecure_open
    }

    /// Makes [`PublicOrgs::IfOpen`] what it means for this server.
    pub fn resolve_public_orgs(&mut self) {
        let orgs = &mut self.hub.public.orgs;
        if matches!(orgs, PublicOrgs::IfOpen) {
            let none = PublicOrgs::Listed(HashSet::new());
            *orgs = if self.auth.is_open() { PublicOrgs::All } else { none };
        }
    }
}

#[cfg(feature = "server")]
impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![Endpoint::Tcp(LISTEN)],
            plain_listen: Vec::new(),
            internal_listen: Vec::new(),
            listen_mode: 0o660,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            insecure_open: false,
            hosts: Vec::new(),
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            tls_sessions: TlsSessions::default(),
            #[cfg(feature = "tls")]
            tls_records: TlsRecords::default(),
            hub: HubConfig::default(),
            connections_max: None,
            internal_connections_max: 256,
            address_connections_max: None,
            streams_max: None,
            address_streams_max: None,
            trusted_proxies: Vec::new(),
            proxy_protocol_from: Vec::new(),
            forwarded_field: ForwardedField::default(),
            connection_streams_max: 256,
            head_bytes_max: 16 * 1024,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            peer_timeout: Duration::from_secs(30),
            publish_bytes_max: 64 * 1024,
            body_timeout: Duration::from_secs(10),
            connection_body_bytes_max: 256 * 1024,
            publish_rate: None,
            backplane: None,
            outbox: None,
            reread_window: Duration::from_secs(5),
            auth: AuthConfig::default(),
            cors: CorsPolicy::default(),
            cors_headers: Vec::new(),
            drain_delay: Duration::ZERO,
            drain_window: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
            state: None,
            ops: true,
            access_log: false,
            log_lines_dropped: SharedCount::default(),
        }
    }
}
