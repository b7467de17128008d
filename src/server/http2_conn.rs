//! What the requests of one HTTP/2 connection share: the reason for which it failed, their number, and the tasks
//! in which hyper runs them.

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

/// The state of an HTTP/2 connection. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Http2Conn(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Open requests.
    requests: usize,
    /// There was a request.
    had_request: bool,
    /// The monitor of the request that was received last, which hyper runs next.
    received: Option<StreamMonitor>,
    /// The reason for which a read or write failed.
    close_reason: Option<CloseReason>,
    /// Woken when the last open request ends.
    waker: Option<Waker>,
}

/// The service of one connection, which gives each request a monitor.
#[derive(Debug)]
pub(super) struct Http2Service {
    pub(super) service: Service,
    pub(super) conn: Http2Conn,
}

/// The task of one request. It reports to the seat of its stream when the task goes idle with unsent data: hyper
/// polls a body for more only once the flow-control window has room.
struct RequestTask<F> {
    /// `None` once it has ended.
    response: Option<Pin<Box<F>>>,
    monitor: Option<StreamMonitor>,
    conn: Http2Conn,
}

// ===== impl Http2Conn =====

impl Http2Conn {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State::default())))
    }

    /// Records the result of a read or a write.
    pub(super) fn note<T>(&self, done: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(why)) = done {
            self.end_for(close_reason(why));
        }
    }

    /// Records the reason for which the connection ends, unless one is known.
    pub(super) fn end_for(&self, reason: CloseReason) {
        self.0.lock().close_reason.get_or_insert(reason);
    }

    /// Whether there was a request, which may have ended.
    pub(super) fn had_request(&self) -> bool {
        self.0.lock().had_request
    }

    /// Whether no request is open. If one is, the task is woken when the last one ends.
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
    fn execute(&self, response: F) {
        let monitor = {
            let mut state = self.0.lock();
            state.requests += 1;
            state.had_request = true;
            state.received.take()
        };
        let conn = self.clone();
        tokio::spawn(RequestTask { response: Some(Box::pin(response)), monitor, conn });
    }
}

// ===== impl Http2Service =====

impl hyper::service::Service<Request<Incoming>> for Http2Service {
    type Response = <Service as hyper::service::Service<Request<Incoming>>>::Response;
    type Error = <Service as hyper::service::Service<Request<Incoming>>>::Error;
    type Future = ResponseFuture;

    /// hyper spawns the response before it calls this again.
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
        let Self { response, monitor, conn } = &mut *self;
        let Some(running) = response else { return Poll::Ready(()) };
        let stalled = monitor.as_ref().is_some_and(StreamMonitor::is_stalled);
        if !stalled && running.as_mut().poll(cx).is_pending() {
            monitor.iter().for_each(StreamMonitor::note_idle);
            return Poll::Pending;
        }
        let close_reason = conn.0.lock().close_reason;
        if let (Some(monitor), Some(close_reason)) = (monitor, close_reason) {
            monitor.note(close_reason);
        }
        // A response that is dropped before its end resets its stream (RFC 9113, 5.4.2).
        *response = None;
        Poll::Ready(())
    }
}

impl<F> Drop for RequestTask<F> {
    fn drop(&mut self) {
        // Its seat is freed before the request counts as ended.
        self.response = None;
        let waker = {
            let mut state = self.conn.0.lock();
            state.requests -= 1;
            if state.requests == 0 { mem::take(&mut state.waker) } else { None }
        };
        waker.into_iter().for_each(Waker::wake);
    }
}
