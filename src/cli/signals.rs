//! The signals that a server listens to.

use std::io;
use std::task::{Context, Poll};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receivers of the signals. From the first call of [`Signals::new`] on, none of them ends the process.
#[derive(Debug)]
pub(crate) struct Signals {
    /// SIGTERM, SIGINT and SIGQUIT, which nginx stops gracefully for.
    stop: [(Signal, SignalKind); 3],
    /// SIGHUP.
    reload: Signal,
    /// SIGUSR2.
    upgrade: Signal,
    /// What other servers reopen their logs for. Without a receiver it would end the process at once.
    ignored: Signal,
}

// ===== impl Signals =====

impl Signals {
    /// Inside a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let receive = |kind| signal(kind).map(|signal| (signal, kind));
        let stop = [
            receive(SignalKind::terminate())?,
            receive(SignalKind::interrupt())?,
            receive(SignalKind::quit())?,
        ];
        let (reload, upgrade) =
            (signal(SignalKind::hangup())?, signal(SignalKind::user_defined2())?);
        Ok(Self { stop, reload, upgrade, ignored: signal(SignalKind::user_defined1())? })
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

    /// The next signal to be replaced by a new process.
    pub(crate) fn poll_upgrade(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.upgrade.poll_recv(cx).map(|_| ())
    }

    /// The name of the next signal that means nothing.
    pub(crate) fn poll_ignored(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        self.ignored.poll_recv(cx).map(|_| "SIGUSR1")
    }
}
