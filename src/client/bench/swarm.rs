//! The subscribers: one thread, one poller, one read buffer for all of them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::ops::AddAssign;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::Serialize;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::ledger::Ledger;
use super::marker::Marker;
use super::now;
use super::subscriber::{Heard, Phase, Seen, Subscriber};
use super::target::{Error, Target};

/// Many subscribers of one URL.
#[derive(Debug)]
pub(crate) struct Swarm {
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    target: Target,
    sources: Vec<IpAddr>,
    request: Vec<u8>,
    marker: Marker,
    subscribers: Vec<Subscriber>,
    pub(crate) ledger: Ledger,
    pub(crate) tally: Tally,
    /// Streams whose head has not come yet.
    settling: usize,
    open: usize,
}

/// What all subscribers together have seen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Tally {
    /// Events that arrived for the first time.
    pub delivered: u64,
    /// Events that a subscriber should have got and has not.
    pub missed: u64,
    /// Events that a subscriber got again.
    pub duplicates: u64,
    /// Events that came after a later one.
    pub reordered: u64,
    /// Streams that ended before the measurement did.
    pub disconnects: u64,
    /// Streams that did not come to be: no connection, or an answer other than 200.
    pub failed: u64,
    /// The status of the last answer other than 200.
    pub failed_status: Option<u16>,
    /// Bytes read from all streams.
    pub bytes: u64,
}

/// How fast streams are opened.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Streams a second; `None` is as fast as the server answers.
    pub per_second: Option<u32>,
    /// Streams that wait for their answer at the same time.
    pub at_once: usize,
}

const BUFFER: usize = 64 * 1024;
const EVENTS: usize = 1024;

/// How long a wait may keep the caller from looking after other things.
const TURN: Duration = Duration::from_millis(50);

/// Opening gives up after this long without an answer to any stream.
const SILENCE: Duration = Duration::from_secs(10);

// ===== impl Swarm =====

impl Swarm {
    pub(crate) fn new(
        target: Target,
        sources: Vec<IpAddr>,
        headers: &[(String, String)],
        marker: Marker,
        ledger: Ledger,
    ) -> Result<Self, Error> {
        Ok(Self {
            poll: Poll::new().map_err(Error::system("opening a poller"))?,
            events: Events::with_capacity(EVENTS),
            buffer: vec![0; BUFFER].into(),
            request: request(&target, headers),
            target,
            sources,
            marker,
            subscribers: Vec::new(),
            ledger,
            tally: Tally::default(),
            settling: 0,
            open: 0,
        })
    }

    /// Streams that are open now.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Opens this many further streams. They are held to events from `next` on.
    pub(crate) fn grow(
        &mut self,
        count: usize,
        pace: Pace,
        next: u32,
        mut stop: impl FnMut(&Self) -> bool,
    ) -> Result<Duration, Error> {
        let start = now();
        let (mut dialled, mut heard) = (0, (self.open, start));
        self.subscribers.reserve_exact(count);
        while (dialled < count || self.settling > 0) && !stop(self) {
            let due = pace.due(start.elapsed()).min(count);
            while dialled < due && self.settling < pace.at_once.max(1) {
                self.dial(next)?;
                dialled += 1;
            }
            let wait = if dialled < count && pace.per_second.is_some() { PACED } else { TURN };
            self.turn(wait)?;
            if self.open != heard.0 || dialled == 0 || self.settling == 0 {
                heard = (self.open, now());
            } else if heard.1.elapsed() > SILENCE {
                self.abandon();
            }
        }
        Ok(start.elapsed())
    }

    fn dial(&mut self, next: u32) -> Result<(), Error> {
        let number = self.subscribers.len();
        let source = self.target.source(number, &self.sources);
        let stream = connect(self.target.address, source);
        let mut stream = stream.map_err(Error::system("opening a connection"))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut stream, Token(number), interest);
        registered.map_err(Error::system("watching a connection"))?;
        self.subscribers.push(Subscriber::new(stream, next));
        self.settling += 1;
        Ok(())
    }

    /// Reads whatever has come, and waits for the first of it at most this long.
    pub(crate) fn turn(&mut self, wait: Duration) -> Result<(), Error> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(wait)) {
            Err(why) if why.kind() != ErrorKind::Interrupted => {
                return Err(Error::system("waiting for events")(why));
            }
            _ => {}
        }
        for event in &events {
            let number = event.token().0;
            if event.is_writable() && self.subscribers[number].phase == Phase::Connecting {
                self.ask(number);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.read(number, event.is_read_closed() || event.is_error());
            }
        }
        self.events = events;
        Ok(())
    }

    fn ask(&mut self, number: usize) {
        let subscriber = &mut self.subscribers[number];
        let Some(stream) = &mut subscriber.stream else { return };
        // A request is far smaller than the buffer of a new socket.
        let asked = match stream.take_error() {
            Ok(None) => stream.write_all(&self.request),
            Ok(Some(why)) | Err(why) => Err(why),
        };
        match asked {
            Ok(()) => subscriber.phase = Phase::Asking,
            Err(_) => self.lose(number),
        }
    }

    fn read(&mut self, number: usize, closing: bool) {
        loop {
            let subscriber = &mut self.subscribers[number];
            let Some(stream) = &mut subscriber.stream else { return };
            match stream.read(&mut self.buffer) {
                Ok(0) => return self.lose(number),
                Ok(length) => {
                    if !self.hear(number, length) {
                        return self.lose(number);
                    }
                    // A short read has emptied the socket, unless its end follows.
                    if length < BUFFER && !closing {
                        return;
                    }
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => return,
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.lose(number),
            }
        }
    }

    /// False if the stream is over.
    fn hear(&mut self, number: usize, length: usize) -> bool {
        let Self { subscribers, buffer, marker, ledger, tally, open, .. } = self;
        let (subscriber, at) = (&mut subscribers[number], now());
        tally.bytes += length as u64;
        let heard = subscriber.hear(marker, &buffer[..length], |sequence, seen| {
            *tally += seen;
            if seen != Seen::Twice {
                ledger.arrived(sequence, at, *open);
            }
        });
        self.advance(number, &heard)
    }

    fn advance(&mut self, number: usize, heard: &Heard) -> bool {
        match heard.status {
            Some(200) => {
                self.subscribers[number].phase = Phase::Open;
                self.settling -= 1;
                self.open += 1;
            }
            Some(status) => {
                self.tally.failed_status = Some(status);
                return false;
            }
            None => {}
        }
        !heard.ended
    }

    fn lose(&mut self, number: usize) {
        let subscriber = &mut self.subscribers[number];
        subscriber.stream = None;
        match std::mem::replace(&mut subscriber.phase, Phase::Closed) {
            Phase::Connecting | Phase::Asking => {
                self.settling -= 1;
                self.tally.failed += 1;
            }
            Phase::Open => {
                self.open -= 1;
                self.tally.disconnects += 1;
            }
            Phase::Closed => {}
        }
    }

    /// Gives up on the streams that were never answered.
    fn abandon(&mut self) {
        for number in 0..self.subscribers.len() {
            if matches!(self.subscribers[number].phase, Phase::Connecting | Phase::Asking) {
                self.lose(number);
            }
        }
    }

    /// Counts the events below `published` that have not come to an open stream by now as missed.
    pub(crate) fn settle(&mut self, published: u32) {
        let open = self.subscribers.iter_mut().filter(|one| one.phase == Phase::Open);
        for subscriber in open {
            self.tally.missed += u64::from(subscriber.behind(published));
            subscriber.begin_at(published);
        }
    }

    /// Closes every stream; `reset` ends them with a RST instead of a FIN.
    pub(crate) fn close(&mut self, reset: bool) -> io::Result<()> {
        for subscriber in self.subscribers.drain(..) {
            if let Some(stream) = &subscriber.stream
                && reset
            {
                SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
            }
        }
        (self.open, self.settling) = (0, 0);
        Ok(())
    }
}

/// How finely a rate of connects is kept.
const PACED: Duration = Duration::from_millis(1);

fn request(target: &Target, headers: &[(String, String)]) -> Vec<u8> {
    let mut text = format!("GET {} HTTP/1.1\r\nhost: {}\r\n", target.path, target.authority);
    text += "accept: text/event-stream\r\ncache-control: no-cache\r\n";
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    text.into_bytes()
}

fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
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
    Ok(TcpStream::from_std(socket.into()))
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

// ===== impl Tally =====

impl AddAssign<Seen> for Tally {
    fn add_assign(&mut self, seen: Seen) {
        match seen {
            Seen::New { missing } => {
                self.delivered += 1;
                self.missed += u64::from(missing);
            }
            Seen::Late => {
                self.delivered += 1;
                self.missed = self.missed.saturating_sub(1);
                self.reordered += 1;
            }
            Seen::Twice => self.duplicates += 1,
        }
    }
}

impl Tally {
    /// Whether every subscriber got every event exactly once and stayed.
    pub fn is_clean(&self) -> bool {
        (self.missed, self.duplicates, self.disconnects, self.failed) == (0, 0, 0, 0)
    }
}
