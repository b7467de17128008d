//! What the connection that hyper serves tells the seat of the stream on it. hyper does not say why a
//! body was dropped, and asks a body for nothing while its socket, or over HTTP/2 its client, takes none.

use std::io;
use std::sync::Arc;
use std::task::Poll;

use super::EventStream;
use super::parked::reason;
use crate::hub::Watch;
use crate::metrics::CloseReason;
use crate::sync::Mutex;

/// A connection that may carry a stream, or a request over HTTP/2 that may open one. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Line(Arc<Mutex<Option<Carried>>>);

/// The stream that it carried last, which may be over.
#[derive(Debug)]
struct Carried {
    seat: Watch,
    blocked: bool,
}

// ===== impl Line =====

impl Line {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }

    /// The stream begins on this connection.
    pub(crate) fn carry(&self, stream: &mut EventStream) {
        let seat = stream.subscription().watch();
        *self.0.lock() = Some(Carried { seat, blocked: false });
    }

    /// Whether the connection had a stream, and that is over.
    pub(crate) fn is_over(&self) -> bool {
        self.0.lock().as_ref().is_some_and(|carried| carried.seat.is_gone())
    }

    /// Whether its stream has to end because its client takes nothing.
    pub(crate) fn is_stalled(&self) -> bool {
        self.0.lock().as_ref().is_some_and(|carried| carried.seat.is_stalled())
    }

    /// The task rests that serves the stream. What it still has in hand, its client has no room for.
    pub(crate) fn rest(&self) {
        if let Some(carried) = &*self.0.lock() {
            carried.seat.rest();
        }
    }

    /// Names the cause for which the stream will end, unless one is known.
    pub(crate) fn note(&self, reason: CloseReason) {
        if let Some(carried) = &*self.0.lock() {
            carried.seat.note(reason);
        }
    }

    /// Reads failed or not: that is what comes of it.
    pub(crate) fn read<T>(&self, read: &Poll<io::Result<T>>) {
        if let (Poll::Ready(Err(why)), Some(carried)) = (read, &*self.0.lock()) {
            carried.seat.note(reason(why));
        }
    }

    /// The same of a write. Returns why the stream has to end if the socket is full and it has to.
    pub(crate) fn wrote(&self, wrote: &Poll<io::Result<usize>>) -> Option<CloseReason> {
        let mut carried = self.0.lock();
        let Carried { seat, blocked } = carried.as_mut()?;
        match wrote {
            Poll::Pending => {
                *blocked = true;
                return seat.block();
            }
            Poll::Ready(Ok(_)) if std::mem::take(blocked) => seat.unblock(),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(why)) => seat.note(reason(why)),
        }
        None
    }
}
