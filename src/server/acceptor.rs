//! Accepts connections: an endless loop for each listening socket.

use std::io;
use std::net::TcpListener as Listener;
use std::time::Duration;

use bytes::Bytes;
use mio::net::TcpListener;
#[cfg(target_os = "linux")]
use mio::net::TcpStream;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::conn_context::ConnContext;
use super::reactor::Accepted;
use super::tls::Tls;
#[cfg(target_os = "linux")]
use super::upgrade::late::Late;
use crate::admission::Entrance;

/// Accepts the connections of one worker.
#[derive(Clone, Debug)]
pub(crate) struct Acceptor {
    context: ConnContext,
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
    pub(super) async fn accept(self, listener: Listener, tls: Option<Tls>, entrance: Entrance) {
        let listener = watch(listener).expect("a listening socket");
        let mut accepted = 0_u32;
        let mut errors = AcceptErrors::default();
        loop {
            match listener.async_io(Interest::READABLE, TcpListener::accept).await {
                // What the limits are there is not known here.
                Ok((socket, _)) if self.context.passes_on() => {
                    let internal = entrance == Entrance::Internal;
                    self.context.pass_on_socket(socket, internal, Bytes::new(), tls.is_some());
                    tokio::task::yield_now().await;
                }
                Ok((socket, peer)) => {
                    let admitted = self.context.factory.admit(peer.ip(), entrance).await;
                    self.dispatch(Accepted { socket, admitted }, tls.as_ref());
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

    /// Serves a connection that another process has accepted, and of which it may have read some.
    #[cfg(target_os = "linux")]
    pub(super) async fn serve_late(&self, late: Late, tls: Option<&Tls>) {
        let Late { socket, peer, internal, secure, first } = late;
        let tls = tls.filter(|_| secure);
        if secure && (tls.is_none() || !first.is_empty()) {
            return tracing::warn!(%peer, "a connection behind TLS was passed on that cannot be served");
        }
        let entrance = if internal { Entrance::Internal } else { Entrance::Public };
        let admitted = self.context.factory.admit(peer.ip(), entrance).await;
        let accepted = Accepted { socket: TcpStream::from_std(socket), admitted };
        if first.is_empty() {
            self.dispatch(accepted, tls);
        } else {
            self.context.serve(accepted, first, None);
        }
    }

    /// Passes a connection on: to a successor, if there is one; to the reactor, where it costs no more than a stream until
    /// its request arrives. One that is beyond a limit has a task, by which it can be closed.
    pub(crate) fn dispatch(&self, accepted: Accepted, tls: Option<&Tls>) {
        let context = &self.context;
        let handshake = tls.map(Tls::begin);
        if context.passes_on() {
            context.pass_on(accepted, Bytes::new(), tls.is_some());
        } else if context.reactor.is_open() && !accepted.admitted.is_unproven() {
            context.reactor.accept(accepted, handshake);
        } else if let Some(handshake) = handshake {
            let limit = context.factory.config().head_timeout;
            handshake.serve(accepted, limit, None, context.clone());
        } else {
            context.serve(accepted, Bytes::new(), None);
        }
    }
}

/// Registers a listener with the runtime, which does not register the connections it accepts.
fn watch(listener: Listener) -> io::Result<AsyncFd<TcpListener>> {
    // Its successor, `register`, is unsafe because of types that replace their descriptor, which a listener does
    // not do.
    #[expect(deprecated, reason = "the safe constructor")]
    AsyncFd::with_interest(TcpListener::from_std(listener), Interest::READABLE)
}

/// Errors that accept(2) passes on from a connection that has ended already.
fn is_of_connection(why: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(why.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
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
