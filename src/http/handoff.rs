//! How a stream leaves hyper: the service leaves it here instead of answering, and the connection,
//! which polled the service, picks it up.

use std::mem;
use std::sync::Arc;

use crate::admission::AddressGuard;
use crate::stream::{Entrance, EventStream};
use crate::sync::Mutex;

/// What the connections of one worker share. They are polled one at a time, so one place is enough.
#[derive(Clone, Debug)]
pub(crate) struct HandoffSlot {
    entrance: Entrance,
    left: Arc<Mutex<Left>>,
}

/// A stream whose response has not begun.
#[derive(Debug)]
pub(crate) struct Departing {
    pub(crate) stream: EventStream,
    /// HTTP/1.1, not HTTP/1.0.
    pub(crate) chunked: bool,
    /// The client for whom a proxy opened it, if it is counted.
    pub(crate) client: Option<AddressGuard>,
}

/// What one poll of one connection left behind.
#[derive(Debug, Default)]
struct Left {
    departing: Option<Departing>,
    blocked: bool,
}

// ===== impl HandoffSlot =====

impl HandoffSlot {
    pub(crate) fn new(entrance: Entrance) -> Self {
        Self { entrance, left: Arc::new(Mutex::new(Left::default())) }
    }

    /// Before a connection is polled.
    pub(crate) fn reset(&self) {
        *self.left.lock() = Left::default();
    }

    /// After it was: the stream that it opened, and whether its socket took not all it had to write.
    pub(crate) fn take(&self) -> (Option<Departing>, bool) {
        let Left { departing, blocked } = mem::take(&mut *self.left.lock());
        (departing, blocked)
    }

    /// Whether the connection that is being polled has left a stream here.
    pub(crate) fn is_taken(&self) -> bool {
        self.left.lock().departing.is_some()
    }

    pub(crate) fn note_blocked(&self) {
        self.left.lock().blocked = true;
    }

    pub(super) fn put(&self, departing: Departing) {
        self.left.lock().departing = Some(departing);
    }

    pub(super) fn entrance(&self) -> &Entrance {
        &self.entrance
    }
}
