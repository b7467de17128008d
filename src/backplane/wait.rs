//! The timers of threads that have no stream, so that they may sleep: that which follows the log, and that of the outbox.
#![expect(clippy::disallowed_methods, reason = "for threads of their own, which have no stream")]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// Of two futures, the one that was ready first.
pub(crate) enum Either<A, B> {
    Left(A),
    Right(B),
}

pub(crate) async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}

/// `None` if the future takes longer.
pub(crate) async fn within<F: Future>(time: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(time, future).await.ok()
}

/// The output of the first that is ready; the other one is dropped.
pub(crate) async fn either<A: Future, B: Future>(a: A, b: B) -> Either<A::Output, B::Output> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(|cx| {
        if let Poll::Ready(output) = a.as_mut().poll(cx) {
            return Poll::Ready(Either::Left(output));
        }
        b.as_mut().poll(cx).map(Either::Right)
    })
    .await
}

/// The outputs of both futures, of which the first is polled first.
#[cfg(feature = "redis")]
pub(crate) async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    poll_fn(|cx| {
        if first.is_none() {
            first = ready(a.as_mut().poll(cx));
        }
        if second.is_none() {
            second = ready(b.as_mut().poll(cx));
        }
        match (first.take(), second.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            others => {
                (first, second) = others;
                Poll::Pending
            }
        }
    })
    .await
}

#[cfg(feature = "redis")]
fn ready<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

// ===== impl Either =====

impl<T> Either<T, T> {
    pub(crate) fn into_inner(self) -> T {
        match self {
            Self::Left(output) | Self::Right(output) => output,
        }
    }
}
