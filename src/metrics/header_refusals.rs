//! Why headers of the PROXY protocol are refused, how often they were, and when the log has a line of it.

use std::fmt;
use std::time::Duration;

use super::{add, read};
use crate::config::PROXY_HEADER_BYTES_MAX;
use crate::sync::{AtomicU64, Ordering};
use crate::time::Time;

/// Why the header is refused that a proxy has to send before everything else, and with it the connection.
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
#[derive(Debug, Default)]
pub(crate) struct HeaderRefusals([LoggedCount; HeaderRefusal::ALL.len()]);

/// A count, of which the log has a line now and then.
#[derive(Debug, Default)]
struct LoggedCount {
    count: AtomicU64,
    /// What it was when the last line was written.
    logged: AtomicU64,
    /// The earliest time of the next line.
    next: AtomicU64,
}

/// At most one line for each cause in this time.
const REFUSALS_LOGGED: Duration = Duration::from_secs(60);

// ===== impl HeaderRefusal =====

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
        Some(count.saturating_sub(logged.swap(count, Ordering::Relaxed)))
    }

    pub(crate) fn read(&self, why: HeaderRefusal) -> u64 {
        read(&self.0[why as usize].count)
    }
}

impl fmt::Display for HeaderRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self {
            Self::Missing => {
                "no header of the PROXY protocol came first, which this peer has to send (--proxy-protocol-from)"
            }
            Self::Unfinished => {
                "its header of the PROXY protocol was not complete in time, or at its end"
            }
            Self::Version1 => {
                "its header is of version 1 of the PROXY protocol, and only version 2 is accepted \
                 (HAProxy: send-proxy-v2; nginx cannot send it)"
            }
            Self::Oversized => {
                return write!(
                    f,
                    "its header of the PROXY protocol is longer than {PROXY_HEADER_BYTES_MAX} bytes"
                );
            }
            Self::Malformed => "its header of the PROXY protocol is malformed",
            Self::Spoofed => {
                "it began with a header of the PROXY protocol, which is not accepted from this peer \
                 (--proxy-protocol-from), and on no internal address"
            }
        };
        f.write_str(why)
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use super::*;

    /// A proxy that is set up wrongly is refused thousands of times a second.
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
