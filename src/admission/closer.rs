//! How a connection is closed from outside, to make room for another. Only connections that a task serves have one.

use std::future::{Future, poll_fn};
use std::mem;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use super::places::Places;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};

/// What one connection shares with those that may close it.
#[derive(Debug)]
pub(crate) struct Closer {
    places: Arc<Places>,
    /// Unique within `places`, and later for a later connection.
    number: u64,
    /// The address that the connection counts for, if that has a limit.
    address: OnceLock<IpAddr>,
    standing: AtomicU32,
    /// [`BUSY`], [`CLOSED`], or since when it is idle.
    state: AtomicU64,
    /// Since when it is idle, as far as the queue that it is in knows; 0 if it is in none. Changed under the lock of
    /// the queues.
    listed: AtomicU64,
    /// Of the task that serves it.
    waker: Mutex<Option<Waker>>,
    ended: Notify,
}

/// What place a connection has. Changed under the lock of the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A place within the limit.
    Regular,
    /// A reserved place, from which it is closed to make room for the next.
    Unproven,
    /// A reserved place that it keeps.
    Kept,
}

/// Whether a connection is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    /// It serves a request, or has ended.
    No,
    /// Since a later time.
    Since(u64),
    /// It was, and is closed now.
    Closed,
}

const BUSY: u64 = 0;
const CLOSED: u64 = u64::MAX;

// ===== impl Closer =====

impl Closer {
    pub(super) fn new(
        places: Arc<Places>,
        standing: Standing,
        address: Option<IpAddr>,
    ) -> Arc<Self> {
        let number = places.take_number();
        Arc::new(Self {
            places,
            number,
            address: address.map(OnceLock::from).unwrap_or_default(),
            standing: AtomicU32::new(standing as u32),
            state: AtomicU64::new(BUSY),
            listed: AtomicU64::new(0),
            waker: Mutex::default(),
            ended: Notify::new(),
        })
    }

    /// Serves a connection until it ends or is closed. Spawned, because it wakes the task that polled it first.
    pub(crate) fn guard(
        self: Arc<Self>,
        connection: impl Future<Output = ()>,
    ) -> impl Future<Output = ()> {
        let mut connection = Box::pin(connection);
        poll_fn(move |cx| {
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            self.poll_closed(cx)
        })
    }

    pub(super) fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        let before = {
            let mut waker = self.waker.lock();
            match &*waker {
                Some(known) if known.will_wake(cx.waker()) => None,
                _ => waker.replace(cx.waker().clone()),
            }
        };
        drop(before);
        if self.is_closed() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Notes that it waits for the next request, so that it may be closed to make room.
    pub(crate) fn note_idle(self: &Arc<Self>) {
        let now = self.places.now();
        let idle = self.state.compare_exchange(BUSY, now, Ordering::SeqCst, Ordering::SeqCst);
        if idle.is_ok() && self.listed.load(Ordering::SeqCst) == 0 {
            self.places.list_idle(self, now);
        }
    }

    /// Notes that something of a request has arrived. Returns whether it is still open; if not, it must not serve
    /// that request.
    pub(crate) fn note_busy(&self) -> bool {
        let was_open = |state| (state != CLOSED).then_some(BUSY);
        self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, was_open).is_ok()
    }

    /// Whether it was closed to make room.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::SeqCst) == CLOSED
    }

    /// Closes it.
    pub(super) fn close(&self) {
        self.state.store(CLOSED, Ordering::SeqCst);
        let waker = mem::take(&mut *self.waker.lock());
        waker.into_iter().for_each(Waker::wake);
    }

    /// Closes it if it has been idle since this time, but for its waking.
    pub(super) fn close_if_idle(&self, since: u64) -> Idle {
        match self.state.compare_exchange(since, CLOSED, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => Idle::Closed,
            Err(BUSY | CLOSED) => Idle::No,
            Err(later) => Idle::Since(later),
        }
    }

    /// Forgets it, once it has ended or become a stream.
    pub(super) fn retire(&self) {
        // It need not be woken any more, and a later drop of its waker might be under a lock.
        let waker = mem::take(&mut *self.waker.lock());
        drop(waker);
        self.state.store(CLOSED, Ordering::SeqCst);
        self.places.forget(self);
        self.ended.notify_one();
    }

    /// Resolves once it has ended, for one that waits for it.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address.get().copied()
    }

    /// Notes the address that the connection counts for, unless one is noted.
    pub(super) fn set_address(&self, address: IpAddr) {
        _ = self.address.set(address);
    }

    /// Whether the connection is beyond a limit and has proven nothing.
    pub(crate) fn is_unproven(&self) -> bool {
        self.standing() == Standing::Unproven
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn standing(&self) -> Standing {
        match self.standing.load(Ordering::SeqCst) {
            0 => Standing::Regular,
            1 => Standing::Unproven,
            _ => Standing::Kept,
        }
    }

    pub(super) fn stand(&self, standing: Standing) {
        self.standing.store(standing as u32, Ordering::SeqCst);
    }

    pub(super) fn listed(&self) -> u64 {
        self.listed.load(Ordering::SeqCst)
    }

    pub(super) fn list(&self, since: u64) {
        self.listed.store(since, Ordering::SeqCst);
    }
}
