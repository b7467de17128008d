//! How an HTTP/1 stream leaves hyper: the service puts it into the slot instead of responding, and the
//! connection, which polled the service, takes it out.

use std::mem;
use std::sync::Arc;

use super::fields::Fields;
use crate::admission::{Admitted, ConnPermit, StreamPermit};
use crate::stream::EventStream;
use crate::sync::Mutex;

/// A stream whose response has not begun, with what its connection needs to begin it.
#[derive(Debug)]
pub(crate) struct Handoff {
    pub(crate) stream: EventStream,
    /// HTTP/1.1, not HTTP/1.0: the body is chunked (RFC 9112, 6.1).
    pub(crate) chunked: bool,
    /// Header fields of the response, beside those of every event stream.
    pub(crate) fields: Fields,
    /// Bytes that were read after the request.
    pub(crate) surplus: usize,
    /// What the stream counts for; from when it is [complete](Self::complete), as a connection too.
    pub(crate) permit: ConnPermit,
}

/// Where the service of a worker's connections puts a stream. They are polled one at a time, so they share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HandoffSlot(Arc<Mutex<Polled>>);

/// What one poll of one connection brought about.
#[derive(Debug, Default)]
pub(crate) struct Polled {
    pub(crate) handoff: Option<Handoff>,
    /// The socket did not take all that it had to write.
    pub(crate) blocked: bool,
    /// The socket took something.
    pub(crate) progressed: bool,
}

/// Empties the slot, in a panic too: a stream that is left there would keep its seat.
struct Poll<'a>(&'a HandoffSlot);

// ===== impl Handoff =====

impl Handoff {
    pub(super) fn new(
        stream: EventStream,
        chunked: bool,
        fields: Fields,
        permit: StreamPermit,
    ) -> Self {
        Self { stream, chunked, fields, surplus: 0, permit: permit.into() }
    }

    /// The same, counted as the connection that it has become.
    pub(crate) fn complete(self, admitted: &Admitted) -> Self {
        let permit = admitted.take_permit(self.permit.into_stream());
        Self { permit, ..self }
    }
}

// ===== impl HandoffSlot =====

impl HandoffSlot {
    /// Polls a connection with `poll`. Returns its result, and what was put into the slot meanwhile.
    pub(crate) fn during<T>(&self, poll: impl FnOnce() -> T) -> (T, Polled) {
        let slot = Poll(self);
        let polled = poll();
        (polled, slot.0.take())
    }

    /// Whether the connection that is being polled has put a stream here.
    pub(crate) fn is_taken(&self) -> bool {
        self.0.lock().handoff.is_some()
    }

    pub(crate) fn note_blocked(&self) {
        self.0.lock().blocked = true;
    }

    pub(crate) fn note_progress(&self) {
        self.0.lock().progressed = true;
    }

    pub(super) fn put(&self, handoff: Handoff) {
        self.0.lock().handoff = Some(handoff);
    }

    fn take(&self) -> Polled {
        mem::take(&mut *self.0.lock())
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}
