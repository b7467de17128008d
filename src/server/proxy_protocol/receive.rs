//! Receives the header of a connection from its socket, and nothing of what follows it: the bytes are peeked at until all
//! of them are there. Nothing is kept meanwhile, and another process can begin anew.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::{Header, parse};
use crate::metrics::HeaderRefusal;

/// Whether a connection has to begin with a header that has not been received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HeaderState {
    /// Nothing is awaited: it has been received, or the peer is no proxy.
    #[default]
    Done,
    /// Nothing of it has arrived.
    Due,
    /// A part of it has.
    Begun,
}

/// What a look at a socket comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// The rest is yet to come.
    Waits,
    /// It has been read, and names this client, or none.
    Client(Option<IpAddr>),
    Refused(HeaderRefusal),
    /// The connection has ended without a byte, or was reset.
    Ended,
}

// ===== impl HeaderState =====

impl HeaderState {
    pub(crate) fn is_awaited(self) -> bool {
        self != Self::Done
    }

    /// Looks at a socket that does not block, and reads the header if it is complete. `closed` is whether nothing more
    /// comes.
    pub(crate) fn receive(
        &mut self,
        socket: impl AsFd,
        bytes: &mut [u8],
        closed: bool,
    ) -> Received {
        let length = match retry(|| recv(&socket, &mut *bytes, RecvFlags::PEEK)) {
            Ok(0) => return self.ended(),
            Ok(length) => length,
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Received::Waits,
            Err(_) => return self.ended(),
        };
        *self = Self::Begun;
        match parse(&bytes[..length]) {
            Ok(Some(Header { length, client })) => {
                let read = retry(|| recv(&socket, &mut bytes[..length], RecvFlags::empty()));
                // What was there to be peeked at is there to be read.
                if read.ok() != Some(length) {
                    return Received::Ended;
                }
                *self = Self::Done;
                Received::Client(client)
            }
            Ok(None) if closed => Received::Refused(HeaderRefusal::Unfinished),
            Ok(None) => Received::Waits,
            Err(why) => Received::Refused(why),
        }
    }

    /// Why the connection is closed if nothing more comes.
    pub(crate) fn refusal(self) -> HeaderRefusal {
        if self == Self::Begun { HeaderRefusal::Unfinished } else { HeaderRefusal::Missing }
    }

    /// A connection that ends as it has begun, without a byte, is refused nothing: balancers check servers so.
    fn ended(self) -> Received {
        match self {
            Self::Begun => Received::Refused(HeaderRefusal::Unfinished),
            _ => Received::Ended,
        }
    }
}

fn retry(mut receive: impl FnMut() -> rustix::io::Result<(usize, usize)>) -> io::Result<usize> {
    loop {
        match receive() {
            Err(Errno::INTR) => {}
            received => return received.map(|(length, _)| length).map_err(io::Error::from),
        }
    }
}
