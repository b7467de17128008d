//! Locks for tests that must not run at the same time.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// For tests that open thousands of connections each: together they would run out of descriptors (`RLIMIT_NOFILE`
/// covers the process) and of loopback ports.
pub(crate) fn many_connections() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    // The lock guards no data, so a panic of another test leaves nothing inconsistent.
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}
