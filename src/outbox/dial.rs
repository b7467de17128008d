//! A connection to one address of the database, from which only so much is read.

use std::io;
use std::path::Path;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio_postgres::config::Host;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::backplane::bounded::{Allowance, Bounded, Meter};
use crate::backplane::wait::within;

/// What the client library drives.
pub(super) type Connection =
    tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// A connection to an address.
pub(super) type Socket = Bounded<Box<dyn Stream>, EachByte>;

/// Counts each byte as one.
#[derive(Clone, Copy, Debug)]
pub(super) struct EachByte;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The bytes with which a session may begin: certificates, and the values of some twenty settings.
const GREETING_BYTES_MAX: usize = 256 * 1024;

/// How long nothing may come before the kernel asks whether the other end is there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Connects to the addresses of a host in turn, each within this time. What is sent has to be received within `unread`.
pub(super) async fn dial(
    host: &Host,
    port: u16,
    time: Duration,
    unread: Duration,
) -> io::Result<(Socket, Allowance)> {
    let stream: Box<dyn Stream> = match host {
        Host::Tcp(name) => Box::new(tcp(name, port, time, unread).await?),
        Host::Unix(folder) => Box::new(unix(folder, port).await?),
    };
    Ok(Bounded::new(stream, EachByte, GREETING_BYTES_MAX))
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

// ===== impl EachByte =====

impl Meter for EachByte {
    fn cost(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
}
