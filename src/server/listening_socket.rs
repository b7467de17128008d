//! A listening socket, of TCP or a Unix socket.

use std::io;
use std::net::{IpAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::path::PathBuf;

use mio::net::TcpStream;
use socket2::{Domain, SockRef};

use crate::config::Endpoint;

/// A socket that listens.
#[derive(Debug)]
pub enum ListeningSocket {
    /// Of TCP.
    Tcp(TcpListener),
    /// Of Unix.
    Unix(UnixListener),
}

/// The same, from which is accepted without blocking.
#[derive(Debug)]
pub(crate) enum AcceptSocket {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

// ===== impl ListeningSocket =====

impl ListeningSocket {
    /// Where it listens.
    ///
    /// # Errors
    /// The system's, or it is a Unix socket without a name.
    pub fn endpoint(&self) -> io::Result<Endpoint> {
        match self {
            Self::Tcp(socket) => socket.local_addr().map(Endpoint::Tcp),
            Self::Unix(socket) => {
                let name = socket.local_addr().map(|address| name(&address))?;
                name.map(Endpoint::Unix)
                    .ok_or_else(|| io::Error::other("it is a Unix socket without a name"))
            }
        }
    }

    /// The same socket once more.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
        }
    }

    /// Has calls on it, and on what shares it, not block.
    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_nonblocking(true),
            Self::Unix(socket) => socket.set_nonblocking(true),
        }
    }
}

/// The path of a Unix socket, or its abstract name, as it is written elsewhere.
fn name(address: &UnixAddr) -> Option<PathBuf> {
    if let Some(path) = address.as_pathname() {
        return Some(path.to_owned());
    }
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt as _;
        let name = address.as_abstract_name()?;
        Some(format!("@{}", String::from_utf8_lossy(name)).into())
    }
    #[cfg(not(target_os = "linux"))]
    None
}

impl From<TcpListener> for ListeningSocket {
    fn from(socket: TcpListener) -> Self {
        Self::Tcp(socket)
    }
}

impl From<UnixListener> for ListeningSocket {
    fn from(socket: UnixListener) -> Self {
        Self::Unix(socket)
    }
}

impl TryFrom<OwnedFd> for ListeningSocket {
    type Error = io::Error;

    /// Fails if it is no socket of one of these families; whether it listens is not checked.
    fn try_from(socket: OwnedFd) -> io::Result<Self> {
        match SockRef::from(&socket).local_addr()?.domain() {
            Domain::UNIX => Ok(Self::Unix(socket.into())),
            Domain::IPV4 | Domain::IPV6 => Ok(Self::Tcp(socket.into())),
            _ => Err(io::Error::other("it is neither a TCP nor a Unix socket")),
        }
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

// ===== impl AcceptSocket =====

impl AcceptSocket {
    /// The next connection, which does not block, and the address of its peer, if it has one. That of a Unix socket is of
    /// the type of one of TCP too: what is served is the same, and only a few calls are not for both.
    pub(crate) fn accept(&self) -> io::Result<(TcpStream, Option<IpAddr>)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                Ok((stream, Some(peer.ip())))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                let stream = std::net::TcpStream::from(OwnedFd::from(stream));
                Ok((TcpStream::from_std(stream), None))
            }
        }
    }
}

impl From<ListeningSocket> for AcceptSocket {
    fn from(socket: ListeningSocket) -> Self {
        match socket {
            ListeningSocket::Tcp(socket) => Self::Tcp(mio::net::TcpListener::from_std(socket)),
            ListeningSocket::Unix(socket) => Self::Unix(mio::net::UnixListener::from_std(socket)),
        }
    }
}

impl AsFd for AcceptSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl AsRawFd for AcceptSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
