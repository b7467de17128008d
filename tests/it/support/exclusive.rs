//! Tests that would disturb each other when they run at the same time.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One after the other, because each opens thousands of connections: together they would have no
/// descriptors left (`RLIMIT_NOFILE` is the process's), and no ports of loopback.
pub(crate) fn many_connections() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    // A test that failed has left nothing that the next could depend on.
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}
