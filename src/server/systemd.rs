//! The protocol with a service manager: listening sockets that outlive the server (sd_listen_fds(3)), and
//! notifications of readiness, stop and liveness (sd_notify(3)). Without a manager it does nothing.

use std::io;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::sync::oneshot;

use super::ListeningSocket;
use super::abort_on_drop::AbortOnDrop;
#[cfg(doc)]
use crate::config::Config;
use crate::hub::Hub;
use crate::stream::Clock;

/// Listening sockets of the service manager, by the kind of their address.
#[derive(Debug, Default)]
pub struct PassedSockets {
    /// In place of [`Config::listen`], if there is one. [`Config::plain_listen`] has to be empty then.
    pub public: Vec<ListeningSocket>,
    /// In addition to [`Config::internal_listen`]: those that the service manager names `internal`
    /// (`FileDescriptorName=`).
    pub internal: Vec<ListeningSocket>,
}

/// The name of the sockets of internal addresses.
const INTERNAL: &str = "internal";

/// Delay from which a driver, which ticks every second, counts as hanging.
const LATE: Duration = Duration::from_secs(5);

/// The listening sockets that the service manager passed (`LISTEN_FDS`, with `LISTEN_FDNAMES`), most often none. As in
/// sd_listen_fds(3), they are none if `LISTEN_PID` is another process. Call it once, before threads exist: it removes
/// these environment variables.
///
/// # Errors
/// `LISTEN_FDS` or `LISTEN_PID` is no number, `LISTEN_PID` is missing, or one of the sockets is no TCP or
/// Unix socket that listens for connections.
pub fn listeners() -> io::Result<PassedSockets> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let names = variable("LISTEN_FDNAMES");
    let is_ours =
        are_meant_for(std::process::id(), &variable("LISTEN_FDS"), &variable("LISTEN_PID"))?;
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut sockets = PassedSockets::default();
    for index in 0..if is_ours { passed.len() } else { 0 } {
        let is_internal = names.next() == Some(INTERNAL);
        let Some(socket) = take(&mut passed, index)? else { continue };
        if is_internal { &mut sockets.internal } else { &mut sockets.public }.push(socket);
    }
    Ok(sockets)
}

/// Whether sockets were passed to the process with this id. A variable that is empty counts as none.
fn are_meant_for(process: u32, sockets: &str, for_process: &str) -> io::Result<bool> {
    let number = |name: &str, text: &str| {
        text.parse::<u32>().map_err(|_| invalid(format!("{name} is no number: {text:?}")))
    };
    if sockets.is_empty() || number("LISTEN_FDS", sockets)? == 0 {
        return Ok(false);
    }
    if for_process.is_empty() {
        return Err(invalid(
            "LISTEN_PID is missing, which says for which process the sockets are: a service manager sets both, and \
             a script that passes sockets has to, or to unset LISTEN_FDS"
                .into(),
        ));
    }
    Ok(number("LISTEN_PID", for_process)? == process)
}

fn take(passed: &mut ListenFd, index: usize) -> io::Result<Option<ListeningSocket>> {
    // The first descriptor that is passed is the 3.
    let refused = |why| invalid(format!("descriptor {} {why}", index + 3));
    let tcp = passed.take_tcp_listener(index).map(|socket| socket.map(ListeningSocket::from));
    let unix = |_| passed.take_unix_listener(index).map(|socket| socket.map(ListeningSocket::from));
    match tcp.or_else(unix) {
        Err(_) => Err(refused("is no TCP socket, and no Unix socket for streams")),
        Ok(Some(socket)) if !listens(&socket)? => Err(refused("is a socket that does not listen")),
        Ok(socket) => Ok(socket),
    }
}

/// Whether listen(2) was called on it. A socket that is bound only would never get a connection.
#[cfg(target_os = "linux")]
fn listens(socket: &ListeningSocket) -> io::Result<bool> {
    socket2::SockRef::from(socket).is_listener()
}

#[cfg(not(target_os = "linux"))]
fn listens(_socket: &ListeningSocket) -> io::Result<bool> {
    Ok(true)
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

pub(super) fn ready() {
    notify(NotifyState::Ready);
}

pub(super) fn stopping() {
    notify(NotifyState::Stopping);
}

/// An upgrade begins; [`ready`] ends it, here or in the process that has taken over.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify_all(&[NotifyState::Reloading, now]),
        Err(_) => notify(NotifyState::Reloading),
    }
}

/// Another process is the main one of the service from here on. The manager accepts this from the main process only, as
/// long as it is that.
pub(super) fn main_is(process: u32) {
    notify(NotifyState::MainPid(process));
}

/// Sends keep-alive pings to the watchdog as long as the drivers of all workers tick. If this process takes over from another
/// one, they begin at once when it has become the main one: the manager accepts none before, and the last one of the other
/// may be as old as one may be.
pub(super) fn ping_watchdog(
    hub: Hub,
    clock: Clock,
    is_main: Option<oneshot::Receiver<()>>,
) -> Option<AbortOnDrop> {
    let every = sd_notify::watchdog_enabled()? / 2;
    Some(AbortOnDrop::spawn(async move {
        if let Some(is_main) = is_main {
            _ = is_main.await;
        }
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
    notify_all(&[state]);
}

fn notify_all(states: &[NotifyState<'_>]) {
    if let Err(why) = sd_notify::notify(states) {
        tracing::warn!(%why, "the service manager could not be notified");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SCENARIO: a script starts the server with `LISTEN_FDS=1`, and without `LISTEN_PID`.
    /// BUG: the server took descriptor 3 whatever it was for (sd_listen_fds(3) takes none).
    /// FIX: an error names the variable that is missing.
    #[test]
    fn sockets_are_taken_by_the_process_that_they_are_meant_for() {
        let ours =
            |sockets, process| are_meant_for(7, sockets, process).map_err(|why| why.to_string());
        for (sockets, process, expected) in [
            ("1", "7", true),
            ("2", "8", false),
            ("", "", false),
            ("", "7", false),
            ("0", "", false),
        ] {
            assert_eq!(ours(sockets, process), Ok(expected), "{sockets:?} {process:?}");
        }
        for (sockets, process, why) in [
            ("1", "", "LISTEN_PID is missing"),
            ("x", "7", "LISTEN_FDS is no number: \"x\""),
            ("-1", "7", "LISTEN_FDS is no number"),
            ("1", "me", "LISTEN_PID is no number: \"me\""),
        ] {
            let refused = ours(sockets, process).expect_err("refused");
            assert!(refused.contains(why), "{refused}");
        }
    }
}
