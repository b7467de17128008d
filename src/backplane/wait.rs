//! The timers of the thread that follows the log. It has no stream, so it may sleep.
#![expect(clippy::disallowed_methods, reason = "a thread of its own, which has no stream")]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// Of two futures, the one that was ready first.
pub(super) enum Either<A, B> {
    Left(A),
    Right(B),
}

pub(super) async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}

/// `None` if the future takes longer.
pub(super) async fn within<F: Future>(time: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(time, future).await.ok()
}

/// The output of the first that is ready; the other one is dropped.
pub(super) async fn either<A: Future, B: Future>(a: A, b: B) -> Either<A::Output, B::Output> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(|cx| {
        if let Poll::Ready(output) = a.as_mut().poll(cx) {
            return Poll::Ready(Either::Left(output));
        }
        b.as_mut().poll(cx).map(Either::Right)
    })
    .await
}

// ===== impl Either =====

impl<T> Either<T, T> {
    pub(super) fn into_inner(self) -> T {
        match self {
            Self::Left(output) | Self::Right(output) => output,
        }
    }
}
