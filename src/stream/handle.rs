//! How connections come into a lot: to wait for their request, or as the streams that they have become.

use std::fmt::Debug;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use mio::net::TcpStream;

use super::EventStream;
use super::transport::Transport;
use crate::admission::{Admitted, ConnPermit};
use crate::hub::Hub;
use crate::sync::Mutex;

/// A connection that has asked for nothing yet.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: TcpStream,
    pub(crate) admitted: Arc<Admitted>,
}

/// A connection that became a stream.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) transport: Transport,
    pub(crate) stream: EventStream,
    /// HTTP/1.1, not HTTP/1.0.
    pub(crate) chunked: bool,
    /// Bytes that came after the request.
    pub(crate) discarded: usize,
    pub(crate) permit: ConnPermit,
}

/// Knows what waiting ask for, which a lot does not.
pub(crate) trait Reception: Debug + Send + Sync {
    /// Opens the stream that the accepted asks for with its first bytes, if that is what they are.
    fn open(&self, accepted: Accepted, first: &Bytes) -> Result<Arrival, Accepted>;

    /// Serves a accepted that asks for anything else. Nothing watches its socket.
    fn serve(&self, accepted: Accepted, first: Bytes);
}

/// Where connections come in. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Entrance {
    queue: Arc<Mutex<Queue>>,
    hub: Hub,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: Vec<Accepted>,
    pub(super) arrivals: Vec<Arrival>,
}

// ===== impl Entrance =====

impl Entrance {
    pub(crate) fn new(hub: Hub) -> Self {
        Self { queue: Arc::default(), hub }
    }

    /// Has a connection wait in the lot for what it asks for.
    pub(crate) fn call(&self, accepted: Accepted) {
        self.queue.lock().waiting.push(accepted);
        self.hub.wake_driver();
    }

    /// Hands a stream over to the shard's driver, which writes its first bytes.
    pub(crate) fn park(&self, arrival: Arrival) {
        self.queue.lock().arrivals.push(arrival);
        self.hub.wake_driver();
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Takes at most so many of each, into a queue that is empty.
    pub(super) fn take(&self, most: usize, into: &mut Queue) {
        let mut queue = self.queue.lock();
        take_some(&mut queue.waiting, most, &mut into.waiting);
        take_some(&mut queue.arrivals, most, &mut into.arrivals);
    }

    pub(super) fn is_empty(&self) -> bool {
        let queue = self.queue.lock();
        queue.waiting.is_empty() && queue.arrivals.is_empty()
    }
}

fn take_some<T>(from: &mut Vec<T>, most: usize, into: &mut Vec<T>) {
    if from.len() <= most {
        mem::swap(from, into);
    } else {
        into.extend(from.drain(..most));
    }
}
