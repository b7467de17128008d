//! A child process that is no server which greets.

use std::process::Child;

use super::eventually;

/// Killed when this is dropped.
pub(crate) struct Killed(pub(crate) Child);

// ===== impl Killed =====

impl Killed {
    /// Waits for its end, and returns its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the process ends", || {
            status = self.0.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("ended").code()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
