//! A connection behind TLS: the handshake, then HTTP/1 or HTTP/2 as negotiated (ALPN).

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mio::net::TcpStream;

use super::handshake::{Handshake, is_cleartext};
use super::session::Session;
use super::tls_session::TlsSession;
use crate::http::{Reject, ResponseFuture, Service};
use crate::server::conn_context::ConnContext;
use crate::server::http1::{Connection, End, HyperIo};
use crate::server::http2;
use crate::server::http2_conn::Http2Conn;
use crate::server::reactor::Transport;
use crate::server::socket::{Observer, Socket};

/// The IO that hyper gets.
type TlsIo = TokioIo<Session>;

/// Completes the handshake, for which there is this much time, and serves the connection to its end.
pub(super) async fn serve(
    socket: TcpStream,
    handshake: Handshake,
    limit: Duration,
    service: Service,
    context: ConnContext,
) {
    let deadline = context.deadline(service.timer(), limit);
    let completed = complete(socket, handshake, deadline, &service);
    let mut session = match Box::pin(completed).await {
        Ok(session) => session,
        Err(why) => return tracing::debug!(%why, "handshake"),
    };
    if session.speaks_http2() {
        let conn = Http2Conn::new(service.config().body_timeout, service.timer());
        session.socket().observe(Observer::Http2(conn.clone()));
        http2::serve(session, conn, service, context.draining).await;
    } else {
        let mut connection = Connection::new(TokioIo::new(session), service, context);
        match connection.run().await {
            End::HandsOff(handoff) => connection.hand_off(handoff),
            End::Held => connection.reset(),
            End::Closed | End::IsHttp2 | End::PassesOn => {}
        }
    }
}

/// Completes the handshake before the deadline, or refuses a client that begins none.
async fn complete(
    socket: TcpStream,
    handshake: Handshake,
    deadline: impl Future<Output = ()>,
    service: &Service,
) -> io::Result<Session> {
    let mut deadline = pin!(deadline);
    let read = if let Handshake::Cleartext(first) = &handshake {
        Bytes::clone(first)
    } else {
        Bytes::new()
    };
    let unwatched = |why: &io::Error| tracing::warn!(%why, "a connection could not be watched");
    let mut socket = Socket::new(socket, read).inspect_err(unwatched)?;
    let tls = match handshake {
        Handshake::Begun(tls) => Some(tls),
        Handshake::Cleartext(_) => None,
        Handshake::Silent(config) => {
            let first = within(deadline.as_mut(), poll_fn(|cx| socket.poll_first(cx))).await?;
            let begins = || TlsSession::new(config).map(Box::new).map_err(io::Error::other);
            if is_cleartext(first.as_ref()) { None } else { Some(begins()?) }
        }
    };
    let Some(tls) = tls else {
        within(deadline, refuse(socket, service)).await?;
        return Err(io::Error::other("a request in cleartext"));
    };
    let mut session = Session::new(socket, tls);
    within(deadline, session.complete_handshake()).await?;
    Ok(session)
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
async fn refuse(socket: Socket, service: &Service) -> io::Result<()> {
    let config = service.config();
    let hyper = http1::Builder::new()
        .timer(service.timer())
        .header_read_timeout(config.head_timeout)
        .max_buf_size(config.head_bytes_max)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(socket, service_fn(|_| ResponseFuture::refusal(Reject::Cleartext)));
    hyper.await.map_err(io::Error::other)
}

impl HyperIo for TlsIo {
    const IS_PLAIN: bool = false;

    fn socket(&mut self) -> &mut Socket {
        self.inner_mut().socket()
    }

    fn into_transport(self) -> io::Result<Transport> {
        self.into_inner().into_transport()
    }
}
