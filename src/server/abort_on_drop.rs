//! A task that lives as long as its owner.

use std::future::Future;

use tokio::task::JoinHandle;

/// Aborts its task when it is dropped.
#[derive(Debug)]
pub(super) struct AbortOnDrop(JoinHandle<()>);

// ===== impl AbortOnDrop =====

impl AbortOnDrop {
    /// Spawns the task on the current runtime.
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
