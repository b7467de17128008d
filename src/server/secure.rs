//! A connection behind TLS: the handshake, and then what was agreed on in it.

use std::io;

use hyper_util::rt::TokioIo;
use mio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::conn::{Connection, End, Transport};
use super::http2;
use super::socket::{Socket, Witness};
use super::tls::HTTP2;
use super::trunk::Trunk;
use crate::http::Service;
use crate::stream::Outlet;

/// The socket behind its session, as hyper sees it.
type Secure = TokioIo<TlsStream<TokioIo<Socket>>>;

/// Bytes that rustls holds, encrypted, for a socket that is full.
const BUFFER: usize = 16 * 1024;

/// Does the handshake, and serves the connection to its end.
pub(super) async fn serve(
    socket: TcpStream,
    service: Service,
    acceptor: TlsAcceptor,
    draining: watch::Receiver<bool>,
) {
    let socket = TokioIo::new(Socket::new(socket, Witness::Nobody));
    let limit = service.config().head_timeout;
    let handshake = acceptor.accept_with(socket, |tls| tls.set_buffer_limit(Some(BUFFER)));
    #[expect(clippy::disallowed_methods, reason = "before there is a stream, as hyper's for heads")]
    let handshake = tokio::time::timeout(limit, handshake).await;
    let mut tls = match handshake.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(tls) => tls,
        Err(why) => return tracing::debug!(%why, "handshake"),
    };
    let (socket, session) = tls.get_mut();
    if session.alpn_protocol() == Some(HTTP2) {
        let trunk = Trunk::new();
        socket.inner_mut().tell(Witness::Trunk(trunk.clone()));
        http2::serve(TokioIo::new(tls), trunk, service, draining).await;
    } else {
        let mut connection = Connection::on(TokioIo::new(tls), service);
        if let End::Parks(departing) = connection.run(draining).await {
            connection.park(departing);
        }
    }
}

impl Transport for Secure {
    fn socket(&mut self) -> &mut Socket {
        self.inner_mut().get_mut().0.inner_mut()
    }

    fn leave(self) -> io::Result<Outlet> {
        let (socket, session) = self.into_inner().into_inner();
        Ok(Outlet::secure(socket.into_inner().into_inner()?, session))
    }
}
