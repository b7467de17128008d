//! The protocol with a service manager: listening sockets that outlive the server (sd_listen_fds(3)), and
//! notifications of readiness, stop and liveness (sd_notify(3)). Without a manager it does nothing.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use super::abort_on_drop::AbortOnDrop;
#[cfg(doc)]
use crate::config::Config;
use crate::hub::Hub;
use crate::stream::Clock;

/// Listening sockets of the service manager, by the kind of their address.
#[derive(Debug, Default)]
pub struct PassedSockets {
    /// In place of [`Config::listen`] and [`Config::plain_listen`], if there is one.
    pub public: Vec<TcpListener>,
    /// In addition to [`Config::internal_listen`]: those that the service manager names `internal`
    /// (`FileDescriptorName=`).
    pub internal: Vec<TcpListener>,
}

/// The name of the sockets of internal addresses.
const INTERNAL: &str = "internal";

/// Delay from which a driver, which ticks every second, counts as hanging.
const LATE: Duration = Duration::from_secs(5);

/// The listening sockets that the service manager passed (`LISTEN_FDS`, for the process `LISTEN_PID`, with
/// `LISTEN_FDNAMES`), most often none. Call it once, before threads exist: it removes these environment variables.
///
/// # Errors
/// One of them is not a TCP socket.
pub fn listeners() -> io::Result<PassedSockets> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut sockets = PassedSockets::default();
    for index in 0..passed.len() {
        let is_internal = names.next() == Some(INTERNAL);
        let Some(socket) = passed.take_tcp_listener(index)? else { continue };
        if is_internal { &mut sockets.internal } else { &mut sockets.public }.push(socket);
    }
    Ok(sockets)
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
            let expected = clock.now().before(LATE).unwrap_or_default();
            if hub.is_driven_since(expected) {
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
