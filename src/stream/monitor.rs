//! Reports the progress of a stream that hyper serves over HTTP/2 to its seat. hyper does not say why it
//! dropped a body, and asks for no more of one while the client's flow-control window is shut.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::EventStream;
use crate::hub::SeatHandle;
use crate::metrics::CloseReason;
use crate::sync::{AtomicBool, Mutex, Ordering};

/// Watches the stream that one request over HTTP/2 may open. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct StreamMonitor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The stream's seat, which may have been freed.
    seat: Mutex<Option<SeatHandle>>,
    /// Bytes were written since this was last asked. hyper writes under a lock of its own, so this is all
    /// that may be done there.
    progressed: AtomicBool,
    /// There is a response.
    responded: AtomicBool,
}

/// Bytes of a body, whose monitor learns that they are written. Over HTTP/2 that is when the client has
/// room: hyper takes a whole event in hand for the first byte of room, and asks for the next.
#[derive(Debug)]
pub(crate) struct MonitoredBytes {
    bytes: Bytes,
    monitor: Option<StreamMonitor>,
}

// ===== impl StreamMonitor =====

impl StreamMonitor {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            seat: Mutex::new(None),
            progressed: AtomicBool::new(false),
            responded: AtomicBool::new(false),
        }))
    }

    /// Watches this stream from now on.
    pub(crate) fn watch(&self, stream: &mut EventStream) {
        *self.0.seat.lock() = Some(stream.subscription().handle());
    }

    /// Notes that there is a response: to the request of a stream, or an ordinary one.
    pub(crate) fn note_response(&self) {
        self.0.responded.store(true, Ordering::Relaxed);
    }

    /// Whether the response is a stream, once there is one.
    pub(crate) fn response(&self) -> Option<bool> {
        self.0.responded.load(Ordering::Relaxed).then(|| self.0.seat.lock().is_some())
    }

    /// Whether the stream has to end because its client has read nothing for too long, nor since this was
    /// last asked.
    pub(crate) fn is_stalled(&self) -> bool {
        let progressed = self.0.progressed.swap(false, Ordering::Relaxed);
        self.0.seat.lock().as_ref().is_some_and(|seat| seat.is_stalled(progressed))
    }

    /// Called when the task that serves the stream goes idle: unsent data now waits for flow control.
    pub(crate) fn note_idle(&self) {
        if let Some(seat) = &*self.0.seat.lock() {
            seat.rest();
        }
    }

    /// Records why the stream will end, unless a reason is known.
    pub(crate) fn note(&self, reason: CloseReason) {
        if let Some(seat) = &*self.0.seat.lock() {
            seat.note(reason);
        }
    }
}

// ===== impl MonitoredBytes =====

impl MonitoredBytes {
    pub(crate) fn new(bytes: Bytes, monitor: Option<&StreamMonitor>) -> Self {
        Self { bytes, monitor: monitor.cloned() }
    }
}

impl Buf for MonitoredBytes {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(monitor) = &self.monitor {
            monitor.0.progressed.store(true, Ordering::Relaxed);
        }
    }
}
