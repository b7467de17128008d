//! What the connections of one worker share.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use mio::net::TcpStream;
use tokio::sync::watch;

use super::http1::Connection;
use super::passed_connection::PassedConnection;
use super::proxy_protocol;
use super::reactor::{Accepted, Handle};
use super::tls::Handshake;
use crate::http::{ServiceFactory, Timer, Verdict};
use crate::metrics::HeaderRefusal;

/// What a connection needs of its worker. Clones are of the same worker.
#[derive(Clone, Debug)]
pub(crate) struct ConnContext {
    pub(crate) factory: ServiceFactory,
    pub(crate) reactor: Handle,
    /// Becomes true once connections have to end after the requests that they have in flight.
    pub(crate) draining: watch::Receiver<bool>,
}

// ===== impl ConnContext =====

impl ConnContext {
    /// Resolves after `limit`, or once the worker has drained for [`HubConfig::drain_grace`] if that is earlier: until
    /// then, what is not yet a request has to become one.
    ///
    /// [`HubConfig::drain_grace`]: crate::config::HubConfig::drain_grace
    pub(super) async fn deadline(&self, timer: Timer, limit: Duration) {
        let mut draining = self.draining.clone();
        let mut limit = timer.sleep(limit);
        if limit.limit(draining.wait_for(|draining| *draining)).await.is_some() {
            let mut grace = timer.sleep(self.factory.config().hub.drain_grace);
            _ = grace.limit(limit).await;
        }
    }

    /// Whether connections without a request go to another process from now on.
    pub(super) fn passes_on(&self) -> bool {
        self.reactor.successor().is_some()
    }

    /// Gives a connection to the successor, with the bytes that have been read of it; closes it if that is gone.
    /// `secure` is whether it begins with a TLS handshake.
    pub(super) fn pass_on(&self, accepted: Accepted, first: Bytes, secure: bool) {
        let Accepted { socket, admitted, header } = accepted;
        let mut connection = PassedConnection::of(&admitted, first, secure);
        if header.is_awaited() {
            // Of which nothing has been read.
            connection.peer = peer_of(&socket);
        }
        self.pass_on_socket(socket, connection);
    }

    pub(super) fn pass_on_socket(&self, socket: TcpStream, connection: PassedConnection) {
        let Some(successor) = self.reactor.successor() else { return };
        if let Err(why) = successor.pass_on(socket, connection) {
            tracing::debug!(%why, "a connection could not be passed on");
        }
    }

    /// Passes a connection on: to a successor, if there is one; to the reactor, where it costs no more than a stream until
    /// its request arrives. One that is beyond a limit has a task, by which it can be closed.
    pub(super) fn dispatch(&self, accepted: Accepted, handshake: Option<Handshake>) {
        if self.passes_on() {
            self.pass_on(accepted, Bytes::new(), handshake.is_some());
        } else if self.reactor.is_open() && !accepted.admitted.is_unproven() {
            self.reactor.accept(accepted, handshake);
        } else if accepted.header.is_awaited() {
            proxy_protocol::task::spawn(accepted, handshake, self.clone());
        } else if let Some(handshake) = handshake {
            let limit = self.factory.config().head_timeout;
            handshake.serve(accepted, limit, None, self.clone());
        } else {
            self.serve(accepted, Bytes::new(), None);
        }
    }

    /// Counts a header of a proxy that is refused, and logs it now and then.
    pub(super) fn refuse_header(&self, why: HeaderRefusal, socket: &TcpStream) {
        if let Some(times) = self.factory.count_header_refusal(why) {
            let peer = match peer_of(socket) {
                Some(peer) => peer.to_string(),
                // One that has reset its connection has no address any more.
                None => if socket.local_addr().is_ok() { "gone" } else { "unix" }.into(),
            };
            let reason = why.label();
            tracing::warn!(peer, reason, times, "a connection was refused: {why}");
        }
    }

    /// Serves a cleartext connection, of which these bytes have been read, in a task of its own. `verdict` is on
    /// its first request.
    pub(super) fn serve(&self, accepted: Accepted, first: Bytes, verdict: Option<Verdict>) {
        let closer = accepted.admitted.closer();
        let service = self.factory.service(accepted.admitted).with_verdict(verdict);
        match Connection::cleartext(accepted.socket, first, service, self.clone()) {
            Ok(connection) => drop(tokio::spawn(closer.guard(connection.serve()))),
            Err(why) => tracing::warn!(%why, "a connection could not be watched"),
        }
    }
}

/// The address at the other end of a socket, if it has one.
pub(super) fn peer_of(socket: &TcpStream) -> Option<IpAddr> {
    socket.peer_addr().ok().map(|peer| peer.ip())
}
