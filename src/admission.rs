//! Limits of connections and of streams, in total and per address. Each count is a guard that moves with its
//! connection or stream, out of hyper and into the reactor too, so that no count outlives either.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{Config, Network, STREAMS_MIN};
use crate::hub::{SocketId, is_sparse};
use crate::metrics::{Limit, Refusals};
use crate::sync::Mutex;

/// The limits of a server. Clones share the counts.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    shared: Arc<Shared>,
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Admission,
    peer: IpAddr,
    permit: ConnPermit,
    /// The limit that was exceeded at accept. Its request is still served if there is room when the request
    /// arrives.
    over_limit: Option<Limit>,
}

/// A connection's share of the limits, released on drop. The default is a connection that is not counted.
#[derive(Debug, Default)]
pub(crate) struct ConnPermit {
    permit: Option<OwnedSemaphorePermit>,
    address: Option<AddressGuard>,
    /// That of the stream that it carries.
    stream: StreamPermit,
}

/// A stream's share of the limits, released on drop. The default is a stream that is not counted.
#[derive(Debug, Default)]
pub(crate) struct StreamPermit {
    permit: Option<OwnedSemaphorePermit>,
    address: Option<AddressGuard>,
}

/// The permits of many streaming connections, by socket. Without a limit per address they need no more memory
/// than one.
#[derive(Debug, Default)]
pub(crate) struct PermitTable {
    connections: Option<OwnedSemaphorePermit>,
    streams: Option<OwnedSemaphorePermit>,
    /// Of the connection and of its stream.
    addresses: HashMap<SocketId, [Option<AddressGuard>; 2]>,
}

/// One connection or stream of an address.
#[derive(Debug)]
pub(crate) struct AddressGuard {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

#[derive(Debug)]
struct Shared {
    /// One for each connection that may be open, and `refusals_max` more for those that are refused with a
    /// response.
    permits: Arc<Semaphore>,
    connections_max: usize,
    refusals_max: usize,
    /// The connections of each address; `None` if there is no limit.
    addresses: Option<Arc<Addresses>>,
    /// One for each stream that may be open.
    stream_permits: Arc<Semaphore>,
    streams_max: usize,
    /// The streams of each address; `None` if there is no limit.
    stream_addresses: Option<Arc<Addresses>>,
    trusted: Box<[Network]>,
    refusals: Refusals,
}

/// The number of connections, or of streams, of each address that has any.
#[derive(Debug)]
struct Addresses {
    max: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// Connections of one address beyond its limit that are refused with a response at the same time; further
/// ones are closed silently.
const ADDRESS_REFUSALS_MAX: usize = 8;

/// Descriptors that a worker needs at most, beside its listening sockets.
const DESCRIPTORS_PER_WORKER: usize = 8;

/// Descriptors that the process needs at most, beside those of its workers.
const DESCRIPTORS_PER_PROCESS: usize = 24;

// ===== impl Admission =====

impl Admission {
    /// The limits of a server with this many descriptors, from which the total follows if none is
    /// configured.
    pub(crate) fn new(config: &Config, descriptors: usize) -> Self {
        let refusals_max = refusals_max(descriptors);
        let possible = connections_possible(config, descriptors);
        let connections_max = config.connections_max.unwrap_or(possible).min(usize::MAX >> 4);
        if connections_max > possible {
            tracing::warn!(
                connections_max,
                descriptors,
                "connections_max exceeds what the descriptor limit allows, {possible}"
            );
        }
        let streams_max = config.streams_max.unwrap_or_else(|| connections_max.max(STREAMS_MIN));
        let streams_max = streams_max.min(usize::MAX >> 4);
        let addresses = |max| Arc::new(Addresses { max, counts: Mutex::new(HashMap::new()) });
        let shared = Shared {
            permits: Arc::new(Semaphore::new(connections_max + refusals_max)),
            connections_max,
            refusals_max,
            addresses: config.address_connections_max.map(addresses),
            stream_permits: Arc::new(Semaphore::new(streams_max)),
            streams_max,
            stream_addresses: config.address_streams_max.map(addresses),
            trusted: config.trusted_proxies.clone().into(),
            refusals: Refusals::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Counts a connection. Waits for a permit, which a refusal needs too, so that the number of open
    /// sockets stays bounded. `None` is for a connection that has to be closed silently.
    pub(crate) async fn admit(&self, peer: IpAddr) -> Option<Admitted> {
        let peer = peer.to_canonical();
        let address = self.shared.addresses.as_ref().filter(|_| !self.trusts(peer));
        let address = address.map(|addresses| addresses.add(peer));
        if let Some(address) = &address
            && address.count() > address.addresses.max + ADDRESS_REFUSALS_MAX
        {
            self.count_refusal(Limit::Address);
            return None;
        }
        let permit = self.shared.permits.clone().acquire_owned().await.ok();
        let permit = ConnPermit { permit, address, stream: StreamPermit::default() };
        let over_limit = self.limit_reached(&permit);
        Some(Admitted { admission: self.clone(), peer, permit, over_limit })
    }

    pub(crate) fn connections_max(&self) -> usize {
        self.shared.connections_max
    }

    /// How much this limit of connections or streams allows.
    pub(crate) fn max(&self, limit: Limit) -> usize {
        let Shared { addresses, stream_addresses, .. } = &*self.shared;
        let of = |addresses: &Option<Arc<Addresses>>| addresses.as_ref().map_or(0, |all| all.max);
        match limit {
            Limit::Address => of(addresses),
            Limit::AddressStreams => of(stream_addresses),
            Limit::Streams => self.shared.streams_max,
            _ => self.shared.connections_max,
        }
    }

    /// Open connections, including those that are being refused.
    pub(crate) fn connections(&self) -> usize {
        let Shared { permits, connections_max, refusals_max, .. } = &*self.shared;
        (connections_max + refusals_max).saturating_sub(permits.available_permits())
    }

    pub(crate) fn refusals(&self) -> &Refusals {
        &self.shared.refusals
    }

    pub(crate) fn count_refusal(&self, limit: Limit) {
        self.shared.refusals.add(limit);
    }

    /// Whether this is the address of a trusted proxy.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.shared.trusted.iter().any(|net| net.contains(address))
    }

    fn limit_reached(&self, permit: &ConnPermit) -> Option<Limit> {
        let Shared { permits, refusals_max, .. } = &*self.shared;
        let address_over =
            permit.address.as_ref().is_some_and(|guard| guard.count() > guard.addresses.max);
        let full = permits.available_permits() < *refusals_max;
        address_over.then_some(Limit::Address).or_else(|| full.then_some(Limit::Connections))
    }
}

/// Connections that a process with this many descriptors can have, at least 1.
fn connections_possible(config: &Config, descriptors: usize) -> usize {
    // Beside its own socket, each listener may hold one connection that waits for a permit.
    let worker = DESCRIPTORS_PER_WORKER + 2 * (config.listen.len() + config.plain_listen.len());
    let reserve = DESCRIPTORS_PER_PROCESS + config.workers * worker + refusals_max(descriptors);
    descriptors.saturating_sub(reserve).max(1)
}

/// Connections beyond the limit that are refused with a response at the same time.
fn refusals_max(descriptors: usize) -> usize {
    (descriptors / 16).clamp(4, 256)
}

// ===== impl Admitted =====

impl Admitted {
    /// The limit for which its request cannot be served. Once admitted, it stays admitted.
    pub(crate) fn limit_reached(&self) -> Option<Limit> {
        self.over_limit.and_then(|_| self.admission.limit_reached(&self.permit))
    }

    /// Whether a limit was exceeded at accept, so that it should close after its first response.
    pub(crate) fn over_limit(&self) -> bool {
        self.over_limit.is_some()
    }

    /// The address of the peer, if that is a trusted proxy.
    fn trusted_proxy(&self) -> Option<IpAddr> {
        self.admission.trusts(self.peer).then_some(self.peer)
    }

    /// Counts a stream that it opens: of its peer, or of the client that `behind` finds behind a trusted proxy.
    ///
    /// # Errors
    /// The limit of streams that is reached.
    pub(crate) fn count_stream(
        &self,
        behind: impl FnOnce(IpAddr) -> IpAddr,
    ) -> Result<StreamPermit, Limit> {
        let Shared { stream_permits, stream_addresses, .. } = &*self.admission.shared;
        let address = stream_addresses
            .as_ref()
            .map(|addresses| addresses.add(self.trusted_proxy().map_or(self.peer, behind)));
        if address.as_ref().is_some_and(|guard| guard.count() > guard.addresses.max) {
            return Err(Limit::AddressStreams);
        }
        let permit = stream_permits.clone().try_acquire_owned().map_err(|_| Limit::Streams)?;
        Ok(StreamPermit { permit: Some(permit), address })
    }

    /// Its permit, for when it outlives the request, which opened this stream.
    pub(crate) fn into_permit(self, stream: StreamPermit) -> ConnPermit {
        ConnPermit { stream, ..self.permit }
    }
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
        let ConnPermit { permit, address, stream } = permit;
        merge(&mut self.connections, permit);
        merge(&mut self.streams, stream.permit);
        if address.is_some() || stream.address.is_some() {
            self.addresses.insert(socket, [address, stream.address]);
        }
    }

    /// Releases the permit of a streaming connection.
    pub(crate) fn give_back(&mut self, socket: SocketId) {
        for permits in [&mut self.connections, &mut self.streams].into_iter().flatten() {
            drop(permits.split(1));
        }
        remove(&mut self.addresses, &socket);
    }
}

// ===== impl Addresses =====

impl Addresses {
    fn add(self: &Arc<Self>, address: IpAddr) -> AddressGuard {
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
            remove(&mut counts, &self.address);
        }
    }
}

/// What is counted as one address: an IPv4 address or an IPv6 /64, which one subscriber of a provider has
/// at its disposal (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

fn merge(permits: &mut Option<OwnedSemaphorePermit>, permit: Option<OwnedSemaphorePermit>) {
    match (permits, permit) {
        (Some(permits), Some(permit)) => permits.merge(permit),
        (permits, permit) => *permits = permits.take().or(permit),
    }
}

/// Removes an entry, and releases memory as the map empties.
fn remove<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: &K) {
    if map.remove(key).is_some() && is_sparse(map.len(), map.capacity()) {
        map.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    /// 64 descriptors allow 4 refusals at the same time.
    fn limits(connections: usize, address: Option<usize>) -> Admission {
        let config = Config {
            connections_max: Some(connections),
            address_connections_max: address,
            address_streams_max: address,
            trusted_proxies: vec!["10.0.0.0/8".parse().expect("a network")],
            ..Config::default()
        };
        Admission::new(&config, 64)
    }

    /// Admits a connection if it need not wait for a permit.
    fn admit(admission: &Admission, peer: &str) -> Option<Admitted> {
        let peer = peer.parse().expect("an address");
        match pin!(admission.admit(peer)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(admitted) => admitted,
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_connection_beyond_the_limit_is_refused_until_there_is_room() {
        let admission = limits(2, None);
        let mut admitted: Vec<_> =
            (0..2).map(|_| admit(&admission, "::1").expect("room")).collect();
        assert!(admitted.iter().all(|admitted| admitted.limit_reached().is_none()));
        let over: Vec<_> =
            (0..4).map(|_| admit(&admission, "::1").expect("a permit to refuse it")).collect();
        assert!(over.iter().all(|admitted| admitted.limit_reached() == Some(Limit::Connections)));
        assert!(admit(&admission, "::1").is_none(), "it waits");
        assert!(admitted[0].limit_reached().is_none(), "once admitted, it stays admitted");
        admitted.clear();
        assert!(over[0].limit_reached().is_some(), "four are open, and the limit is two");
        drop(over.into_iter().skip(2).collect::<Vec<_>>());
        assert_eq!(admission.connections(), 0);
        assert!(admit(&admission, "::1").expect("room").limit_reached().is_none());
    }

    #[test]
    fn a_connection_accepted_over_the_limit_is_served_if_there_is_room_for_its_request() {
        let admission = limits(1, None);
        let first = admit(&admission, "::1").expect("room");
        let second = admit(&admission, "::1").expect("a permit to refuse it");
        assert!(second.limit_reached().is_some());
        drop(first);
        assert!(second.limit_reached().is_none() && second.over_limit());
    }

    #[test]
    fn an_address_has_its_own_limit() {
        let admission = limits(100, Some(2));
        let mut admitted: Vec<_> =
            (0..10).map(|_| admit(&admission, "192.0.2.1").expect("a permit")).collect();
        assert_eq!(
            admitted.iter().filter(|v| v.limit_reached() == Some(Limit::Address)).count(),
            8
        );
        assert!(admit(&admission, "192.0.2.1").is_none(), "it is closed silently");
        assert!(
            admit(&admission, "::ffff:192.0.2.1").is_none(),
            "the same address, mapped to IPv6"
        );
        assert!(admit(&admission, "192.0.2.2").expect("a permit").limit_reached().is_none());
        admitted.clear();
        assert!(admit(&admission, "192.0.2.1").expect("a permit").limit_reached().is_none());
        assert!(admission.shared.addresses.as_ref().expect("on").counts.lock().is_empty());
    }

    #[test]
    fn an_ipv6_address_counts_as_its_network() {
        let admission = limits(100, Some(1));
        let first = admit(&admission, "2001:db8::1").expect("a permit");
        let second = admit(&admission, "2001:db8::ffff:2").expect("a permit");
        assert_eq!(second.limit_reached(), Some(Limit::Address));
        assert!(admit(&admission, "2001:db8:0:1::1").expect("a permit").limit_reached().is_none());
        drop(first);
    }

    #[test]
    fn a_trusted_proxy_is_not_counted_but_its_clients_are() {
        let admission = limits(100, Some(1));
        let proxies: Vec<_> =
            (0..3).map(|_| admit(&admission, "10.1.2.3").expect("a permit")).collect();
        assert!(proxies.iter().all(|admitted| admitted.limit_reached().is_none()));
        let client = "192.0.2.1".parse().expect("an address");
        let stream = |proxy: &Admitted| proxy.count_stream(|_| client);
        let first = stream(&proxies[0]).expect("the first");
        assert_eq!(stream(&proxies[1]).expect_err("the second"), Limit::AddressStreams);
        drop(first);
        let first = stream(&proxies[1]).expect("there is room");
        let direct = admit(&admission, "192.0.2.1").expect("a permit");
        assert!(direct.limit_reached().is_none(), "a stream is no connection");
        assert!(stream(&direct).is_err(), "but it is one of its address");
        drop(first);
        assert!(stream(&direct).is_ok());
    }

    #[test]
    fn permits_are_released_one_by_one() {
        let admission = limits(100, Some(50));
        let mut permits = PermitTable::default();
        for number in 0..50 {
            let admitted = admit(&admission, "192.0.2.1").expect("a permit");
            let stream = admitted.count_stream(|proxy| proxy).expect("room");
            permits.keep(SocketId(number), admitted.into_permit(stream));
        }
        let streams_left = || admission.shared.stream_permits.available_permits();
        assert_eq!((admission.connections(), streams_left()), (50, STREAMS_MIN - 50));
        for number in 0..25 {
            permits.give_back(SocketId(number));
        }
        assert_eq!((admission.connections(), permits.addresses.len()), (25, 25));
        assert_eq!(streams_left(), STREAMS_MIN - 25);
        drop(permits);
        assert_eq!((admission.connections(), streams_left()), (0, STREAMS_MIN));
        for addresses in [&admission.shared.addresses, &admission.shared.stream_addresses] {
            assert!(addresses.as_ref().expect("on").counts.lock().is_empty());
        }
    }

    #[test]
    fn the_limit_by_descriptors_leaves_a_reserve() {
        let config = Config { workers: 2, ..Config::default() };
        for (descriptors, connections) in [(16, 1), (1_024, 916), (1_048_576, 1_048_276)] {
            assert_eq!(connections_possible(&config, descriptors), connections);
        }
    }
}
