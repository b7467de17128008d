//! What the requests of one HTTP/2 connection share: the reason for which it failed, their number, and the tasks
//! in which hyper runs them.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::{Request, Response};

use super::http2_body::Http2Body;
use super::reactor::close_reason;
use crate::http::{ResponseFuture, Service, Sleep, Timer};
use crate::metrics::CloseReason;
use crate::stream::StreamMonitor;
use crate::sync::Mutex;

/// The state of an HTTP/2 connection. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Http2Conn(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// How long a client may take to receive a response that is no stream.
    timeout: Duration,
    timer: Timer,
    state: Mutex<State>,
}

/// What is known of the end of the client's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Input {
    /// There may be more.
    #[default]
    Open,
    /// It was read, and h2 must not know yet.
    Withheld,
    /// h2 may know.
    Ended,
}

#[derive(Debug, Default)]
struct State {
    input: Input,
    /// Open requests.
    requests: usize,
    /// Those of them that are streams.
    streams: usize,
    /// Those of them with an ordinary response that the client has not received.
    untaken: usize,
    /// There was a request.
    had_request: bool,
    /// The monitor of the request that was received last, which hyper runs next.
    received: Option<StreamMonitor>,
    /// The reason for which a read or write failed.
    close_reason: Option<CloseReason>,
    /// Woken when the last request ends that the connection is not waiting for its client to receive.
    waker: Option<Waker>,
}

/// The service of one connection, which gives each request a monitor.
#[derive(Debug)]
pub(super) struct Http2Service {
    pub(super) service: Service,
    pub(super) conn: Http2Conn,
}

/// The response to a request.
pub(super) struct Http2Response {
    response: ResponseFuture,
    monitor: StreamMonitor,
}

/// The task of one request. It reports to the seat of its stream when the task goes idle with unsent data: hyper
/// polls a body for more only once the flow-control window has room. An ordinary response it resets if the client
/// does not receive it in time.
struct RequestTask<F> {
    /// `None` once it has ended.
    response: Option<Pin<Box<F>>>,
    monitor: Option<StreamMonitor>,
    conn: Http2Conn,
    phase: Phase,
}

/// How far a request is.
enum Phase {
    /// There is no response yet.
    Open,
    /// Its response is a stream.
    Stream,
    /// The client has to receive its response, which is no stream, until then.
    Untaken(Sleep),
}

// ===== impl Http2Conn =====

impl Http2Conn {
    /// A connection whose client may take this long to receive a response that is no stream.
    pub(super) fn new(timeout: Duration, timer: Timer) -> Self {
        Self(Arc::new(Shared { timeout, timer, state: Mutex::default() }))
    }

    /// Records the result of a read or a write.
    pub(super) fn note<T>(&self, done: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(why)) = done {
            self.end_for(close_reason(why));
        }
    }

    /// Records the reason for which the connection ends, unless one is known.
    pub(super) fn end_for(&self, reason: CloseReason) {
        self.0.state.lock().close_reason.get_or_insert(reason);
    }

    /// Whether there was a request, which may have ended.
    pub(super) fn had_request(&self) -> bool {
        self.0.state.lock().had_request
    }

    pub(super) fn input(&self) -> Input {
        self.0.state.lock().input
    }

    /// The end of the client's input was read.
    pub(super) fn withhold_end(&self) {
        self.0.state.lock().input = Input::Withheld;
    }

    /// Whether the end of the client's input was read and h2 does not know.
    pub(super) fn withholds_end(&self) -> bool {
        self.0.state.lock().input == Input::Withheld
    }

    /// Has h2 know of the end of the client's input, if nothing is being answered or has been for too `long`. Returns
    /// whether that is so.
    pub(super) fn end_input(&self, long: bool) -> bool {
        let mut state = self.0.state.lock();
        let ends = long || state.requests == state.streams;
        if ends {
            state.input = Input::Ended;
        }
        ends
    }

    /// Whether no request is open, or in a drain none but those whose response the client has not received. If one
    /// is, the task is woken when the last one ends.
    pub(super) fn is_idle(&self, draining: bool, cx: &Context<'_>) -> bool {
        let mut state = self.0.state.lock();
        let before = state.waker.replace(cx.waker().clone());
        let idle = state.requests == if draining { state.untaken } else { 0 };
        drop(state);
        drop(before);
        idle
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Http2Conn {
    fn execute(&self, response: F) {
        let monitor = {
            let mut state = self.0.state.lock();
            state.requests += 1;
            state.had_request = true;
            state.received.take()
        };
        let conn = self.clone();
        let response = Some(Box::pin(response));
        tokio::spawn(RequestTask { response, monitor, conn, phase: Phase::Open });
    }
}

// ===== impl State =====

impl State {
    /// Takes the waker if the connection has nothing but responses that its client has not received.
    #[must_use]
    fn rest(&mut self) -> Option<Waker> {
        if self.requests == self.untaken { self.waker.take() } else { None }
    }
}

// ===== impl Http2Service =====

impl hyper::service::Service<Request<Incoming>> for Http2Service {
    type Response = Response<Http2Body>;
    type Error = Infallible;
    type Future = Http2Response;

    /// hyper spawns the response before it calls this again.
    fn call(&self, request: Request<Incoming>) -> Http2Response {
        let monitor = StreamMonitor::new();
        let response = self.service.clone().with_monitor(monitor.clone()).call(request);
        self.conn.0.state.lock().received = Some(monitor.clone());
        Http2Response { response, monitor }
    }
}

// ===== impl Http2Response =====

impl Future for Http2Response {
    type Output = Result<Response<Http2Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.response).poll(cx));
        self.monitor.note_response();
        Poll::Ready(response.map(|response| response.map(Http2Body::from)))
    }
}

// ===== impl RequestTask =====

impl<F> RequestTask<F> {
    /// Whether the client has not received its response in time, if that is no stream.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        if matches!(self.phase, Phase::Open) {
            self.begin_response();
        }
        match &mut self.phase {
            Phase::Open | Phase::Stream => false,
            Phase::Untaken(until) => Pin::new(until).poll(cx).is_ready(),
        }
    }

    /// Notes what the response is, if there is one.
    fn begin_response(&mut self) {
        let Shared { timeout, timer, state } = &*self.conn.0;
        let Some(is_stream) = self.monitor.as_ref().and_then(StreamMonitor::response) else {
            return;
        };
        let mut state = state.lock();
        if is_stream {
            self.phase = Phase::Stream;
            state.streams += 1;
            return;
        }
        self.phase = Phase::Untaken(timer.sleep(*timeout));
        state.untaken += 1;
        let waker = state.rest();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<F: Future<Output = ()>> Future for RequestTask<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { response, monitor, .. } = &mut *self;
        let Some(running) = response else { return Poll::Ready(()) };
        let stalled = monitor.as_ref().is_some_and(StreamMonitor::is_stalled);
        if !stalled && running.as_mut().poll(cx).is_pending() && !self.is_late(cx) {
            self.monitor.iter().for_each(StreamMonitor::note_idle);
            return Poll::Pending;
        }
        let Self { response, monitor, conn, .. } = &mut *self;
        let close_reason = conn.0.state.lock().close_reason;
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
            let mut state = self.conn.0.state.lock();
            state.requests -= 1;
            match self.phase {
                Phase::Open => {}
                Phase::Stream => state.streams -= 1,
                Phase::Untaken(_) => state.untaken -= 1,
            }
            state.rest()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}
