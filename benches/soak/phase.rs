//! The shared state of a soak's threads: the phase, which threads have reached it, and the faults.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

/// The phases of the load, in this order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Phase {
    /// Clients connect, disconnect and publish.
    Run,
    /// No client connects or disconnects; publishes continue.
    Settle,
    /// A last number is published to every org, and must reach every subscriber; then nothing is sent.
    Quiesce,
    /// Every client disconnects.
    Stop,
}

/// The threads, by their role.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Subscribers,
    Churn,
    Publisher,
    Topics,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    phase: AtomicU8,
    reached: [AtomicU8; Role::ALL.len()],
    /// The last number published to each org.
    pub(crate) numbers: [AtomicU64; ORGS],
    pub(crate) tally: Tally,
}

/// Counts of the clients.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Open streams of the steady subscribers.
    pub(crate) open: AtomicU64,
    /// Steady subscribers that have not reached the phase.
    pub(crate) behind: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) connected: AtomicU64,
    pub(crate) resumed: AtomicU64,
    pub(crate) rereads: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) published: AtomicU64,
    /// Topics that have come and gone, and their events.
    pub(crate) topics: AtomicU64,
    pub(crate) topic_events: AtomicU64,
}

/// The channel for faults. The first report ends the soak.
#[derive(Clone, Debug)]
pub(crate) struct Faults(pub(crate) Sender<String>);

/// Orgs of the steady subscribers.
pub(crate) const ORGS: usize = 8;

const PAUSE: Duration = Duration::from_millis(20);

// ===== impl Phase =====

impl Phase {
    const ALL: [Self; 4] = [Self::Run, Self::Settle, Self::Quiesce, Self::Stop];
}

// ===== impl Role =====

impl Role {
    pub(crate) const ALL: [Self; 4] =
        [Self::Subscribers, Self::Churn, Self::Publisher, Self::Topics];
}

// ===== impl Shared =====

impl Shared {
    pub(crate) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire))]
    }

    pub(crate) fn enter(&self, phase: Phase) {
        // A thread that reached it in an earlier round must do so again.
        self.reached.iter().for_each(|role| role.store(Phase::Run as u8, Ordering::Release));
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Whether this thread has done its part of the phase.
    pub(crate) fn has_reached(&self, role: Role, phase: Phase) -> bool {
        self.reached[role as usize].load(Ordering::Acquire) >= phase as u8
    }

    pub(crate) fn reach(&self, role: Role, phase: Phase) {
        self.reached[role as usize].store(phase as u8, Ordering::Release);
    }

    /// For a thread with nothing to do in this phase.
    pub(crate) fn idle(&self, role: Role, phase: Phase) {
        self.reach(role, phase);
        thread::sleep(PAUSE);
    }
}

// ===== impl Faults =====

impl Faults {
    pub(crate) fn report(&self, what: String) {
        // Without a receiver, the soak has ended already.
        self.0.send(what).ok();
    }
}

/// The name of an org of the steady subscribers.
pub(crate) fn org(number: usize) -> String {
    format!("steady-{number}")
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
