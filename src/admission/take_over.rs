//! Streaming connections that another process has admitted. They count here from now on, whatever the limits are of each
//! address, so that these hold for new ones; their total has to be within the limits.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use minicbor::{Decode, Encode};
use tokio::sync::OwnedSemaphorePermit;

use super::addresses::Addresses;
use super::permits::ConnShare;
use super::{Admission, ConnPermit, Entrance, StreamPermit};

/// What a streaming connection counts for, beside one connection and one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct PermitState {
    /// It came to an internal address.
    #[n(0)]
    pub(crate) internal: bool,
    /// The address that it counts for as a connection.
    #[n(1)]
    pub(crate) address: Option<IpAddr>,
    /// The address that it counts for as a stream.
    #[n(2)]
    pub(crate) stream_address: Option<IpAddr>,
}

/// Connections that are being taken over.
#[derive(Debug)]
pub(crate) struct TakeOver {
    admission: Admission,
    public: usize,
    internal: usize,
}

/// The places of those that were taken over, one after the other.
#[derive(Debug)]
pub(crate) struct TakenPlaces {
    public: OwnedSemaphorePermit,
    internal: OwnedSemaphorePermit,
    streams: OwnedSemaphorePermit,
}

/// There are more than a limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany {
    what: &'static str,
    count: usize,
    max: usize,
}

// ===== impl TakeOver =====

impl TakeOver {
    pub(crate) fn new(admission: Admission) -> Self {
        Self { admission, public: 0, internal: 0 }
    }

    /// Counts a connection with its stream, and its addresses at once. What was not counted there, for lack of a limit,
    /// counts as far as it can be known from its peer.
    pub(crate) fn add(
        &mut self,
        state: &PermitState,
        peer: impl Fn() -> Option<IpAddr>,
    ) -> ConnPermit {
        let PermitState { internal, address, stream_address } = *state;
        let shared = &self.admission.shared;
        *(if internal { &mut self.internal } else { &mut self.public }) += 1;
        // Nor is the peer known of a connection whose proxy named it in a header.
        let untrusted = || {
            let peer = Some(peer()?.to_canonical());
            peer.filter(|_| !self.admission.trusts(peer) && !self.admission.names_client(peer))
        };
        let guard = |addresses: &Option<Arc<Addresses>>, counted: Option<IpAddr>| {
            let addresses = addresses.as_ref().filter(|_| !internal)?;
            Some(addresses.take_over(counted.or_else(untrusted)?))
        };
        let share = ConnShare { permit: None, address: guard(&shared.addresses, address) };
        let stream = StreamPermit {
            permit: None,
            address: guard(&shared.stream_addresses, stream_address).map(Box::new),
        };
        ConnPermit { share, is_internal: internal, stream }
    }

    /// The places of all of them.
    ///
    /// # Errors
    /// [`TooMany`]: there are not enough.
    pub(crate) fn finish(self) -> Result<TakenPlaces, TooMany> {
        let Self { admission, public, internal } = self;
        let connections = |what, entrance, count| {
            let places = admission.places(entrance);
            places.try_many(count).ok_or_else(|| TooMany { what, count, max: places.max() })
        };
        let count = public + internal;
        let streams = &admission.shared.stream_permits;
        let streams = u32::try_from(count)
            .ok()
            .and_then(|count| streams.clone().try_acquire_many_owned(count).ok());
        let max = admission.shared.streams_max;
        Ok(TakenPlaces {
            public: connections("connections", Entrance::Public, public)?,
            internal: connections(
                "connections to internal addresses",
                Entrance::Internal,
                internal,
            )?,
            streams: streams.ok_or(TooMany { what: "streams", count, max })?,
        })
    }
}

// ===== impl TakenPlaces =====

impl TakenPlaces {
    /// The permit of one of those that were added, with its places.
    pub(crate) fn complete(&mut self, mut permit: ConnPermit) -> ConnPermit {
        let places = if permit.is_internal { &mut self.internal } else { &mut self.public };
        permit.share.permit = places.split(1);
        permit.stream.permit = self.streams.split(1);
        permit
    }
}

// ===== impl TooMany =====

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, count, max } = self;
        write!(f, "{count} {what} are handed over, and at most {max} are allowed")
    }
}

impl std::error::Error for TooMany {}
