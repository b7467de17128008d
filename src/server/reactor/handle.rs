//! How connections reach the reactor: one that was accepted, to wait for its request, one whose request opened a stream,
//! with the stream, and one that streamed in another process before.

use std::mem;
use std::sync::{Arc, OnceLock};

use mio::net::TcpStream;

use super::stream_conn::StreamConn;
use super::transport::Transport;
use crate::admission::{Admitted, ConnPermit};
use crate::http::Handoff;
use crate::hub::Hub;
use crate::server::proxy_protocol::HeaderState;
use crate::server::tls::Handshake;
use crate::server::upgrade::freeze::Stop;
use crate::server::upgrade::successor::Successor;
use crate::sync::{AtomicBool, Mutex, Ordering};

/// A connection that has not sent a request yet.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: TcpStream,
    pub(crate) admitted: Arc<Admitted>,
    /// Whether its proxy has still to name its client.
    pub(crate) header: HeaderState,
}

/// Registers connections with the reactor of one worker. Clones share its inbox.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
    hub: Hub,
}

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    stop: Mutex<Option<Stop>>,
    /// `stop` is there.
    is_to_stop: AtomicBool,
    successor: OnceLock<Successor>,
}

/// Connections that the reactor has not registered yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) accepted: Vec<(Accepted, Option<Handshake>)>,
    pub(super) streams: Vec<(Transport, Handoff)>,
    /// They streamed in another process.
    pub(super) adopted: Adopted,
}

/// Streams of another process that have not gone on here. If they never do, because that process keeps them, they are
/// dropped without a trace: it is not here that they end.
#[derive(Debug, Default)]
pub(crate) struct Adopted(pub(super) Vec<(StreamConn, ConnPermit)>);

// ===== impl Handle =====

impl Handle {
    /// A handle on a reactor yet to be made, which the driver of this hub's shard will own.
    pub(crate) fn new(hub: Hub) -> Self {
        Self { shared: Arc::default(), hub }
    }

    /// Registers a connection that waits for its request, behind TLS with its handshake.
    pub(crate) fn accept(&self, accepted: Accepted, handshake: Option<Handshake>) {
        self.shared.inbox.lock().accepted.push((accepted, handshake));
        self.hub.wake_driver();
    }

    /// Registers a connection that carries a stream. The reactor writes the head of the response.
    pub(crate) fn hand_off(&self, transport: Transport, handoff: Handoff) {
        self.shared.inbox.lock().streams.push((transport, handoff));
        self.hub.wake_driver();
    }

    /// Registers connections that streamed in another process. The reactor goes on with their streams.
    #[cfg(target_os = "linux")]
    pub(crate) fn adopt(&self, mut adopted: Adopted) {
        append(&mut adopted.0, &mut self.shared.inbox.lock().adopted.0);
        self.hub.wake_driver();
    }

    /// Has the worker stop.
    pub(crate) fn freeze(&self, stop: Stop) {
        *self.shared.stop.lock() = Some(stop);
        self.shared.is_to_stop.store(true, Ordering::Release);
        self.hub.wake_driver();
    }

    pub(super) fn is_to_stop(&self) -> bool {
        self.shared.is_to_stop.load(Ordering::Acquire)
    }

    pub(super) fn take_stop(&self) -> Option<Stop> {
        self.shared.is_to_stop.store(false, Ordering::Release);
        self.shared.stop.lock().take()
    }

    /// The process to which all connections go that have no request in flight; `None` as long as this one serves.
    pub(crate) fn successor(&self) -> Option<&Successor> {
        self.shared.successor.get()
    }

    pub(super) fn set_successor(&self, successor: Successor) {
        _ = self.shared.successor.set(successor);
    }

    /// Whether new connections still may wait in the reactor, which ends with the last stream of a drain.
    pub(crate) fn is_open(&self) -> bool {
        !self.hub.is_closing()
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Moves connections into `inbox`: those that have streamed, and at most `count_max` of each other kind, of which it
    /// has none.
    pub(super) fn take(&self, count_max: usize, inbox: &mut Inbox) {
        let mut shared = self.shared.inbox.lock();
        take_some(&mut shared.accepted, count_max, &mut inbox.accepted);
        take_some(&mut shared.streams, count_max, &mut inbox.streams);
        // All of them: what is left of them in `inbox` is registered in later turns.
        append(&mut shared.adopted.0, &mut inbox.adopted.0);
    }

    pub(super) fn is_empty(&self) -> bool {
        let inbox = self.shared.inbox.lock();
        let Inbox { accepted, streams, adopted } = &*inbox;
        accepted.is_empty() && streams.is_empty() && adopted.0.is_empty() && !self.is_to_stop()
    }
}

// ===== impl Adopted =====

#[cfg(target_os = "linux")]
impl Adopted {
    pub(crate) fn push(&mut self, conn: StreamConn, permit: ConnPermit) {
        self.0.push((conn, permit));
    }

    /// Completes the permit of each.
    pub(crate) fn complete(&mut self, mut complete: impl FnMut(ConnPermit) -> ConnPermit) {
        for (_, permit) in &mut self.0 {
            *permit = complete(mem::take(permit));
        }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Adopted {
    fn drop(&mut self) {
        for (conn, _) in self.0.drain(..) {
            conn.give_away();
        }
    }
}

/// Moves everything, and leaves no memory behind.
fn append<T>(from: &mut Vec<T>, into: &mut Vec<T>) {
    let mut from = mem::take(from);
    if into.is_empty() {
        *into = from;
    } else {
        into.append(&mut from);
    }
}

fn take_some<T>(from: &mut Vec<T>, count_max: usize, into: &mut Vec<T>) {
    if from.len() <= count_max {
        mem::swap(from, into);
    } else {
        into.extend(from.drain(..count_max));
    }
}
