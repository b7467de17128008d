//! Counters: relaxed adds, read at a scrape only.

#[cfg(feature = "server")]
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};
#[cfg(feature = "server")]
use crate::time::Time;

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client closed the connection, or hyper dropped the stream.
    Client,
    /// The client reset the connection.
    Reset,
    /// The peer did not acknowledge data in time (`TCP_USER_TIMEOUT`).
    Timeout,
    /// Reading from or writing to the socket failed in another way.
    Error,
    /// The client sent more than the limit on an open stream.
    Excess,
    /// The server is shutting down.
    Drained,
    /// Pending bytes made no progress for too long.
    Stalled,
    /// The client's token expired.
    Expired,
    /// The stream reached its maximum age.
    MaxAge,
    /// A backend requested the member streams of the org to end.
    Removed,
    /// A backend closed the topic.
    Closed,
    /// An exclusive stream of the topic took its place.
    Replaced,
    /// The keys of the stream's TLS session have protected as many records as they may.
    TlsRecords,
}

/// A limit at which requests are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Connections in total.
    Connections,
    /// Connections of one address.
    Address,
    /// Streams in total.
    Streams,
    /// Streams of one address.
    AddressStreams,
    /// Member streams of one org.
    Org,
    /// Public streams of one org.
    OrgPublic,
    /// Publishes to one org per second.
    Rate,
    /// Streams of one topic.
    Topic,
}

/// Why the header is refused that a proxy has to send before everything else, and with it the connection.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderRefusal {
    /// The peer sent something else, or nothing in time.
    Missing,
    /// It ended, or the time did, before the header was complete.
    Unfinished,
    /// It is of version 1.
    Version1,
    /// It is longer than allowed.
    Oversized,
    /// It breaks the protocol.
    Malformed,
    /// It came from a peer that no header is accepted from.
    Spoofed,
}

/// Refused headers, by cause.
#[cfg(feature = "server")]
#[derive(Debug, Default)]
pub(crate) struct HeaderRefusals([LoggedCount; HeaderRefusal::ALL.len()]);

/// A count, of which the log has a line now and then.
#[cfg(feature = "server")]
#[derive(Debug, Default)]
struct LoggedCount {
    count: AtomicU64,
    /// What it was when the last line was written.
    logged: AtomicU64,
    /// The earliest time of the next line.
    next: AtomicU64,
}

/// At most one line for each cause in this time.
#[cfg(feature = "server")]
const REFUSALS_LOGGED: Duration = Duration::from_secs(60);

/// Refused requests and connections, by limit.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Limit::ALL.len()]);

/// How a stream began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Greeted {
    /// With `connected`; its client stated no id.
    New,
    /// With `resumed`.
    Resumed,
    /// With `connected`, since the id that its client stated is not covered.
    Reread,
}

/// How long passes over seats took, in a histogram.
#[derive(Debug, Default)]
pub(crate) struct SweepTimes {
    /// By [`SweepTimes::BOUNDS_MS`], and then those that took longer.
    counts: [AtomicU64; Self::BOUNDS_MS.len() + 1],
    sum_ms: AtomicU64,
}

/// A count that an application keeps, and that `/metrics` shows. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SharedCount(Arc<AtomicU64>);

/// The counters of one shard, on cache lines that no other shard writes to.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    pub(crate) opened: [AtomicU64; 3],
    pub(crate) closed: [[AtomicU64; CloseReason::ALL.len()]; 3],
    pub(crate) published: AtomicU64,
    pub(crate) coalesced: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) keepalives: AtomicU64,
    pub(crate) rereads: AtomicU64,
    pub(crate) greeted: [AtomicU64; Greeted::ALL.len()],
    pub(crate) sweeps: SweepTimes,
}

// ===== impl CloseReason =====

impl CloseReason {
    pub(crate) const ALL: [Self; 13] = [
        Self::Client,
        Self::Reset,
        Self::Timeout,
        Self::Error,
        Self::Excess,
        Self::Drained,
        Self::Stalled,
        Self::Expired,
        Self::MaxAge,
        Self::Removed,
        Self::Closed,
        Self::Replaced,
        Self::TlsRecords,
    ];

    /// The reason with this label.
    #[cfg(feature = "server")]
    pub(crate) fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.label() == label)
    }

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
            Self::Removed => "removed",
            Self::Closed => "closed",
            Self::Replaced => "replaced",
            Self::TlsRecords => "tls_records",
        }
    }
}

// ===== impl Limit =====

impl Limit {
    pub(crate) const ALL: [Self; 8] = [
        Self::Connections,
        Self::Address,
        Self::Streams,
        Self::AddressStreams,
        Self::Org,
        Self::OrgPublic,
        Self::Rate,
        Self::Topic,
    ];

    /// The label in `nudged_refused_total{limit="…"}`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Address => "address",
            Self::Streams => "streams",
            Self::AddressStreams => "address_streams",
            Self::Org => "org",
            Self::OrgPublic => "org_public",
            Self::Rate => "rate",
            Self::Topic => "topic",
        }
    }
}

// ===== impl Greeted =====

impl Greeted {
    pub(crate) const ALL: [Self; 3] = [Self::New, Self::Resumed, Self::Reread];

    /// The label in `nudged_greetings_total{kind="…"}`.
    #[cfg(feature = "server")]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Resumed => "resumed",
            Self::Reread => "reread",
        }
    }
}

// ===== impl SweepTimes =====

impl SweepTimes {
    /// The upper bounds of the buckets. The hub's time is in milliseconds.
    pub(crate) const BOUNDS_MS: [u64; 13] =
        [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

    pub(crate) fn add(&self, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        add(&self.counts[Self::bucket(millis)], 1);
        add(&self.sum_ms, millis);
    }

    /// The bucket of what took so long.
    fn bucket(millis: u64) -> usize {
        Self::BOUNDS_MS.partition_point(|bound| *bound < millis)
    }

    /// The counts of the buckets, of which the last one has no bound.
    #[cfg(any(test, feature = "server"))]
    pub(crate) fn counts(&self) -> &[AtomicU64] {
        &self.counts
    }

    /// What all took together, in milliseconds.
    #[cfg(any(test, feature = "server"))]
    pub(crate) fn sum_ms(&self) -> &AtomicU64 {
        &self.sum_ms
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

// ===== impl HeaderRefusal =====

#[cfg(feature = "server")]
impl HeaderRefusal {
    pub(crate) const ALL: [Self; 6] = [
        Self::Missing,
        Self::Unfinished,
        Self::Version1,
        Self::Oversized,
        Self::Malformed,
        Self::Spoofed,
    ];

    /// The label in `nudged_proxy_protocol_refused_total{reason="…"}`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unfinished => "unfinished",
            Self::Version1 => "v1",
            Self::Oversized => "oversized",
            Self::Malformed => "malformed",
            Self::Spoofed => "spoofed",
        }
    }
}

// ===== impl HeaderRefusals =====

#[cfg(feature = "server")]
impl HeaderRefusals {
    /// Counts one. Returns how many there have been since the last line in the log, if it is time for another.
    pub(crate) fn add(&self, why: HeaderRefusal, now: Time) -> Option<u64> {
        let LoggedCount { count, logged, next } = &self.0[why as usize];
        add(count, 1);
        let due = read(next);
        let later = now.after(REFUSALS_LOGGED).0;
        if now.0 < due
            || next.compare_exchange(due, later, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return None;
        }
        let count = read(count);
        Some(count - logged.swap(count, Ordering::Relaxed))
    }

    pub(crate) fn read(&self, why: HeaderRefusal) -> u64 {
        read(&self.0[why as usize].count)
    }
}

#[cfg(feature = "server")]
impl fmt::Display for HeaderRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => {
                "no header of the PROXY protocol came first, which this peer has to send (--proxy-protocol-from)"
            }
            Self::Unfinished => "its header of the PROXY protocol was not complete in time, or at its end",
            Self::Version1 => {
                "its header is of version 1 of the PROXY protocol, and only version 2 is accepted \
                 (HAProxy: send-proxy-v2; nginx cannot send it)"
            }
            Self::Oversized => "its header of the PROXY protocol is longer than 4096 bytes",
            Self::Malformed => "its header of the PROXY protocol is malformed",
            Self::Spoofed => {
                "it began with a header of the PROXY protocol, which is not accepted from this peer \
                 (--proxy-protocol-from), and on no internal address"
            }
        })
    }
}

// ===== impl SharedCount =====

impl SharedCount {
    /// Adds to it.
    pub fn add(&self, n: u64) {
        add(&self.0, n);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        read(&self.0)
    }
}

/// Adds without ordering: a count is read long after it was written.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Reads without ordering.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_part_of_its_bucket() {
        let last = SweepTimes::BOUNDS_MS.len();
        for (millis, bucket) in
            [(0, 0), (1, 0), (2, 1), (3, 2), (5, 2), (6, 3), (10_000, last - 1), (10_001, last)]
        {
            let times = SweepTimes::default();
            times.add(Duration::from_millis(millis));
            let counts: Vec<_> = times.counts().iter().map(read).collect();
            assert_eq!(counts.iter().sum::<u64>(), 1);
            assert_eq!((counts[bucket], read(times.sum_ms())), (1, millis), "{millis}");
        }
    }

    /// A proxy that is set up wrongly is refused thousands of times a second.
    #[cfg(feature = "server")]
    #[test]
    fn a_cause_is_logged_once_a_minute_with_the_number_of_times() {
        let refusals = HeaderRefusals::default();
        let add = |why, second: u64| refusals.add(why, Time(second * 1_000));
        let (missing, spoofed) = (HeaderRefusal::Missing, HeaderRefusal::Spoofed);
        assert_eq!(add(missing, 0), Some(1));
        for second in 0..60 {
            assert_eq!(add(missing, second), None);
        }
        assert_eq!(add(spoofed, 59), Some(1), "each cause has lines of its own");
        assert_eq!(add(missing, 60), Some(61));
        assert_eq!(add(missing, 119), None);
        assert_eq!(add(missing, 500), Some(2));
        assert_eq!((refusals.read(missing), refusals.read(spoofed)), (64, 1));
    }
}
