//! The nodes that clients choose from, as a balancer that knows which of them are ready.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A node has the same place for its whole life, and an address of its own after each start.
#[derive(Default)]
pub(crate) struct Directory(Mutex<Vec<Option<SocketAddr>>>);

// ===== impl Directory =====

impl Directory {
    /// From now on, clients choose it, or no longer.
    pub(crate) fn set(&self, node: usize, address: Option<SocketAddr>) {
        let mut nodes = self.lock();
        if nodes.len() <= node {
            nodes.resize(node + 1, None);
        }
        nodes[node] = address;
    }

    /// A ready node, drawn at random.
    pub(crate) fn any(&self) -> Option<(usize, SocketAddr)> {
        let nodes = self.lock();
        let ready = nodes.iter().enumerate().filter_map(|(n, node)| Some((n, (*node)?)));
        let ready: Vec<_> = ready.collect();
        (!ready.is_empty()).then(|| ready[fastrand::usize(..ready.len())])
    }

    /// The same, or this one if it is ready.
    pub(crate) fn any_of(&self, pinned: Option<usize>) -> Option<(usize, SocketAddr)> {
        match pinned {
            Some(node) => Some((node, (*self.lock().get(node)?)?)),
            None => self.any(),
        }
    }

    /// Whether a node that is ready has this address.
    pub(crate) fn has(&self, address: SocketAddr) -> bool {
        self.lock().contains(&Some(address))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<SocketAddr>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
