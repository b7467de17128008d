//! A socket from which only so much is read: the client libraries of brokers and of databases have no bound.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sync::{AtomicUsize, Ordering};

/// What may still come.
#[derive(Clone, Debug)]
pub(crate) struct Allowance(Arc<AtomicUsize>);

/// A socket that fails once more has come than is allowed.
#[derive(Debug)]
pub(crate) struct Bounded<S, M> {
    inner: S,
    allowance: Allowance,
    meter: M,
}

/// Counts what comes.
pub(crate) trait Meter {
    /// What these bytes take of the allowance.
    ///
    /// # Errors
    /// What comes is to be read no further.
    fn cost(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

// ===== impl Allowance =====

impl Allowance {
    /// So much may come, for a reply.
    pub(crate) fn renew(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn take(&self, bytes: usize) -> io::Result<()> {
        let left = self.0.load(Ordering::Relaxed).saturating_sub(bytes);
        self.0.store(left, Ordering::Relaxed);
        if left == 0 { Err(io::Error::other("it sends more than was asked for")) } else { Ok(()) }
    }
}

// ===== impl Bounded =====

impl<S, M> Bounded<S, M> {
    /// So much may come at first.
    pub(crate) fn new(inner: S, meter: M, bytes: usize) -> (Self, Allowance) {
        let allowance = Allowance(Arc::new(AtomicUsize::new(bytes)));
        (Self { inner, allowance: allowance.clone(), meter }, allowance)
    }
}

impl<S: AsyncRead + Unpin, M: Meter + Unpin> AsyncRead for Bounded<S, M> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let cost = self.meter.cost(&buf.filled()[before..])?;
        Poll::Ready(self.allowance.take(cost))
    }
}

impl<S: AsyncWrite + Unpin, M: Unpin> AsyncWrite for Bounded<S, M> {
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
