//! HTTP/2: one connection with many streams, each of which hyper polls as a body.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http2::{Builder, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::http2_conn::{Http2Conn, Http2Service};
use super::http2_io::Http2Io;
use super::http2_requests::{FRAMES_PER_TURN, Requests};
use crate::admission::Closer;
use crate::config::{Config, HubConfig};
use crate::http::{Service, Sleep, Timer};
use crate::metrics::CloseReason;

/// Bytes of events that hyper takes for a stream beyond its client's flow-control window; at least one event,
/// whose memory all streams share.
const SEND_BUFFER: usize = 8 * 1024;

/// Flow-control windows for request bodies, in bytes: of one request, and of the connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024;

/// Requests that a client has reset before they were begun, and that wait together; with one more the connection ends
/// (ENHANCE_YOUR_CALM). Each costs work for a response that is never sent (CVE-2023-44487). It is h2's default.
pub(super) const RESETS_MAX: usize = 20;

/// How long requests are still answered whose client sends no more. Those whose body is not complete never can be.
const LAST_RESPONSES: Duration = Duration::from_secs(1);

/// Polls of requests, and of hyper, in one poll of their connection's task.
const POLLS_MAX: u32 = 128;

/// A connection that is served. hyper comes first: its streams have ended when the requests are dropped.
struct Serving<I> {
    hyper: Connection<TokioIo<Http2Io<I>>, Http2Service, Http2Conn>,
    requests: Requests,
    lifetime: Lifetime,
    conn: Http2Conn,
}

/// When a connection ends, and what it waits for.
struct Lifetime {
    conn: Http2Conn,
    closer: Arc<Closer>,
    head_timeout: Duration,
    idle_timeout: Duration,
    drain_grace: Duration,
    /// GOAWAY was sent.
    going_away: bool,
    /// The worker closes its connections.
    drains: bool,
    /// Runs while there is no request in flight.
    idle: Option<Sleep>,
    /// Runs once the client sends no more, and requests are still being answered.
    last: Option<Sleep>,
    timer: Timer,
}

/// What follows from the time that has passed.
enum Due {
    /// The connection is polled again: h2 may know of the end of the input.
    Input,
    /// GOAWAY has to be sent.
    GoAway,
    /// The connection has to end: its client ignored GOAWAY.
    End,
}

/// Serves a connection until it ends, until the requests in flight end in a drain, or until it was idle for too
/// long. In a drain, responses that its client does not receive do not count as requests in flight.
pub(super) fn serve<I>(
    io: I,
    conn: Http2Conn,
    service: Service,
    draining: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // Before the future, which would keep room for what is moved here.
    let lifetime = Lifetime::new(conn.clone(), &service);
    let hyper = builder(&conn, service.config(), service.timer());
    let service = Http2Service { service: service.with_body_budget(), conn: conn.clone() };
    let io = TokioIo::new(Http2Io::new(io, conn.clone()));
    let hyper = hyper.serve_connection(io, service);
    let requests = Requests::new(conn.clone());
    let mut serving = Serving { hyper, requests, lifetime, conn };
    async move { serving.run(draining).await }
}

// ===== impl Serving =====

impl<I: AsyncRead + AsyncWrite + Send + Unpin + 'static> Serving<I> {
    async fn run(&mut self, mut draining: watch::Receiver<bool>) {
        let mut drain = pin!(draining.wait_for(|draining| *draining));
        let end = poll_fn(|cx| {
            self.conn.queue().wake_up();
            if !self.lifetime.drains && drain.as_mut().poll(cx).is_ready() {
                self.lifetime.drain();
            }
            let polled = self.poll(cx);
            if self.conn.has_more() {
                cx.waker().wake_by_ref();
            }
            self.conn.queue().sleep(cx.waker());
            polled
        });
        if let Err(why) = end.await {
            tracing::debug!(%why, "connection");
            if why.is_timeout() {
                self.conn.end_for(CloseReason::Timeout);
            }
        }
    }

    /// Polls the connection and its requests until all wait, or for as long as one task may run.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let mut polls = POLLS_MAX;
        loop {
            if self.lifetime.closer.is_closed() {
                return Poll::Ready(Ok(()));
            }
            if self.lifetime.begins_to_go_away() {
                Pin::new(&mut self.hyper).graceful_shutdown();
            }
            let gathers = polls > 0 && !self.conn.queue().is_empty();
            self.conn.begin_turn(gathers);
            if let Poll::Ready(end) = Pin::new(&mut self.hyper).poll(cx) {
                return Poll::Ready(end);
            }
            self.conn.queue().begin_turn(FRAMES_PER_TURN);
            let polled = self.requests.poll_ready(&mut polls);
            if polled {
                self.lifetime.note_busy();
            }
            if polls > 0 && (polled || self.conn.has_more()) {
                polls -= 1;
                continue;
            }
            match ready!(self.lifetime.poll_due(cx)) {
                Due::Input => {}
                Due::GoAway => Pin::new(&mut self.hyper).graceful_shutdown(),
                Due::End => return Poll::Ready(Ok(())),
            }
        }
    }
}

// ===== impl Lifetime =====

impl Lifetime {
    fn new(conn: Http2Conn, service: &Service) -> Self {
        let Config { head_timeout, idle_timeout, hub: HubConfig { drain_grace, .. }, .. } =
            *service.config();
        Self {
            conn,
            closer: service.closer(),
            head_timeout,
            idle_timeout,
            drain_grace,
            going_away: false,
            drains: false,
            idle: None,
            last: None,
            timer: service.timer(),
        }
    }

    /// There was a request, which may have ended within the same poll.
    fn note_busy(&mut self) {
        self.idle = None;
        _ = self.closer.note_busy();
    }

    /// From here on an idle connection has less time.
    fn drain(&mut self) {
        (self.drains, self.idle) = (true, None);
    }

    /// Whether GOAWAY has to be sent, because the worker closes its connections or has none for this one.
    fn begins_to_go_away(&mut self) -> bool {
        // Beyond a limit it answers one request before, so that the client learns why.
        let is_refused = || self.conn.had_request() && self.closer.is_unproven();
        let begins = !self.going_away && (self.drains || is_refused());
        self.going_away |= begins;
        begins
    }

    /// What is due, after hyper has been polled.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        if self.conn.withholds_end() {
            let last = self.last.get_or_insert_with(|| self.timer.sleep(LAST_RESPONSES));
            if self.conn.end_input(Pin::new(last).poll(cx).is_ready()) {
                return Poll::Ready(Due::Input);
            }
        }
        if !self.conn.is_idle(self.drains) {
            self.note_busy();
            return Poll::Pending;
        }
        let limit = if self.drains {
            self.drain_grace
        } else if self.conn.had_request() && !self.going_away {
            self.closer.note_idle();
            self.idle_timeout
        } else {
            self.head_timeout
        };
        ready!(Pin::new(self.idle.get_or_insert_with(|| self.timer.sleep(limit))).poll(cx));
        self.idle = None;
        let ignored = std::mem::replace(&mut self.going_away, true);
        Poll::Ready(if ignored { Due::End } else { Due::GoAway })
    }
}

fn builder(conn: &Http2Conn, config: &Config, timer: Timer) -> Builder<Http2Conn> {
    let mut builder = Builder::new(conn.clone());
    builder
        .timer(timer)
        .max_concurrent_streams(config.connection_streams_max)
        .max_header_list_size(u32::try_from(config.head_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS_MAX)
        // TCP_USER_TIMEOUT detects a dead machine; pings detect a dead process behind a live kernel.
        .keep_alive_interval(config.hub.keepalive)
        .keep_alive_timeout(config.peer_timeout);
    builder
}
