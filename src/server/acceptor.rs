//! Accepts connections: an endless loop for each listening socket.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use mio::net::TcpStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::ListeningSocket;
use super::conn_context::ConnContext;
use super::listening_socket::AcceptSocket;
use super::passed_connection::PassedConnection;
use super::proxy_protocol::HeaderState;
#[cfg(target_os = "linux")]
use super::proxy_protocol::task::identify;
use super::reactor::Accepted;
use super::tls::Tls;
#[cfg(target_os = "linux")]
use super::upgrade::late::Late;
use crate::admission::{Entrance, PeerSource};

/// Accepts the connections of one worker.
#[derive(Clone, Debug)]
pub(crate) struct Acceptor {
    context: ConnContext,
}

/// Accepts in a row, and avoids the one that fails after the last of them: accept(2) allocates a socket before it looks
/// for a connection.
#[derive(Debug, Default)]
struct Row {
    /// Connections since there was none.
    count: u32,
}

/// Rate-limits the warning about failing accepts.
#[derive(Debug, Default)]
struct AcceptErrors {
    warned: Option<Instant>,
    /// Failures since then.
    count: u32,
}

/// At most one warning in this time.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Pause of accepting when the system has no descriptor or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that are accepted before other tasks run.
const ACCEPTS_PER_TURN: u32 = 16;

// ===== impl Acceptor =====

impl Acceptor {
    pub(crate) fn new(context: ConnContext) -> Self {
        Self { context }
    }

    /// Accepts until the task is aborted. No error ends it: a server that does not accept is down.
    pub(super) async fn accept(
        self,
        listener: ListeningSocket,
        tls: Option<Tls>,
        entrance: Entrance,
    ) {
        let listener = watch(listener).expect("a listening socket");
        let mut accepted = 0_u32;
        let mut errors = AcceptErrors::default();
        let mut row = Row::default();
        loop {
            let accept = |listener: &AcceptSocket| {
                row.accept(|| has_connection(listener), || listener.accept())
            };
            match listener.async_io(Interest::READABLE, accept).await {
                // What the limits are there is not known here.
                Ok((socket, peer)) if self.context.passes_on() => {
                    let (internal, secure) = (entrance == Entrance::Internal, tls.is_some());
                    let (first, source) = (Vec::new(), PeerSource::Socket);
                    let connection = PassedConnection { peer, internal, secure, first, source };
                    self.context.pass_on_socket(socket, connection);
                    tokio::task::yield_now().await;
                }
                Ok((socket, peer)) => {
                    self.dispatch(self.admit(socket, peer, entrance).await, tls.as_ref());
                    accepted = accepted.wrapping_add(1);
                    if accepted.is_multiple_of(ACCEPTS_PER_TURN) {
                        tokio::task::yield_now().await;
                    }
                }
                Err(why) if is_of_connection(&why) => tracing::debug!(%why, "accept"),
                Err(why) => {
                    errors.warn(&why, Instant::now());
                    #[expect(clippy::disallowed_methods, reason = "pauses accepting, not serving")]
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Counts a connection, whose proxy may have to name its client before it can be counted for an address.
    async fn admit(&self, socket: TcpStream, peer: Option<IpAddr>, entrance: Entrance) -> Accepted {
        let factory = &self.context.factory;
        let (peer, header) = match factory.awaits_header(peer, entrance) {
            true => (None, HeaderState::Due),
            false => (peer, HeaderState::Done),
        };
        Accepted { socket, admitted: factory.admit(peer, entrance).await, header }
    }

    /// Serves a connection that another process has accepted, and of which it may have read some.
    #[cfg(target_os = "linux")]
    pub(super) async fn serve_late(&self, late: Late, tls: Option<&Tls>) {
        let Late { socket, peer, internal, secure, first, source } = late;
        let tls = tls.filter(|_| secure);
        if secure && (tls.is_none() || !first.is_empty()) {
            return tracing::warn!(
                ?peer,
                "a connection behind TLS was passed on that cannot be served"
            );
        }
        let entrance = if internal { Entrance::Internal } else { Entrance::Public };
        let socket = TcpStream::from_std(socket);
        let accepted = if source == PeerSource::Socket && first.is_empty() {
            self.admit(socket, peer, entrance).await
        } else {
            let known = peer.filter(|_| source == PeerSource::Socket);
            let admitted = self.context.factory.admit(known, entrance).await;
            if source != PeerSource::Socket {
                let named = peer.filter(|_| source == PeerSource::Header);
                identify(&admitted, named, || peer).await;
            }
            Accepted { socket, admitted, header: HeaderState::Done }
        };
        if first.is_empty() {
            self.dispatch(accepted, tls);
        } else {
            self.context.serve(accepted, first, None);
        }
    }

    /// Has a connection served from its first byte on.
    pub(crate) fn dispatch(&self, accepted: Accepted, tls: Option<&Tls>) {
        self.context.dispatch(accepted, tls.map(Tls::begin));
    }
}

/// Registers a listener with the runtime, which does not register the connections it accepts.
fn watch(listener: ListeningSocket) -> io::Result<AsyncFd<AcceptSocket>> {
    // Its successor, `register`, is unsafe because of types that replace their descriptor, which a listener does
    // not do.
    #[expect(deprecated, reason = "the safe constructor")]
    AsyncFd::with_interest(listener.into(), Interest::READABLE)
}

/// Errors that accept(2) passes on from a connection that has ended already.
fn is_of_connection(why: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(why.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

// ===== impl Row =====

impl Row {
    /// Calls `accept`, if there may be a connection. Most often the first after a wait is the only one, so only then
    /// `has_connection` is worth a system call of its own.
    fn accept<T>(
        &mut self,
        has_connection: impl FnOnce() -> bool,
        accept: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let accepted = match self.count {
            1 if !has_connection() => Err(io::ErrorKind::WouldBlock.into()),
            _ => accept(),
        };
        self.count = if accepted.is_ok() { self.count.saturating_add(1) } else { 0 };
        accepted
    }
}

/// Whether a connection can be accepted, or accept(2) has something to report.
fn has_connection(listener: &impl AsFd) -> bool {
    let listener = PollFd::new(listener, PollFlags::IN);
    poll(&mut [listener], Some(&Timespec::default())) != Ok(0)
}

// ===== impl AcceptErrors =====

impl AcceptErrors {
    fn warn(&mut self, why: &io::Error, now: Instant) {
        self.count += 1;
        if self.warned.is_none_or(|warned| now.duration_since(warned) >= WARN_INTERVAL) {
            tracing::warn!(%why, times = self.count, "cannot accept; pausing, and trying again");
            *self = Self { warned: Some(now), count: 0 };
        }
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// What a listener has: the connections that arrive before each wait.
    fn accepts_of(arrivals: &[u32]) -> (u32, u32) {
        let (mut row, waiting, failed) = (Row::default(), Cell::new(0), Cell::new(0));
        let accept = || match waiting.get() {
            0 => {
                failed.set(failed.get() + 1);
                Err(io::Error::from(io::ErrorKind::WouldBlock))
            }
            count => {
                waiting.set(count - 1);
                Ok(())
            }
        };
        let mut accepted = 0;
        for arrived in arrivals {
            waiting.set(waiting.get() + arrived);
            while row.accept(|| waiting.get() > 0, accept).is_ok() {
                accepted += 1;
            }
            assert_eq!(waiting.get(), 0, "no readiness is reported again");
        }
        (accepted, failed.get())
    }

    #[test]
    fn an_accept_fails_after_a_burst_and_never_after_a_single_connection() {
        assert_eq!(accepts_of(&[1; 100]), (100, 0));
        assert_eq!(accepts_of(&[2, 1, 1, 50, 1]), (55, 2));
        // Another process has accepted what this one was woken for.
        assert_eq!(accepts_of(&[0, 1, 0, 0, 1]), (2, 3));
    }

    #[test]
    fn a_listener_has_a_connection_until_it_is_accepted() {
        let listener = mio::net::TcpListener::bind(([127, 0, 0, 1], 0).into()).expect("a port");
        assert!(!has_connection(&listener));
        let address = listener.local_addr().expect("bound");
        let _clients = [(); 2].map(|()| std::net::TcpStream::connect(address).expect("it listens"));
        for _ in 0..2 {
            assert!(has_connection(&listener));
            listener.accept().expect("a connection");
        }
        assert!(!has_connection(&listener));
    }
}
