//! The settings of `nudged serve`, in the order of `--help`; their groups are in `groups.rs`.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::Args;
use nudged::config::{self, Config, HostName, HubConfig, Peers};
#[cfg(feature = "tls")]
use nudged::config::{TlsFiles, TlsSessions};

use super::listen_address::ListenAddress;
#[cfg(feature = "tls")]
use super::listen_address::resolve;
use super::values::{
    ForwardedFieldArg, HumanDuration, LogFormat, OrgList, Switch, at_least, count, duration,
    listen_mode, millis, org_list, public_key, whole_seconds,
};
#[cfg(feature = "tls")]
use super::values::{TlsSessionsArg, check_file_name, check_key_file};

#[derive(Args, Clone, Debug)]
pub(super) struct ListenArgs {
    /// Address to listen on, like 127.0.0.1:6834; localhost:6834 is 127.0.0.1 and ::1, :6834 is every
    /// address of IPv4 and IPv6, [::]:6834 takes IPv6 only, and unix:/run/nudged.sock is a Unix socket.
    /// Separate several with commas, or repeat the flag
    #[arg(long, env = "NUDGED_LISTEN", value_name = "ADDRESS:PORT", value_delimiter = ',', default_value = LISTEN.as_str())]
    pub(super) listen: Vec<ListenAddress>,

    /// Internal address, in cleartext, with connections of its own: it serves everything, and publishing,
    /// DELETE, reread, positions, /metrics and /ops are then served there only; separate several with commas,
    /// or repeat the flag
    #[arg(
        long,
        env = "NUDGED_INTERNAL_LISTEN",
        value_name = "ADDRESS:PORT",
        value_delimiter = ','
    )]
    pub(super) internal_listen: Vec<ListenAddress>,

    /// Permissions of the files of Unix sockets, in octal: a process that may write to one may connect
    #[arg(long, env = "NUDGED_LISTEN_MODE", value_name = "MODE", default_value = "660", value_parser = listen_mode)]
    pub(super) listen_mode: u32,

    /// Worker threads [default: one per core]
    #[arg(long, env = "NUDGED_WORKERS", value_name = "N", value_parser = count(1..=1024))]
    pub(super) workers: Option<usize>,

    /// Listen beyond loopback, for any host, and with --cors-origin, although no key is configured:
    /// every client that connects may subscribe and publish
    #[arg(long, env = "NUDGED_INSECURE_OPEN")]
    pub(super) insecure_open: bool,

    /// Hosts that requests may be for, beside localhost and loopback addresses, without ports;
    /// separate several with commas. A server with a key, or with --insecure-open, answers for any
    /// host, but if this is given, for these, localhost and all addresses only
    #[arg(long, env = "NUDGED_HOST", value_name = "NAME", value_delimiter = ',')]
    pub(super) host: Vec<HostName>,

    /// Whether /ops is served, the page for operators. It holds no data; the names of orgs, topics and
    /// servers that it shows need a token for all orgs with the scope ops
    #[arg(long, env = "NUDGED_OPS", value_name = "WHETHER", value_enum, default_value_t = Switch::On)]
    pub(super) ops: Switch,
}

// ===== impl ListenArgs =====

impl ListenArgs {
    /// Whether one of the public addresses is a path.
    pub(super) fn has_public_unix_socket(&self) -> bool {
        self.listen.iter().any(ListenAddress::is_unix)
    }

    /// Whether one of the internal addresses is.
    pub(super) fn has_internal_unix_socket(&self) -> bool {
        self.internal_listen.iter().any(ListenAddress::is_unix)
    }
}

#[cfg(feature = "tls")]
#[derive(Args, Clone, Debug)]
pub(super) struct TlsFileArgs {
    /// PEM file with the certificate chain, the server's own certificate first. With it, --listen
    /// speaks TLS, with HTTP/2. Certificate and key are read again when the files change, and on
    /// SIGHUP
    #[arg(long, env = "NUDGED_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// PEM file with the private key of the certificate
    #[arg(long, env = "NUDGED_TLS_KEY", value_name = "FILE", hide_env_values = true)]
    tls_key: Option<PathBuf>,

    /// What becomes of the session of TLS 1.3 when an HTTP/1 stream begins. TLS 1.2 and HTTP/2 keep theirs
    #[arg(long, env = "NUDGED_TLS_SESSIONS", value_name = "WHAT", value_enum, default_value_t = TlsSessionsArg::Release)]
    tls_sessions: TlsSessionsArg,

    /// Address to listen on without TLS, in addition to --listen
    #[arg(long, env = "NUDGED_PLAIN_LISTEN", value_name = "ADDRESS:PORT", value_delimiter = ',')]
    plain_listen: Vec<ListenAddress>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct StreamArgs {
    /// The longest silence of a stream: a comment comes after 75 to 100 % of it; whole seconds
    #[arg(long, env = "NUDGED_KEEPALIVE", value_name = "TIME", default_value_t = HumanDuration(HUB.keepalive), value_parser = whole_seconds(1_000..=86_400_000))]
    pub(super) keepalive: HumanDuration,

    /// Shortest reconnection time (`retry:`) sent to a client
    #[arg(long, env = "NUDGED_RETRY_MIN", value_name = "TIME", default_value_t = millis(HUB.retry_ms.0), value_parser = duration(1..=3_600_000))]
    pub(super) retry_min: HumanDuration,

    /// Longest reconnection time (`retry:`) sent to a client
    #[arg(long, env = "NUDGED_RETRY_MAX", value_name = "TIME", default_value_t = millis(HUB.retry_ms.1), value_parser = duration(1..=3_600_000))]
    pub(super) retry_max: HumanDuration,

    /// End a stream whose client has read nothing of the pending bytes for this time; whole seconds.
    /// Over HTTP/2, a client that read some of them and then stopped has up to twice as long. A client
    /// whose TCP window stays closed is ended by --peer-timeout if that is shorter, and counted as
    /// timeout instead of stalled
    #[arg(long, env = "NUDGED_STALL_TIMEOUT", value_name = "TIME", default_value_t = HumanDuration(HUB.stall_timeout), value_parser = whole_seconds(1_000..=86_400_000))]
    pub(super) stall_timeout: HumanDuration,

    /// End a connection whose peer has acknowledged nothing for this time (TCP_USER_TIMEOUT)
    #[arg(long, env = "NUDGED_PEER_TIMEOUT", value_name = "TIME", default_value_t = HumanDuration(CONFIG.peer_timeout), value_parser = duration(1_000..=3_600_000))]
    pub(super) peer_timeout: HumanDuration,

    /// End each stream at 80 to 100 % of this age, so that clients spread over the servers again
    /// [default: never]
    #[arg(long, env = "NUDGED_MAX_STREAM_AGE", value_name = "TIME", value_parser = duration(1_000..=31_536_000_000))]
    pub(super) max_stream_age: Option<HumanDuration>,

    /// Orgs that have a public stream, separated by commas; * for all, and an empty list for none
    /// [default: with a key none, without one all]
    #[arg(long, env = "NUDGED_PUBLIC_ORGS", value_name = "ORG", value_parser = org_list)]
    pub(super) public_orgs: Option<Vec<OrgList>>,

    /// Keys that public streams show, separated by commas; a final * matches any ending
    #[arg(long, env = "NUDGED_PUBLIC_KEYS", value_name = "KEY", value_delimiter = ',', default_values = config::PUBLIC_KEYS, value_parser = public_key)]
    pub(super) public_keys: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct HistoryArgs {
    /// Events kept per org and view (members, public), for clients that reconnect
    #[arg(long, env = "NUDGED_HISTORY_EVENTS", value_name = "N", default_value_t = HUB.history_events, value_parser = count(1..=1_000_000))]
    pub(super) history_events: usize,

    /// How long an event is kept, and an org without subscribers
    #[arg(long, env = "NUDGED_HISTORY_AGE", value_name = "TIME", default_value_t = HumanDuration(HUB.history_age), value_parser = duration(1_000..=86_400_000))]
    pub(super) history_age: HumanDuration,

    /// Memory for the events kept per org, in bytes: what they cost, not their text alone. The newest
    /// event is always kept
    #[arg(long, env = "NUDGED_HISTORY_BYTES", value_name = "BYTES", default_value_t = HUB.history_bytes)]
    pub(super) history_bytes: usize,

    /// Memory for the events of all orgs together, in bytes, with evicted ones that a stream has still
    /// to write the rest of; above it, an org that is published to keeps only the newest event of each view
    #[arg(long, env = "NUDGED_HISTORY_BYTES_TOTAL", value_name = "BYTES", default_value_t = HUB.history_bytes_total)]
    pub(super) history_bytes_total: usize,

    /// Orgs without subscribers that are kept
    #[arg(long, env = "NUDGED_IDLE_CHANNELS", value_name = "N", default_value_t = HUB.idle_channels_max, value_parser = count(64..=100_000_000))]
    pub(super) idle_channels: usize,
}

#[derive(Args, Clone, Debug)]
pub(super) struct TopicArgs {
    /// Streams of one topic [default: no limit]
    #[arg(long, env = "NUDGED_TOPIC_STREAMS", value_name = "N", value_parser = count(1..=100_000_000))]
    pub(super) topic_streams: Option<usize>,

    /// Events that a topic keeps of each class, of the bulk ones and of the others
    #[arg(long, env = "NUDGED_TOPIC_EVENTS", value_name = "N", default_value_t = HUB.topic_events, value_parser = count(1..=10_000))]
    pub(super) topic_events: usize,

    /// How long a topic is kept without a stream, from its last event or stream on. Its events do not age
    #[arg(long, env = "NUDGED_TOPIC_AGE", value_name = "TIME", default_value_t = HumanDuration(HUB.topic_age), value_parser = duration(1_000..=86_400_000))]
    pub(super) topic_age: HumanDuration,

    /// Length of a topic's event on the wire; a longer one is refused, and so is a body of more than
    /// --publish-bytes. Clients in use read at most 64 KiB for a line
    #[arg(long, env = "NUDGED_TOPIC_EVENT_BYTES", value_name = "BYTES", default_value_t = HUB.topic_event_bytes_max, value_parser = count(1_024..=1 << 20))]
    pub(super) topic_event_bytes: usize,

    /// Memory for what a topic keeps, in bytes, at least --topic-event-bytes: what its events cost, not
    /// their text alone. Bulk events give way first, and the newest event is always kept
    #[arg(long, env = "NUDGED_TOPIC_BYTES", value_name = "BYTES", default_value_t = HUB.topic_bytes, value_parser = at_least(1_024))]
    pub(super) topic_bytes: usize,

    /// Memory for what all topics keep together, in bytes, at least --topic-bytes; what orgs keep has its
    /// own (--history-bytes-total). Above it, topics without a stream are removed, the longest idle first,
    /// and a topic that is published to keeps only its newest event
    #[arg(long, env = "NUDGED_TOPICS_BYTES_TOTAL", value_name = "BYTES", default_value_t = HUB.topics_bytes_total, value_parser = at_least(1_024))]
    pub(super) topics_bytes_total: usize,

    /// Topics without a stream that are kept; beyond, the longest idle are removed
    #[arg(long, env = "NUDGED_IDLE_TOPICS", value_name = "N", default_value_t = HUB.idle_topics_max, value_parser = count(1..=100_000_000))]
    pub(super) idle_topics: usize,
}

#[derive(Args, Clone, Debug)]
pub(super) struct LimitArgs {
    /// Connections in total [default: as many as the limit of open files allows, less a reserve]
    #[arg(long, env = "NUDGED_CONNECTIONS", value_name = "N", value_parser = count(1..=100_000_000))]
    pub(super) connections: Option<usize>,

    /// Connections to --internal-listen, which count against no other limit of connections
    #[arg(long, env = "NUDGED_INTERNAL_CONNECTIONS", value_name = "N", default_value_t = CONFIG.internal_connections_max, value_parser = count(1..=100_000_000))]
    pub(super) internal_connections: usize,

    /// Connections from one address (IPv6: one /64), other than that of a trusted proxy
    /// [default: no limit]
    #[arg(long, env = "NUDGED_ADDRESS_CONNECTIONS", value_name = "N", value_parser = count(1..=100_000_000))]
    pub(super) address_connections: Option<usize>,

    /// Streams in total, of which HTTP/2 has many on a connection [default: as many as
    /// --connections, and not less than 65536]
    #[arg(long, env = "NUDGED_STREAMS", value_name = "N", value_parser = count(1..=100_000_000))]
    pub(super) streams: Option<usize>,

    /// Streams of one address (IPv6: one /64), on all of its connections; behind a trusted proxy, of
    /// one client [default: no limit]
    #[arg(long, env = "NUDGED_ADDRESS_STREAMS", value_name = "N", value_parser = count(1..=100_000_000))]
    pub(super) address_streams: Option<usize>,

    /// Proxies whose --forwarded-field gives the client's address, separated by commas; unix is every peer
    /// of a Unix socket
    #[arg(
        long,
        env = "NUDGED_TRUST_FORWARDED_FOR",
        value_name = "IP/BITS|unix",
        value_delimiter = ','
    )]
    pub(super) trust_forwarded_for: Vec<Peers>,

    /// Field that these proxies write. The other one is not read: a client may have sent it
    #[arg(long, env = "NUDGED_FORWARDED_FIELD", value_name = "FIELD", value_enum, default_value_t = ForwardedFieldArg::XForwardedFor)]
    pub(super) forwarded_field: ForwardedFieldArg,

    /// Proxies that begin each connection with a header of the PROXY protocol, version 2, which names
    /// the client, before TLS or HTTP: L4 balancers. Their connections without it are closed, and nothing
    /// else may send it. Not on --internal-listen. Separated by commas; unix are the clients of Unix sockets
    #[arg(
        long,
        env = "NUDGED_PROXY_PROTOCOL_FROM",
        value_name = "IP/BITS|unix",
        value_delimiter = ','
    )]
    pub(super) proxy_protocol_from: Vec<Peers>,

    /// Member streams of one org [default: no limit]
    #[arg(long, env = "NUDGED_ORG_STREAMS", value_name = "N", value_parser = count(1..=100_000_000))]
    pub(super) org_streams: Option<usize>,

    /// Public streams of one org [default: no limit]
    #[arg(long, env = "NUDGED_ORG_PUBLIC_STREAMS", value_name = "N", value_parser = count(1..=100_000_000))]
    pub(super) org_public_streams: Option<usize>,

    /// Concurrent requests on one HTTP/2 connection, open streams included
    #[arg(long, env = "NUDGED_CONNECTION_STREAMS", value_name = "N", default_value_t = CONFIG.connection_streams_max as usize, value_parser = count(1..=65_536))]
    pub(super) connection_streams: usize,

    /// How long a request head may take from its first byte, and how long a connection may send nothing
    /// before its first one
    #[arg(long, env = "NUDGED_HEAD_TIMEOUT", value_name = "TIME", default_value_t = HumanDuration(CONFIG.head_timeout), value_parser = duration(100..=3_600_000))]
    pub(super) head_timeout: HumanDuration,

    /// How long a connection may be idle after a request. At the limit of connections, those that have
    /// been idle for the longest time are closed earlier, to make room for others
    #[arg(long, env = "NUDGED_IDLE_TIMEOUT", value_name = "TIME", default_value_t = HumanDuration(CONFIG.idle_timeout), value_parser = duration(100..=86_400_000))]
    pub(super) idle_timeout: HumanDuration,

    /// Size of a request head; it may have 100 header fields
    #[arg(long, env = "NUDGED_HEAD_BYTES", value_name = "BYTES", default_value_t = CONFIG.head_bytes_max, value_parser = count(8_192..=1 << 20))]
    pub(super) head_bytes: usize,

    /// Bytes of unfinished publish bodies on one HTTP/2 connection, at least --publish-bytes; the
    /// publish that exceeds them is refused
    #[arg(long, env = "NUDGED_CONNECTION_BODY_BYTES", value_name = "BYTES", default_value_t = CONFIG.connection_body_bytes_max, value_parser = count(65_536..=1 << 30))]
    pub(super) connection_body_bytes: usize,

    /// How long the body of a publish may take, and over HTTP/2 how long a client may take to receive
    /// a response that is no stream
    #[arg(long, env = "NUDGED_BODY_TIMEOUT", value_name = "TIME", default_value_t = HumanDuration(CONFIG.body_timeout), value_parser = duration(100..=3_600_000))]
    pub(super) body_timeout: HumanDuration,
}

#[derive(Args, Clone, Debug)]
pub(super) struct PublishArgs {
    /// Publishes to an org within this time after its last event are merged into one event; 0 turns
    /// that off
    #[arg(long, env = "NUDGED_COALESCE", value_name = "TIME", default_value_t = HumanDuration(HUB.coalesce), value_parser = duration(0..=60_000))]
    pub(super) coalesce: HumanDuration,

    /// Keys in one publish
    #[arg(long, env = "NUDGED_KEYS", value_name = "N", default_value_t = HUB.keys_max, value_parser = count(1..=65_536))]
    pub(super) keys: usize,

    /// Length of a key
    #[arg(long, env = "NUDGED_KEY_BYTES", value_name = "BYTES", default_value_t = HUB.key_bytes_max, value_parser = count(1..=65_536))]
    pub(super) key_bytes: usize,

    /// Length of an event on the wire; a longer one becomes `connected`. Clients in use read at most 64 KiB for a line
    #[arg(long, env = "NUDGED_EVENT_BYTES", value_name = "BYTES", default_value_t = HUB.event_bytes_max, value_parser = count(1_024..=1 << 20))]
    pub(super) event_bytes: usize,

    /// Size of the body of a publish
    #[arg(long, env = "NUDGED_PUBLISH_BYTES", value_name = "BYTES", default_value_t = CONFIG.publish_bytes_max, value_parser = count(64..=1 << 30))]
    pub(super) publish_bytes: usize,

    /// Publishes to one org per second [default: no limit]
    #[arg(long, env = "NUDGED_PUBLISH_RATE", value_name = "N", value_parser = count(1..=1_000_000))]
    pub(super) publish_rate: Option<usize>,

    /// Publishes to one org at once, after a pause [default: as many as --publish-rate]
    #[arg(long, env = "NUDGED_PUBLISH_BURST", value_name = "N", value_parser = count(1..=1_000_000))]
    pub(super) publish_burst: Option<usize>,

    /// Time over which streams end, or get connected, once that is requested (DELETE, reread), evenly,
    /// so that their clients do not all re-read at once; 0 is at once
    #[arg(long, env = "NUDGED_REREAD_WINDOW", value_name = "TIME", default_value_t = HumanDuration(CONFIG.reread_window), value_parser = duration(0..=3_600_000))]
    pub(super) reread_window: HumanDuration,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ShutdownArgs {
    /// How long the server still accepts after SIGTERM, SIGINT or SIGQUIT, while /readyz answers 503: the
    /// time that a load balancer needs to notice
    #[arg(long, env = "NUDGED_DRAIN_DELAY", value_name = "TIME", default_value_t = HumanDuration(CONFIG.drain_delay), value_parser = duration(0..=3_600_000))]
    pub(super) drain_delay: HumanDuration,

    /// Time after --drain-delay over which the streams end, evenly, so that their clients do not
    /// reconnect all at once; 0 ends them at once
    #[arg(long, env = "NUDGED_DRAIN_WINDOW", value_name = "TIME", default_value_t = HumanDuration(CONFIG.drain_window), value_parser = duration(0..=3_600_000))]
    pub(super) drain_window: HumanDuration,

    /// How long a draining server waits for what makes no progress: a connection without a complete
    /// request, a stream whose end is due and whose client reads nothing, a response that is not
    /// read; whole seconds, and up to two more for a stream
    #[arg(long, env = "NUDGED_DRAIN_GRACE", value_name = "TIME", default_value_t = HumanDuration(HUB.drain_grace), value_parser = whole_seconds(1_000..=3_600_000))]
    pub(super) drain_grace: HumanDuration,

    /// The server exits at the latest this long after SIGTERM, SIGINT or SIGQUIT; not less than
    /// --drain-delay plus --drain-window
    #[arg(long, env = "NUDGED_DRAIN_TIMEOUT", value_name = "TIME", default_value_t = HumanDuration(CONFIG.drain_timeout), value_parser = duration(0..=3_600_000))]
    pub(super) drain_timeout: HumanDuration,

    /// File in which histories and topics outlive a restart, so that clients resume instead of re-reading
    /// everything. It has the payloads of events. It is written at the end of a drain, which may then take
    /// 8s longer than --drain-timeout, and removed at the next start; after a crash there is none. Beside it
    /// lies FILE.tmp while the server runs, until an upgrade. Each server needs a file of its own. Not with
    /// --backplane
    #[arg(long, env = "NUDGED_STATE", value_name = "FILE")]
    pub(super) state: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct LogArgs {
    /// Log lines written to standard error: error, warn, info, debug, or targets with levels
    #[arg(long, env = "NUDGED_LOG", value_name = "FILTER", default_value = "warn")]
    pub(crate) log: String,

    /// Format of a log line
    #[arg(long, env = "NUDGED_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    /// Log a line for each stream that ends, whatever --log is: its org, kind and client address, the
    /// cause, how long it was open, and how many events it delivered
    #[arg(long, env = "NUDGED_ACCESS_LOG")]
    pub(crate) access_log: bool,
}

pub(super) static CONFIG: LazyLock<Config> = LazyLock::new(Config::default);
static HUB: LazyLock<HubConfig> = LazyLock::new(HubConfig::default);
static LISTEN: LazyLock<String> = LazyLock::new(|| config::LISTEN.to_string());

// ===== impl TopicArgs =====

impl TopicArgs {
    /// Fails if an event, a topic and all topics do not fit into each other.
    pub(super) fn check(&self) -> Result<(), String> {
        let sizes = [
            ("--topic-event-bytes", self.topic_event_bytes),
            ("--topic-bytes", self.topic_bytes),
            ("--topics-bytes-total", self.topics_bytes_total),
        ];
        for pair in sizes.windows(2) {
            let [(small, less), (large, more)] = pair else { continue };
            if less > more {
                return Err(format!("{small} {less} is more than {large} {more}"));
            }
        }
        Ok(())
    }
}

// ===== impl TlsFileArgs =====

#[cfg(feature = "tls")]
impl TlsFileArgs {
    /// Whether one of the public addresses is a path.
    pub(super) fn has_public_unix_socket(&self) -> bool {
        self.plain_listen.iter().any(ListenAddress::is_unix)
    }

    /// Fails if a file is given by its contents.
    pub(super) fn check(&self) -> Result<(), String> {
        self.tls_cert.as_deref().map_or(Ok(()), |file| check_file_name("--tls-cert", file))?;
        self.tls_key.as_deref().map_or(Ok(()), |file| check_key_file("--tls-key", file))
    }

    pub(super) fn apply_to(self, config: &mut Config) {
        let files = self.tls_cert.zip(self.tls_key);
        config.tls = files.map(|(certificate, key)| TlsFiles { certificate, key });
        config.tls_sessions = match self.tls_sessions {
            TlsSessionsArg::Release => TlsSessions::Release,
            TlsSessionsArg::Keep => TlsSessions::Keep,
        };
        config.plain_listen = resolve(&self.plain_listen);
    }
}
