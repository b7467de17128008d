//! What the socket of a connection that hyper serves tells the seat of the stream on it. hyper does not
//! say why a body was dropped, and asks a body for nothing while its socket is full.

use std::io;
use std::sync::Arc;
use std::task::Poll;

use super::EventStream;
use super::parked::reason;
use crate::hub::Watch;
use crate::metrics::CloseReason;
use crate::sync::Mutex;

/// A connection that may carry a stream. Cloning shares it.
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

    /// Reads failed or not: that is what comes of it.
    pub(crate) fn read(&self, read: &Poll<io::Result<()>>) {
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
