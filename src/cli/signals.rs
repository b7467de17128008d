//! The signals that a server listens to.

use std::io;
use std::task::{Context, Poll};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receivers of the signals. From the first call of [`Signals::new`] on, none of them ends the process.
#[derive(Debug)]
pub(crate) struct Signals {
    /// SIGTERM and SIGINT.
    stop: [(Signal, SignalKind); 2],
    /// SIGHUP.
    reload: Signal,
}

// ===== impl Signals =====

impl Signals {
    /// Inside a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let receive = |kind| signal(kind).map(|signal| (signal, kind));
        let stop = [receive(SignalKind::terminate())?, receive(SignalKind::interrupt())?];
        Ok(Self { stop, reload: signal(SignalKind::hangup())? })
    }

    /// The number of the next signal to stop.
    pub(crate) fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<u8> {
        for (signal, kind) in &mut self.stop {
            if signal.poll_recv(cx).is_ready() {
                return Poll::Ready(u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX - 128));
            }
        }
        Poll::Pending
    }

    /// The next signal to read keys and certificate again.
    pub(crate) fn poll_reload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.reload.poll_recv(cx).map(|_| ())
    }
}
