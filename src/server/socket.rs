//! The socket of a connection, as hyper sees it.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::mem;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use mio::net::TcpStream;
use socket2::SockRef;

use super::trunk::Trunk;
use crate::http::Parking;
use crate::metrics::CloseReason;
use crate::stream::Line;

/// A socket that the runtime watches only once it has to wait. What can be answered at once, which is
/// most of what opens a stream, is spared two calls of epoll_ctl(2) and what the runtime allocates.
#[derive(Debug)]
pub(crate) struct Socket {
    state: State,
    witness: Witness,
    /// Read before, and to be read again.
    unread: Bytes,
    /// How many bytes of [`PREFACE`] were read, as long as nothing else was. hyper's parser of HTTP/1
    /// knows the preface once it has all of it, and refuses the beginning of it.
    undecided: Option<usize>,
}

/// Who is told what becomes of reads and writes.
#[derive(Debug)]
pub(super) enum Witness {
    /// It is not known yet what the connection will carry.
    Nobody,
    /// A connection whose stream leaves it.
    Parking(Parking),
    /// A connection whose stream stays.
    Line(Line),
    /// A connection of many streams.
    Trunk(Trunk),
}

#[derive(Debug)]
enum State {
    Fresh(TcpStream),
    Watched(TokioIo<tokio::net::TcpStream>),
    /// The runtime refused to watch it.
    Lost,
}

/// What a client says first that speaks HTTP/2 (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that one read takes while the socket is fresh. A request is seldom longer.
const FRESH_READ: usize = 2048;

// ===== impl Socket =====

impl Socket {
    pub(super) fn new(socket: TcpStream, witness: Witness) -> Self {
        Self { state: State::Fresh(socket), witness, unread: Bytes::new(), undecided: Some(0) }
    }

    pub(super) fn tell(&mut self, witness: Witness) {
        self.witness = witness;
    }

    /// Has these bytes read again, before what the socket has.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        self.unread = bytes;
    }

    /// The socket, which the runtime no longer watches.
    pub(super) fn into_inner(self) -> io::Result<TcpStream> {
        match self.state {
            State::Fresh(socket) => Ok(socket),
            State::Watched(socket) => Ok(TcpStream::from_std(socket.into_inner().into_std()?)),
            State::Lost => Err(lost()),
        }
    }

    /// Tries on a fresh socket. `None`: the runtime watches it, and has to be asked.
    fn try_fresh<T>(
        &mut self,
        mut act: impl FnMut(&mut TcpStream) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        loop {
            let State::Fresh(socket) = &mut self.state else { return Ok(None) };
            match act(socket) {
                Ok(done) => return Ok(Some(done)),
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) if why.kind() == ErrorKind::WouldBlock => self.watch()?,
                Err(why) => return Err(why),
            }
        }
    }

    fn watch(&mut self) -> io::Result<()> {
        if let State::Fresh(socket) = mem::replace(&mut self.state, State::Lost) {
            let socket = tokio::net::TcpStream::from_std(socket.into())?;
            self.state = State::Watched(TokioIo::new(socket));
        }
        Ok(())
    }

    fn watched(&mut self) -> io::Result<Pin<&mut TokioIo<tokio::net::TcpStream>>> {
        match &mut self.state {
            State::Watched(socket) => Ok(Pin::new(socket)),
            State::Fresh(_) | State::Lost => Err(lost()),
        }
    }

    /// Reads bytes of which it is clear whether they are a preface. Returns how many.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let held = self.undecided.unwrap_or(0);
            bytes[..held].copy_from_slice(&PREFACE[..held]);
            let read = match self.try_fresh(|socket| socket.read(&mut bytes[held..])) {
                Ok(Some(length)) => Poll::Ready(Ok(length)),
                Ok(None) => {
                    let mut buf = ReadBuf::new(&mut bytes[held..]);
                    let read = self.watched()?.poll_read(cx, buf.unfilled());
                    read.map_ok(|()| buf.filled().len())
                }
                Err(why) => Poll::Ready(Err(why)),
            };
            self.note_read(&read);
            let length = held + ready!(read)?;
            let grows = length > held && length < PREFACE.len();
            if self.undecided.is_some() && grows && PREFACE.starts_with(&bytes[..length]) {
                self.undecided = Some(length);
                continue;
            }
            self.undecided = None;
            return Poll::Ready(Ok(length));
        }
    }

    /// The first byte that comes, which is left to be read; `None` at the end.
    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<u8>>> {
        let mut bytes = [0; FRESH_READ];
        let length = ready!(self.poll_bytes(cx, &mut bytes))?;
        self.unread = Bytes::copy_from_slice(&bytes[..length]);
        Poll::Ready(Ok(self.unread.first().copied()))
    }

    /// Tells of a read.
    fn note_read<T>(&self, read: &Poll<io::Result<T>>) {
        match &self.witness {
            Witness::Line(line) => line.read(read),
            Witness::Trunk(trunk) => trunk.note(read),
            Witness::Parking(_) | Witness::Nobody => {}
        }
    }

    /// Tells of a write, and passes on what became of it, unless the socket is full and its stream has
    /// to end.
    fn note_write(&self, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &self.witness {
            Witness::Line(line) => {
                let Some(reason) = line.wrote(&wrote) else { return wrote };
                if let (CloseReason::Stalled, State::Watched(socket)) = (reason, &self.state) {
                    // The kernel would keep what it holds for who does not read it.
                    _ = SockRef::from(socket.inner()).set_linger(Some(Duration::ZERO));
                }
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            Witness::Trunk(trunk) => trunk.note(&wrote),
            Witness::Parking(parking) if wrote.is_pending() => parking.note_blocked(),
            Witness::Parking(_) | Witness::Nobody => {}
        }
        wrote
    }
}

fn lost() -> io::Error {
    io::Error::other("the runtime does not watch this socket")
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // Its stream is about to be parked; the lot hears what else comes.
        if matches!(&self.witness, Witness::Parking(parking) if parking.is_leaving()) {
            return Poll::Pending;
        }
        if !self.unread.is_empty() {
            let most = buf.remaining().min(self.unread.len());
            buf.put_slice(&self.unread.split_to(most));
            return Poll::Ready(Ok(()));
        }
        if self.undecided.is_none() && matches!(self.state, State::Watched(_)) {
            let read = self.watched()?.poll_read(cx, buf);
            self.note_read(&read);
            return read;
        }
        let mut bytes = [0; FRESH_READ];
        let most = buf.remaining().min(bytes.len());
        let length = ready!(self.poll_bytes(cx, &mut bytes[..most]))?;
        buf.put_slice(&bytes[..length]);
        Poll::Ready(Ok(()))
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = match self.try_fresh(|socket| socket.write(buf)) {
            Ok(None) => self.watched()?.poll_write(cx, buf),
            Ok(Some(length)) => Poll::Ready(Ok(length)),
            Err(why) => Poll::Ready(Err(why)),
        };
        self.note_write(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = match self.try_fresh(|socket| socket.write_vectored(bufs)) {
            Ok(None) => self.watched()?.poll_write_vectored(cx, bufs),
            Ok(Some(length)) => Poll::Ready(Ok(length)),
            Err(why) => Poll::Ready(Err(why)),
        };
        self.note_write(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// A socket has no buffer of its own to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Fresh(socket) => Poll::Ready(socket.shutdown(Shutdown::Write)),
            State::Watched(socket) => Pin::new(socket).poll_shutdown(cx),
            State::Lost => Poll::Ready(Err(lost())),
        }
    }
}
