//! Loopback ports without a listener.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A port that the kernel gives to no other socket. A connection to it is refused, unless a program that sets
/// `SO_REUSEADDR`, as servers do, listens on it explicitly.
pub(crate) struct ReservedPort {
    pub(crate) address: SocketAddr,
    /// Bound, and never listening.
    _socket: Socket,
}

// ===== impl ReservedPort =====

impl ReservedPort {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("a socket");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).expect("loopback");
        let address = socket.local_addr().expect("bound").as_socket().expect("IPv4");
        Self { address, _socket: socket }
    }
}
