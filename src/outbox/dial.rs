//! A connection to one address of the database, from which only so much is read: the client library itself has no bound.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio_postgres::config::Host;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::backplane::wait::within;
use crate::sync::{AtomicUsize, Ordering};

/// What the client library drives.
pub(super) type Connection =
    tokio_postgres::Connection<Bounded, <MakeRustlsConnect as MakeTlsConnect<Bounded>>::Stream>;

/// The bytes that may still come.
#[derive(Clone, Debug)]
pub(super) struct Allowance(Arc<AtomicUsize>);

/// A socket that fails once more has come than is allowed.
pub(super) struct Bounded {
    socket: Box<dyn Socket>,
    allowance: Allowance,
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// The bytes with which a session may begin: certificates, and the values of some twenty settings.
const GREETING_BYTES_MAX: usize = 256 * 1024;

/// How long nothing may come before the kernel asks whether the other end is there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;

// ===== impl Bounded =====

impl Bounded {
    /// Connects to the addresses of a host in turn, each within this time. What is sent has to be received within
    /// `unread`.
    pub(super) async fn connect(
        host: &Host,
        port: u16,
        time: Duration,
        unread: Duration,
    ) -> io::Result<(Self, Allowance)> {
        let socket: Box<dyn Socket> = match host {
            Host::Tcp(name) => Box::new(tcp(name, port, time, unread).await?),
            Host::Unix(folder) => Box::new(unix(folder, port).await?),
        };
        let allowance = Allowance(Arc::new(AtomicUsize::new(GREETING_BYTES_MAX)));
        Ok((Self { socket, allowance: allowance.clone() }, allowance))
    }
}

async fn tcp(name: &str, port: u16, time: Duration, unread: Duration) -> io::Result<TcpStream> {
    let mut why = io::Error::other("its name has no address");
    for address in lookup_host((name, port)).await?.take(ADDRESSES_MAX) {
        match within(time, TcpStream::connect(address)).await {
            Some(Ok(socket)) => {
                socket.set_nodelay(true)?;
                let options = SockRef::from(&socket);
                options.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
                options.set_tcp_user_timeout(Some(unread))?;
                return Ok(socket);
            }
            Some(Err(refused)) => why = refused,
            None => why = io::Error::other("it does not respond"),
        }
    }
    Err(why)
}

async fn unix(folder: &Path, port: u16) -> io::Result<UnixStream> {
    UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        Poll::Ready(self.allowance.take(buf.filled().len() - before))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

// ===== impl Allowance =====

impl Allowance {
    /// So much may come, for a request.
    pub(super) fn renew(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) -> io::Result<()> {
        let left = self.0.load(Ordering::Relaxed).saturating_sub(bytes);
        self.0.store(left, Ordering::Relaxed);
        if left == 0 { Err(io::Error::other("it sends more than was asked for")) } else { Ok(()) }
    }
}
