//! One connection, served by hyper.

use std::future::Future;
use std::pin::pin;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::http::Service;

/// Serves one connection until it ends, or until `draining` and what it has in flight has ended.
pub(crate) async fn serve(
    stream: TcpStream,
    service: Service,
    mut draining: watch::Receiver<bool>,
) {
    let config = service.config();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_timeout)
        .max_buf_size(config.head_bytes_max)
        .serve_connection(TokioIo::new(stream), service.clone());
    let mut connection = pin!(connection);
    let mut drain = pin!(draining.wait_for(|draining| *draining));
    let mut told = false;
    let ended = std::future::poll_fn(|cx| {
        if !told && drain.as_mut().poll(cx).is_ready() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    });
    if let Err(why) = ended.await {
        tracing::debug!(%why, "connection");
    }
}
