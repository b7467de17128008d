//! What a streaming connection writes to: its socket, through a TLS session if it has one.

#[cfg(feature = "tls")]
use std::io::BufRead as _;
use std::io::{self, IoSlice, Read, Write};

#[cfg(test)]
use super::tests::Metered;
use mio::net::TcpStream;
#[cfg(feature = "tls")]
use rustls::ServerConnection;

#[cfg(all(feature = "tls", target_os = "linux"))]
use crate::server::tls::SealedState;
#[cfg(feature = "tls")]
use crate::server::tls::SealedTransport;

/// A socket that does not block. Bytes that were written have left the process once [`flush`](Write::flush)
/// succeeds.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(TcpStream),
    /// Behind TLS, with a session of rustls.
    #[cfg(feature = "tls")]
    Tls(Box<TlsTransport>),
    /// Behind TLS 1.3, without one.
    #[cfg(feature = "tls")]
    Sealed(Box<SealedTransport>),
    #[cfg(test)]
    Metered(Box<Metered>),
}

/// A TLS session and its socket. The session holds records that a full socket does not take yet, up to its
/// buffer limit.
#[cfg(feature = "tls")]
#[derive(Debug)]
pub(crate) struct TlsTransport {
    socket: TcpStream,
    session: ServerConnection,
    /// The socket took bytes, which [`Transport::progressed`] has not reported yet.
    progressed: bool,
}

// ===== impl Transport =====

impl Transport {
    #[cfg(feature = "tls")]
    pub(crate) fn tls(socket: TcpStream, session: ServerConnection) -> Self {
        Self::Tls(Box::new(TlsTransport { socket, session, progressed: false }))
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Self::Tls(tls) => &mut tls.socket,
            #[cfg(feature = "tls")]
            Self::Sealed(sealed) => sealed.socket_mut(),
            #[cfg(test)]
            Self::Metered(metered) => &mut metered.socket,
        }
    }

    /// Its socket, if another process can go on with it.
    #[cfg(target_os = "linux")]
    pub(crate) fn movable(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            #[cfg(feature = "tls")]
            Self::Tls(_) => None,
            #[cfg(feature = "tls")]
            Self::Sealed(sealed) => Some(sealed.socket()),
            #[cfg(test)]
            Self::Metered(_) => None,
        }
    }

    /// Discards some of what the client has sent, at most as much as `bytes` can hold, which has to be something.
    /// Returns the number of bytes that were read from the socket; 0 at the end.
    pub(crate) fn discard(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(bytes),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.discard(bytes.len()),
            #[cfg(feature = "tls")]
            Self::Sealed(sealed) => sealed.discard(bytes),
            #[cfg(test)]
            Self::Metered(metered) => metered.discard(bytes),
        }
    }

    /// Discards what was read from the socket before the stream, if anything is left of it. Returns whether the end
    /// of the connection was read with it.
    pub(crate) fn discard_held(&mut self) -> io::Result<bool> {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.discard_held(),
            #[cfg(feature = "tls")]
            Self::Sealed(sealed) => sealed.discard_held(),
            _ => Ok(false),
        }
    }

    /// Whether the socket took some of a record since this was asked last.
    pub(crate) fn progressed(&mut self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(tls) => std::mem::take(&mut tls.progressed),
            #[cfg(feature = "tls")]
            Self::Sealed(sealed) => sealed.progressed(),
            _ => false,
        }
    }

    /// Records that the present key of a released TLS session has protected.
    #[cfg(feature = "tls")]
    pub(crate) fn records_sealed(&self) -> u64 {
        match self {
            Self::Sealed(sealed) => sealed.records_sealed(),
            _ => 0,
        }
    }

    /// What another process needs of a TLS session, beside the socket.
    #[cfg(all(feature = "tls", target_os = "linux"))]
    pub(crate) fn sealed_state(&self) -> Option<SealedState> {
        match self {
            Self::Sealed(sealed) => Some(sealed.state()),
            _ => None,
        }
    }

    /// Whether there is something to write although no event is: what a full socket has not taken, or an answer to the
    /// client's TLS.
    pub(crate) fn has_pending(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Self::Sealed(sealed) => sealed.has_pending(),
            _ => false,
        }
    }

    /// Sends close_notify (RFC 8446, 6.1).
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: the socket is full; this has to be called again.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(tls) => {
                tls.session.send_close_notify();
                tls.flush()
            }
            #[cfg(feature = "tls")]
            Self::Sealed(sealed) => sealed.close(),
            _ => Ok(()),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.take(|session| session.writer().write(bytes)),
            #[cfg(feature = "tls")]
            Self::Sealed(sealed) => sealed.write(&[IoSlice::new(bytes)]),
            #[cfg(test)]
            Self::Metered(metered) => metered.take(bytes),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(parts),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.take(|session| session.writer().write_vectored(parts)),
            #[cfg(feature = "tls")]
            Self::Sealed(sealed) => sealed.write(parts),
            #[cfg(test)]
            Self::Metered(metered) => metered.take(&parts[0]),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.flush(),
            #[cfg(feature = "tls")]
            Self::Sealed(sealed) => sealed.flush(),
            #[cfg(test)]
            Self::Metered(_) => Ok(()),
        }
    }
}

// ===== impl TlsTransport =====

#[cfg(feature = "tls")]
impl TlsTransport {
    /// Gives the session more to encrypt, once it holds no record.
    fn take(
        &mut self,
        some: impl FnOnce(&mut ServerConnection) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.flush()?;
        let taken = some(&mut self.session)?;
        match self.flush() {
            Err(why) if why.kind() != io::ErrorKind::WouldBlock => Err(why),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => self.progressed = true,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    fn discard(&mut self, most: usize) -> io::Result<usize> {
        let read = self.session.read_tls(&mut (&mut self.socket).take(most as u64))?;
        let processed = self.session.process_new_packets();
        processed.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
        let has_ended = self.discard_held()?;
        Ok(if has_ended { 0 } else { read })
    }

    /// Discards the data that the session has decrypted. Returns whether the client has closed the session after it.
    fn discard_held(&mut self) -> io::Result<bool> {
        let mut reader = self.session.reader();
        loop {
            let held = match reader.fill_buf() {
                Ok(held) => held.len(),
                Err(why) => {
                    return match why.kind() {
                        io::ErrorKind::WouldBlock => Ok(false),
                        io::ErrorKind::UnexpectedEof => Ok(true),
                        _ => Err(why),
                    };
                }
            };
            if held == 0 {
                return Ok(true);
            }
            reader.consume(held);
        }
    }
}
