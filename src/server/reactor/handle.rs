//! How connections reach the reactor: one that was accepted, to wait for its request, and one whose request
//! opened a stream, with the stream.

use std::mem;
use std::sync::Arc;

use mio::net::TcpStream;

use super::transport::Transport;
use crate::admission::Admitted;
use crate::http::Handoff;
use crate::hub::Hub;
use crate::sync::Mutex;

/// A connection that has not sent a request yet.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: TcpStream,
    pub(crate) admitted: Arc<Admitted>,
}

/// Registers connections with the reactor of one worker. Clones share its inbox.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    inbox: Arc<Mutex<Inbox>>,
    hub: Hub,
}

/// Connections that the reactor has not registered yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) accepted: Vec<Accepted>,
    pub(super) streams: Vec<(Transport, Handoff)>,
}

// ===== impl Handle =====

impl Handle {
    /// A handle on a reactor yet to be made, which the driver of this hub's shard will own.
    pub(crate) fn new(hub: Hub) -> Self {
        Self { inbox: Arc::default(), hub }
    }

    /// Registers a connection that waits for its request.
    pub(crate) fn accept(&self, accepted: Accepted) {
        self.inbox.lock().accepted.push(accepted);
        self.hub.wake_driver();
    }

    /// Registers a connection that carries a stream. The reactor writes the head of the response.
    pub(crate) fn hand_off(&self, transport: Transport, handoff: Handoff) {
        self.inbox.lock().streams.push((transport, handoff));
        self.hub.wake_driver();
    }

    /// Whether new connections still may wait in the reactor, which ends with the last stream of a drain.
    pub(crate) fn is_open(&self) -> bool {
        !self.hub.is_closing()
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Moves at most `count_max` connections of each kind into `inbox`, which is empty.
    pub(super) fn take(&self, count_max: usize, inbox: &mut Inbox) {
        let mut shared = self.inbox.lock();
        take_some(&mut shared.accepted, count_max, &mut inbox.accepted);
        take_some(&mut shared.streams, count_max, &mut inbox.streams);
    }

    pub(super) fn is_empty(&self) -> bool {
        let inbox = self.inbox.lock();
        inbox.accepted.is_empty() && inbox.streams.is_empty()
    }
}

fn take_some<T>(from: &mut Vec<T>, count_max: usize, into: &mut Vec<T>) {
    if from.len() <= count_max {
        mem::swap(from, into);
    } else {
        into.extend(from.drain(..count_max));
    }
}
