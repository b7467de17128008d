//! The socket of a connection, as hyper sees it.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::mem;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use mio::net::TcpStream;

use crate::http::Parking;

/// A socket that the runtime watches only once it has to wait. What can be answered at once, which is
/// most of what opens a stream, is spared two calls of epoll_ctl(2) and what the runtime allocates.
///
/// It tells, through the worker's [`Parking`], when it took no more.
#[derive(Debug)]
pub(super) struct Socket {
    state: State,
    parking: Option<Parking>,
}

#[derive(Debug)]
enum State {
    Fresh(TcpStream),
    Watched(TokioIo<tokio::net::TcpStream>),
    /// The runtime refused to watch it.
    Lost,
}

/// Bytes that one read takes while the socket is fresh. A request is seldom longer.
const FRESH_READ: usize = 2048;

// ===== impl Socket =====

impl Socket {
    pub(super) fn new(socket: TcpStream, parking: Option<Parking>) -> Self {
        Self { state: State::Fresh(socket), parking }
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

    fn note<T>(&self, wrote: Poll<T>) -> Poll<T> {
        if let (Poll::Pending, Some(parking)) = (&wrote, &self.parking) {
            parking.note_blocked();
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
        if self.parking.as_ref().is_some_and(Parking::is_leaving) {
            return Poll::Pending;
        }
        let mut bytes = [0; FRESH_READ];
        let most = buf.remaining().min(bytes.len());
        match self.try_fresh(|socket| socket.read(&mut bytes[..most]))? {
            Some(length) => {
                buf.put_slice(&bytes[..length]);
                Poll::Ready(Ok(()))
            }
            None => self.watched()?.poll_read(cx, buf),
        }
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(length) = self.try_fresh(|socket| socket.write(buf))? {
            return Poll::Ready(Ok(length));
        }
        let wrote = self.watched()?.poll_write(cx, buf);
        self.note(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(length) = self.try_fresh(|socket| socket.write_vectored(bufs))? {
            return Poll::Ready(Ok(length));
        }
        let wrote = self.watched()?.poll_write_vectored(cx, bufs);
        self.note(wrote)
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
