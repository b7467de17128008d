//! What the connections of one worker share.

use bytes::Bytes;
use tokio::sync::watch;

use super::http1::Connection;
use super::reactor::{Accepted, Handle};
use crate::http::{ServiceFactory, Verdict};

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
