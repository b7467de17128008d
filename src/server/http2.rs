//! HTTP/2: one connection with many streams, each of which hyper polls as a body.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, ready};

use hyper::rt::{Read, Write};
use hyper::server::conn::http2::Builder;
use tokio::sync::watch;

use super::http2_conn::{Http2Conn, Http2Service};
use crate::config::Config;
use crate::http::{Service, Sleep, Timer};
use crate::metrics::CloseReason;

/// Bytes of events that hyper takes for a stream beyond its client's flow-control window; at least one event,
/// whose memory all streams share.
const SEND_BUFFER: usize = 8 * 1024;

/// Flow-control windows for request bodies, in bytes: of one request, and of the connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024;

/// Serves a connection until it ends, until the requests in flight end in a drain, or until it was idle for too
/// long.
pub(super) async fn serve<I>(
    io: I,
    conn: Http2Conn,
    service: Service,
    draining: watch::Receiver<bool>,
) where
    I: Read + Write + Send + Unpin + 'static,
{
    let Config { head_timeout, idle_timeout, .. } = *service.config();
    let (closer, timer) = (service.closer(), service.timer());
    let mut going_away = false;
    let mut hyper = builder(&conn, service.config(), timer.clone())
        .serve_connection(io, Http2Service { service, conn: conn.clone() });
    let mut draining = draining;
    let mut drain = pin!(draining.wait_for(|draining| *draining));
    // Runs while there is no request.
    let mut idle: Option<Sleep> = None;
    let end = poll_fn(|cx| {
        loop {
            if closer.is_closed() {
                return Poll::Ready(Ok(()));
            }
            // Beyond a limit it answers one request before GOAWAY, so that the client learns why.
            let is_refused = || conn.had_request() && closer.is_unproven();
            if !going_away && (is_refused() || drain.as_mut().poll(cx).is_ready()) {
                going_away = true;
                Pin::new(&mut hyper).graceful_shutdown();
            }
            if let Poll::Ready(end) = Pin::new(&mut hyper).poll(cx) {
                return Poll::Ready(end);
            }
            if !conn.is_idle(cx) {
                idle = None;
                _ = closer.note_busy();
                return Poll::Pending;
            }
            let limit = if conn.had_request() && !going_away {
                closer.note_idle();
                idle_timeout
            } else {
                head_timeout
            };
            ready!(Pin::new(idle.get_or_insert_with(|| timer.sleep(limit))).poll(cx));
            if going_away {
                // The client ignored GOAWAY.
                return Poll::Ready(Ok(()));
            }
            (going_away, idle) = (true, None);
            Pin::new(&mut hyper).graceful_shutdown();
        }
    });
    if let Err(why) = end.await {
        tracing::debug!(%why, "connection");
        if why.is_timeout() {
            conn.end_for(CloseReason::Timeout);
        }
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
        // TCP_USER_TIMEOUT detects a dead machine; pings detect a dead process behind a live kernel.
        .keep_alive_interval(config.hub.keepalive)
        .keep_alive_timeout(config.peer_timeout);
    builder
}
