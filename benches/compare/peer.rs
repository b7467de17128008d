//! The servers that are compared: their names, and which of them are asked for.

use std::time::Duration;

/// A server to compare, with its configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// the bare write(2) loop: the lower limit
    Raw,
    /// nudged
    Nudged,
    /// another build of nudged (--nudged-before)
    #[value(skip)]
    NudgedBefore,
    /// nudged over TLS
    NudgedTls,
    /// another build of nudged over TLS (--nudged-before)
    #[value(skip)]
    NudgedTlsBefore,
    /// nudged over TLS and HTTP/2, 100 streams to a connection
    NudgedH2,
    /// another build of nudged over TLS and HTTP/2 (--nudged-before)
    #[value(skip)]
    NudgedH2Before,
    /// nudged with a log in NATS JetStream
    NudgedNats,
    /// nudged with a log in a Redis stream
    NudgedRedis,
    /// nudged's hub, mounted in plain hyper
    Hyper,
    /// axum's Sse over a broadcast channel
    Axum,
    /// nginx with nchan
    Nchan,
    /// nginx with nchan over TLS
    NchanTls,
    /// Pushpin behind its origin
    Pushpin,
    /// Mercure without a history (transport local)
    Mercure,
    /// Mercure with its default transport, which stores a history (Bolt)
    MercureBolt,
    /// Mercure without a history, over TLS
    MercureTls,
    /// Centrifugo, its engine in memory
    Centrifugo,
    /// Centrifugo, its engine in Redis
    CentrifugoRedis,
    /// Centrifugo with NATS between its servers, which has no history
    CentrifugoNats,
    /// Centrifugo, its engine in memory, over TLS
    CentrifugoTls,
    /// Durable Streams, the server in Rust, with its write-ahead log, as by default
    DurableStreams,
    /// Durable Streams without its write-ahead log (--durability memory)
    DurableStreamsMemory,
    /// Hono on Node
    Hono,
    /// Hono on Bun
    HonoBun,
}

/// What passes the publishes of several servers on to each of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Backplane {
    Nats,
    Redis,
}

// ===== impl Peer =====

impl Peer {
    pub(crate) const ALL: [Self; 25] = [
        Self::Raw,
        Self::Nudged,
        Self::NudgedBefore,
        Self::NudgedTls,
        Self::NudgedTlsBefore,
        Self::NudgedH2,
        Self::NudgedH2Before,
        Self::NudgedNats,
        Self::NudgedRedis,
        Self::Hyper,
        Self::Axum,
        Self::Nchan,
        Self::NchanTls,
        Self::Pushpin,
        Self::Mercure,
        Self::MercureBolt,
        Self::MercureTls,
        Self::Centrifugo,
        Self::CentrifugoRedis,
        Self::CentrifugoNats,
        Self::CentrifugoTls,
        Self::DurableStreams,
        Self::DurableStreamsMemory,
        Self::Hono,
        Self::HonoBun,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw write(2) loop",
            Self::Nudged => "nudged",
            Self::NudgedBefore => "nudged, before",
            Self::NudgedTls => "nudged, TLS",
            Self::NudgedTlsBefore => "nudged, TLS, before",
            Self::NudgedH2 => "nudged, TLS and HTTP/2",
            Self::NudgedH2Before => "nudged, TLS and HTTP/2, before",
            Self::NudgedNats => "nudged, NATS",
            Self::NudgedRedis => "nudged, Redis",
            Self::Hyper => "nudged's hub in hyper",
            Self::Axum => "axum Sse",
            Self::Nchan => "nchan (nginx)",
            Self::NchanTls => "nchan (nginx), TLS",
            Self::Pushpin => "Pushpin",
            Self::Mercure => "Mercure",
            Self::MercureBolt => "Mercure, Bolt",
            Self::MercureTls => "Mercure, TLS",
            Self::Centrifugo => "Centrifugo",
            Self::CentrifugoRedis => "Centrifugo, Redis",
            Self::CentrifugoNats => "Centrifugo, NATS",
            Self::CentrifugoTls => "Centrifugo, TLS",
            Self::DurableStreams => "Durable Streams",
            Self::DurableStreamsMemory => "Durable Streams, no WAL",
            Self::Hono => "Hono on Node",
            Self::HonoBun => "Hono on Bun",
        }
    }

    /// Whether it is compared. `only` has what was asked for, and nothing if that is everything; `has_before` says
    /// whether there is another build of nudged. That has a row beside each of nudged, and one without TLS also if no
    /// row of nudged was asked for.
    pub(crate) fn is_asked_for(self, only: &[Self], has_before: bool) -> bool {
        let asks_for = |peer| only.is_empty() || only.contains(&peer);
        match self {
            Self::NudgedTlsBefore => has_before && asks_for(Self::NudgedTls),
            Self::NudgedH2Before => has_before && asks_for(Self::NudgedH2),
            Self::NudgedBefore => {
                let has_others = asks_for(Self::NudgedTls) || asks_for(Self::NudgedH2);
                has_before && (asks_for(Self::Nudged) || !has_others)
            }
            _ => asks_for(self),
        }
    }

    /// Whether it is another build of nudged.
    pub(crate) fn is_before(self) -> bool {
        matches!(self, Self::NudgedBefore | Self::NudgedTlsBefore | Self::NudgedH2Before)
    }

    /// Whether its streams use TLS.
    pub(crate) fn is_secure(self) -> bool {
        match self {
            Self::NudgedTls | Self::NudgedTlsBefore => true,
            Self::NchanTls | Self::MercureTls | Self::CentrifugoTls => true,
            _ => self.http2().is_some(),
        }
    }

    /// With HTTP/2, the streams on each connection.
    pub(crate) fn http2(self) -> Option<usize> {
        matches!(self, Self::NudgedH2 | Self::NudgedH2Before).then_some(100)
    }

    /// What it publishes through.
    pub(crate) fn backplane(self) -> Option<Backplane> {
        match self {
            Self::NudgedNats | Self::CentrifugoNats => Some(Backplane::Nats),
            Self::NudgedRedis | Self::CentrifugoRedis => Some(Backplane::Redis),
            _ => None,
        }
    }

    /// How long its streams are held with nothing published, where it ends them by itself.
    pub(crate) fn idle_max(self) -> Option<Duration> {
        // After 60 s, of which the connects have to be a part.
        let ends = matches!(self, Self::DurableStreams | Self::DurableStreamsMemory);
        ends.then_some(Duration::from_secs(30))
    }
}
