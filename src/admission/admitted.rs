//! An accepted connection, and what its requests may have of it.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use super::addresses::AddressGuard;
use super::closer::{Closer, Standing};
use super::permits::{ConnPermit, StreamPermit};
use super::places::Places;
use super::{Admission, Entrance};
use crate::metrics::Limit;
use crate::sync::Mutex;

/// An accepted connection. It counts until this is dropped, or has become a stream.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Admission,
    entrance: Entrance,
    /// The address of its peer, which that of a Unix socket does not have.
    peer: OnceLock<IpAddr>,
    permit: Mutex<ConnPermit>,
    /// Made once a task serves the connection; from the start in a reserved place.
    closer: OnceLock<Arc<Closer>>,
}

// ===== impl Admitted =====

impl Admitted {
    /// A connection in a regular place, or in a reserved one, where it has to prove itself.
    pub(super) fn new(
        admission: Admission,
        entrance: Entrance,
        peer: Option<IpAddr>,
        permit: ConnPermit,
        standing: Standing,
    ) -> Self {
        let (permit, closer) = (Mutex::new(permit), OnceLock::new());
        let peer = peer.map(OnceLock::from).unwrap_or_default();
        let admitted = Self { admission, entrance, peer, permit, closer };
        if standing == Standing::Unproven {
            let closer = admitted.new_closer(standing);
            _ = admitted.closer.set(closer.clone());
            admitted.places().list_unproven(closer);
        }
        admitted
    }

    /// The address of its peer, if it has one that is known.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.peer.get().copied()
    }

    /// Sets the address of its peer, which was not known when it was admitted, and counts it there. Returns whether that
    /// is within the limit of an address, or was set before; if not, [`Self::make_room`] has to follow before a request
    /// is served.
    #[cfg_attr(not(test), expect(dead_code, reason = "no protocol that names a peer is served"))]
    #[must_use]
    pub(crate) fn set_peer(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        if self.peer.set(peer).is_err() {
            return true;
        }
        let Some(guard) = self.admission.count_address(Some(peer), self.entrance) else {
            return true;
        };
        if let Some(closer) = self.closer.get() {
            closer.set_address(guard.address());
        }
        let is_within = !guard.is_beyond();
        self.permit.lock().address = Some(guard);
        is_within
    }

    /// Moves it to a reserved place, if its address is still beyond its limit once an idle connection of it has been
    /// closed. Waits for that, and for the place. It may have to be served by a task from then on:
    /// [`Self::is_unproven`].
    #[cfg_attr(not(test), expect(dead_code, reason = "no protocol that names a peer is served"))]
    pub(crate) async fn make_room(&self) {
        let Some(mut guard) = self.permit.lock().address.take() else { return };
        let is_within = self.places().make_room_within(&mut guard).await;
        if is_within || self.is_unproven() {
            self.permit.lock().address = Some(guard);
            return;
        }
        let reserved = self.places().reserved_beyond(Some(&guard)).await;
        let regular = {
            let mut held = self.permit.lock();
            held.address = Some(guard);
            std::mem::replace(&mut held.permit, reserved)
        };
        // It may wake an acceptor.
        drop(regular);
        self.places().list_unproven(self.closer());
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
        let address = self.permit.lock().address.as_ref().map(AddressGuard::address);
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
        let mut held = self.permit.lock();
        if held.address.as_mut().is_some_and(|address| !address.settle()) {
            return Err(Limit::Address);
        }
        let permit = self.places().try_regular().ok_or(Limit::Connections)?;
        if !self.places().settle(closer) {
            return Err(Limit::Connections);
        }
        let reserved = held.permit.replace(permit);
        drop(held);
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
        let permit = std::mem::take(&mut *self.permit.lock());
        ConnPermit { stream, ..permit }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        // Before its end is noted, for which others may wait.
        let permit = std::mem::take(&mut *self.permit.lock());
        drop(permit);
        if let Some(closer) = self.closer.get() {
            closer.retire();
        }
    }
}
