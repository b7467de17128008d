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

use crate::http::{Dressed, Service};
use crate::metrics::CloseReason;
use crate::stream::{Line, reason};
use crate::sync::Mutex;

/// An HTTP/2 connection. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Trunk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Requests that are not over.
    requests: usize,
    /// There was a request.
    asked: bool,
    /// The line of a request that was received, and is run next.
    received: Option<Line>,
    /// Why reading or writing failed.
    fate: Option<CloseReason>,
    /// Woken when the last request is over.
    waker: Option<Waker>,
}

/// Answers the requests of a trunk, each on a line of its own.
#[derive(Debug)]
pub(super) struct Branching {
    pub(super) service: Service,
    pub(super) trunk: Trunk,
}

/// A request of the trunk with its answer, as hyper has it run. It tells the seat of its stream when
/// the client takes nothing: hyper asks a body for more only once there is room for what it has.
struct Branch<F> {
    /// `None` once it is over.
    answering: Option<Pin<Box<F>>>,
    line: Option<Line>,
    trunk: Trunk,
}

// ===== impl Trunk =====

impl Trunk {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State::default())))
    }

    /// What became of a read or a write.
    pub(super) fn note<T>(&self, done: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(why)) = done {
            self.end_for(reason(why));
        }
    }

    /// Names the cause for which the connection ends, unless one is known.
    pub(super) fn end_for(&self, reason: CloseReason) {
        self.0.lock().fate.get_or_insert(reason);
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

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Trunk {
    fn execute(&self, answering: F) {
        let line = {
            let mut state = self.0.lock();
            state.requests += 1;
            state.asked = true;
            state.received.take()
        };
        let trunk = self.clone();
        tokio::spawn(Branch { answering: Some(Box::pin(answering)), line, trunk });
    }
}

// ===== impl Branching =====

impl hyper::service::Service<Request<Incoming>> for Branching {
    type Response = <Service as hyper::service::Service<Request<Incoming>>>::Response;
    type Error = <Service as hyper::service::Service<Request<Incoming>>>::Error;
    type Future = Dressed;

    /// hyper has the answer run as soon as it has it from here.
    fn call(&self, request: Request<Incoming>) -> Dressed {
        let line = Line::new();
        let answer = self.service.clone().on_line(line.clone()).call(request);
        self.trunk.0.lock().received = Some(line);
        answer
    }
}

// ===== impl Branch =====

impl<F: Future<Output = ()>> Future for Branch<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { answering, line, trunk } = &mut *self;
        let Some(running) = answering else { return Poll::Ready(()) };
        let stalled = line.as_ref().is_some_and(Line::is_stalled);
        if !stalled && running.as_mut().poll(cx).is_pending() {
            line.iter().for_each(Line::rest);
            return Poll::Pending;
        }
        let fate = trunk.0.lock().fate;
        if let (Some(line), Some(fate)) = (line, fate) {
            line.note(fate);
        }
        // A stream that is dropped before its end is reset (RFC 9113, 5.4.2).
        *answering = None;
        Poll::Ready(())
    }
}

impl<F> Drop for Branch<F> {
    fn drop(&mut self) {
        // Its seat is free before it counts as over.
        self.answering = None;
        let waker = {
            let mut state = self.trunk.0.lock();
            state.requests -= 1;
            if state.requests == 0 { mem::take(&mut state.waker) } else { None }
        };
        waker.into_iter().for_each(Waker::wake);
    }
}
