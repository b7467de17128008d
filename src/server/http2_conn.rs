//! What the requests of one HTTP/2 connection share: the reason for which it failed, and their number.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::{Request, Response};

use super::http2_body::Http2Body;
use super::http2_requests::RunningResponse;
use super::reactor::close_reason;
use crate::http::{ResponseFuture, Service, Sleep, Timer};
use crate::metrics::CloseReason;
use crate::stream::{ReadyQueue, StreamMonitor};
use crate::sync::Mutex;

/// The state of an HTTP/2 connection. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Http2Conn(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// How long a client may take to receive a response that is no stream.
    timeout: Duration,
    timer: Timer,
    queue: ReadyQueue,
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

#[derive(Default)]
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
    /// Requests that hyper has begun to run.
    begun: Vec<(RunningResponse, StreamMonitor)>,
    turn: Turn,
    /// A request has ended while there was more to read, and there still is. The input may be a flood of requests that
    /// are reset at once, which h2 recognises by those that it reads together.
    reads_much: bool,
    /// The reason for which a read or write failed.
    close_reason: Option<CloseReason>,
}

/// One poll of hyper and the input and output in it.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    /// Requests are ready, and another turn follows before the task rests: few bytes are not written yet, and nothing
    /// is read.
    gathers: bool,
    /// Every open request is a stream.
    is_quiet: bool,
    /// Bytes that may still be read, if every open request is a stream.
    left: usize,
    /// There may be more to read, in the next turn.
    has_more: bool,
}

/// How much may be read.
pub(super) enum Read {
    Any,
    /// So many bytes.
    Some(usize),
    /// Nothing in this turn.
    Later,
}

/// The service of one connection, which gives each request a monitor.
#[derive(Debug)]
pub(super) struct Http2Service {
    pub(super) service: Service,
    pub(super) conn: Http2Conn,
}

/// The response to a request. Boxed, because hyper keeps its memory for as long as a stream is open.
pub(super) struct Http2Response(Box<(ResponseFuture, StreamMonitor)>);

/// Bytes of a turn's input while every open request is a stream: they are requests then, which wait in h2 until all are
/// read. h2's queue, which keeps its size, has room for 16 of them that are as short as HPACK makes repeated ones.
pub(super) const READ_BYTES: usize = 192;

/// The same once requests end while there is more to read: room for far more than [`RESETS_MAX`](super::http2::RESETS_MAX) requests and their resets.
pub(super) const READ_BYTES_MAX: usize = 4 * 1024;

// ===== impl Http2Conn =====

impl Http2Conn {
    /// A connection whose client may take this long to receive a response that is no stream.
    pub(super) fn new(timeout: Duration, timer: Timer) -> Self {
        let (queue, state) = (ReadyQueue::default(), Mutex::default());
        Self(Arc::new(Shared { timeout, timer, queue, state }))
    }

    /// The requests that are ready to be polled.
    pub(super) fn queue(&self) -> &ReadyQueue {
        &self.0.queue
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

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.0.state.lock().close_reason
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

    /// Whether no request is open, or in a drain none but those whose response the client has not received.
    pub(super) fn is_idle(&self, draining: bool) -> bool {
        let state = self.0.state.lock();
        state.requests == if draining { state.untaken } else { 0 }
    }

    /// hyper is about to be polled. If it `gathers`, it is polled again before the task rests.
    pub(super) fn begin_turn(&self, gathers: bool) {
        let mut state = self.0.state.lock();
        let is_quiet = state.requests == state.streams;
        let left = if state.reads_much { READ_BYTES_MAX } else { READ_BYTES };
        state.turn = Turn { gathers, is_quiet, left, has_more: false };
    }

    pub(super) fn gathers(&self) -> bool {
        self.0.state.lock().turn.gathers
    }

    /// Whether another turn has to follow, because this one has left something to read, or to write.
    pub(super) fn has_more(&self) -> bool {
        let Turn { gathers, has_more, .. } = self.0.state.lock().turn;
        gathers || has_more
    }

    /// How much may be read now.
    pub(super) fn may_read(&self) -> Read {
        let mut state = self.0.state.lock();
        let Turn { gathers, is_quiet, left, .. } = state.turn;
        if !gathers && !is_quiet {
            return Read::Any;
        }
        if !gathers && left > 0 {
            return Read::Some(left);
        }
        state.turn.has_more = true;
        Read::Later
    }

    pub(super) fn note_read(&self, bytes: usize) {
        let left = &mut self.0.state.lock().turn.left;
        *left = left.saturating_sub(bytes);
    }

    /// All that the client has sent so far was read.
    pub(super) fn note_exhausted(&self) {
        self.0.state.lock().reads_much = false;
    }

    /// Makes the monitor of a request, which hyper runs next.
    pub(super) fn receive(&self) -> StreamMonitor {
        let monitor = StreamMonitor::new(self.0.queue.clone());
        self.0.state.lock().received = Some(monitor.clone());
        monitor
    }

    /// The requests that have begun since this was last asked.
    pub(super) fn take_begun(&self) -> Vec<(RunningResponse, StreamMonitor)> {
        mem::take(&mut self.0.state.lock().begun)
    }

    /// There is a response. Returns the time in which the client has to receive it, if it is no stream.
    pub(super) fn begin_response(&self, is_stream: bool) -> Option<Sleep> {
        let Shared { timeout, timer, state, .. } = &*self.0;
        let mut state = state.lock();
        if is_stream {
            state.streams += 1;
            return None;
        }
        state.untaken += 1;
        drop(state);
        Some(timer.sleep(*timeout))
    }

    /// A request has ended, which was counted as one of these.
    pub(super) fn count_ended(&self, stream: bool, untaken: bool) {
        let mut state = self.0.state.lock();
        state.requests -= 1;
        state.reads_much |= state.turn.has_more;
        state.streams -= usize::from(stream);
        state.untaken -= usize::from(untaken);
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Http2Conn {
    fn execute(&self, response: F) {
        let response = Box::pin(response);
        let mut state = self.0.state.lock();
        // Without a monitor it would be a tunnel, which no CONNECT gets.
        let Some(monitor) = state.received.take() else { return };
        state.requests += 1;
        state.had_request = true;
        state.begun.push((response, monitor));
    }
}

// ===== impl State =====

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { requests, streams, untaken, .. } = self;
        let mut open = f.debug_struct("State");
        open.field("requests", requests).field("streams", streams).field("untaken", untaken);
        open.finish_non_exhaustive()
    }
}

// ===== impl Http2Service =====

impl hyper::service::Service<Request<Incoming>> for Http2Service {
    type Response = Response<Http2Body>;
    type Error = Infallible;
    type Future = Http2Response;

    /// hyper runs the response before it calls this again.
    fn call(&self, request: Request<Incoming>) -> Http2Response {
        let monitor = self.conn.receive();
        let response = self.service.clone().with_monitor(monitor.clone()).call(request);
        Http2Response(Box::new((response, monitor)))
    }
}

// ===== impl Http2Response =====

impl Future for Http2Response {
    type Output = Result<Response<Http2Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (response, monitor) = &mut *self.0;
        let response = ready!(Pin::new(response).poll(cx));
        monitor.note_response();
        Poll::Ready(response.map(|response| response.map(Http2Body::from)))
    }
}
