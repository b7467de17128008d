//! HTTP/2: one connection that carries many streams, each polled by hyper as a body.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, ready};

use hyper::rt::{Read, Write};
use hyper::server::conn::http2::Builder;
use hyper_util::rt::TokioTimer;
use tokio::sync::watch;
use tokio::time::Sleep;

use super::http2_conn::{Http2Conn, Http2Service};
use crate::config::Config;
use crate::http::Service;
use crate::metrics::CloseReason;

/// Bytes of events that are held for a stream beyond what its client has room for; always one event at
/// least, whose memory all streams share.
const SEND_BUFFER: usize = 8 * 1024;

/// Bytes of publishes that a client may send before they are read: of one request, and of all.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024;

/// Serves a connection until it ends, until `draining` and its requests are over, or until there was no
/// request for as long as there may be none.
pub(super) async fn serve<I>(
    io: I,
    conn: Http2Conn,
    service: Service,
    draining: watch::Receiver<bool>,
) where
    I: Read + Write + Send + Unpin + 'static,
{
    let limit = service.config().head_timeout;
    let mut told = false;
    // It is told why before it is told to go.
    let may_ask_once = service.over_limit();
    let mut hyper = builder(&conn, service.config())
        .serve_connection(io, Http2Service { service, conn: conn.clone() });
    let mut draining = draining;
    let mut drain = pin!(draining.wait_for(|draining| *draining));
    // Runs while there is no request.
    let mut idle: Option<Pin<Box<Sleep>>> = None;
    let end = poll_fn(|cx| {
        loop {
            let has_asked = may_ask_once && conn.was_asked();
            if !told && (has_asked || drain.as_mut().poll(cx).is_ready()) {
                told = true;
                Pin::new(&mut hyper).graceful_shutdown();
            }
            if let Poll::Ready(end) = Pin::new(&mut hyper).poll(cx) {
                return Poll::Ready(end);
            }
            if !conn.is_idle(cx) {
                idle = None;
                return Poll::Pending;
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "while there is no stream, as for HTTP/1"
            )]
            let timer = idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            ready!(timer.as_mut().poll(cx));
            if told {
                // Its client does not let go.
                return Poll::Ready(Ok(()));
            }
            (told, idle) = (true, None);
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

fn builder(conn: &Http2Conn, config: &Config) -> Builder<Http2Conn> {
    let mut builder = Builder::new(conn.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.connection_streams_max)
        .max_header_list_size(u32::try_from(config.head_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        // A dead peer is found by its kernel's silence too; these find one whose kernel is all that lives.
        .keep_alive_interval(config.hub.keepalive)
        .keep_alive_timeout(config.peer_timeout);
    builder
}
