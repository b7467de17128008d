//! Limits of connections and of streams, in total and per address. Each count is a guard that moves with its
//! connection or stream, out of hyper and into the reactor too, so that no count outlives either.

mod addresses;
mod admitted;
mod closer;
mod idle;
#[cfg(all(test, nudged_loom))]
mod loom;
mod permits;
mod places;
#[cfg(target_os = "linux")]
mod take_over;
#[cfg(all(test, not(nudged_loom)))]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::addresses::{AddressGuard, Addresses};
use self::closer::Standing;
use self::permits::ConnShare;
use self::places::Places;
use crate::config::{Config, Peers, STREAMS_MIN};
use crate::metrics::{HeaderRefusals, Limit, Refusals};

pub(crate) use self::admitted::{Admitted, PeerSource};
pub(crate) use self::closer::Closer;
pub(crate) use self::permits::{ConnPermit, PermitTable, StreamPermit};
pub(crate) use self::places::Evicted;
#[cfg(target_os = "linux")]
pub(crate) use self::take_over::{PermitState, TakeOver, TooMany};

/// The limits of a server. Clones share the counts.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    public: Arc<Places>,
    internal: Arc<Places>,
    /// The connections of each address; `None` if there is no limit.
    addresses: Option<Arc<Addresses>>,
    /// One for each stream that may be open.
    stream_permits: Arc<Semaphore>,
    streams_max: usize,
    /// The streams of each address; `None` if there is no limit.
    stream_addresses: Option<Arc<Addresses>>,
    trusted: Box<[Peers]>,
    /// Those that name their clients in a header before everything else.
    naming: Box<[Peers]>,
    refusals: Refusals,
    header_refusals: HeaderRefusals,
}

/// The kind of address that a connection came to. Each has places of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entrance {
    Public,
    Internal,
}

/// Reserved places of internal addresses.
const INTERNAL_RESERVED: usize = 16;

/// Descriptors that a worker needs at most, beside its listening sockets.
const DESCRIPTORS_PER_WORKER: usize = 8;

/// Descriptors that the process needs at most, beside those of its workers.
const DESCRIPTORS_PER_PROCESS: usize = 24;

// ===== impl Admission =====

impl Admission {
    /// The limits of a server with this many descriptors, from which the total follows if none is
    /// configured.
    pub(crate) fn new(config: &Config, descriptors: usize) -> Self {
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
        let shared = Shared {
            public: Places::new(connections_max, reserved(descriptors)),
            internal: Places::new(internal_max(config, descriptors), INTERNAL_RESERVED),
            addresses: config.address_connections_max.map(Addresses::new),
            stream_permits: Arc::new(Semaphore::new(streams_max)),
            streams_max,
            stream_addresses: config.address_streams_max.map(Addresses::new),
            trusted: config.trusted_proxies.clone().into(),
            naming: config.proxy_protocol_from.clone().into(),
            refusals: Refusals::default(),
            header_refusals: HeaderRefusals::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Counts a connection; `peer` is the address of its peer, if that is known, as it may be
    /// [later](Admitted::set_peer). An idle connection may be closed for it; beyond a limit it has a reserved place, for
    /// which one that has proven nothing may be closed. Waits until that has ended, so that the number of open sockets
    /// stays bounded.
    pub(crate) async fn admit(&self, peer: Option<IpAddr>, entrance: Entrance) -> Arc<Admitted> {
        let peer = peer.map(|peer| peer.to_canonical());
        let mut address = self.count_address(peer, entrance);
        let places = self.places(entrance);
        let is_within = match &mut address {
            Some(address) => places.make_room_within(address).await,
            None => true,
        };
        let regular = if is_within { places.regular().await } else { None };
        let (permit, standing) = match regular {
            Some(permit) => (Some(permit), Standing::Regular),
            None => (places.reserved_beyond(address.as_ref()).await, Standing::Unproven),
        };
        let share = ConnShare { permit, address };
        Arc::new(Admitted::new(self.clone(), entrance, peer, share, standing))
    }

    /// Counts a connection of this peer, if there is a limit for its address.
    fn count_address(&self, peer: Option<IpAddr>, entrance: Entrance) -> Option<AddressGuard> {
        let addresses = self.shared.addresses.as_ref()?;
        let is_limited = entrance == Entrance::Public && !self.trusts(peer);
        Some(addresses.add(peer.filter(|_| is_limited)?))
    }

    fn places(&self, entrance: Entrance) -> &Arc<Places> {
        match entrance {
            Entrance::Public => &self.shared.public,
            Entrance::Internal => &self.shared.internal,
        }
    }

    /// Connections that may be open at addresses of this kind, in regular places.
    pub(crate) fn connections_max(&self, entrance: Entrance) -> usize {
        self.places(entrance).max()
    }

    /// Open connections, those in reserved places too.
    pub(crate) fn connections(&self, entrance: Entrance) -> usize {
        self.places(entrance).taken()
    }

    /// Connections that were closed to make room.
    pub(crate) fn evicted(&self, which: Evicted) -> u64 {
        self.shared.public.evicted(which) + self.shared.internal.evicted(which)
    }

    /// How much this limit of connections or streams allows at addresses of this kind.
    pub(crate) fn max(&self, limit: Limit, entrance: Entrance) -> usize {
        let Shared { addresses, stream_addresses, .. } = &*self.shared;
        let of = |addresses: &Option<Arc<Addresses>>| addresses.as_ref().map_or(0, |all| all.max());
        match limit {
            Limit::Address => of(addresses),
            Limit::AddressStreams => of(stream_addresses),
            Limit::Streams => self.shared.streams_max,
            _ => self.connections_max(entrance),
        }
    }

    pub(crate) fn refusals(&self) -> &Refusals {
        &self.shared.refusals
    }

    pub(crate) fn count_refusal(&self, limit: Limit) {
        self.shared.refusals.add(limit);
    }

    /// Whether a peer with this address, or without one, is a trusted proxy.
    pub(crate) fn trusts(&self, peer: Option<IpAddr>) -> bool {
        self.shared.trusted.iter().any(|peers| peers.contain(peer))
    }

    /// Whether a peer with this address, or without one, has to send a header of the PROXY protocol first. Peers of internal
    /// addresses do not: they are backends, probes and Prometheus, which come directly, and often from the networks in which
    /// the proxies are; and no address counts there.
    pub(crate) fn awaits_header(&self, peer: Option<IpAddr>, entrance: Entrance) -> bool {
        entrance == Entrance::Public && self.names_client(peer)
    }

    /// Whether what this peer sends is of clients that it names.
    fn names_client(&self, peer: Option<IpAddr>) -> bool {
        self.shared.naming.iter().any(|peers| peers.contain(peer))
    }

    pub(crate) fn header_refusals(&self) -> &HeaderRefusals {
        &self.shared.header_refusals
    }

    fn stream_addresses(&self) -> Option<&Arc<Addresses>> {
        self.shared.stream_addresses.as_ref()
    }

    fn try_stream(&self) -> Option<OwnedSemaphorePermit> {
        self.shared.stream_permits.clone().try_acquire_owned().ok()
    }
}

/// Connections that a process with this many descriptors can have, at least 1.
fn connections_possible(config: &Config, descriptors: usize) -> usize {
    // Beside its own socket, each listener may hold one connection that waits for a permit.
    let listeners = config.listen.len() + config.plain_listen.len() + config.internal_listen.len();
    let internal = match config.internal_listen.is_empty() {
        true => 0,
        false => internal_max(config, descriptors) + INTERNAL_RESERVED,
    };
    let workers = config.workers * (DESCRIPTORS_PER_WORKER + 2 * listeners);
    let reserve = DESCRIPTORS_PER_PROCESS + workers + reserved(descriptors) + internal;
    descriptors.saturating_sub(reserve).max(1)
}

/// Reserved places of public addresses, for connections beyond the limit.
fn reserved(descriptors: usize) -> usize {
    (descriptors / 16).clamp(4, 256)
}

/// Connections to internal addresses. They leave most descriptors to the public ones.
fn internal_max(config: &Config, descriptors: usize) -> usize {
    config.internal_connections_max.min(descriptors / 4).max(1)
}
