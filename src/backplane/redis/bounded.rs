//! A socket from which only so much is read for a reply: the client library itself has no bound.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::meter::Meter;
use crate::sync::{AtomicUsize, Ordering};

/// The bytes that may still come.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowance(Arc<AtomicUsize>);

pub(super) struct Bounded<S> {
    inner: S,
    allowance: Allowance,
    meter: Meter,
}

/// The largest reply, or several that come at once: their bytes, and [`VALUE_BYTES`] for each value. A record has half a
/// MiB, and a read asks for some MiB; programs of others may have appended larger entries. While a reply is read, it takes
/// about three times as much memory: bytes that came, a buffer that grows, and what is made of them.
pub(super) const REPLY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What the library makes of a value takes so much memory, however few bytes it came in.
pub(super) const VALUE_BYTES: usize = 128;

// ===== impl Allowance =====

impl Allowance {
    /// A reply may come.
    pub(super) fn renew(&self) {
        self.0.store(REPLY_BYTES_MAX, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) -> io::Result<()> {
        let left = self.0.load(Ordering::Relaxed).saturating_sub(bytes);
        self.0.store(left, Ordering::Relaxed);
        if left == 0 { Err(io::Error::other("it sends more than 32 MiB at once")) } else { Ok(()) }
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

// ===== impl Bounded =====

impl<S> Bounded<S> {
    pub(super) fn new(inner: S) -> (Self, Allowance) {
        let allowance = Allowance::default();
        allowance.renew();
        (Self { inner, allowance: allowance.clone(), meter: Meter::default() }, allowance)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let bytes = &buf.filled()[before..];
        let values = self.meter.values_in(bytes)?;
        Poll::Ready(self.allowance.take(bytes.len() + values * VALUE_BYTES))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
