//! The IO of an HTTP/2 connection. At the end of the client's input h2 drops every request, also one that is
//! complete. So that end is withheld until those are answered.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::http2_conn::{Http2Conn, Input};

/// What h2 reads from and writes to.
#[derive(Debug)]
pub(super) struct Http2Io<I> {
    io: I,
    conn: Http2Conn,
}

// ===== impl Http2Io =====

impl<I> Http2Io<I> {
    pub(super) fn new(io: I, conn: Http2Conn) -> Self {
        Self { io, conn }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Http2Io<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.conn.input() {
            Input::Open => {}
            // The connection is polled again once it may end.
            Input::Withheld => return Poll::Pending,
            Input::Ended => return Poll::Ready(Ok(())),
        }
        let before = buf.filled().len();
        match ready!(Pin::new(&mut self.io).poll_read(cx, buf)) {
            Ok(()) if buf.filled().len() > before || buf.remaining() == 0 => Poll::Ready(Ok(())),
            // Within TLS, a FIN without close_notify is an error.
            Err(why) if why.kind() != ErrorKind::UnexpectedEof => Poll::Ready(Err(why)),
            Ok(()) | Err(_) => {
                self.conn.withhold_end();
                Poll::Pending
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Http2Io<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
