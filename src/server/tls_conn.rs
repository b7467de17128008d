//! A connection behind TLS: the handshake, then HTTP/1 or HTTP/2 as negotiated (ALPN).

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::HTTP2;
use super::conn_context::ConnContext;
use super::http1::{Connection, End, HyperIo};
use super::http2;
use super::http2_conn::Http2Conn;
use super::reactor::{Accepted, Transport};
use super::socket::{Observer, Socket};
use crate::config::Config;
use crate::http::{Reject, ResponseFuture, Service};

/// The IO that hyper gets: a socket within its TLS session.
type TlsIo = TokioIo<TlsStream<TokioIo<Socket>>>;

/// Bytes of records that rustls buffers for a full socket.
const BUFFER: usize = 16 * 1024;

/// Performs the handshake, and serves the connection to its end.
pub(super) async fn serve(accepted: Accepted, acceptor: TlsAcceptor, context: ConnContext) {
    let service = context.factory.service(accepted.admitted);
    let handshake = handshake(accepted.socket, acceptor, &service, &context);
    let mut tls = match Box::pin(handshake).await {
        Ok(tls) => tls,
        Err(why) => return tracing::debug!(%why, "handshake"),
    };
    let (socket, session) = tls.get_mut();
    if session.alpn_protocol() == Some(HTTP2) {
        let conn = Http2Conn::new(service.config().body_timeout);
        socket.inner_mut().observe(Observer::Http2(conn.clone()));
        http2::serve(tls, conn, service, context.draining).await;
    } else {
        let mut connection = Connection::new(TokioIo::new(tls), service, context);
        match connection.run().await {
            End::HandsOff(handoff) => connection.hand_off(handoff),
            End::Held => connection.reset(),
            End::Closed | End::IsHttp2 => {}
        }
    }
}

/// Performs the handshake within the time that a request head may take, or refuses a client that begins none.
async fn handshake(
    socket: TcpStream,
    acceptor: TlsAcceptor,
    service: &Service,
    context: &ConnContext,
) -> io::Result<TlsStream<TokioIo<Socket>>> {
    let config = service.config();
    let mut deadline = pin!(context.deadline(Instant::now() + config.head_timeout));
    let unwatched = |why: &io::Error| tracing::warn!(%why, "a connection could not be watched");
    let mut socket = Socket::new(socket, Bytes::new()).inspect_err(unwatched)?;
    let first = within(deadline.as_mut(), poll_fn(|cx| socket.poll_first(cx))).await?;
    // A handshake begins with 22 (RFC 8446, 5.1), a request with its method.
    if matches!(first, Some(b'A'..=b'Z')) {
        within(deadline, refuse(socket, config)).await?;
        return Err(io::Error::other("a request in cleartext"));
    }
    let socket = TokioIo::new(socket);
    within(deadline, acceptor.accept_with(socket, |tls| tls.set_buffer_limit(Some(BUFFER)))).await
}

/// What `act` results in, or an error if the deadline comes first.
async fn within<T>(
    mut deadline: Pin<&mut impl Future<Output = ()>>,
    act: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let mut act = pin!(act);
    poll_fn(|cx| match act.as_mut().poll(cx) {
        Poll::Pending => deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        done => done,
    })
    .await
}

/// Responds 400 to a client that speaks cleartext HTTP, which would see nothing but a closed connection.
async fn refuse(socket: Socket, config: &Config) -> io::Result<()> {
    let hyper = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_timeout)
        .max_buf_size(config.head_bytes_max)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(socket, service_fn(|_| ResponseFuture::refusal(Reject::Cleartext)));
    hyper.await.map_err(io::Error::other)
}

impl HyperIo for TlsIo {
    fn socket(&mut self) -> &mut Socket {
        self.inner_mut().get_mut().0.inner_mut()
    }

    fn into_transport(self) -> io::Result<Transport> {
        let (socket, session) = self.into_inner().into_inner();
        Ok(Transport::tls(socket.into_inner().into_inner()?, session))
    }
}
