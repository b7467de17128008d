//! A connection behind TLS: the handshake, then HTTP/1 or HTTP/2 as negotiated (ALPN).

use std::future::{Future, poll_fn};
use std::io;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsAcceptor;

use super::conn_context::ConnContext;
use super::http1::{Connection, End, HyperIo};
use super::http2;
use super::http2_conn::Http2Conn;
use super::reactor::{Accepted, Transport};
use super::socket::{Observer, Socket};
use super::tls_io::Session;
use crate::http::{Reject, ResponseFuture, Service, Sleep};

/// The IO that hyper gets.
type TlsIo = TokioIo<Session>;

/// Performs the handshake, and serves the connection to its end.
pub(super) async fn serve(accepted: Accepted, acceptor: TlsAcceptor, context: ConnContext) {
    let service = context.factory.service(accepted.admitted);
    let mut socket = match Socket::new(accepted.socket, Bytes::new()) {
        Ok(socket) => socket,
        Err(why) => return tracing::warn!(%why, "a connection could not be watched"),
    };
    let mut limit = service.timer().sleep(service.config().head_timeout);
    match within(&mut limit, poll_fn(|cx| socket.poll_first(cx))).await {
        // A handshake begins with 22 (RFC 8446, 5.1), a request with its method.
        Ok(Some(b'A'..=b'Z')) => return Box::pin(refuse(socket, service)).await,
        Ok(_) => {}
        Err(why) => return tracing::debug!(%why, "handshake"),
    }
    let session = match within(&mut limit, Session::accept(socket, acceptor)).await {
        Ok(session) => session,
        Err(why) => return tracing::debug!(%why, "handshake"),
    };
    let speaks_http2 = session.speaks_http2();
    let mut io = TokioIo::new(session);
    if speaks_http2 {
        let conn = Http2Conn::new();
        io.socket().observe(Observer::Http2(conn.clone()));
        http2::serve(io, conn, service, context.draining).await;
    } else {
        let mut connection = Connection::new(io, service, context);
        if let End::HandsOff(handoff) = connection.run().await {
            connection.hand_off(handoff);
        }
    }
}

async fn within<T>(limit: &mut Sleep, act: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    limit.limit(act).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

/// Responds 400 to a client that speaks cleartext HTTP, which would see nothing but a closed connection.
async fn refuse(socket: Socket, service: Service) {
    let config = service.config();
    let hyper = http1::Builder::new()
        .timer(service.timer())
        .header_read_timeout(config.head_timeout)
        .max_buf_size(config.head_bytes_max)
        .keep_alive(false)
        .serve_connection(socket, service_fn(|_| ResponseFuture::refusal(Reject::Cleartext)));
    if let Err(why) = hyper.await {
        tracing::debug!(%why, "connection");
    }
}

impl HyperIo for TlsIo {
    fn socket(&mut self) -> &mut Socket {
        self.inner_mut().socket()
    }

    fn into_transport(self) -> io::Result<Transport> {
        self.into_inner().into_transport()
    }
}
