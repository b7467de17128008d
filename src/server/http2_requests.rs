//! The open requests of an HTTP/2 connection, which the connection's task polls. A task for each would cost more memory
//! than their streams do, and each would queue its frames in h2 before the connection can write any: h2 keeps the
//! memory that its queues have ever needed.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use slab::Slab;

use super::http2_conn::Http2Conn;
use crate::http::Sleep;
use crate::stream::StreamMonitor;

/// Frames that requests may send before their connection writes them, into its buffer or to the socket. h2's queue
/// has room for a power of two; a request whose response begins may exceed this by two.
pub(super) const FRAMES_PER_TURN: u32 = 14;

/// What hyper runs for a request.
pub(super) type RunningResponse = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The open requests of a connection, which end when this is dropped.
pub(super) struct Requests {
    conn: Http2Conn,
    places: Slab<Request>,
}

/// A request. It reports to the seat of its stream when it goes idle with unsent data: hyper polls a body for more only
/// once the flow-control window has room. An ordinary response it resets if the client does not receive it in time.
struct Request {
    response: RunningResponse,
    monitor: StreamMonitor,
    phase: Phase,
}

/// How far a request is.
enum Phase {
    /// There is no response yet.
    Open,
    /// Its response is a stream.
    Stream,
    /// The client has to receive its response, which is no stream, until then.
    Untaken(Box<Sleep>),
}

// ===== impl Requests =====

impl Requests {
    pub(super) fn new(conn: Http2Conn) -> Self {
        Self { conn, places: Slab::new() }
    }

    /// Polls requests that are ready, as long as they may send frames and `polls` is not 0, which counts down. Returns
    /// whether there was one.
    pub(super) fn poll_ready(&mut self, polls: &mut u32) -> bool {
        self.take_begun();
        let before = *polls;
        while *polls > 0
            && let Some(place) = self.conn.queue().pop()
        {
            *polls -= 1;
            self.poll(place as usize);
        }
        *polls < before
    }

    /// Gives a place to the requests that have begun.
    fn take_begun(&mut self) {
        for (response, monitor) in self.conn.take_begun() {
            let place = self.places.insert(Request {
                response,
                monitor: monitor.clone(),
                phase: Phase::Open,
            });
            monitor.begin(u32::try_from(place).expect("h2 limits the requests"));
        }
    }

    fn poll(&mut self, place: usize) {
        let Some(request) = self.places.get_mut(place) else { return };
        // A panic ends the request only, as in a task of its own.
        let poll = AssertUnwindSafe(|| request.poll(&self.conn));
        if catch_unwind(poll).unwrap_or(Poll::Ready(())).is_ready() {
            self.places.remove(place).end(&self.conn);
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.take_begun();
        self.places.drain().for_each(|request| request.end(&self.conn));
    }
}

// ===== impl Request =====

impl Request {
    fn poll(&mut self, conn: &Http2Conn) -> Poll<()> {
        let waker = self.monitor.waker();
        let mut cx = Context::from_waker(&waker);
        if self.monitor.is_stalled()
            || self.response.as_mut().poll(&mut cx).is_ready()
            || self.is_late(conn, &mut cx)
        {
            return Poll::Ready(());
        }
        if !self.monitor.is_ready() {
            self.monitor.note_idle();
        }
        Poll::Pending
    }

    /// Whether the client has not received its response in time, if that is no stream.
    fn is_late(&mut self, conn: &Http2Conn, cx: &mut Context<'_>) -> bool {
        if let (Phase::Open, Some(is_stream)) = (&self.phase, self.monitor.response()) {
            let sleep = conn.begin_response(is_stream);
            self.phase = sleep.map_or(Phase::Stream, |sleep| Phase::Untaken(Box::new(sleep)));
        }
        match &mut self.phase {
            Phase::Open | Phase::Stream => false,
            Phase::Untaken(until) => Pin::new(&mut **until).poll(cx).is_ready(),
        }
    }

    fn end(self, conn: &Http2Conn) {
        let Self { response, monitor, phase } = self;
        if let Some(reason) = conn.close_reason() {
            monitor.note(reason);
        }
        // A response that is dropped before its end resets its stream (RFC 9113, 5.4.2). Its seat is freed before the
        // request counts as ended.
        drop(response);
        conn.count_ended(matches!(phase, Phase::Stream), matches!(phase, Phase::Untaken(_)));
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use std::future::{pending, poll_fn};
    use std::time::Duration;

    use hyper::rt::Executor;

    use super::*;
    use crate::config::HubConfig;
    use crate::http::Timer;
    use crate::hub::Hub;
    use crate::stream::Clock;

    fn requests() -> Requests {
        let timer = Timer::new(Hub::new(HubConfig::default()), Clock::start());
        Requests::new(Http2Conn::new(Duration::from_secs(10), timer))
    }

    /// Begins a request, as hyper does.
    fn begin(requests: &Requests, response: impl Future<Output = ()> + Send + 'static) {
        requests.conn.receive();
        requests.conn.execute(response);
    }

    /// One turn, of at most so many polls. Returns those that are left.
    fn turn(requests: &mut Requests, mut polls: u32) -> u32 {
        requests.conn.queue().begin_turn(FRAMES_PER_TURN);
        requests.poll_ready(&mut polls);
        polls
    }

    #[test]
    fn a_panic_ends_its_request_only() {
        let mut requests = requests();
        begin(&requests, async { panic!("on purpose") });
        begin(&requests, pending());
        assert_eq!(turn(&mut requests, 9), 7);
        assert_eq!(requests.places.len(), 1);
        assert!(!requests.conn.is_idle(false));
        let conn = requests.conn.clone();
        drop(requests);
        assert!(conn.is_idle(false));
    }

    /// The frames wait in h2 until the connection is polled.
    #[tokio::test]
    async fn a_turn_has_a_bounded_number_of_frames_and_polls() {
        let mut requests = requests();
        for _ in 0..20 {
            let monitor = requests.conn.receive();
            requests.conn.execute(async move {
                monitor.note_response();
                pending::<()>().await;
            });
        }
        // Of each its head, its body and its end.
        assert_eq!(turn(&mut requests, 100), 95);
        assert_eq!(turn(&mut requests, 3), 0);
        assert!(!requests.conn.queue().is_empty());
        let polls: u32 = (0..3).map(|_| 100 - turn(&mut requests, 100)).sum();
        assert_eq!(polls, 12);
        assert!(requests.conn.queue().is_empty(), "each was polled once");
    }

    #[test]
    fn a_request_that_is_woken_while_it_is_polled_is_polled_again_once() {
        let mut requests = requests();
        begin(
            &requests,
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                cx.waker().wake_by_ref();
                Poll::Pending
            }),
        );
        assert_eq!(turn(&mut requests, 3), 0);
        assert!(requests.conn.queue().pop().is_some());
        assert!(requests.conn.queue().is_empty());
    }

    /// The place of the first is that of the third.
    #[test]
    fn a_waker_of_a_request_that_has_ended_ends_no_other() {
        let mut requests = requests();
        let ended = requests.conn.receive();
        requests.conn.execute(async {});
        turn(&mut requests, 9);
        begin(&requests, pending());
        turn(&mut requests, 9);
        ended.waker().wake();
        assert_eq!((turn(&mut requests, 9), requests.places.len()), (8, 1));
    }
}
