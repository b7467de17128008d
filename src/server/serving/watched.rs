//! What a server waits for while it serves: that it is stopped, or that one of its parts ends, which is a defect.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use crate::backplane::Backplane;
#[cfg(feature = "postgres")]
use crate::outbox::Outbox;
use crate::server::{ServeError, worker};

/// What must not end by itself.
pub(in crate::server) struct Watched {
    pub(super) workers: Vec<worker::Running>,
    pub(super) backplane: Option<Backplane>,
    #[cfg(feature = "postgres")]
    pub(super) outbox: Option<Outbox>,
    /// The outbox has been stopped, and may end.
    #[cfg(feature = "postgres")]
    pub(super) stops_outbox: bool,
}

/// A future that may be polled after it has resolved.
pub(in crate::server) struct Stop<'a, F> {
    stop: Pin<&'a mut F>,
    is_over: bool,
}

// ===== impl Watched =====

impl Watched {
    /// What `future` resolves to.
    ///
    /// # Errors
    /// A part has ended before. Without the thread that follows the log, streams would be silent for ever; without that
    /// which drains the outbox, rows would wait for ever.
    pub(in crate::server) async fn unless_one_ends<T>(
        &mut self,
        future: impl Future<Output = T>,
    ) -> Result<T, ServeError> {
        let mut future = pin!(future);
        let mut log_ended = pin!(ended(self.backplane.as_ref().map(Backplane::ended)));
        #[cfg(feature = "postgres")]
        let outbox = self.outbox.as_ref().filter(|_| !self.stops_outbox);
        #[cfg(feature = "postgres")]
        let mut outbox_ended = pin!(ended(outbox.map(Outbox::ended)));
        let workers = &mut self.workers;
        poll_fn(|cx| {
            let has_ended = workers.iter_mut().any(|worker| worker.poll_end(cx).is_ready())
                || log_ended.as_mut().poll(cx).is_ready();
            #[cfg(feature = "postgres")]
            let has_ended = has_ended || outbox_ended.as_mut().poll(cx).is_ready();
            match has_ended {
                true => Poll::Ready(Err(ServeError::WorkerDied)),
                false => future.as_mut().poll(cx).map(Ok),
            }
        })
        .await
    }
}

/// Waits for the end of a part, for ever if there is none.
async fn ended(part: Option<impl Future<Output = ()>>) {
    match part {
        Some(end) => end.await,
        None => std::future::pending().await,
    }
}

// ===== impl Stop =====

impl<'a, F: Future<Output = ()>> Stop<'a, F> {
    pub(in crate::server) fn new(stop: Pin<&'a mut F>) -> Self {
        Self { stop, is_over: false }
    }

    /// Whether the server has been stopped.
    pub(in crate::server) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_over {
            std::task::ready!(self.stop.as_mut().poll(cx));
            self.is_over = true;
        }
        Poll::Ready(())
    }

    pub(in crate::server) async fn wait(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}
