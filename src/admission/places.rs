//! The places of connections. Those within the limit have regular places. Beyond it a few reserved ones let requests
//! be refused, and probes and publishers be served: a connection there that has proven nothing is closed to make room
//! for the next, the oldest first. A connection in a regular place is closed for another only while it is idle.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use super::addresses::AddressGuard;
use super::closer::{Closer, Standing};
use super::idle::IdleQueue;
use crate::sync::{AtomicU64, Mutex, Ordering};

/// The places of the public addresses, or of the internal ones.
#[derive(Debug)]
pub(super) struct Places {
    regular: Arc<Semaphore>,
    regular_max: usize,
    reserved: Arc<Semaphore>,
    reserved_max: usize,
    /// Reserved places that publishers may keep.
    kept_max: usize,
    start: Instant,
    /// The number of the next connection that may be closed.
    number: AtomicU64,
    queues: Mutex<Queues>,
    evicted: [AtomicU64; Evicted::ALL.len()],
}

/// The connections that may be closed to make room.
#[derive(Debug, Default)]
struct Queues {
    /// Those in reserved places that have proven nothing, by number, so the oldest comes first. At most as many as
    /// there are such places.
    unproven: BTreeMap<u64, Arc<Closer>>,
    /// In regular places, and in kept ones.
    idle: IdleQueue,
    idle_kept: IdleQueue,
    /// Publishers in reserved places.
    kept: usize,
}

/// Which connections were closed to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evicted {
    Idle,
    Unproven,
}

/// Connections of one address in reserved places, beyond its limit; then the oldest of these that has proven nothing
/// is closed for the next.
pub(super) const ADDRESS_RESERVED_MAX: usize = 8;

// ===== impl Places =====

impl Places {
    pub(super) fn new(regular_max: usize, reserved_max: usize) -> Arc<Self> {
        Arc::new(Self {
            regular: Arc::new(Semaphore::new(regular_max)),
            regular_max,
            reserved: Arc::new(Semaphore::new(reserved_max)),
            reserved_max,
            kept_max: reserved_max / 2,
            start: Instant::now(),
            number: AtomicU64::new(0),
            queues: Mutex::default(),
            evicted: Default::default(),
        })
    }

    pub(super) fn max(&self) -> usize {
        self.regular_max
    }

    /// Places that are taken.
    pub(super) fn taken(&self) -> usize {
        let free = self.regular.available_permits() + self.reserved.available_permits();
        (self.regular_max + self.reserved_max).saturating_sub(free)
    }

    pub(super) fn evicted(&self, which: Evicted) -> u64 {
        self.evicted[which as usize].load(Ordering::Relaxed)
    }

    pub(super) fn take_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    /// Nanoseconds since these places exist; never 0.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX - 1).max(1)
    }

    /// A regular place, if there is one, or if an idle connection can be closed for it.
    pub(super) async fn regular(&self) -> Option<OwnedSemaphorePermit> {
        if let Some(permit) = self.try_regular() {
            return Some(permit);
        }
        let mut permit = pin!(unconstrained(self.regular.clone().acquire_owned()));
        // From here on it waits in line, so that no other connection gets the place of the connection that is closed.
        if let Poll::Ready(permit) = poll_fn(|cx| Poll::Ready(permit.as_mut().poll(cx))).await {
            return permit.ok();
        }
        let idle = self.queues.lock().idle.take_longest();
        self.close(idle?, Evicted::Idle);
        permit.await.ok()
    }

    /// So many regular places, if there are.
    #[cfg(target_os = "linux")]
    pub(super) fn try_many(&self, count: usize) -> Option<OwnedSemaphorePermit> {
        self.regular.clone().try_acquire_many_owned(u32::try_from(count).ok()?).ok()
    }

    /// A regular place, if there is one.
    pub(super) fn try_regular(&self) -> Option<OwnedSemaphorePermit> {
        self.regular.clone().try_acquire_owned().ok()
    }

    /// A reserved place. If all are taken, it waits for that of the oldest connection that has proven nothing.
    async fn reserved(&self) -> Option<OwnedSemaphorePermit> {
        let mut permit = pin!(unconstrained(self.reserved.clone().acquire_owned()));
        if let Poll::Ready(permit) = poll_fn(|cx| Poll::Ready(permit.as_mut().poll(cx))).await {
            return permit.ok();
        }
        let oldest = self.queues.lock().unproven.pop_first();
        if let Some((_, closer)) = oldest {
            self.close(closer, Evicted::Unproven);
        }
        permit.await.ok()
    }

    /// The same for a connection of this address, of which few have one.
    pub(super) async fn reserved_beyond(
        &self,
        address: Option<&AddressGuard>,
    ) -> Option<OwnedSemaphorePermit> {
        let beyond = address.filter(|address| address.is_beyond());
        if let Some(address) = beyond.filter(|address| address.beyond() > ADDRESS_RESERVED_MAX) {
            self.evict_unproven(address.address());
        }
        self.reserved().await
    }

    /// Returns whether this connection is within the limit of its address, for which an idle one of it may be closed.
    pub(super) async fn make_room_within(&self, address: &mut AddressGuard) -> bool {
        !address.is_beyond() || self.evict_idle(address.address()).await && address.settle()
    }

    /// Closes the connection of this address that has been idle for the longest time, and waits for its end. Returns
    /// whether there was one.
    async fn evict_idle(&self, address: IpAddr) -> bool {
        let Some(idle) = ({ self.queues.lock().idle.take_longest_of(address) }) else {
            return false;
        };
        self.close(idle.clone(), Evicted::Idle);
        idle.ended().await;
        true
    }

    /// Closes the oldest connection of this address that has proven nothing.
    fn evict_unproven(&self, address: IpAddr) {
        let closer = {
            let mut queues = self.queues.lock();
            let of_address = |(_, closer): &(&u64, &Arc<Closer>)| closer.address() == Some(address);
            let oldest = queues.unproven.iter().find(of_address).map(|(number, _)| *number);
            oldest.and_then(|number| queues.unproven.remove(&number))
        };
        if let Some(closer) = closer {
            self.close(closer, Evicted::Unproven);
        }
    }

    #[cfg(all(test, nudged_loom))]
    pub(super) fn take_longest(&self) -> Option<Arc<Closer>> {
        self.queues.lock().idle.take_longest()
    }

    fn close(&self, closer: Arc<Closer>, which: Evicted) {
        self.evicted[which as usize].fetch_add(1, Ordering::Relaxed);
        closer.close();
    }

    /// Lists a connection in a reserved place, which has proven nothing yet.
    pub(super) fn list_unproven(&self, closer: Arc<Closer>) {
        let mut queues = self.queues.lock();
        closer.stand(Standing::Unproven);
        queues.unproven.insert(closer.number(), closer);
    }

    /// Lists a connection as idle, unless it is already.
    pub(super) fn list_idle(&self, closer: &Arc<Closer>, since: u64) {
        let mut queues = self.queues.lock();
        if closer.listed() == 0
            && let Some(idle) = queues.idle_of(closer.standing())
        {
            idle.insert(closer.clone(), since);
        }
    }

    /// Takes a connection off the list of those that are idle.
    pub(super) fn unlist(&self, closer: &Closer) {
        if closer.listed() != 0
            && let Some(idle) = self.queues.lock().idle_of(closer.standing())
        {
            idle.remove(closer);
        }
    }

    /// Notes that a connection in a reserved place has a regular one now. Returns whether it has not been closed.
    pub(super) fn settle(&self, closer: &Closer) -> bool {
        let mut queues = self.queues.lock();
        let stays = match closer.standing() {
            Standing::Unproven => queues.unproven.remove(&closer.number()).is_some(),
            Standing::Kept | Standing::Regular => !closer.is_closed(),
        };
        if stays {
            queues.unlist_kept(closer);
            closer.stand(Standing::Regular);
        }
        stays
    }

    /// Lets a connection keep its reserved place, as long as few do, or one that does is idle. Returns whether it
    /// may.
    pub(super) fn keep(&self, closer: &Closer) -> bool {
        let idle = {
            let mut queues = self.queues.lock();
            if !queues.unproven.contains_key(&closer.number()) {
                return false;
            }
            let idle = if queues.kept < self.kept_max {
                None
            } else {
                let Some(idle) = queues.idle_kept.take_longest() else { return false };
                Some(idle)
            };
            queues.unproven.remove(&closer.number());
            queues.kept += 1;
            closer.stand(Standing::Kept);
            idle
        };
        if let Some(idle) = idle {
            self.close(idle, Evicted::Idle);
        }
        true
    }

    /// Forgets a connection that has ended or become a stream.
    pub(super) fn forget(&self, closer: &Closer) {
        if closer.standing() == Standing::Regular && closer.listed() == 0 {
            return;
        }
        let mut queues = self.queues.lock();
        queues.unproven.remove(&closer.number());
        queues.idle.remove(closer);
        queues.unlist_kept(closer);
        closer.stand(Standing::Regular);
    }
}

// ===== impl Queues =====

impl Queues {
    /// The idle connections among those of this standing; `None` if these are never idle.
    fn idle_of(&mut self, standing: Standing) -> Option<&mut IdleQueue> {
        match standing {
            Standing::Regular => Some(&mut self.idle),
            Standing::Kept => Some(&mut self.idle_kept),
            Standing::Unproven => None,
        }
    }

    fn unlist_kept(&mut self, closer: &Closer) {
        if closer.standing() == Standing::Kept {
            self.kept -= 1;
            self.idle_kept.remove(closer);
        }
    }
}

// ===== impl Evicted =====

impl Evicted {
    pub(crate) const ALL: [Self; 2] = [Self::Idle, Self::Unproven];

    /// The label in `nudged_evicted_total{kind="…"}`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Unproven => "unproven",
        }
    }
}
