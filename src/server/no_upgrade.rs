//! No upgrade: sockets cannot be given to another process on this system.

pub(crate) mod freeze {
    /// There is none.
    #[derive(Debug)]
    pub(crate) enum Stop {}
}

pub(crate) mod successor {
    use mio::net::TcpStream;

    use crate::server::passed_connection::PassedConnection;

    /// There is none.
    #[derive(Debug)]
    pub(crate) enum Successor {}

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
