//! What is done beside the serving.

use std::future::Future;

use tokio::task::JoinHandle;

/// A task that is ended when this is dropped.
#[derive(Debug)]
pub(super) struct Chore(JoinHandle<()>);

// ===== impl Chore =====

impl Chore {
    /// Begins it, on the runtime of the caller.
    pub(super) fn begin(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Chore {
    fn drop(&mut self) {
        self.0.abort();
    }
}
