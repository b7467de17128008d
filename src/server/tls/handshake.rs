//! A connection behind TLS before its first request, which the reactor takes so far, or a task.

use std::io::{self, ErrorKind, Read as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mio::net::TcpStream;
use rustls::ServerConfig;

use super::conn;
use super::tls_session::TlsSession;
use crate::http::Verdict;
use crate::server::conn_context::ConnContext;
use crate::server::reactor::{Accepted, Transport};

/// How far such a connection is.
#[derive(Debug)]
pub(crate) enum Handshake {
    /// Its client has sent nothing.
    Silent(Arc<ServerConfig>),
    /// Its client speaks cleartext HTTP, and has sent this.
    Cleartext(Box<Bytes>),
    /// The handshake has begun, or is complete.
    Begun(Box<TlsSession>),
}

/// What one read has come to.
#[derive(Debug)]
pub(crate) enum Progress {
    /// There is more to come.
    Waits,
    /// There may be more to read, which nothing announces.
    Unread,
    /// The first data. They are still in the session.
    Data(Bytes),
    /// A task has to go on.
    Leaves,
}

// ===== impl Handshake =====

impl Handshake {
    /// Whether something was read.
    pub(crate) fn has_begun(&self) -> bool {
        !matches!(self, Self::Silent(_))
    }

    /// Reads once from a socket that is ready, at most as much as `bytes` can hold, and goes as far as that leads.
    ///
    /// # Errors
    /// The connection is over: it has ended, or its client broke the protocol.
    pub(crate) fn advance(
        &mut self,
        socket: &mut TcpStream,
        bytes: &mut [u8],
    ) -> io::Result<Progress> {
        let length = loop {
            match socket.read(bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => break length,
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(Progress::Waits),
                Err(why) => return Err(why),
            }
        };
        let received = &bytes[..length];
        if let Self::Silent(config) = self {
            *self = if is_cleartext(received.first()) {
                Self::Cleartext(Box::new(Bytes::copy_from_slice(received)))
            } else {
                let session = TlsSession::new(config.clone()).map_err(io::Error::other)?;
                Self::Begun(Box::new(session))
            };
        }
        let Self::Begun(session) = self else { return Ok(Progress::Leaves) };
        session.receive(received)?;
        let may_be_more = length == bytes.len();
        let progress = advance(session, socket);
        if progress.is_err() {
            // The alert, if the socket takes it.
            _ = write_records(session, socket);
        }
        Ok(match progress? {
            Progress::Waits if may_be_more => Progress::Unread,
            Progress::Data(_) if may_be_more => Progress::Leaves,
            progress => progress,
        })
    }

    /// What the stream writes to that begins with so many bytes of the first data.
    ///
    /// # Errors
    /// The client broke the protocol after its request.
    pub(crate) fn into_transport(self, used: usize, socket: TcpStream) -> io::Result<Transport> {
        match self {
            Self::Begun(mut session) => {
                session.consume(used);
                session.into_transport(socket)
            }
            Self::Silent(_) | Self::Cleartext(_) => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Has a task serve the connection to its end. Within `limit`, the handshake has to be complete. `verdict` is on the
    /// first request.
    pub(crate) fn serve(
        self,
        accepted: Accepted,
        limit: Duration,
        verdict: Option<Verdict>,
        context: ConnContext,
    ) {
        let closer = accepted.admitted.closer();
        let service = context.factory.service(accepted.admitted).with_verdict(verdict);
        let served = conn::serve(accepted.socket, self, limit, service, context);
        tokio::spawn(closer.guard(served));
    }
}

/// Whether a connection that begins so is a request in cleartext: a handshake begins with 22 (RFC 8446, 5.1), a request
/// with its method.
pub(super) fn is_cleartext(first: Option<&u8>) -> bool {
    matches!(first, Some(b'A'..=b'Z'))
}

/// Processes what was received, and writes what follows from it.
fn advance(session: &mut TlsSession, socket: &mut TcpStream) -> io::Result<Progress> {
    loop {
        while session.process_record()? {
            let data = match session.data() {
                Ok(data) => data,
                Err(why) if why.kind() == ErrorKind::WouldBlock => continue,
                Err(why) => return Err(why),
            };
            // Without any, the client has closed the session.
            let data = Bytes::copy_from_slice(data);
            let leaves = data.is_empty() || session.speaks_http2();
            return Ok(if leaves { Progress::Leaves } else { Progress::Data(data) });
        }
        if !session.wants_write() {
            let leaves = session.speaks_http2() && !session.is_handshaking();
            return Ok(if leaves { Progress::Leaves } else { Progress::Waits });
        }
        if !write_records(session, socket)? {
            return Ok(Progress::Leaves);
        }
    }
}

/// Writes what rustls has to send. Returns whether the socket took all of it.
fn write_records(session: &mut TlsSession, socket: &mut TcpStream) -> io::Result<bool> {
    while session.wants_write() {
        match session.write_to(socket) {
            Ok(_) => {}
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(why) => return Err(why),
        }
    }
    Ok(true)
}
