//! An accepted connection, and what its requests may have of it.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};

use super::addresses::AddressGuard;
use super::closer::{Closer, Standing};
use super::permits::{ConnPermit, ConnShare, StreamPermit};
use super::places::Places;
use super::{Admission, Entrance};
use crate::metrics::Limit;
use crate::sync::Mutex;

/// An accepted connection. It counts until this is dropped, or has become a stream.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Admission,
    entrance: Entrance,
    /// Its peer, once that is known.
    peer: OnceLock<Peer>,
    share: Mutex<ConnShare>,
    /// Made once a task serves the connection; from the start in a reserved place.
    closer: OnceLock<Arc<Closer>>,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    /// That of a Unix socket has none.
    address: Option<IpAddr>,
    source: PeerSource,
}

/// How the peer of a connection is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PeerSource {
    /// From its socket.
    #[default]
    Socket,
    /// A proxy has named it in the header of the PROXY protocol.
    Header,
    /// From its socket, after a header that names none: it is the proxy itself.
    Proxy,
}

// ===== impl Admitted =====

impl Admitted {
    /// A connection in a regular place, or in a reserved one, where it has to prove itself.
    pub(super) fn new(
        admission: Admission,
        entrance: Entrance,
        peer: Option<IpAddr>,
        share: ConnShare,
        standing: Standing,
    ) -> Self {
        let (share, closer) = (Mutex::new(share), OnceLock::new());
        let peer = peer.map(|address| {
            OnceLock::from(Peer { address: Some(address), source: PeerSource::Socket })
        });
        let peer = peer.unwrap_or_default();
        let admitted = Self { admission, entrance, peer, share, closer };
        if standing == Standing::Unproven {
            let closer = admitted.new_closer(standing);
            _ = admitted.closer.set(closer.clone());
            admitted.places().list_unproven(closer);
        }
        admitted
    }

    /// The address of its peer, if it has one that is known.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.peer.get()?.address
    }

    /// How it is known.
    pub(crate) fn peer_source(&self) -> PeerSource {
        self.peer.get().map_or(PeerSource::Socket, |peer| peer.source)
    }

    /// Sets its peer, which was not known when it was admitted: it is the proxy itself, on whose own connections there is
    /// no limit, as there is none on those of a trusted proxy.
    pub(crate) fn set_proxy(&self, address: Option<IpAddr>) {
        let address = address.map(|address| address.to_canonical());
        _ = self.peer.set(Peer { address, source: PeerSource::Proxy });
    }

    /// Sets the address of its peer, which was not known when it was admitted, and counts it there. Returns whether that
    /// is within the limit of an address, or was set before; if not, [`Self::make_room`] has to follow before a request
    /// is served.
    #[must_use]
    pub(crate) fn set_peer(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let named = Peer { address: Some(peer), source: PeerSource::Header };
        if self.peer.set(named).is_err() {
            return true;
        }
        let Some(guard) = self.admission.count_address(Some(peer), self.entrance) else {
            return true;
        };
        if let Some(closer) = self.closer.get() {
            closer.set_address(guard.address());
        }
        let is_within = !guard.is_beyond();
        self.share.lock().address = Some(guard);
        is_within
    }

    /// Moves it to a reserved place, if its address is still beyond its limit once an idle connection of it has been
    /// closed. Waits for that, and for the place. It may have to be served by a task from then on:
    /// [`Self::is_unproven`].
    pub(crate) async fn make_room(&self) {
        let Some(mut guard) = self.share.lock().address.take() else { return };
        let is_within = self.places().make_room_within(&mut guard).await;
        if is_within || self.is_unproven() {
            self.share.lock().address = Some(guard);
            return;
        }
        let reserved = self.places().reserved_beyond(Some(&guard)).await;
        let regular = {
            let mut share = self.share.lock();
            share.address = Some(guard);
            std::mem::replace(&mut share.permit, reserved)
        };
        // It may wake an acceptor.
        drop(regular);
        self.places().list_unproven(self.closer());
    }

    /// Notes that it waits for something to arrive, so that it may be closed to make room, and wakes this then.
    pub(crate) fn note_idle(&self, waker: &Waker) {
        let closer = self.closer();
        _ = closer.poll_closed(&Context::from_waker(waker));
        closer.note_idle();
    }

    /// Notes that this has arrived. Returns whether it is still open. From then on it is idle between requests only, and
    /// among those of its address.
    pub(crate) fn note_busy(&self) -> bool {
        let Some(closer) = self.closer.get() else { return true };
        let is_open = closer.note_busy();
        if is_open {
            self.places().unlist(closer);
        }
        is_open
    }

    /// Whether it was closed to make room.
    pub(crate) fn is_closed(&self) -> bool {
        self.closer.get().is_some_and(|closer| closer.is_closed())
    }

    fn places(&self) -> &Arc<Places> {
        self.admission.places(self.entrance)
    }

    pub(crate) fn is_internal(&self) -> bool {
        self.entrance == Entrance::Internal
    }

    /// What closes it to make room, for the task that serves it.
    pub(crate) fn closer(&self) -> Arc<Closer> {
        self.closer.get_or_init(|| self.new_closer(Standing::Regular)).clone()
    }

    fn new_closer(&self, standing: Standing) -> Arc<Closer> {
        let address = self.share.lock().address.as_ref().map(AddressGuard::address);
        Closer::new(self.places().clone(), standing, address)
    }

    /// Whether it is beyond a limit and has proven nothing, so that it should close after its response.
    pub(crate) fn is_unproven(&self) -> bool {
        self.closer.get().is_some_and(|closer| closer.is_unproven())
    }

    /// Moves to a regular place, if it has none and there is one by now. Once there, it stays there.
    ///
    /// # Errors
    /// The limit for which there is none, and a request for one cannot be served.
    pub(crate) fn settle(&self) -> Result<(), Limit> {
        let Some(closer) = self.closer.get().filter(|c| c.standing() != Standing::Regular) else {
            return Ok(());
        };
        let mut share = self.share.lock();
        if share.address.as_mut().is_some_and(|address| !address.settle()) {
            return Err(Limit::Address);
        }
        let permit = self.places().try_regular().ok_or(Limit::Connections)?;
        if !self.places().settle(closer) {
            return Err(Limit::Connections);
        }
        let reserved = share.permit.replace(permit);
        drop(share);
        // It may wake an acceptor.
        drop(reserved);
        Ok(())
    }

    /// Lets a publisher whose credential is good keep its connection, in a reserved place if there is no other and
    /// few do.
    pub(crate) fn keep(&self) {
        if self.is_unproven()
            && self.settle().is_err()
            && let Some(closer) = self.closer.get()
        {
            self.places().keep(closer);
        }
    }

    /// The address of its client, if it has one that is known: of its peer, or the one that `behind` finds behind a
    /// trusted proxy.
    pub(crate) fn client(
        &self,
        behind: impl FnOnce(Option<IpAddr>) -> Option<IpAddr>,
    ) -> Option<IpAddr> {
        let peer = self.peer();
        if self.admission.trusts(peer) { behind(peer) } else { peer }
    }

    /// Counts a stream that it opens: of its peer, or of the client that `behind` finds behind a trusted proxy.
    ///
    /// # Errors
    /// The limit of streams that is reached.
    pub(crate) fn count_stream(
        &self,
        behind: impl FnOnce(Option<IpAddr>) -> Option<IpAddr>,
    ) -> Result<StreamPermit, Limit> {
        let addresses = self.admission.stream_addresses().filter(|_| !self.is_internal());
        let address = addresses.and_then(|addresses| Some(addresses.add(self.client(behind)?)));
        if address.as_ref().is_some_and(|guard| guard.is_beyond()) {
            return Err(Limit::AddressStreams);
        }
        let permit = self.admission.try_stream().ok_or(Limit::Streams)?;
        Ok(StreamPermit { permit: Some(permit), address: address.map(Box::new) })
    }

    /// Its permit, for when it outlives the request, which opened this stream.
    pub(crate) fn take_permit(&self, stream: StreamPermit) -> ConnPermit {
        if let Some(closer) = self.closer.get() {
            closer.retire();
        }
        let share = std::mem::take(&mut *self.share.lock());
        ConnPermit { share, is_internal: self.is_internal(), stream }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        // Before its end is noted, for which others may wait.
        let share = std::mem::take(&mut *self.share.lock());
        drop(share);
        if let Some(closer) = self.closer.get() {
            closer.retire();
        }
    }
}

// Locks of other systems are larger.
#[cfg(all(target_os = "linux", not(nudged_loom)))]
const _: () = assert!(
    size_of::<Admitted>() <= 112,
    "what a connection costs that is served, or waits for its request"
);
