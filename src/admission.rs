//! Who may come in: connections in total and from one address. Whatever counts is a guard that moves
//! with its connection, out of hyper and into the lot too, so that no count outlives what it counts.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Config;
use crate::metrics::{Limit, Refusals};
use crate::sync::Mutex;

/// The doors of a server. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    shared: Arc<Shared>,
}

/// One connection, from the moment that it is accepted.
#[derive(Debug)]
pub(crate) struct Visitor {
    admission: Admission,
    peer: IpAddr,
    ticket: Ticket,
    /// The limit that was reached when it came. It may be answered nevertheless if there is room by
    /// the time that it asks for something.
    came_over: Option<Limit>,
}

/// A connection's share of what is limited, given back when this is dropped. The default is a
/// connection that nobody counts.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    permit: Option<OwnedSemaphorePermit>,
    address: Option<AddressGuard>,
}

/// The tickets of many connections, by number, in no more memory than one of them if they are not
/// counted by address.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    permits: Option<OwnedSemaphorePermit>,
    addresses: HashMap<u32, AddressGuard>,
}

/// One connection or stream of an address.
#[derive(Debug)]
pub(crate) struct AddressGuard {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

#[derive(Debug)]
struct Shared {
    /// A permit for each connection that may be open, and some more for those that are told that
    /// there is no room.
    permits: Arc<Semaphore>,
    connections_max: usize,
    refused_at_once: usize,
    /// `None` if nothing is counted by address.
    addresses: Option<Arc<Addresses>>,
    trusted: Box<[IpNet]>,
    refusals: Refusals,
}

/// How many connections there are from each address; from one that is not here, none.
#[derive(Debug)]
struct Addresses {
    max: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// Connections of one address, beyond its limit, that are told so at the same time. More are closed
/// without a word, because who opens that many does not listen.
const ADDRESS_REFUSED_AT_ONCE: usize = 8;

/// Descriptors that a worker needs for itself, at most, beside its listening sockets.
const DESCRIPTORS_A_WORKER: usize = 8;

/// Descriptors that the process needs for itself, at most.
const DESCRIPTORS_A_PROCESS: usize = 24;

// ===== impl Admission =====

impl Admission {
    /// Doors for a server with this many descriptors, which are the limit where none is configured.
    pub(crate) fn new(config: &Config, descriptors: usize) -> Self {
        let refused_at_once = refused_at_once(descriptors);
        let possible = connections_possible(config, descriptors);
        let connections_max = config.connections_max.unwrap_or(possible).min(usize::MAX >> 4);
        if connections_max > possible {
            tracing::warn!(
                connections_max,
                descriptors,
                "more connections are allowed than there are descriptors for; allowed are {possible}"
            );
        }
        let addresses = config
            .address_connections_max
            .map(|max| Addresses { max, counts: Mutex::new(HashMap::new()) });
        let shared = Shared {
            permits: Arc::new(Semaphore::new(connections_max + refused_at_once)),
            connections_max,
            refused_at_once,
            addresses: addresses.map(Arc::new),
            trusted: config.trusted_proxies.clone().into(),
            refusals: Refusals::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Counts a connection. Waits while as many are being refused as may be; nobody is let in that
    /// one could not even refuse. `None` is for a connection that has to be closed without a word.
    pub(crate) async fn admit(&self, peer: IpAddr) -> Option<Visitor> {
        let peer = peer.to_canonical();
        let address = self.shared.addresses.as_ref().filter(|_| !self.trusts(peer));
        let address = address.map(|addresses| addresses.enter(peer));
        if let Some(address) = &address
            && address.count() > address.addresses.max + ADDRESS_REFUSED_AT_ONCE
        {
            self.count_refusal(Limit::Address);
            return None;
        }
        let permit = self.shared.permits.clone().acquire_owned().await.ok();
        let ticket = Ticket { permit, address };
        let came_over = self.limit_reached(&ticket);
        Some(Visitor { admission: self.clone(), peer, ticket, came_over })
    }

    pub(crate) fn connections_max(&self) -> usize {
        self.shared.connections_max
    }

    /// The most connections or streams of one address, if that is limited.
    pub(crate) fn address_max(&self) -> Option<usize> {
        self.shared.addresses.as_ref().map(|addresses| addresses.max)
    }

    /// Open connections, with those that are being refused.
    pub(crate) fn connections(&self) -> usize {
        let Shared { permits, connections_max, refused_at_once, .. } = &*self.shared;
        (connections_max + refused_at_once).saturating_sub(permits.available_permits())
    }

    pub(crate) fn refusals(&self) -> &Refusals {
        &self.shared.refusals
    }

    pub(crate) fn count_refusal(&self, limit: Limit) {
        self.shared.refusals.add(limit);
    }

    /// Whether what this address says of its clients is believed.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.shared.trusted.iter().any(|net| net.contains(&address))
    }

    fn limit_reached(&self, ticket: &Ticket) -> Option<Limit> {
        let Shared { permits, refused_at_once, .. } = &*self.shared;
        let address_over =
            ticket.address.as_ref().is_some_and(|guard| guard.count() > guard.addresses.max);
        let full = permits.available_permits() < *refused_at_once;
        address_over.then_some(Limit::Address).or_else(|| full.then_some(Limit::Connections))
    }
}

/// Connections that a process with so many descriptors can have, at least 1.
fn connections_possible(config: &Config, descriptors: usize) -> usize {
    // Beside its sockets, each listener may hold a connection that waits to be refused.
    let worker = DESCRIPTORS_A_WORKER + 2 * (config.listen.len() + config.plain_listen.len());
    let reserve = DESCRIPTORS_A_PROCESS + config.workers * worker + refused_at_once(descriptors);
    descriptors.saturating_sub(reserve).max(1)
}

/// Connections beyond the limit that are told so at the same time.
fn refused_at_once(descriptors: usize) -> usize {
    (descriptors / 16).clamp(4, 256)
}

// ===== impl Visitor =====

impl Visitor {
    /// The limit for which its request cannot be served. Who has once found room keeps it.
    pub(crate) fn limit_reached(&self) -> Option<Limit> {
        self.came_over.and_then(|_| self.admission.limit_reached(&self.ticket))
    }

    /// Whether it came when there was no room, and should not stay longer than it has to.
    pub(crate) fn came_over(&self) -> bool {
        self.came_over.is_some()
    }

    /// The proxy that speaks for others, if this is one that is believed.
    pub(crate) fn trusted_proxy(&self) -> Option<IpAddr> {
        self.admission.trusts(self.peer).then_some(self.peer)
    }

    /// Counts a stream that a proxy opens for this client.
    ///
    /// # Errors
    /// The client has as many as one address may have.
    pub(crate) fn enter_for(&self, client: IpAddr) -> Result<Option<AddressGuard>, Limit> {
        let Some(addresses) = &self.admission.shared.addresses else { return Ok(None) };
        let guard = addresses.enter(client);
        if guard.count() > addresses.max { Err(Limit::Address) } else { Ok(Some(guard)) }
    }

    /// Its ticket, for when it outlives the request that it made through a proxy for `client`.
    pub(crate) fn into_ticket(self, client: Option<AddressGuard>) -> Ticket {
        let Ticket { permit, address } = self.ticket;
        Ticket { permit, address: client.or(address) }
    }
}

// ===== impl Tickets =====

impl Tickets {
    /// Keeps a ticket under this number.
    pub(crate) fn keep(&mut self, number: u32, ticket: Ticket) {
        match (&mut self.permits, ticket.permit) {
            (Some(permits), Some(permit)) => permits.merge(permit),
            (permits, permit) => *permits = permits.take().or(permit),
        }
        if let Some(address) = ticket.address {
            self.addresses.insert(number, address);
        }
    }

    /// Gives back the ticket with this number.
    pub(crate) fn give_back(&mut self, number: u32) {
        if let Some(permits) = &mut self.permits {
            drop(permits.split(1));
        }
        if self.addresses.remove(&number).is_some() {
            give_back_memory(&mut self.addresses);
        }
    }
}

// ===== impl Addresses =====

impl Addresses {
    fn enter(self: &Arc<Self>, address: IpAddr) -> AddressGuard {
        let address = network(address);
        *self.counts.lock().entry(address).or_default() += 1;
        AddressGuard { addresses: self.clone(), address }
    }
}

impl AddressGuard {
    fn count(&self) -> usize {
        self.addresses.counts.lock().get(&self.address).copied().unwrap_or_default()
    }
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts.lock();
        let Some(count) = counts.get_mut(&self.address) else { return };
        *count -= 1;
        if *count == 0 {
            counts.remove(&self.address);
            give_back_memory(&mut counts);
        }
    }
}

/// What one subscriber of a network provider has: an IPv4 address, or a /64 of IPv6 addresses, any of
/// which it can take (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

/// Has a map give memory back as it empties, see [`crate::hub::give_back_memory`].
fn give_back_memory<K: Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>) {
    let len = map.len();
    if (len == 0 || len.is_power_of_two()) && len * 4 <= map.capacity() {
        map.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    /// 64 descriptors allow 4 to be refused at once.
    fn doors(connections: usize, address: Option<usize>) -> Admission {
        let config = Config {
            connections_max: Some(connections),
            address_connections_max: address,
            trusted_proxies: vec!["10.0.0.0/8".parse().expect("a network")],
            ..Config::default()
        };
        Admission::new(&config, 64)
    }

    /// Whoever can come in at once.
    fn enter(doors: &Admission, peer: &str) -> Option<Visitor> {
        let peer = peer.parse().expect("an address");
        match pin!(doors.admit(peer)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(visitor) => visitor,
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_connection_over_the_limit_is_refused_until_there_is_room() {
        let doors = doors(2, None);
        let mut inside: Vec<_> = (0..2).map(|_| enter(&doors, "::1").expect("room")).collect();
        assert!(inside.iter().all(|visitor| visitor.limit_reached().is_none()));
        let over: Vec<_> = (0..4).map(|_| enter(&doors, "::1").expect("a word")).collect();
        assert!(over.iter().all(|visitor| visitor.limit_reached() == Some(Limit::Connections)));
        assert!(enter(&doors, "::1").is_none(), "it waits");
        assert!(inside[0].limit_reached().is_none(), "who is in stays in");
        inside.clear();
        assert!(over[0].limit_reached().is_some(), "there are still four for two");
        drop(over.into_iter().skip(2).collect::<Vec<_>>());
        assert_eq!(doors.connections(), 0);
        assert!(enter(&doors, "::1").expect("room").limit_reached().is_none());
    }

    #[test]
    fn a_connection_accepted_over_the_limit_is_served_if_there_is_room_at_its_request() {
        let doors = doors(1, None);
        let first = enter(&doors, "::1").expect("room");
        let second = enter(&doors, "::1").expect("a word");
        assert!(second.limit_reached().is_some());
        drop(first);
        assert!(second.limit_reached().is_none() && second.came_over());
    }

    #[test]
    fn an_address_has_its_own_limit() {
        let doors = doors(100, Some(2));
        let mut inside: Vec<_> = (0..10).map(|_| enter(&doors, "192.0.2.1").expect("in")).collect();
        assert_eq!(inside.iter().filter(|v| v.limit_reached() == Some(Limit::Address)).count(), 8);
        assert!(enter(&doors, "192.0.2.1").is_none(), "it is closed without a word");
        assert!(enter(&doors, "::ffff:192.0.2.1").is_none(), "the same in other words");
        assert!(enter(&doors, "192.0.2.2").expect("in").limit_reached().is_none());
        inside.clear();
        assert!(enter(&doors, "192.0.2.1").expect("in").limit_reached().is_none());
        assert!(doors.shared.addresses.as_ref().expect("on").counts.lock().is_empty());
    }

    #[test]
    fn an_ipv6_address_counts_as_its_network() {
        let doors = doors(100, Some(1));
        let first = enter(&doors, "2001:db8::1").expect("in");
        let second = enter(&doors, "2001:db8::ffff:2").expect("in");
        assert_eq!(second.limit_reached(), Some(Limit::Address));
        assert!(enter(&doors, "2001:db8:0:1::1").expect("in").limit_reached().is_none());
        drop(first);
    }

    #[test]
    fn a_trusted_proxy_is_not_counted_but_whom_it_speaks_for_is() {
        let doors = doors(100, Some(1));
        let proxies: Vec<_> = (0..3).map(|_| enter(&doors, "10.1.2.3").expect("in")).collect();
        assert!(proxies.iter().all(|visitor| visitor.limit_reached().is_none()));
        let client = "192.0.2.1".parse().expect("an address");
        let stream = proxies[0].enter_for(client).expect("the first");
        assert_eq!(proxies[1].enter_for(client).expect_err("the second"), Limit::Address);
        drop(stream);
        assert!(proxies[1].enter_for(client).is_ok());
    }

    #[test]
    fn tickets_are_given_back_one_by_one() {
        let doors = doors(100, Some(50));
        let mut tickets = Tickets::default();
        for number in 0..50 {
            let visitor = enter(&doors, "192.0.2.1").expect("in");
            tickets.keep(number, visitor.into_ticket(None));
        }
        assert_eq!(doors.connections(), 50);
        for number in 0..25 {
            tickets.give_back(number);
        }
        assert_eq!((doors.connections(), tickets.addresses.len()), (25, 25));
        drop(tickets);
        assert_eq!(doors.connections(), 0);
        assert!(doors.shared.addresses.as_ref().expect("on").counts.lock().is_empty());
    }

    #[test]
    fn the_limit_from_the_descriptors_leaves_a_reserve() {
        let config = Config { workers: 2, ..Config::default() };
        for (descriptors, connections) in [(16, 1), (1_024, 916), (1_048_576, 1_048_276)] {
            assert_eq!(connections_possible(&config, descriptors), connections);
        }
    }
}
