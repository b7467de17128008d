//! What happened, counted with relaxed adds; read at a scrape only.

use crate::sync::{AtomicU64, Ordering};

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client closed, or the engine that served it let go of it.
    Client,
    /// The client's side reset the connection.
    Reset,
    /// The kernel gave the peer up (`TCP_USER_TIMEOUT`).
    Timeout,
    /// Reading from or writing to the socket failed in another way.
    Error,
    /// The client sent more than a listener has to say.
    Excess,
    /// The server is shutting down.
    Drained,
    /// There was something to write and the socket took none of it for too long.
    Stalled,
    /// What allowed the client to listen is over.
    Expired,
    /// The stream was as old as streams may become.
    MaxAge,
}

/// A limit for which a request is refused for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Connections in total.
    Connections,
    /// Connections, or streams through a proxy, of one address.
    Address,
    /// Streams of one org.
    Org,
    /// Publishes to one org in a second.
    Rate,
}

/// Requests and connections that were refused, by the limit that was reached.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Limit::ALL.len()]);

/// The counters of one shard, on cache lines of their own so that workers do not share them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    pub(crate) opened: [AtomicU64; 2],
    pub(crate) closed: [[AtomicU64; CloseReason::ALL.len()]; 2],
    pub(crate) published: AtomicU64,
    pub(crate) coalesced: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) keepalives: AtomicU64,
    pub(crate) rereads: AtomicU64,
}

// ===== impl CloseReason =====

impl CloseReason {
    pub(crate) const ALL: [Self; 9] = [
        Self::Client,
        Self::Reset,
        Self::Timeout,
        Self::Error,
        Self::Excess,
        Self::Drained,
        Self::Stalled,
        Self::Expired,
        Self::MaxAge,
    ];

    /// The label in `nudged_streams_closed_total{reason="…"}`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::Excess => "excess",
            Self::Drained => "drained",
            Self::Stalled => "stalled",
            Self::Expired => "expired",
            Self::MaxAge => "max_age",
        }
    }
}

// ===== impl Limit =====

impl Limit {
    pub(crate) const ALL: [Self; 4] = [Self::Connections, Self::Address, Self::Org, Self::Rate];

    /// The label in `nudged_refused_total{limit="…"}`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Address => "address",
            Self::Org => "org",
            Self::Rate => "rate",
        }
    }
}

// ===== impl Refusals =====

impl Refusals {
    pub(crate) fn add(&self, limit: Limit) {
        add(&self.0[limit as usize], 1);
    }

    pub(crate) fn read(&self, limit: Limit) -> u64 {
        read(&self.0[limit as usize])
    }
}

/// Adds without ordering anything: a count is read long after it was written.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Reads without ordering anything.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
