//! What many streams on one HTTP/2 connection share: why it died, how many there are, and the tasks
//! that hyper has run for them.

use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;

use super::reactor::close_reason;
use crate::http::{ResponseFuture, Service};
use crate::metrics::CloseReason;
use crate::stream::StreamMonitor;
use crate::sync::Mutex;

/// An HTTP/2 connection. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Http2Conn(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Requests that are not over.
    requests: usize,
    /// There was a request.
    asked: bool,
    /// The line of a request that was received, and is run next.
    received: Option<StreamMonitor>,
    /// Why reading or writing failed.
    close_reason: Option<CloseReason>,
    /// Woken when the last request is over.
    waker: Option<Waker>,
}

/// Answers the requests of a conn, each on a line of its own.
#[derive(Debug)]
pub(super) struct Http2Service {
    pub(super) service: Service,
    pub(super) conn: Http2Conn,
}

/// A request of the conn with its answer, as hyper has it run. It tells the seat of its stream when
/// the client takes nothing: hyper asks a body for more only once there is room for what it has.
struct RequestTask<F> {
    /// `None` once it is over.
    answering: Option<Pin<Box<F>>>,
    monitor: Option<StreamMonitor>,
    conn: Http2Conn,
}

// ===== impl Http2Conn =====

impl Http2Conn {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State::default())))
    }

    /// What became of a read or a write.
    pub(super) fn note<T>(&self, done: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(why)) = done {
            self.end_for(close_reason(why));
        }
    }

    /// Names the cause for which the connection ends, unless one is known.
    pub(super) fn end_for(&self, reason: CloseReason) {
        self.0.lock().close_reason.get_or_insert(reason);
    }

    /// Whether there was a request, open or not.
    pub(super) fn was_asked(&self) -> bool {
        self.0.lock().asked
    }

    /// Whether no request is open. Who asks is woken when that is so next.
    pub(super) fn is_idle(&self, cx: &Context<'_>) -> bool {
        let mut state = self.0.lock();
        let before = state.waker.replace(cx.waker().clone());
        let idle = state.requests == 0;
        drop(state);
        drop(before);
        idle
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Http2Conn {
    fn execute(&self, answering: F) {
        let monitor = {
            let mut state = self.0.lock();
            state.requests += 1;
            state.asked = true;
            state.received.take()
        };
        let conn = self.clone();
        tokio::spawn(RequestTask { answering: Some(Box::pin(answering)), monitor, conn });
    }
}

// ===== impl Http2Service =====

impl hyper::service::Service<Request<Incoming>> for Http2Service {
    type Response = <Service as hyper::service::Service<Request<Incoming>>>::Response;
    type Error = <Service as hyper::service::Service<Request<Incoming>>>::Error;
    type Future = ResponseFuture;

    /// hyper has the answer run as soon as it has it from here.
    fn call(&self, request: Request<Incoming>) -> ResponseFuture {
        let monitor = StreamMonitor::new();
        let answer = self.service.clone().with_monitor(monitor.clone()).call(request);
        self.conn.0.lock().received = Some(monitor);
        answer
    }
}

// ===== impl RequestTask =====

impl<F: Future<Output = ()>> Future for RequestTask<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { answering, monitor, conn } = &mut *self;
        let Some(running) = answering else { return Poll::Ready(()) };
        let stalled = monitor.as_ref().is_some_and(StreamMonitor::is_stalled);
        if !stalled && running.as_mut().poll(cx).is_pending() {
            monitor.iter().for_each(StreamMonitor::note_idle);
            return Poll::Pending;
        }
        let close_reason = conn.0.lock().close_reason;
        if let (Some(monitor), Some(close_reason)) = (monitor, close_reason) {
            monitor.note(close_reason);
        }
        // A stream that is dropped before its end is reset (RFC 9113, 5.4.2).
        *answering = None;
        Poll::Ready(())
    }
}

impl<F> Drop for RequestTask<F> {
    fn drop(&mut self) {
        // Its seat is free before it counts as over.
        self.answering = None;
        let waker = {
            let mut state = self.conn.0.lock();
            state.requests -= 1;
            if state.requests == 0 { mem::take(&mut state.waker) } else { None }
        };
        waker.into_iter().for_each(Waker::wake);
    }
}
