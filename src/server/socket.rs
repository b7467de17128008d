//! The socket of a connection, as hyper sees it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use mio::net::TcpStream;
use socket2::SockRef;

use super::head_clock::HeadClock;
use super::http2_conn::Http2Conn;
use crate::config::READS_PER_TURN;
use crate::http::HandoffSlot;

/// A socket that the runtime watches.
#[derive(Debug)]
pub(crate) struct Socket {
    inner: TokioIo<tokio::net::TcpStream>,
    observer: Observer,
    /// Bytes to be read again, before those of the socket.
    unread: Bytes,
    /// The number of bytes of [`PREFACE`] that were read, as long as nothing else was. hyper's HTTP/1 parser
    /// recognises the whole preface only, and rejects a part of it.
    preface_read: Option<usize>,
    /// Reads that succeeded since one had to wait.
    reads: u32,
    /// hyper has written, or tried to.
    has_written: bool,
}

/// What learns the results of reads and writes.
#[derive(Debug)]
pub(super) enum Observer {
    /// Nothing yet: the protocol is not known.
    None,
    /// HTTP/1, whose stream leaves hyper, and whose heads are timed.
    Http1(HandoffSlot, HeadClock),
    /// HTTP/2.
    Http2(Http2Conn),
}

/// The first bytes of HTTP/2 (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of one read while they may still be the preface.
const FIRST_READ: usize = 2048;

// ===== impl Socket =====

impl Socket {
    /// A socket from which `read` was read, and is to be read again. Inside a runtime.
    pub(super) fn new(socket: TcpStream, read: Bytes) -> io::Result<Self> {
        let inner = TokioIo::new(tokio::net::TcpStream::from_std(socket.into())?);
        let may_be_preface = PREFACE.starts_with(&read);
        let (unread, preface_read) =
            if may_be_preface { (Bytes::new(), Some(read.len())) } else { (read, None) };
        let observer = Observer::None;
        Ok(Self { inner, observer, unread, preface_read, reads: 0, has_written: false })
    }

    pub(super) fn observe(&mut self, observer: Observer) {
        self.observer = observer;
    }

    pub(super) fn has_written(&self) -> bool {
        self.has_written
    }

    /// Puts bytes back, which are read again before those of the socket.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        self.unread = bytes;
    }

    /// The socket, which the runtime no longer watches.
    pub(super) fn into_inner(self) -> io::Result<TcpStream> {
        Ok(TcpStream::from_std(self.inner.into_inner().into_std()?))
    }

    /// The same, with what it still held of the bytes that were read.
    pub(super) fn into_passed(self) -> io::Result<(TcpStream, Bytes)> {
        let held = match self.preface_read {
            Some(length) => Bytes::from_static(&PREFACE[..length]),
            None => self.unread.clone(),
        };
        Ok((self.into_inner()?, held))
    }

    /// Has the kernel discard what the client has not read, and reset the connection once this is dropped.
    pub(super) fn discard_unsent(&self) {
        _ = SockRef::from(self.inner.inner()).set_linger(Some(Duration::ZERO));
    }

    fn inner(&mut self) -> Pin<&mut TokioIo<tokio::net::TcpStream>> {
        Pin::new(&mut self.inner)
    }

    /// Reads until it is clear whether the bytes are the preface. Returns the number of bytes.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let held = self.preface_read.unwrap_or(0);
            bytes[..held].copy_from_slice(&PREFACE[..held]);
            let mut buf = ReadBuf::new(&mut bytes[held..]);
            let read = self.inner().poll_read(cx, buf.unfilled());
            let length = held + buf.filled().len();
            self.note_read(&read)?;
            ready!(read)?;
            let grows = length > held && length < PREFACE.len();
            if self.preface_read.is_some() && grows && PREFACE.starts_with(&bytes[..length]) {
                self.preface_read = Some(length);
                continue;
            }
            self.preface_read = None;
            return Poll::Ready(Ok(length));
        }
    }

    /// Peeks at the first byte of the connection; `None` at its end.
    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<u8>>> {
        let mut bytes = [0; FIRST_READ];
        let length = ready!(self.poll_bytes(cx, &mut bytes))?;
        self.unread = Bytes::copy_from_slice(&bytes[..length]);
        Poll::Ready(Ok(self.unread.first().copied()))
    }

    /// Lets the other tasks run after so many reads that did not have to wait. A task that reads as long as there is
    /// something to read, as hyper and rustls do, ends only when its client does not keep up.
    fn poll_turn(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.reads < READS_PER_TURN {
            return Poll::Ready(());
        }
        self.reads = 0;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_input(
        &mut self,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            // The runtime does not know yet that a new socket is writable, and hyper drops the response to CONNECT
            // if it cannot be written at once.
            ready!(self.inner.inner().poll_write_ready(cx))?;
            let most = buf.remaining().min(self.unread.len());
            buf.put_slice(&self.unread.split_to(most));
            return Poll::Ready(Ok(()));
        }
        if self.preface_read.is_none() {
            let read = self.inner().poll_read(cx, buf);
            self.note_read(&read)?;
            return read;
        }
        let mut bytes = [0; FIRST_READ];
        let most = buf.remaining().min(bytes.len());
        let length = ready!(self.poll_bytes(cx, &mut bytes[..most]))?;
        buf.put_slice(&bytes[..length]);
        Poll::Ready(Ok(()))
    }

    /// # Errors
    /// The connection was closed to make room, and serves no request any more.
    fn note_read<T>(&self, read: &Poll<io::Result<T>>) -> io::Result<()> {
        match &self.observer {
            Observer::Http2(conn) => conn.note(read),
            Observer::Http1(_, clock) if read.is_ready() => return clock.note_read(),
            Observer::Http1(..) | Observer::None => {}
        }
        Ok(())
    }

    fn note_write(&mut self, wrote: &Poll<io::Result<usize>>) {
        self.has_written = true;
        match &self.observer {
            Observer::Http2(conn) => conn.note(wrote),
            Observer::Http1(slot, _) => match wrote {
                Poll::Pending => slot.note_blocked(),
                Poll::Ready(_) => slot.note_progress(),
            },
            Observer::None => {}
        }
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // Its stream is about to leave hyper; the reactor reads what else comes.
        if matches!(&self.observer, Observer::Http1(slot, _) if slot.is_taken()) {
            return Poll::Pending;
        }
        ready!(self.poll_turn(cx));
        let read = self.poll_input(cx, buf);
        self.reads = if read.is_ready() { self.reads + 1 } else { 0 };
        read
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = self.inner().poll_write(cx, buf);
        self.note_write(&wrote);
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = self.inner().poll_write_vectored(cx, bufs);
        self.note_write(&wrote);
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// A socket has no buffer to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use std::io::Write as _;
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::Arc;
    use std::task::Waker;

    use super::*;
    use crate::sync::Wakes;

    /// SCENARIO: a client sends faster than its requests, frames or records can be handled.
    /// BUG: hyper and rustls read as long as there was something to read, half a megabyte in one poll of their task.
    /// FIX: a read has to wait for the other tasks after two that did not.
    #[tokio::test]
    async fn a_task_that_reads_gives_way() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let mut client = std::net::TcpStream::connect(address).expect("it listens");
        let (socket, _) = listener.accept().expect("a connection");
        socket.set_nonblocking(true).expect("a socket");
        client.write_all(&[b'x'; 32 * 64]).expect("a buffer");
        drop(client);
        let mut socket = Socket::new(TcpStream::from_std(socket), Bytes::from_static(b"read"))
            .expect("a runtime");
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let (mut total, mut longest, mut row) = (0, 0, 0);
        while total < 4 + 32 * 64 {
            let mut bytes = [0; 32];
            let mut buf = ReadBuf::new(&mut bytes);
            let before = wakes.count();
            let read =
                Pin::new(&mut socket).poll_read(&mut Context::from_waker(&waker), buf.unfilled());
            match read {
                Poll::Ready(read) => {
                    read.expect("open");
                    assert_ne!(buf.filled().len(), 0, "the end after {total} bytes");
                    total += buf.filled().len();
                    row += 1;
                    longest = longest.max(row);
                }
                Poll::Pending => {
                    // The next poll is due at once, unless the socket has nothing yet.
                    let gave_way = wakes.count() > before;
                    assert!(gave_way || row < READS_PER_TURN);
                    row = 0;
                    tokio::task::yield_now().await;
                }
            }
        }
        assert_eq!(longest, READS_PER_TURN);
    }
}
