//! The process of a broker that a test has started.

use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use super::eventually;

/// A process, which is killed when this is dropped, by its id.
pub(crate) struct BrokerProcess(pub(crate) Child);

// ===== impl BrokerProcess =====

impl BrokerProcess {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("a child that nothing has waited for");
    }

    /// Ends it by this signal.
    pub(crate) fn end(mut self, signal: Signal) {
        self.signal(signal);
        let mut ended = false;
        eventually("the broker ends", || {
            ended = self.0.try_wait().expect("a child").is_some();
            ended
        });
    }

    /// Fails, with its log, if it has ended by itself.
    pub(crate) fn expect_running(&mut self, log: impl Fn() -> String) {
        let ended = self.0.try_wait().expect("a child");
        assert!(ended.is_none(), "{ended:?}:\n{}", log());
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
