//! The IO of an HTTP/2 connection. At the end of the client's input h2 drops every request, also one that is
//! complete. So that end is withheld until those are answered. Input and output of one turn are bounded, because h2 keeps
//! the memory that its queues have ever needed.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::http2_conn::{Http2Conn, Input, Read};

/// What h2 reads from and writes to.
#[derive(Debug)]
pub(super) struct Http2Io<I> {
    io: I,
    conn: Http2Conn,
}

/// Bytes that are written at once, although more follow. h2 has a buffer of twice as many, from which it writes.
const GATHERED_BYTES: usize = 8 * 1024;

// ===== impl Http2Io =====

impl<I> Http2Io<I> {
    pub(super) fn new(io: I, conn: Http2Conn) -> Self {
        Self { io, conn }
    }

    /// Whether these parts are kept in h2's buffer, to which more bytes come in the next turn. A payload of its own is
    /// not in that buffer, and bars it.
    fn waits(&self, parts: usize, bytes: usize) -> bool {
        parts == 1 && bytes < GATHERED_BYTES && self.conn.gathers()
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
        let most = match self.conn.may_read() {
            Read::Any => buf.remaining(),
            Read::Some(bytes) => bytes.min(buf.remaining()),
            // The connection is polled again in the next turn.
            Read::Later => return Poll::Pending,
        };
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        let Poll::Ready(read) = Pin::new(&mut self.io).poll_read(cx, &mut part) else {
            self.conn.note_exhausted();
            return Poll::Pending;
        };
        let (length, is_full) = (part.filled().len(), part.remaining() == 0);
        buf.advance(length);
        match read {
            Ok(()) if length > 0 || is_full => {
                self.conn.note_read(length);
                Poll::Ready(Ok(()))
            }
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
        if self.waits(1, bytes.len()) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.waits(parts.len(), parts.iter().map(|part| part.len()).sum()) {
            return Poll::Pending;
        }
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

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use std::future::pending;
    use std::task::Waker;
    use std::time::Duration;

    use hyper::rt::Executor;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::super::http2_conn::{READ_BYTES, READ_BYTES_MAX};
    use super::*;
    use crate::config::HubConfig;
    use crate::http::Timer;
    use crate::hub::Hub;
    use crate::stream::Clock;

    fn io() -> (Http2Io<DuplexStream>, DuplexStream, Http2Conn) {
        let timer = Timer::new(Hub::new(HubConfig::default()), Clock::start());
        let conn = Http2Conn::new(Duration::from_secs(10), timer);
        let (ours, theirs) = duplex(64 * 1024);
        (Http2Io::new(ours, conn.clone()), theirs, conn)
    }

    /// Reads at most so many bytes.
    fn read(io: &mut Http2Io<DuplexStream>, most: usize) -> Option<usize> {
        let mut bytes = vec![0; most];
        let mut buf = ReadBuf::new(&mut bytes);
        let read = Pin::new(io).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf);
        read.is_ready().then(|| buf.filled().len())
    }

    fn writes(io: &mut Http2Io<DuplexStream>, parts: &[&[u8]]) -> bool {
        let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(io).poll_write_vectored(&mut cx, &parts).is_ready()
    }

    /// What reads of this length return until there may be no more in this turn, or there is none.
    fn turn(io: &mut Http2Io<DuplexStream>, conn: &Http2Conn) -> usize {
        conn.begin_turn(false);
        std::iter::from_fn(|| read(io, 1000)).sum()
    }

    #[tokio::test]
    async fn a_turn_reads_little_while_it_may_be_requests_and_anything_once_one_is_open() {
        let (mut io, mut client, conn) = io();
        client.write_all(&[0; 16 * 1024]).await.expect("a buffer");
        for _ in 0..2 {
            assert_eq!((turn(&mut io, &conn), conn.has_more()), (READ_BYTES, true));
        }
        // What is ready to be sent comes first.
        conn.begin_turn(true);
        assert_eq!((read(&mut io, 100), conn.has_more()), (None, true));

        conn.receive();
        conn.execute(pending());
        assert_eq!((turn(&mut io, &conn), conn.has_more()), (16 * 1024 - 2 * READ_BYTES, false));
    }

    /// SCENARIO: requests are reset at once, in TLS records of a few bytes.
    /// BUG: a turn had one read, so that h2 met too few of them together to take them for a flood.
    /// FIX: a turn has a number of bytes, in any number of reads; a larger one, if requests end while there are more.
    #[tokio::test]
    async fn a_turn_reads_much_once_a_request_has_ended_until_there_is_nothing_to_read() {
        let (mut io, mut client, conn) = io();
        let end_request = || {
            conn.receive();
            conn.execute(pending());
            conn.count_ended(false, false);
        };
        client.write_all(&[0; 2 * READ_BYTES + READ_BYTES_MAX]).await.expect("a buffer");
        assert_eq!(turn(&mut io, &conn), READ_BYTES);
        assert_eq!(turn(&mut io, &conn), READ_BYTES, "none has ended");
        end_request();
        assert_eq!((turn(&mut io, &conn), conn.has_more()), (READ_BYTES_MAX, true));
        assert_eq!((turn(&mut io, &conn), conn.has_more()), (0, false));
        end_request();
        client.write_all(&[0; READ_BYTES_MAX]).await.expect("a buffer");
        assert_eq!(turn(&mut io, &conn), READ_BYTES, "the requests of a page follow its last one");
    }

    #[tokio::test]
    async fn a_turn_that_has_kept_bytes_back_is_followed_by_another() {
        let (mut io, _client, conn) = io();
        conn.withhold_end();
        conn.begin_turn(true);
        assert!(!writes(&mut io, &[&[0; 9]]));
        assert!(conn.has_more());
    }

    #[tokio::test]
    async fn few_bytes_wait_for_those_of_the_next_turn() {
        let (mut io, _client, conn) = io();
        conn.begin_turn(true);
        assert!(!writes(&mut io, &[&[0; GATHERED_BYTES - 1]]));
        assert!(writes(&mut io, &[&[0; GATHERED_BYTES]]));
        assert!(
            writes(&mut io, &[&[0; 9], &[0; 300]]),
            "h2 takes no frame before this one is written"
        );
        conn.begin_turn(false);
        assert!(writes(&mut io, &[&[0; 9]]));
    }
}
