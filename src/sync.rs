//! The locks and atomics of the crate, or loom's with `--cfg nudged_loom`.
//!
//! No lock is ever poisoned: `parking_lot` does not poison, and under loom a panic ends the model.

#[cfg(not(nudged_loom))]
#[expect(clippy::disallowed_types, reason = "this module wraps it")]
pub(crate) type Mutex<T> = parking_lot::Mutex<T>;

/// What such a lock returns.
#[cfg(not(nudged_loom))]
pub(crate) type MutexGuard<'a, T> = parking_lot::MutexGuard<'a, T>;

#[cfg(nudged_loom)]
pub(crate) use loom::sync::MutexGuard;

#[cfg(not(nudged_loom))]
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

#[cfg(nudged_loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

/// loom's mutex with `parking_lot`'s interface.
#[cfg(nudged_loom)]
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(nudged_loom)]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("loom ends the model at the first panic")
    }
}

/// A waker that counts how often it was woken.
#[cfg(all(test, not(nudged_loom)))]
#[derive(Debug, Default)]
pub(crate) struct Wakes(AtomicUsize);

#[cfg(all(test, not(nudged_loom)))]
impl Wakes {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(nudged_loom)))]
impl std::task::Wake for Wakes {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
