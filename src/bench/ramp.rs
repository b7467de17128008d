//! Opens the streams, with a limit at the same time and one per second.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::error::Error;
use super::subscribers::Subscribers;
use super::{POLL_INTERVAL, now};

/// Sockets and protocol of the streams.
pub(crate) trait Transport: fmt::Debug + Send {
    /// Reserves memory for this many further streams.
    fn reserve(&mut self, _count: usize) {}

    /// Starts to open a stream for the subscriber with the next number.
    fn open(&mut self) -> Result<(), Error>;

    /// Handles what has been received, and waits for it at most this long.
    fn poll(&mut self, subscribers: &mut Subscribers, wait: Duration) -> Result<(), Error>;

    /// Closes every stream; `reset` sends a RST instead of a FIN.
    fn close(&mut self, reset: bool) -> io::Result<()>;
}

/// How fast streams are opened.
#[derive(Clone, Copy, Debug)]
pub struct Ramp {
    /// Streams per second; `None` is as fast as the server responds.
    pub per_second: Option<u32>,
    /// Streams that wait for their response at the same time.
    pub pending_max: usize,
}

/// The resolution of a connect rate.
const RATE_INTERVAL: Duration = Duration::from_millis(1);

/// After this long without a response to any stream, the pending ones have failed.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why they have failed.
const NO_RESPONSE: &str = "no response within 10 s";

/// Streams from one source address to one server, below the 28,232 ephemeral ports of Linux
/// (`net.ipv4.ip_local_port_range`).
const STREAMS_PER_SOURCE: usize = 20_000;

/// `EINPROGRESS` of Linux; `io::ErrorKind::InProgress` is not stable yet.
const EINPROGRESS: i32 = 115;

/// Opens this many further streams. `stop` is called in every turn, and ends it.
pub(crate) fn open(
    transport: &mut dyn Transport,
    subscribers: &mut Subscribers,
    count: usize,
    ramp: Ramp,
    next: u32,
    mut stop: impl FnMut(&Subscribers) -> bool,
) -> Result<Duration, Error> {
    let start = now();
    let (mut started, mut progress) = (0, (subscribers.open, start));
    transport.reserve(count);
    subscribers.reserve(count);
    while (started < count || subscribers.pending > 0) && !stop(subscribers) {
        let due = ramp.due(start.elapsed()).min(count);
        while started < due && subscribers.pending < ramp.pending_max.max(1) {
            transport.open()?;
            subscribers.add(next);
            started += 1;
        }
        let has_rate = started < count && ramp.per_second.is_some();
        transport.poll(subscribers, if has_rate { RATE_INTERVAL } else { POLL_INTERVAL })?;
        if subscribers.open != progress.0 || started == 0 || subscribers.pending == 0 {
            progress = (subscribers.open, now());
        } else if progress.1.elapsed() > RESPONSE_TIMEOUT {
            subscribers.fail_pending(NO_RESPONSE);
        }
    }
    Ok(start.elapsed())
}

/// A non-blocking socket whose connect is in progress.
pub(crate) fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Err(why) if why.raw_os_error() == Some(EINPROGRESS) => {}
        connected => connected?,
    }
    Ok(socket.into())
}

/// The source address of the connection with this number; `None` lets the system choose.
pub(crate) fn source_of(number: usize, server: SocketAddr, given: &[IpAddr]) -> Option<IpAddr> {
    if !given.is_empty() {
        return Some(given[number % given.len()]);
    }
    let network = u8::try_from(number / STREAMS_PER_SOURCE).ok().filter(|at| *at > 0)?;
    let loopback = server.is_ipv4() && server.ip().is_loopback();
    loopback.then(|| Ipv4Addr::new(127, 0, 1, network).into())
}

// ===== impl Ramp =====

impl Ramp {
    /// The number of streams that may have been started after this time.
    fn due(self, elapsed: Duration) -> usize {
        match self.per_second {
            Some(rate) => 1 + (elapsed.as_secs_f64() * f64::from(rate)) as usize,
            None => usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_beyond_the_ports_come_from_further_loopback_addresses() {
        let server = "127.0.0.1:81".parse().unwrap();
        assert_eq!(source_of(19_999, server, &[]), None);
        assert_eq!(source_of(20_000, server, &[]), Some("127.0.1.1".parse().unwrap()));
        let given = ["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()];
        assert_eq!(source_of(3, server, &given), Some(given[1]));
        assert_eq!(source_of(20_000, "192.0.2.1:80".parse().unwrap(), &[]), None);
    }
}
