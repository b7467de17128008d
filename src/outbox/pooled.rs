//! Whether a session is one of the database. A pooler has sessions of its own, and gives a client another one for each
//! transaction: there is no lock in them, and no notification.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_postgres::CancelToken;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// What a request to cancel is written to, instead of to a server.
struct Paper(DuplexStream);

/// What a client asks first, where it may use TLS (`SSLRequest`): its length, and a code.
const ASKS_FOR_TLS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// The process that the server named when the session began, so that requests in it can be cancelled. A pooler names
/// none that the database has. The client shows it in such a request only.
pub(super) async fn named_process(token: &CancelToken) -> Option<i32> {
    let (paper, mut reader) = tokio::io::duplex(64);
    let token = token.clone();
    let writer = tokio::spawn(async move { token.cancel_query_raw(paper, AsIs).await.is_ok() });
    let mut first = [0; 8];
    reader.read_exact(&mut first).await.ok()?;
    if first == ASKS_FOR_TLS {
        reader.write_all(b"S").await.ok()?;
        reader.read_exact(&mut first).await.ok()?;
    }
    // Its length and its code, then the process and the key.
    let mut rest = [0; 8];
    reader.read_exact(&mut rest).await.ok()?;
    let [a, b, c, d, ..] = rest;
    writer.await.ok()?.then(|| i32::from_be_bytes([a, b, c, d]))
}

/// TLS that changes nothing.
struct AsIs;

// ===== impl AsIs =====

impl TlsConnect<DuplexStream> for AsIs {
    type Stream = Paper;
    type Error = io::Error;
    type Future = Ready<io::Result<Paper>>;

    fn connect(self, stream: DuplexStream) -> Self::Future {
        ready(Ok(Paper(stream)))
    }
}

// ===== impl Paper =====

impl AsyncRead for Paper {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Paper {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl TlsStream for Paper {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}
