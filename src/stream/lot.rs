//! The parking lot of a worker: a slab of [`Parked`] streams and the poller of their sockets. The
//! lane's driver owns it; connections hand their streams in through the [`Entrance`].

use std::io::{self, Write as _};
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue};
use httpdate::HttpDate;
use mio::{Events, Interest, Token};
use slab::Slab;
use tokio::io::unix::AsyncFd;

use super::EventStream;
use super::event_stream::HEADERS;
use super::outlet::Outlet;
use super::parked::{Flow, Over, Parked, Seat};
use crate::admission::{Ticket, Tickets};
use crate::hub::{Hub, SEATS_A_TURN, Task, Turn, Write, give_back_memory};
use crate::sync::Mutex;

/// A connection that became a stream.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) outlet: Outlet,
    pub(crate) stream: EventStream,
    /// HTTP/1.1, not HTTP/1.0.
    pub(crate) chunked: bool,
    /// Bytes that came after the request.
    pub(crate) heard: usize,
    pub(crate) ticket: Ticket,
}

/// Where connections hand in their streams. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Entrance {
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    hub: Hub,
}

/// The lot.
#[derive(Debug)]
pub(crate) struct Lot {
    entrance: Entrance,
    poller: AsyncFd<mio::Poll>,
    events: Events,
    parked: Slab<Place>,
    tickets: Tickets,
    generation: u32,
    /// Streams that have more to take.
    unfinished: Vec<Token>,
    scratch: Box<[u8]>,
    heads: Heads,
    /// What a stream begins with, made here because most often it leaves at once.
    opening: Vec<u8>,
}

/// The heads of the responses that begin in this second, by whether they are chunked.
#[derive(Debug, Default)]
struct Heads([Option<(u64, Vec<u8>)>; 2]);

/// A slot of the slab. Slots are used again, and the poller may still speak of the last one.
#[derive(Debug)]
struct Place {
    generation: u32,
    /// The poller has been asked to tell when the socket takes more.
    watched: bool,
    parked: Parked,
}

/// Readiness events that are taken from the poller at once.
const EVENTS_A_TURN: usize = 64;

/// Streams that hand over or go on in one turn.
const STREAMS_A_TURN: usize = SEATS_A_TURN;

// ===== impl Entrance =====

impl Entrance {
    pub(crate) fn new(hub: Hub) -> Self {
        Self { arrivals: Arc::new(Mutex::new(Vec::new())), hub }
    }

    /// Hands a stream over to the lane's driver, which writes its first bytes.
    pub(crate) fn park(&self, arrival: Arrival) {
        self.arrivals.lock().push(arrival);
        self.hub.wake_driver();
    }

    fn take(&self, most: usize) -> Vec<Arrival> {
        let mut arrivals = self.arrivals.lock();
        if arrivals.len() <= most {
            return mem::take(&mut arrivals);
        }
        arrivals.drain(..most).collect()
    }

    fn is_empty(&self) -> bool {
        self.arrivals.lock().is_empty()
    }
}

// ===== impl Lot =====

impl Lot {
    /// An empty lot; inside a runtime, which watches the poller.
    pub(crate) fn new(entrance: Entrance) -> io::Result<Self> {
        // Its successor, `register`, is unsafe because of types that replace their descriptor. A
        // poller keeps the one it has.
        #[expect(deprecated, reason = "the safe way to say this")]
        let poller = AsyncFd::with_interest(mio::Poll::new()?, tokio::io::Interest::READABLE)?;
        Ok(Self {
            entrance,
            poller,
            events: Events::with_capacity(EVENTS_A_TURN),
            parked: Slab::new(),
            tickets: Tickets::default(),
            generation: 0,
            unfinished: Vec::new(),
            scratch: vec![0; 4096].into(),
            heads: Heads::default(),
            opening: Vec::new(),
        })
    }

    /// Does a bounded part of what does not come from the hub: arrivals, readiness, and streams that
    /// had more to take. Returns whether there may be more of it.
    pub(crate) fn turn(&mut self) -> bool {
        for arrival in self.entrance.take(STREAMS_A_TURN) {
            self.admit(arrival);
        }
        let rest = self.unfinished.len().saturating_sub(STREAMS_A_TURN);
        for token in self.unfinished.split_off(rest) {
            self.step(token, |parked, seat| parked.resume(seat));
        }
        let more = self.poll_sockets();
        more || !self.unfinished.is_empty() || !self.entrance.is_empty()
    }

    /// Does what a turn of the hub's sweeps and wheel found.
    pub(crate) fn serve(&mut self, turn: &mut Turn) {
        for Write { socket, task } in turn.writes.drain(..) {
            let Some(place) = self.parked.get(socket as usize) else { continue };
            let token = token(socket, place.generation);
            match task {
                Task::CatchUp => self.step(token, |parked, seat| parked.resume(seat)),
                Task::Keepalive => self.step(token, |parked, seat| parked.keep_alive(seat)),
                Task::End(reason) => self.step(token, |parked, _| Err(parked.end(reason))),
                Task::Events { count, view } => {
                    let events = &turn.events[turn.events.len() - count..];
                    self.step(token, |parked, seat| parked.deliver(events, turn.head, view, seat));
                }
            }
        }
    }

    /// Resolves when a socket is ready or a stream has arrived.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.entrance.is_empty() {
            return Poll::Ready(());
        }
        // Cleared before the poller is asked, so that what comes in between is an edge of its own.
        self.poller.poll_read_ready(cx).map(|ready| {
            if let Ok(mut ready) = ready {
                ready.clear_ready();
            }
        })
    }

    fn admit(&mut self, arrival: Arrival) {
        let Arrival { outlet, stream, chunked, heard, ticket } = arrival;
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let mut opening = mem::take(&mut self.opening);
        opening.clear();
        opening.extend_from_slice(self.heads.now(chunked));
        write_lines(&mut opening, stream.fields());
        opening.extend_from_slice(b"\r\n");
        let parked = Parked::new(outlet, stream, chunked, heard);
        let index = self.parked.insert(Place { generation, watched: false, parked });
        let number = u32::try_from(index).expect("fewer streams than descriptors");
        self.tickets.keep(number, ticket);
        let token = token(number, generation);
        let socket = self.parked[index].parked.outlet.socket();
        // A socket that died on its way here is ready at once.
        match self.poller.get_ref().registry().register(socket, token, Interest::READABLE) {
            Ok(()) => self.step(token, |parked, seat| parked.begin(&mut opening, seat)),
            Err(why) => {
                tracing::warn!(%why, "a stream could not be watched");
                self.remove(index, why.into());
            }
        }
        self.opening = opening;
    }

    /// Asks the poller once. Returns whether it may have more to tell.
    fn poll_sockets(&mut self) -> bool {
        let mut events = mem::replace(&mut self.events, Events::with_capacity(0));
        if let Err(why) = self.poller.get_mut().poll(&mut events, Some(Duration::ZERO)) {
            tracing::debug!(%why, "poll");
        }
        let mut count = 0;
        for event in &events {
            count += 1;
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.hear(event.token());
            }
            if event.is_writable() {
                self.step(event.token(), |parked, seat| parked.resume(seat));
            }
        }
        self.events = events;
        count == EVENTS_A_TURN
    }

    fn hear(&mut self, token: Token) {
        let mut scratch = mem::take(&mut self.scratch);
        self.step(token, |parked, _| parked.hear(&mut scratch));
        self.scratch = scratch;
    }

    /// Does something with a stream, if it is still there, and what follows from how that went.
    fn step(
        &mut self,
        token: Token,
        act: impl FnOnce(&mut Parked, Seat<'_>) -> Result<Flow, Over>,
    ) {
        let (index, generation) = place_of(token);
        let Some(place) = self.parked.get_mut(index) else { return };
        if place.generation != generation {
            return;
        }
        let number = u32::try_from(index).expect("came from a token");
        let counters = self.entrance.hub.lane_counters();
        match act(&mut place.parked, Seat { number, counters }) {
            Ok(Flow::Idle) => {}
            Ok(Flow::More) => self.unfinished.push(token),
            Ok(Flow::Blocked) if place.watched => {}
            Ok(Flow::Blocked) => {
                let registry = self.poller.get_ref().registry();
                let both = Interest::READABLE | Interest::WRITABLE;
                match registry.reregister(place.parked.outlet.socket(), token, both) {
                    Ok(()) => place.watched = true,
                    Err(why) => self.remove(index, why.into()),
                }
            }
            Err(over) => self.remove(index, over),
        }
    }

    fn remove(&mut self, index: usize, over: Over) {
        let mut place = self.parked.remove(index);
        place.parked.close_because(over);
        // Only a closed socket makes room.
        drop(place);
        self.tickets.give_back(u32::try_from(index).expect("was a number"));
        give_back_memory(&mut self.parked);
    }
}

fn token(number: u32, generation: u32) -> Token {
    Token((generation as usize) << 32 | number as usize)
}

fn place_of(token: Token) -> (usize, u32) {
    (token.0 & u32::MAX as usize, (token.0 >> 32) as u32)
}

// ===== impl Heads =====

impl Heads {
    /// The head of a response that begins now, as hyper writes it for [`EventStream::into_response`],
    /// but for its end: more fields may follow.
    fn now(&mut self, chunked: bool) -> &[u8] {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let head = &mut self.0[usize::from(chunked)];
        if head.as_ref().is_none_or(|(written, _)| *written != second) {
            *head = Some((second, write_head(chunked, now.into())));
        }
        head.as_ref().map_or(&[], |(_, head)| head)
    }
}

fn write_head(chunked: bool, date: HttpDate) -> Vec<u8> {
    let mut head = Vec::with_capacity(320);
    head.extend_from_slice(if chunked { b"HTTP/1.1" } else { b"HTTP/1.0" });
    head.extend_from_slice(b" 200 OK\r\n");
    for (name, value) in HEADERS {
        write!(head, "{name}: {value}\r\n").expect(TO_MEMORY);
    }
    if chunked {
        head.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    write!(head, "date: {date}\r\n").expect(TO_MEMORY);
    head
}

/// Appends header fields as lines.
fn write_lines(out: &mut Vec<u8>, fields: &[(HeaderName, HeaderValue)]) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

const TO_MEMORY: &str = "writing to memory does not fail";

const _: () = assert!(size_of::<Place>() <= 80, "a place is what an idle stream costs its worker");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HubConfig;
    use crate::hub::View;
    use crate::ids::Time;
    use crate::metrics::CloseReason;

    fn arrival(hub: &Hub) -> Arrival {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = std::net::TcpStream::connect(listener.local_addr().expect("bound"));
        let (socket, _) = listener.accept().expect("accepted");
        socket.set_nonblocking(true).expect("a socket");
        drop(client);
        let org = "acme".parse().expect("a name");
        let stream = EventStream::open(hub, &org, View::Member, None, Time(0)).expect("open");
        let outlet = Outlet::Plain(mio::net::TcpStream::from_std(socket));
        Arrival { outlet, stream, chunked: true, heard: 0, ticket: Ticket::default() }
    }

    /// Places are used again: what is said of the last stream must not reach the next one.
    #[tokio::test]
    async fn a_stale_token_reaches_nobody() {
        let hub = Hub::new(HubConfig::default());
        let mut lot = Lot::new(Entrance::new(hub.clone())).expect("a poller");
        lot.admit(arrival(&hub));
        let stale = token(0, lot.parked[0].generation);
        lot.remove(0, Over(CloseReason::Client));
        lot.admit(arrival(&hub));
        assert_eq!(lot.parked.len(), 1, "in the place of the first");
        lot.step(stale, |_, _| panic!("it reached somebody else's stream"));
        let mut reached = false;
        lot.step(token(0, lot.parked[0].generation), |_, _| {
            reached = true;
            Ok(Flow::Idle)
        });
        assert!(reached);
    }
}
