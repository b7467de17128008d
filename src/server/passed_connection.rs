//! A connection that a server that has been replaced, and still accepts, passes on to its successor.

use std::net::IpAddr;

use crate::admission::{Admitted, PeerSource};

/// A connection that is passed on, beside its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PassedConnection {
    /// The address of its peer, if it has one that is known.
    pub(crate) peer: Option<IpAddr>,
    /// It came to an internal address.
    pub(crate) internal: bool,
    /// It begins with a TLS handshake.
    pub(crate) secure: bool,
    /// What has been read of it.
    pub(crate) first: Vec<u8>,
    /// How its peer is known.
    pub(crate) source: PeerSource,
}

// ===== impl PassedConnection =====

impl PassedConnection {
    /// One that was admitted, and of which so much has been read.
    pub(crate) fn of(admitted: &Admitted, first: impl Into<Vec<u8>>, secure: bool) -> Self {
        Self {
            peer: admitted.peer(),
            internal: admitted.is_internal(),
            secure,
            first: first.into(),
            source: admitted.peer_source(),
        }
    }
}
