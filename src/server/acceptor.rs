//! Takes connections in, and sends each where it belongs.

use std::io;
use std::net::TcpListener as Listener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use mio::net::TcpListener;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::Instant;

use super::certificate::Tls;
use super::http1::Connection;
use super::tls_conn;
use crate::http::ServiceFactory;
use crate::stream::{Accepted, Arrival, Reception, Transport};

/// How the connections of one worker are served.
#[derive(Clone, Debug)]
pub(crate) struct Acceptor {
    host: ServiceFactory,
    draining: watch::Receiver<bool>,
}

/// Accepts that failed for want of something, which goes on for as long as the want does.
#[derive(Debug, Default)]
struct AcceptErrors {
    told: Option<Instant>,
    since: u32,
}

/// How often the log is told of a want.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// How long accepting pauses when the system has no descriptor or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that are accepted before others have their turn.
const ACCEPTS_PER_TURN: u32 = 16;

// ===== impl Acceptor =====

impl Acceptor {
    /// The acceptor of a worker whose connections hear from `draining` that they should end.
    pub(crate) fn new(host: ServiceFactory, draining: watch::Receiver<bool>) -> Self {
        Self { host, draining }
    }

    /// Accepts until it is aborted. No error ends it: a server that does not accept is down.
    pub(super) async fn accept(self, listener: Listener, tls: Option<Tls>) {
        let listener = watch(listener).expect("a listening socket");
        let mut accepted = 0_u32;
        let mut errors = AcceptErrors::default();
        loop {
            match listener.async_io(Interest::READABLE, TcpListener::accept).await {
                Ok((socket, peer)) => {
                    let Some(admitted) = self.host.admit(peer.ip()).await else { continue };
                    self.dispatch(Accepted { socket, admitted }, tls.as_ref());
                    accepted = accepted.wrapping_add(1);
                    if accepted.is_multiple_of(ACCEPTS_PER_TURN) {
                        tokio::task::yield_now().await;
                    }
                }
                Err(why) if is_of_the_connection(&why) => tracing::debug!(%why, "accept"),
                Err(why) => {
                    errors.tell(&why, Instant::now());
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "a pause of accepting, not of serving"
                    )]
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// In cleartext it may ask for a stream, and until it does it costs no more than one.
    pub(crate) fn dispatch(&self, accepted: Accepted, tls: Option<&Tls>) {
        if let Some(tls) = tls {
            let service = self.host.service(accepted.admitted);
            let (acceptor, draining) = (tls.acceptor(), self.draining.clone());
            tokio::spawn(tls_conn::serve(accepted.socket, service, acceptor, draining));
        } else if let Some(entrance) = self.host.entrance() {
            entrance.call(accepted);
        } else {
            self.serve(accepted, Bytes::new());
        }
    }
}

impl Reception for Acceptor {
    fn open(&self, accepted: Accepted, first: &Bytes) -> Result<Arrival, Accepted> {
        let Accepted { socket, admitted } = accepted;
        let service = self.host.service(admitted);
        // A panic is that of one connection. In the task in which it comes again it is contained.
        let opened = catch_unwind(AssertUnwindSafe(|| service.open_at_once(first)));
        match opened.unwrap_or_default() {
            Some((stream, discarded)) => {
                Ok(service.depart(Transport::Plain(socket), stream, discarded))
            }
            None => Err(Accepted { socket, admitted: service.into_admitted() }),
        }
    }

    fn serve(&self, accepted: Accepted, first: Bytes) {
        let service = self.host.service(accepted.admitted);
        match Connection::new(accepted.socket, first, service) {
            Ok(connection) => drop(tokio::spawn(connection.serve(self.draining.clone()))),
            Err(why) => tracing::warn!(%why, "a connection could not be watched"),
        }
    }
}

/// The runtime watches a listener, and does not watch what it accepts.
fn watch(listener: Listener) -> io::Result<AsyncFd<TcpListener>> {
    // Its successor, `register`, is unsafe because of types that replace their descriptor. A listener
    // keeps the one it has.
    #[expect(deprecated, reason = "the safe way to say this")]
    AsyncFd::with_interest(TcpListener::from_std(listener), Interest::READABLE)
}

/// Errors that accept(2) passes on from a connection that is already over.
fn is_of_the_connection(why: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(why.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

// ===== impl AcceptErrors =====

impl AcceptErrors {
    fn tell(&mut self, why: &io::Error, now: Instant) {
        self.since += 1;
        if self.told.is_none_or(|told| now.duration_since(told) >= WARN_INTERVAL) {
            tracing::warn!(%why, times = self.since, "cannot accept; pausing, and trying again");
            *self = Self { told: Some(now), since: 0 };
        }
    }
}
