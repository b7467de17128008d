//! What a connection or a stream counts for, as guards that move with it.

use std::collections::HashMap;
use std::hash::Hash;

use tokio::sync::OwnedSemaphorePermit;

use super::addresses::AddressGuard;
#[cfg(target_os = "linux")]
use super::take_over::PermitState;
use crate::hub::{SocketId, is_sparse};

/// A connection's share of the limits, with that of its stream, released on drop. The default is a connection that is
/// not counted.
#[derive(Debug, Default)]
pub(crate) struct ConnPermit {
    pub(super) share: ConnShare,
    /// It came to an internal address.
    pub(super) is_internal: bool,
    /// That of the stream that it carries.
    pub(super) stream: StreamPermit,
}

/// A connection's share of the limits of connections.
#[derive(Debug, Default)]
pub(super) struct ConnShare {
    pub(super) permit: Option<OwnedSemaphorePermit>,
    pub(super) address: Option<AddressGuard>,
}

/// A stream's share of the limits, released on drop. The default is a stream that is not counted.
#[derive(Debug, Default)]
pub(crate) struct StreamPermit {
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// Boxed, because a stream over HTTP/2 keeps this, and most servers have no such limit.
    pub(super) address: Option<Box<AddressGuard>>,
}

/// The permits of many streaming connections, by socket. Without a limit per address they need no more memory
/// than one.
#[derive(Debug, Default)]
pub(crate) struct PermitTable {
    /// Of connections to public addresses.
    connections: Option<OwnedSemaphorePermit>,
    streams: Option<OwnedSemaphorePermit>,
    /// What some connections have beside these.
    others: HashMap<SocketId, Others>,
}

#[derive(Debug)]
struct Others {
    /// Of the connection and of its stream.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "a guard"))]
    addresses: [Option<AddressGuard>; 2],
    /// Of a connection to an internal address, which has none of those in common.
    internal: Option<OwnedSemaphorePermit>,
}

// ===== impl ConnPermit =====

impl ConnPermit {
    pub(crate) fn into_stream(self) -> StreamPermit {
        self.stream
    }
}

impl From<StreamPermit> for ConnPermit {
    fn from(stream: StreamPermit) -> Self {
        Self { stream, ..Self::default() }
    }
}

// ===== impl PermitTable =====

impl PermitTable {
    /// Keeps a permit of a streaming connection.
    pub(crate) fn keep(&mut self, socket: SocketId, permit: ConnPermit) {
        let ConnPermit { share, is_internal, stream } = permit;
        let ConnShare { mut permit, address } = share;
        let internal = if is_internal { permit.take() } else { None };
        merge(&mut self.connections, permit);
        merge(&mut self.streams, stream.permit);
        if address.is_some() || stream.address.is_some() || internal.is_some() {
            let addresses = [address, stream.address.map(|guard| *guard)];
            let others = Others { addresses, internal };
            self.others.insert(socket, others);
        }
    }

    /// Releases the permit of a streaming connection.
    pub(crate) fn give_back(&mut self, socket: SocketId) {
        let others = remove(&mut self.others, &socket);
        let is_internal = others.is_some_and(|others| others.internal.is_some());
        let connections = self.connections.as_mut().filter(|_| !is_internal);
        for permits in [connections, self.streams.as_mut()].into_iter().flatten() {
            drop(permits.split(1));
        }
    }

    /// What a streaming connection counts for, as its successor has to count it.
    #[cfg(target_os = "linux")]
    pub(crate) fn state(&self, socket: SocketId) -> PermitState {
        // The places that all have in common: one of each for every connection.
        let Self { connections: _, streams: _, others } = self;
        let Some(Others { addresses, internal }) = others.get(&socket) else {
            return PermitState::default();
        };
        let [address, stream_address] =
            addresses.each_ref().map(|guard| guard.as_ref().map(AddressGuard::address));
        PermitState { internal: internal.is_some(), address, stream_address }
    }

    #[cfg(test)]
    pub(super) fn others(&self) -> usize {
        self.others.len()
    }
}

fn merge(permits: &mut Option<OwnedSemaphorePermit>, permit: Option<OwnedSemaphorePermit>) {
    match (permits, permit) {
        (Some(permits), Some(permit)) => permits.merge(permit),
        (permits, permit) => *permits = permits.take().or(permit),
    }
}

/// Removes an entry, and releases memory as the map empties.
pub(super) fn remove<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: &K) -> Option<V> {
    let removed = map.remove(key)?;
    if is_sparse(map.len(), map.capacity()) {
        map.shrink_to_fit();
    }
    Some(removed)
}
