//! What a service manager and its service say to each other: sockets that outlive the server
//! (sd_listen_fds(3)), and when it is ready, stops, or hangs (sd_notify(3)). Without one, nothing.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use super::abort_on_drop::AbortOnDrop;
use crate::hub::Hub;
use crate::stream::Clock;

/// A driver ticks every second; one that is so late hangs.
const LATE: Duration = Duration::from_secs(5);

/// The listening sockets that were handed over (`LISTEN_FDS`, meant for this process by `LISTEN_PID`);
/// empty where none were. To be called once, before there are threads: it removes the variables.
///
/// # Errors
/// One of them is no TCP socket.
pub fn listeners() -> io::Result<Vec<TcpListener>> {
    let mut handed_over = ListenFd::from_env();
    let sockets = (0..handed_over.len()).map(|index| handed_over.take_tcp_listener(index));
    sockets.filter_map(Result::transpose).collect()
}

pub(super) fn ready() {
    notify(NotifyState::Ready);
}

pub(super) fn stopping() {
    notify(NotifyState::Stopping);
}

/// Tells the manager that the server lives, for as long as the drivers of all workers do.
pub(super) fn tend_watchdog(hub: Hub, clock: Clock) -> Option<AbortOnDrop> {
    let every = sd_notify::watchdog_enabled()? / 2;
    Some(AbortOnDrop::begin(async move {
        loop {
            let expected = clock.now().0.saturating_sub(LATE.as_millis() as u64) / 1_000;
            if hub.is_driven_since(u32::try_from(expected).unwrap_or(u32::MAX)) {
                notify(NotifyState::Watchdog);
            } else {
                tracing::error!("a worker hangs; the watchdog is not told that all is well");
            }
            #[expect(clippy::disallowed_methods, reason = "not in the serving path")]
            tokio::time::sleep(every).await;
        }
    }))
}

fn notify(state: NotifyState<'_>) {
    if let Err(why) = sd_notify::notify(&[state]) {
        tracing::warn!(%why, "the service manager could not be told");
    }
}
