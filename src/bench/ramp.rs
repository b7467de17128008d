//! How streams are opened: so many at once, so many a second.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::subscribers::Crowd;
use super::target::Error;
use super::{TURN, now};

/// What carries the streams of a crowd: their sockets, and what is spoken over them.
pub(crate) trait Carrier: fmt::Debug + Send {
    /// Makes room for this many further streams.
    fn reserve(&mut self, count: usize);

    /// Begins one further stream. It is held to the events from `next` on.
    fn dial(&mut self, next: u32) -> Result<(), Error>;

    /// Takes in whatever has come, and waits for the first of it at most this long.
    fn turn(&mut self, crowd: &mut Crowd, wait: Duration) -> Result<(), Error>;

    /// Gives up on the streams that were never answered.
    fn abandon(&mut self, crowd: &mut Crowd);

    /// Whether an open stream has not had the last of the events below `published`.
    fn is_behind(&self, published: u32) -> bool;

    /// Holds every stream to the events from `published` on; what is missing before is missed.
    fn settle(&mut self, crowd: &mut Crowd, published: u32);

    /// Closes every stream; `reset` ends them with a RST instead of a FIN.
    fn close(&mut self, reset: bool) -> io::Result<()>;
}

/// How fast streams are opened.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Streams a second; `None` is as fast as the server answers.
    pub per_second: Option<u32>,
    /// Streams that wait for their answer at the same time.
    pub at_once: usize,
}

/// How finely a rate of connects is kept.
const PACED: Duration = Duration::from_millis(1);

/// Opening gives up after this long without an answer to any stream.
const SILENCE: Duration = Duration::from_secs(10);

/// Why such a stream failed.
pub(crate) const SILENT: &str = "no answer within 10 s";

/// Opens this many further streams, unless told to `stop`, which is asked every turn.
pub(crate) fn open(
    carrier: &mut dyn Carrier,
    crowd: &mut Crowd,
    count: usize,
    pace: Pace,
    next: u32,
    mut stop: impl FnMut(&Crowd) -> bool,
) -> Result<Duration, Error> {
    let start = now();
    let (mut dialled, mut heard) = (0, (crowd.open, start));
    carrier.reserve(count);
    while (dialled < count || crowd.settling > 0) && !stop(crowd) {
        let due = pace.due(start.elapsed()).min(count);
        while dialled < due && crowd.settling < pace.at_once.max(1) {
            carrier.dial(next)?;
            crowd.settling += 1;
            dialled += 1;
        }
        let wait = if dialled < count && pace.per_second.is_some() { PACED } else { TURN };
        carrier.turn(crowd, wait)?;
        if crowd.open != heard.0 || dialled == 0 || crowd.settling == 0 {
            heard = (crowd.open, now());
        } else if heard.1.elapsed() > SILENCE {
            carrier.abandon(crowd);
        }
    }
    Ok(start.elapsed())
}

/// A socket that does not block and is being connected.
pub(crate) fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&address.into()) {
        // EINPROGRESS: connect(2) goes on behind a socket that does not block.
        Err(why) if why.raw_os_error() == Some(EINPROGRESS) => {}
        done => done?,
    }
    Ok(socket.into())
}

/// `EINPROGRESS` of Linux; `io::ErrorKind::InProgress` is not stable yet.
const EINPROGRESS: i32 = 115;

// ===== impl Pace =====

impl Pace {
    /// Streams that may have been opened after this time.
    fn due(self, elapsed: Duration) -> usize {
        match self.per_second {
            Some(rate) => 1 + (elapsed.as_secs_f64() * f64::from(rate)) as usize,
            None => usize::MAX,
        }
    }
}
