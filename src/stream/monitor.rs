//! What the connection that hyper serves tells the seat of the stream on it. hyper does not say why a
//! body was dropped, and asks a body for nothing while its socket, or over HTTP/2 its client, takes none.

use std::io;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Buf, Bytes};

use super::EventStream;
use super::stream_conn::reason;
use crate::hub::SeatHandle;
use crate::metrics::CloseReason;
use crate::sync::{AtomicBool, Mutex, Ordering};

/// A connection that may carry a stream, or a request over HTTP/2 that may open one. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct StreamMonitor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    carried: Mutex<Option<Carried>>,
    /// A [`MonitoredBytes`] was taken from since somebody last asked. hyper writes under a lock of its own, so this
    /// is all that it does there.
    took_some: AtomicBool,
}

/// The stream that it carried last, which may be over.
#[derive(Debug)]
struct Carried {
    seat: SeatHandle,
    blocked: bool,
}

/// Some of a body, which tells its line when it is written. Closed HTTP/2 that is when the client has room:
/// hyper takes a whole event in hand for the first byte of room, and asks for the next.
#[derive(Debug)]
pub(crate) struct MonitoredBytes {
    bytes: Bytes,
    monitor: Option<StreamMonitor>,
}

// ===== impl StreamMonitor =====

impl StreamMonitor {
    pub(crate) fn new() -> Self {
        let (carried, took_some) = (Mutex::new(None), AtomicBool::new(false));
        Self(Arc::new(Shared { carried, took_some }))
    }

    /// The stream begins on this connection.
    pub(crate) fn carry(&self, stream: &mut EventStream) {
        let seat = stream.subscription().watch();
        *self.0.carried.lock() = Some(Carried { seat, blocked: false });
    }

    /// Whether the connection had a stream, and that is over.
    pub(crate) fn is_over(&self) -> bool {
        self.0.carried.lock().as_ref().is_some_and(|carried| carried.seat.is_gone())
    }

    /// Whether its stream has to end because its client takes nothing, and has taken nothing since this
    /// was last asked.
    pub(crate) fn is_stalled(&self) -> bool {
        let took_some = self.0.took_some.swap(false, Ordering::Relaxed);
        self.0.carried.lock().as_ref().is_some_and(|carried| carried.seat.is_stalled(took_some))
    }

    /// The task rests that serves the stream. What it still has in hand, its client has no room for.
    pub(crate) fn rest(&self) {
        if let Some(carried) = &*self.0.carried.lock() {
            carried.seat.rest();
        }
    }

    /// Names the cause for which the stream will end, unless one is known.
    pub(crate) fn note(&self, reason: CloseReason) {
        if let Some(carried) = &*self.0.carried.lock() {
            carried.seat.note(reason);
        }
    }

    /// Reads failed or not: that is what comes of it.
    pub(crate) fn read<T>(&self, read: &Poll<io::Result<T>>) {
        if let (Poll::Ready(Err(why)), Some(carried)) = (read, &*self.0.carried.lock()) {
            carried.seat.note(reason(why));
        }
    }

    /// The same of a write. Returns why the stream has to end if the socket is full and it has to.
    pub(crate) fn wrote(&self, wrote: &Poll<io::Result<usize>>) -> Option<CloseReason> {
        let mut carried = self.0.carried.lock();
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
            monitor.0.took_some.store(true, Ordering::Relaxed);
        }
    }
}
