//! Connections that another process has accepted and passes on: each gets to a worker, as if it had been accepted there.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;

use crate::admission::PeerSource;
use crate::server::acceptor::Acceptor;
use crate::server::passed_connection::PassedConnection;
use crate::server::tls::Tls;

/// A connection that comes late.
#[derive(Debug)]
pub(crate) struct Late {
    pub(crate) socket: std::net::TcpStream,
    pub(crate) peer: Option<IpAddr>,
    /// It came to an internal address.
    pub(crate) internal: bool,
    /// It begins with a TLS handshake.
    pub(crate) secure: bool,
    /// What has been read of it.
    pub(crate) first: Bytes,
    /// How its peer is known.
    pub(crate) source: PeerSource,
}

/// Gives such connections to a worker.
#[derive(Clone, Debug)]
pub(crate) struct LateSender(Sender<Late>);

/// The end of the worker.
#[derive(Debug)]
pub(crate) struct LateReceiver(Receiver<Late>);

/// Connections that wait for their worker.
const WAITING_MAX: usize = 256;

/// Pause between two tries while so many wait.
const RETRY: Duration = Duration::from_millis(1);

/// Both ends, for one worker.
pub(crate) fn late() -> (LateSender, LateReceiver) {
    let (sender, receiver) = channel(WAITING_MAX);
    (LateSender(sender), LateReceiver(receiver))
}

// ===== impl Late =====

impl Late {
    /// The connection that a message has brought, with its socket, which does not block.
    pub(crate) fn new(socket: OwnedFd, connection: PassedConnection) -> Self {
        let PassedConnection { peer, internal, secure, first, source } = connection;
        Self { socket: socket.into(), peer, internal, secure, first: first.into(), source }
    }
}

// ===== impl LateSender =====

impl LateSender {
    /// Gives a connection to the worker, and blocks while too many wait for it. Returns whether it was given: it is closed
    /// if there is no room until then, or if the worker accepts no more.
    pub(crate) fn send(&self, mut late: Late, until: Instant) -> bool {
        loop {
            late = match self.0.try_send(late) {
                Ok(()) => return true,
                Err(TrySendError::Full(late)) if Instant::now() < until => late,
                Err(_) => return false,
            };
            thread::sleep(RETRY);
        }
    }
}

// ===== impl LateReceiver =====

impl LateReceiver {
    /// Serves what is given to the worker, until its task is aborted.
    pub(crate) async fn serve(mut self, acceptor: Acceptor, tls: Option<Tls>) {
        while let Some(late) = self.0.recv().await {
            acceptor.serve_late(late, tls.as_ref()).await;
        }
    }
}
