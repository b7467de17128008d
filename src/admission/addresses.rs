//! The connections, or the streams, of each address, within its limit and beyond it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::permits::remove;
use crate::sync::Mutex;

/// The counts of every address that has any.
#[derive(Debug)]
pub(super) struct Addresses {
    max: usize,
    counts: Mutex<HashMap<IpAddr, Count>>,
}

/// One connection or stream of an address, counted until it is dropped.
#[derive(Debug)]
pub(super) struct AddressGuard {
    addresses: Arc<Addresses>,
    address: IpAddr,
    is_beyond: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// At most `max`, unless there were more when it was taken over.
    within: usize,
    beyond: usize,
}

// ===== impl Addresses =====

impl Addresses {
    /// Counts for addresses that may have `max` each.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, counts: Mutex::new(HashMap::new()) })
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Counts one more of this address: beyond the limit, if the address has reached it.
    pub(super) fn add(self: &Arc<Self>, address: IpAddr) -> AddressGuard {
        let address = network(address);
        let is_beyond = {
            let mut counts = self.counts.lock();
            let count = counts.entry(address).or_default();
            let is_beyond = count.within >= self.max;
            *count.of(is_beyond) += 1;
            is_beyond
        };
        AddressGuard { addresses: self.clone(), address, is_beyond }
    }

    /// Counts one more of this address within the limit, which may be less than what it has: it was admitted before.
    #[cfg(target_os = "linux")]
    pub(super) fn take_over(self: &Arc<Self>, address: IpAddr) -> AddressGuard {
        let address = network(address);
        self.counts.lock().entry(address).or_default().within += 1;
        AddressGuard { addresses: self.clone(), address, is_beyond: false }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.counts.lock().is_empty()
    }
}

// ===== impl AddressGuard =====

impl AddressGuard {
    pub(super) fn is_beyond(&self) -> bool {
        self.is_beyond
    }

    /// The address, as it is counted.
    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// How many of this address are beyond its limit.
    pub(super) fn beyond(&self) -> usize {
        self.addresses.counts.lock().get(&self.address).map_or(0, |count| count.beyond)
    }

    /// Counts it within the limit, if there is room by now. Returns whether it is within.
    pub(super) fn settle(&mut self) -> bool {
        let mut counts = self.addresses.counts.lock();
        if let Some(count) = counts.get_mut(&self.address)
            && self.is_beyond
            && count.within < self.addresses.max
        {
            count.beyond -= 1;
            count.within += 1;
            self.is_beyond = false;
        }
        !self.is_beyond
    }
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts.lock();
        let Some(count) = counts.get_mut(&self.address) else { return };
        *count.of(self.is_beyond) -= 1;
        if count.within + count.beyond == 0 {
            remove(&mut counts, &self.address);
        }
    }
}

// ===== impl Count =====

impl Count {
    fn of(&mut self, is_beyond: bool) -> &mut usize {
        if is_beyond { &mut self.beyond } else { &mut self.within }
    }
}

/// What is counted as one address: an IPv4 address or an IPv6 /64, which one subscriber of a provider has
/// at its disposal (RFC 6177).
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}
