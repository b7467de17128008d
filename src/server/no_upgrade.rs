//! No upgrade: sockets cannot be given to another process on this system.

pub(crate) mod freeze {
    /// There is none.
    #[derive(Debug)]
    pub(crate) enum Stop {}
}

pub(crate) mod successor {
    use std::net::IpAddr;

    use mio::net::TcpStream;

    use crate::admission::{Admitted, PeerSource};

    /// There is none.
    #[derive(Debug)]
    pub(crate) enum Successor {}

    /// A connection that would be passed on.
    #[expect(dead_code, reason = "there is no successor")]
    #[derive(Debug)]
    pub(crate) struct PassedConnection {
        pub(crate) peer: Option<IpAddr>,
        pub(crate) internal: bool,
        pub(crate) secure: bool,
        pub(crate) first: Vec<u8>,
        pub(crate) source: PeerSource,
    }

    impl PassedConnection {
        pub(crate) fn of(admitted: &Admitted, first: impl Into<Vec<u8>>, secure: bool) -> Self {
            Self {
                peer: admitted.peer(),
                internal: admitted.is_internal(),
                secure,
                first: first.into(),
                source: admitted.peer_source(),
            }
        }
    }

    impl Successor {
        pub(crate) fn pass_on(
            &self,
            _: TcpStream,
            _: PassedConnection,
        ) -> Result<(), std::convert::Infallible> {
            match *self {}
        }
    }
}
