//! The protocol with a service manager: listening sockets that outlive the server (sd_listen_fds(3)), and
//! notifications of readiness, stop and liveness (sd_notify(3)). Without a manager it does nothing.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use super::abort_on_drop::AbortOnDrop;
use crate::hub::Hub;
use crate::stream::Clock;

/// Delay from which a driver, which ticks every second, counts as hanging.
const LATE: Duration = Duration::from_secs(5);

/// The listening sockets that the service manager passed (`LISTEN_FDS`, for the process `LISTEN_PID`), most
/// often none. Call it once, before threads exist: it removes these environment variables.
///
/// # Errors
/// One of them is not a TCP socket.
pub fn listeners() -> io::Result<Vec<TcpListener>> {
    let mut passed = ListenFd::from_env();
    let sockets = (0..passed.len()).map(|index| passed.take_tcp_listener(index));
    sockets.filter_map(Result::transpose).collect()
}

pub(super) fn ready() {
    notify(NotifyState::Ready);
}

pub(super) fn stopping() {
    notify(NotifyState::Stopping);
}

/// Sends keep-alive pings to the watchdog as long as the drivers of all workers tick.
pub(super) fn ping_watchdog(hub: Hub, clock: Clock) -> Option<AbortOnDrop> {
    let every = sd_notify::watchdog_enabled()? / 2;
    Some(AbortOnDrop::spawn(async move {
        loop {
            let expected = clock.now().0.saturating_sub(LATE.as_millis() as u64) / 1_000;
            if hub.is_driven_since(u32::try_from(expected).unwrap_or(u32::MAX)) {
                notify(NotifyState::Watchdog);
            } else {
                tracing::error!("a worker hangs; the watchdog gets no ping");
            }
            #[expect(clippy::disallowed_methods, reason = "not in the serving path")]
            tokio::time::sleep(every).await;
        }
    }))
}

fn notify(state: NotifyState<'_>) {
    if let Err(why) = sd_notify::notify(&[state]) {
        tracing::warn!(%why, "the service manager could not be notified");
    }
}
