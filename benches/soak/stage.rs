//! What the threads of a soak know of each other: the phase, who has reached it, and what went wrong.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

/// What the threads are to do, in the order in which it comes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Phase {
    Run,
    /// Nobody comes or goes any more. Publishes go on.
    Settle,
    /// Every org is told a last number, which everybody hears; then all is silent.
    LastWord,
    /// Everybody goes.
    End,
}

/// The threads, by what they do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Crowd,
    Churn,
    Publisher,
}

/// Shared by all.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    phase: AtomicU8,
    reached: [AtomicU8; Part::ALL.len()],
    /// The last number published to each org.
    pub(crate) numbers: [AtomicU64; ORGS],
    pub(crate) tally: Tally,
}

/// What the clients count.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Streams that the crowd has open.
    pub(crate) open: AtomicU64,
    /// Of the crowd, who has not heard the last word yet.
    pub(crate) behind: AtomicU64,
    pub(crate) heard: AtomicU64,
    pub(crate) connected: AtomicU64,
    pub(crate) resumed: AtomicU64,
    pub(crate) rereads: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) published: AtomicU64,
}

/// Where threads say what went wrong. The first of it ends the soak.
#[derive(Clone, Debug)]
pub(crate) struct Faults(pub(crate) Sender<String>);

/// Orgs that the crowd listens to.
pub(crate) const ORGS: usize = 8;

const NAP: Duration = Duration::from_millis(20);

// ===== impl Phase =====

impl Phase {
    const ALL: [Self; 4] = [Self::Run, Self::Settle, Self::LastWord, Self::End];
}

// ===== impl Part =====

impl Part {
    pub(crate) const ALL: [Self; 3] = [Self::Crowd, Self::Churn, Self::Publisher];
}

// ===== impl Stage =====

impl Stage {
    pub(crate) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire))]
    }

    pub(crate) fn enter(&self, phase: Phase) {
        // Who has reached it before has to do so again.
        self.reached.iter().for_each(|part| part.store(Phase::Run as u8, Ordering::Release));
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Whether this part has done what the phase asks of it.
    pub(crate) fn has_reached(&self, part: Part, phase: Phase) -> bool {
        self.reached[part as usize].load(Ordering::Acquire) >= phase as u8
    }

    pub(crate) fn reach(&self, part: Part, phase: Phase) {
        self.reached[part as usize].store(phase as u8, Ordering::Release);
    }

    /// For a part with nothing to do in this phase.
    pub(crate) fn rest(&self, part: Part, phase: Phase) {
        self.reach(part, phase);
        thread::sleep(NAP);
    }
}

// ===== impl Faults =====

impl Faults {
    pub(crate) fn tell(&self, what: String) {
        // Where nobody listens any more, the soak has ended.
        self.0.send(what).ok();
    }
}

/// The name of an org of the crowd.
pub(crate) fn org(number: usize) -> String {
    format!("steady-{number}")
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
