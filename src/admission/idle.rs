//! Connections that were idle, by since when. Some may have received a request since then. That is found out in the
//! search for an idle one, so that a request costs no lock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::closer::{Closer, Idle};

/// The connections that are closed first, at most one entry each.
#[derive(Debug, Default)]
pub(super) struct IdleQueue {
    by_age: BTreeMap<Key, Arc<Closer>>,
    /// Those that count against the limit of their address.
    by_address: BTreeSet<(IpAddr, Key)>,
}

/// Since when it is idle, and its number.
type Key = (u64, u64);

// ===== impl IdleQueue =====

impl IdleQueue {
    pub(super) fn insert(&mut self, closer: Arc<Closer>, since: u64) {
        let key = (since, closer.number());
        closer.list(since);
        self.by_address.extend(closer.address().map(|address| (address, key)));
        self.by_age.insert(key, closer);
    }

    /// Removes a connection, if it is in here.
    pub(super) fn remove(&mut self, closer: &Closer) {
        let key = (closer.listed(), closer.number());
        if self.by_age.contains_key(&key) {
            self.take(key);
        }
    }

    /// Takes the connection out that has been idle for the longest time, closed but for its waking.
    pub(super) fn take_longest(&mut self) -> Option<Arc<Closer>> {
        loop {
            let key = *self.by_age.keys().next()?;
            if let Some(closer) = self.take_idle(key) {
                return Some(closer);
            }
        }
    }

    /// The same among those of an address.
    pub(super) fn take_longest_of(&mut self, address: IpAddr) -> Option<Arc<Closer>> {
        loop {
            let first = self.by_address.range((address, (0, 0))..).next();
            let (_, key) = *first.filter(|(of, _)| *of == address)?;
            if let Some(closer) = self.take_idle(key) {
                return Some(closer);
            }
        }
    }

    /// Takes a connection out if it has been idle since it was listed.
    fn take_idle(&mut self, key: Key) -> Option<Arc<Closer>> {
        let closer = self.take(key)?;
        match closer.close_if_idle(key.0) {
            Idle::Closed => return Some(closer),
            Idle::Since(later) => self.insert(closer, later),
            Idle::No => {}
        }
        None
    }

    fn take(&mut self, key: Key) -> Option<Arc<Closer>> {
        let closer = self.by_age.remove(&key)?;
        if let Some(address) = closer.address() {
            self.by_address.remove(&(address, key));
        }
        // Before its state is read: it lists itself if it goes idle after that.
        closer.list(0);
        Some(closer)
    }
}
