//! Many clients of one organisation in one thread, each with a connection, a decoder and a position of its own. A
//! stream that is refused or that ends is opened again, from the position of its client.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::event::Event as Readiness;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use super::numbered::{Received, numbers};
use super::protocol::{Client, Notice, Position, Protocol};
use super::response::Response;

/// The clients, and what they have received so far.
pub(crate) struct Clients {
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    server: Target,
    all: Vec<One>,
    /// Those that will connect, each not before this moment.
    due: VecDeque<(Instant, usize)>,
    /// Connections whose response has not arrived.
    pending: usize,
    pub(crate) counts: Counts,
    arrivals: Vec<Arrivals>,
}

/// Where they connect, and how.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) org: String,
    pub(crate) client: Client,
    /// Connections that wait for their response at the same time.
    pub(crate) pending_max: usize,
}

/// What has happened since the clients were last cut off.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Streams that are open.
    pub(crate) open: usize,
    pub(crate) last_response: Option<Instant>,
    /// Connects without a good response, by the reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Streams that the server ended.
    pub(crate) ended: u64,
}

/// What the server has stated to the clients since they were last cut off: to how many of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stated {
    pub(crate) complete: usize,
    pub(crate) reread: usize,
    pub(crate) nothing: usize,
}

/// How far an event has come.
#[derive(Clone, Copy, Debug, Default)]
struct Arrivals {
    clients: usize,
    last: Option<Instant>,
}

#[derive(Default)]
struct One {
    socket: Option<TcpStream>,
    has_requested: bool,
    /// Whether the response has had an event.
    has_event: bool,
    /// Whether the response is good, and the subscription begun.
    is_open: bool,
    response: Response,
    position: Position,
    stated: Option<Notice>,
    received: Received,
}

const BUFFER: usize = 64 * 1024;
const EVENTS: usize = 1024;
/// How long a client waits after a refusal or an end.
const RETRY: Duration = Duration::from_millis(100);
/// The longest wait of a turn.
const TURN: Duration = Duration::from_millis(20);

// ===== impl Clients =====

impl Clients {
    /// None of them connects before [`Self::come`].
    pub(crate) fn new(server: Target, count: usize) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            buffer: vec![0; BUFFER].into(),
            server,
            all: (0..count).map(|_| One::default()).collect(),
            due: VecDeque::new(),
            pending: 0,
            counts: Counts::default(),
            arrivals: Vec::new(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// From now on, those that have no stream connect, from their positions.
    pub(crate) fn come(&mut self) {
        let at = now();
        let absent = self.all.iter().enumerate().filter(|(_, one)| one.socket.is_none());
        self.due = absent.map(|(number, _)| (at, number)).collect();
    }

    /// Cuts all of them off, with a RST each. They stay away until [`Self::come`].
    pub(crate) fn cut(&mut self) -> io::Result<()> {
        for one in &mut self.all {
            if let Some(socket) = one.socket.take() {
                SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
            }
            one.stated = None;
        }
        self.due.clear();
        self.pending = 0;
        self.counts = Counts::default();
        Ok(())
    }

    /// Serves them until this holds; false if it does not within this time.
    pub(crate) fn until(
        &mut self,
        limit: Duration,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> io::Result<bool> {
        let start = now();
        while !holds(self) {
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            self.turn(left.min(TURN))?;
        }
        Ok(true)
    }

    /// Serves them for this long.
    pub(crate) fn wait(&mut self, duration: Duration) -> io::Result<()> {
        self.until(duration, |_| false).map(drop)
    }

    /// Whether each of them has a stream.
    pub(crate) fn are_open(&self) -> bool {
        self.counts.open == self.all.len()
    }

    /// Whether this event has arrived at each of them.
    pub(crate) fn all_have(&self, number: usize) -> bool {
        self.arrivals.get(number).is_some_and(|arrivals| arrivals.clients == self.all.len())
    }

    /// When the last of these events arrived that were new to their client.
    pub(crate) fn last_arrival(&self, numbers: Range<usize>) -> Option<Instant> {
        numbers.filter_map(|number| self.arrivals.get(number)?.last).max()
    }

    /// The events of these that have not arrived, of all clients together.
    pub(crate) fn missed(&self, numbers: Range<usize>) -> u64 {
        self.all.iter().map(|one| one.received.missed(numbers.clone())).sum()
    }

    pub(crate) fn duplicates(&self) -> u64 {
        self.all.iter().map(|one| one.received.duplicates()).sum()
    }

    pub(crate) fn stated(&self) -> Stated {
        let count = |notice| self.all.iter().filter(|one| one.stated == notice).count();
        Stated {
            complete: count(Some(Notice::Complete)),
            reread: count(Some(Notice::Reread)),
            nothing: count(None),
        }
    }

    /// Connects those that are due, and handles what has arrived, waiting for it at most this long.
    fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let wait = self.connect()?.map_or(wait, |left| wait.min(left));
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(wait)) {
            Err(why) if why.kind() != ErrorKind::Interrupted => return Err(why),
            _ => {}
        }
        for event in &events {
            let number = event.token().0;
            if let Err(why) = self.go_on(number, event) {
                self.end(number, &why);
            }
        }
        self.events = events;
        Ok(())
    }

    /// Returns how long it is until the next one may connect, if that depends on time.
    fn connect(&mut self) -> io::Result<Option<Duration>> {
        while self.pending < self.server.pending_max
            && let Some((at, number)) = self.due.front().copied()
        {
            let left = at.saturating_duration_since(now());
            if !left.is_zero() {
                return Ok(Some(left));
            }
            self.due.pop_front();
            let mut socket = TcpStream::connect(self.server.address)?;
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(number), both)?;
            self.all[number].begin(socket);
            self.pending += 1;
        }
        Ok(None)
    }

    fn go_on(&mut self, number: usize, event: &Readiness) -> io::Result<()> {
        let one = &mut self.all[number];
        let Some(socket) = &mut one.socket else { return Ok(()) };
        if !one.has_requested {
            socket.take_error()?.map_or(Ok(()), Err)?;
            if event.is_writable() {
                // It is far smaller than the send buffer of a fresh socket.
                socket.write_all(self.server.request(&one.position).as_bytes())?;
                one.has_requested = true;
            }
        }
        let is_closing = event.is_read_closed() || event.is_error();
        if event.is_readable() || is_closing {
            return self.read(number, is_closing);
        }
        Ok(())
    }

    /// An error is the end of the stream.
    fn read(&mut self, number: usize, is_closing: bool) -> io::Result<()> {
        while let Some(socket) = &mut self.all[number].socket {
            match socket.read(&mut self.buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    self.take(number, length)?;
                    // A short read has emptied the socket, unless its end follows.
                    if length < self.buffer.len() && !is_closing {
                        return Ok(());
                    }
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Takes the first bytes of the buffer.
    fn take(&mut self, number: usize, length: usize) -> io::Result<()> {
        let Self { all, arrivals, server, buffer, .. } = self;
        let One { is_open, has_event, response, position, stated, received, .. } = &mut all[number];
        let at = now();
        response.push(&buffer[..length], |event| {
            *has_event = true;
            note(stated, server.protocol.read(&event, position));
            for number in numbers(&event.data).filter(|number| received.add(*number)) {
                let more = (number + 1).max(arrivals.len());
                arrivals.resize(more, Arrivals::default());
                arrivals[number].clients += 1;
                arrivals[number].last = Some(at);
            }
        })?;
        if let (false, Some(head)) = (*is_open, response.head()) {
            if server.client == Client::Own {
                note(stated, server.protocol.read_head(head, position));
            }
            if head.status != 200 {
                return Err(io::Error::other(format!("status {}", head.status)));
            }
            if *has_event || !server.protocol.subscribes_after_head() {
                *is_open = true;
                self.pending -= 1;
                self.counts.open += 1;
                self.counts.last_response = Some(at);
            }
        }
        match response.is_complete() {
            true => Err(ErrorKind::UnexpectedEof.into()),
            false => Ok(()),
        }
    }

    /// Its client comes back later.
    fn end(&mut self, number: usize, why: &io::Error) {
        let one = &mut self.all[number];
        one.socket = None;
        if std::mem::take(&mut one.is_open) {
            self.counts.open -= 1;
            self.counts.ended += 1;
        } else {
            self.pending -= 1;
            *self.counts.refused.entry(why.to_string()).or_default() += 1;
        }
        self.due.push_back((now() + RETRY, number));
    }
}

// ===== impl Target =====

impl Target {
    /// With the fields of a browser's request that matter to a server.
    fn request(&self, position: &Position) -> String {
        let Self { address, protocol, org, client, .. } = self;
        let request = protocol.resume(org, *client, position);
        let id = request.last_event_id.iter().map(|id| format!("last-event-id: {id}\r\n"));
        format!(
            "GET {} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\ncache-control: no-cache\r\n{}\r\n",
            request.path,
            id.collect::<String>()
        )
    }
}

// ===== impl One =====

impl One {
    /// With a connection that is being opened.
    fn begin(&mut self, socket: TcpStream) {
        self.position.last_event_id = self.response.last_event_id().to_owned();
        self.response = Response::resume(&self.position.last_event_id);
        (self.has_requested, self.has_event, self.is_open) = (false, false, false);
        self.socket = Some(socket);
    }
}

/// That something may have been missed outweighs everything else.
fn note(stated: &mut Option<Notice>, notice: Option<Notice>) {
    if *stated != Some(Notice::Reread) {
        *stated = notice.or(*stated);
    }
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn now() -> Instant {
    Instant::now()
}
