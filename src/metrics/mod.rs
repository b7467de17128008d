//! Counters: relaxed adds, read at a scrape only.

mod close_reason;
#[cfg(feature = "server")]
mod header_refusals;
mod limits;
mod sweep_times;

use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering};

pub use self::close_reason::CloseReason;
#[cfg(feature = "server")]
pub use self::header_refusals::HeaderRefusal;
#[cfg(feature = "server")]
pub(crate) use self::header_refusals::HeaderRefusals;
pub use self::limits::{Limit, Refusals};
pub(crate) use self::sweep_times::SweepTimes;

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
