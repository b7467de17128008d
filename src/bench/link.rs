//! What carries the bytes of one HTTP/1 stream: a socket, or TLS over one.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};

use crate::client::tls::Tls;

/// A socket that does not block, and what is spoken over it.
pub(crate) trait Link: fmt::Debug + Send + Sized {
    /// What all links to one server share.
    type Shared: fmt::Debug + Send;

    fn over(socket: TcpStream, shared: &Self::Shared) -> io::Result<Self>;

    fn socket(&self) -> &TcpStream;

    /// Goes on towards the request and sends it when the time has come; true once it is sent.
    fn ask(&mut self, request: &[u8], buffer: &mut [u8]) -> io::Result<bool>;

    /// Reads once and hands on what that came to, until it is not taken.
    fn receive(&mut self, buffer: &mut [u8], take: impl FnMut(&[u8]) -> bool) -> io::Result<Got>;
}

/// What one read came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Got {
    /// So many bytes, which have emptied the socket.
    All(usize),
    /// So many bytes, and there may be more.
    Part(usize),
    /// Nothing, or something that was not taken: the stream is over.
    End,
}

/// TLS over a socket, with no more memory than the session itself and a record that is not whole yet.
pub(crate) struct Secured {
    socket: TcpStream,
    session: Box<UnbufferedClientConnection>,
    /// The beginning of a record.
    rest: Box<[u8]>,
}

/// The largest record with its head (RFC 8446, 5.2).
const RECORD_LEN_MAX: usize = 5 + (1 << 14) + 256;

// ===== impl Got =====

impl Got {
    fn new(taken: bool, length: usize, room: usize) -> Self {
        match (taken, length < room) {
            (false, _) => Self::End,
            (true, true) => Self::All(length),
            (true, false) => Self::Part(length),
        }
    }
}

// ===== impl TcpStream =====

impl Link for TcpStream {
    type Shared = ();

    fn over(socket: TcpStream, (): &()) -> io::Result<Self> {
        Ok(socket)
    }

    fn socket(&self) -> &TcpStream {
        self
    }

    fn ask(&mut self, request: &[u8], _: &mut [u8]) -> io::Result<bool> {
        self.take_error()?.map_or(Ok(()), Err)?;
        send(self, request)?;
        Ok(true)
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<Got> {
        let length = self.read(buffer)?;
        let taken = length > 0 && take(&buffer[..length]);
        Ok(Got::new(taken, length, buffer.len()))
    }
}

/// Writes what is far smaller than the buffer of a socket that is hardly used.
fn send(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    // Not `WouldBlock`, which would have us wait for the socket to be readable.
    socket.write_all(bytes).map_err(io::Error::other)
}

// ===== impl Secured =====

impl Link for Secured {
    type Shared = Tls;

    fn over(socket: TcpStream, tls: &Tls) -> io::Result<Self> {
        let session = UnbufferedClientConnection::new(tls.config.clone(), tls.name.clone());
        let session = session.map_err(io::Error::other)?.into();
        Ok(Self { socket, session, rest: Box::default() })
    }

    fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn ask(&mut self, request: &[u8], buffer: &mut [u8]) -> io::Result<bool> {
        self.socket.take_error()?.map_or(Ok(()), Err)?;
        if self.rest.is_empty() {
            // The first message is ours.
            self.process(&mut [], |_| true)?;
        }
        while self.session.is_handshaking() {
            match self.receive(buffer, |_| true) {
                Ok(Got::End) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        self.write(request)?;
        Ok(true)
    }

    fn receive(&mut self, buffer: &mut [u8], take: impl FnMut(&[u8]) -> bool) -> io::Result<Got> {
        let kept = self.rest.len();
        let room = buffer.len() - kept;
        if room == 0 {
            return Err(ErrorKind::OutOfMemory.into());
        }
        let length = self.socket.read(&mut buffer[kept..])?;
        buffer[..kept].copy_from_slice(&self.rest);
        let incoming = &mut buffer[..kept + length];
        let used = if length > 0 { self.process(incoming, take)? } else { None };
        if let Some(used) = used {
            self.rest = incoming[used..].into();
        }
        Ok(Got::new(used.is_some(), length, room))
    }
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Secured {
    /// Takes in what has come and answers what wants an answer. Returns how much of it is done with;
    /// nothing if the stream is over.
    fn process(
        &mut self,
        incoming: &mut [u8],
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<Option<usize>> {
        let mut used = 0;
        loop {
            let status = self.session.process_tls_records(&mut incoming[used..]);
            let UnbufferedStatus { mut discard, state, .. } = status;
            let mut waits = false;
            match state.map_err(io::Error::other)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        discard += record.discard;
                        if !take(record.payload) {
                            return Ok(None);
                        }
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let mut record = [0; RECORD_LEN_MAX];
                    let length = data.encode(&mut record).map_err(io::Error::other)?;
                    send(&mut self.socket, &record[..length])?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => {
                    waits = true;
                }
                _ => return Ok(None),
            }
            used += discard;
            if waits {
                return Ok(Some(used));
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut record = vec![0; bytes.len() + RECORD_LEN_MAX];
        let UnbufferedStatus { state, .. } = self.session.process_tls_records(&mut []);
        match state.map_err(io::Error::other)? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let length = traffic.encrypt(bytes, &mut record).map_err(io::Error::other)?;
                send(&mut self.socket, &record[..length])
            }
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }
}
