//! The parking lot of a worker: a slab of what has a socket, callers and [`Parked`] streams, and the poller
//! of their sockets. The lane's driver owns it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _};
use std::mem;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use mio::{Events, Interest, Token};
use slab::Slab;
use tokio::io::unix::AsyncFd;

use super::entrance::{Arrival, Caller, Entrance, Queue, Reception};
use super::head::Heads;
use super::parked::{Flow, Over, Parked, Seat};
use crate::admission::Tickets;
use crate::hub::{SEATS_A_TURN, Task, Turn, Write, give_back_memory};
use crate::ids::Time;

/// The lot.
#[derive(Debug)]
pub(crate) struct Lot {
    entrance: Entrance,
    /// Empty between turns; its memory is used again.
    queue: Queue,
    reception: Box<dyn Reception>,
    poller: AsyncFd<mio::Poll>,
    events: Events,
    places: Slab<Place>,
    tickets: Tickets,
    generation: u32,
    /// Streams that have more to take.
    unfinished: Vec<Token>,
    /// How long callers may say nothing, and who came when.
    patience: Duration,
    callers: VecDeque<(Time, Token)>,
    scratch: Box<[u8]>,
    heads: Heads,
}

/// A slot of the slab. Slots are used again, and the poller may still speak of the last one.
#[derive(Debug)]
struct Place {
    generation: u32,
    /// The poller has been asked to tell when the socket takes more.
    watched: bool,
    guest: Guest,
}

/// Who is in a place.
#[derive(Debug)]
enum Guest {
    Caller(Caller),
    Parked(Parked),
    /// For as long as it becomes the other.
    Nobody,
}

/// Readiness events that are taken from the poller at once.
const EVENTS_A_TURN: usize = 64;

/// Connections that come in, or streams that go on, in one turn.
const STREAMS_A_TURN: usize = SEATS_A_TURN;

/// Bytes that are read at once. A request that has as many or more is hyper's.
const READ: usize = 4096;

// ===== impl Lot =====

impl Lot {
    /// An empty lot, which gives callers so long to say something; inside a runtime, which watches the
    /// poller.
    pub(crate) fn new(
        entrance: Entrance,
        reception: Box<dyn Reception>,
        patience: Duration,
    ) -> io::Result<Self> {
        // Its successor, `register`, is unsafe because of types that replace their descriptor. A
        // poller keeps the one it has.
        #[expect(deprecated, reason = "the safe way to say this")]
        let poller = AsyncFd::with_interest(mio::Poll::new()?, tokio::io::Interest::READABLE)?;
        Ok(Self {
            entrance,
            queue: Queue::default(),
            reception,
            poller,
            events: Events::with_capacity(EVENTS_A_TURN),
            places: Slab::new(),
            tickets: Tickets::default(),
            generation: 0,
            unfinished: Vec::new(),
            patience,
            callers: VecDeque::new(),
            scratch: vec![0; READ].into(),
            heads: Heads::default(),
        })
    }

    /// Does a bounded part of what does not come from the hub: arrivals, readiness, and streams that
    /// had more to take. Returns whether there may be more of it.
    pub(crate) fn turn(&mut self, now: Time) -> bool {
        let mut queue = mem::take(&mut self.queue);
        self.entrance.take(STREAMS_A_TURN, &mut queue);
        for caller in queue.callers.drain(..) {
            if let Some(token) = self.watch(Guest::Caller(caller)) {
                self.callers.push_back((now, token));
            }
        }
        for Arrival { outlet, stream, chunked, heard, ticket } in queue.arrivals.drain(..) {
            let parked = Parked::new(outlet, stream, chunked, heard);
            if let Some(token) = self.watch(Guest::Parked(parked)) {
                self.tickets.keep(number(token), ticket);
                self.begin(token);
            }
        }
        self.queue = queue;
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
            let Some(place) = self.places.get(socket as usize) else { continue };
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

    /// Once a second: ends callers that have said nothing for too long.
    pub(crate) fn tick(&mut self, now: Time) {
        let mut callers = mem::take(&mut self.callers);
        callers.retain(|(came, token)| {
            let waits = self.is_caller(*token);
            let late = waits && came.after(self.patience) <= now;
            if late {
                self.places.remove(place_of(*token).0);
            }
            waits && !late
        });
        callers.shrink_to_fit();
        self.callers = callers;
        give_back_memory(&mut self.places);
    }

    /// Has all callers served without the lot, which is about to end.
    pub(crate) fn dismiss(&mut self) {
        self.entrance.take(usize::MAX, &mut self.queue);
        for caller in self.queue.callers.drain(..) {
            self.reception.serve(caller, Bytes::new());
        }
        for (_, token) in mem::take(&mut self.callers) {
            if self.is_caller(token)
                && let Guest::Caller(caller) = self.places.remove(place_of(token).0).guest
            {
                self.pass_on(caller, Bytes::new());
            }
        }
    }

    /// Resolves when a socket is ready or a connection has come in.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.entrance.is_empty() {
            return Poll::Ready(());
        }
        self.poller.poll_read_ready(cx).map(|_| ())
    }

    /// Gives a place to who has a socket, and has the poller watch it.
    fn watch(&mut self, guest: Guest) -> Option<Token> {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let index = self.places.insert(Place { generation, watched: false, guest });
        let token = token(u32::try_from(index).expect("fewer than descriptors"), generation);
        let socket = match &mut self.places[index].guest {
            Guest::Caller(caller) => &mut caller.socket,
            Guest::Parked(parked) => parked.outlet.socket(),
            Guest::Nobody => return None,
        };
        // A socket that died on its way here, or that has something to read, is ready at once.
        match self.poller.get_ref().registry().register(socket, token, Interest::READABLE) {
            Ok(()) => Some(token),
            Err(why) => {
                tracing::warn!(%why, "a connection could not be watched");
                if let Guest::Parked(mut parked) = self.places.remove(index).guest {
                    parked.close_because(why.into());
                }
                None
            }
        }
    }

    fn begin(&mut self, token: Token) {
        let mut heads = mem::take(&mut self.heads);
        self.step(token, |parked, seat| parked.begin(&mut heads, seat));
        self.heads = heads;
    }

    /// Asks the poller once, if it has something to tell. Returns whether it may have more.
    fn poll_sockets(&mut self) -> bool {
        let mut events = mem::replace(&mut self.events, Events::with_capacity(0));
        let mut more = false;
        _ = self.poller.try_io_mut(tokio::io::Interest::READABLE, |poller| {
            poller.poll(&mut events, Some(Duration::ZERO))?;
            more = events.iter().count() == EVENTS_A_TURN;
            if more { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) }
        });
        for event in &events {
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.read(event.token(), event.is_read_closed());
            }
            if event.is_writable() {
                self.step(event.token(), |parked, seat| parked.resume(seat));
            }
        }
        events.clear();
        self.events = events;
        more
    }

    fn read(&mut self, token: Token, closed: bool) {
        if self.is_caller(token) {
            self.receive(token);
            if !closed {
                return;
            }
        }
        let mut scratch = mem::take(&mut self.scratch);
        self.step(token, |parked, _| parked.hear(&mut scratch));
        self.scratch = scratch;
    }

    /// Reads what a caller says first.
    fn receive(&mut self, token: Token) {
        let (index, _) = place_of(token);
        let Guest::Caller(caller) = &mut self.places[index].guest else { return };
        let length = loop {
            match caller.socket.read(&mut self.scratch) {
                Ok(length @ 1..) => break length,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return,
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return drop(self.places.remove(index)),
            }
        };
        let first = Bytes::copy_from_slice(&self.scratch[..length]);
        let guest = mem::replace(&mut self.places[index].guest, Guest::Nobody);
        let Guest::Caller(caller) = guest else { return };
        let opened = if length == READ { Err(caller) } else { self.reception.open(caller, &first) };
        match opened {
            Ok(Arrival { outlet, stream, chunked, heard, ticket }) => {
                let parked = Parked::new(outlet, stream, chunked, heard);
                self.places[index].guest = Guest::Parked(parked);
                self.tickets.keep(number(token), ticket);
                self.begin(token);
            }
            Err(caller) => {
                self.places.remove(index);
                give_back_memory(&mut self.places);
                self.pass_on(caller, first);
            }
        }
    }

    /// Has a caller served without the lot.
    fn pass_on(&self, mut caller: Caller, first: Bytes) {
        match self.poller.get_ref().registry().deregister(&mut caller.socket) {
            Ok(()) => self.reception.serve(caller, first),
            Err(why) => tracing::warn!(%why, "a connection is still watched"),
        }
    }

    fn is_caller(&self, token: Token) -> bool {
        let (index, generation) = place_of(token);
        let place = self.places.get(index).filter(|place| place.generation == generation);
        place.is_some_and(|place| matches!(place.guest, Guest::Caller(_)))
    }

    /// Does something with a stream, if it is still there, and what follows from how that went.
    fn step(
        &mut self,
        token: Token,
        act: impl FnOnce(&mut Parked, Seat<'_>) -> Result<Flow, Over>,
    ) {
        let (index, generation) = place_of(token);
        let Some(place) = self.places.get_mut(index) else { return };
        let Guest::Parked(parked) = &mut place.guest else { return };
        if place.generation != generation {
            return;
        }
        let counters = self.entrance.hub().lane_counters();
        match act(parked, Seat { number: number(token), counters }) {
            Ok(Flow::Idle) => {}
            Ok(Flow::More) => self.unfinished.push(token),
            Ok(Flow::Blocked) if place.watched => {}
            Ok(Flow::Blocked) => {
                let registry = self.poller.get_ref().registry();
                let both = Interest::READABLE | Interest::WRITABLE;
                match registry.reregister(parked.outlet.socket(), token, both) {
                    Ok(()) => place.watched = true,
                    Err(why) => self.remove(token, why.into()),
                }
            }
            Err(over) => self.remove(token, over),
        }
    }

    fn remove(&mut self, token: Token, over: Over) {
        let mut place = self.places.remove(place_of(token).0);
        if let Guest::Parked(parked) = &mut place.guest {
            parked.close_because(over);
        }
        // Only a closed socket makes room.
        drop(place);
        self.tickets.give_back(number(token));
        give_back_memory(&mut self.places);
    }
}

fn token(number: u32, generation: u32) -> Token {
    Token((generation as usize) << 32 | number as usize)
}

fn place_of(token: Token) -> (usize, u32) {
    (token.0 & u32::MAX as usize, (token.0 >> 32) as u32)
}

fn number(token: Token) -> u32 {
    token.0 as u32
}

const _: () = assert!(size_of::<Place>() <= 80, "a place is what an idle stream costs its worker");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HubConfig;
    use crate::hub::{Hub, View};
    use crate::metrics::CloseReason;
    use crate::stream::tests::{Desk, narrow_pair};
    use crate::stream::{EventStream, Outlet};

    fn parked(hub: &Hub) -> Guest {
        let (socket, _) = narrow_pair();
        socket.set_nonblocking(true).expect("a socket");
        let org = "acme".parse().expect("a name");
        let stream = EventStream::open(hub, &org, View::Member, None, Time(0)).expect("open");
        let outlet = Outlet::Plain(mio::net::TcpStream::from_std(socket));
        Guest::Parked(Parked::new(outlet, stream, true, 0))
    }

    /// Places are used again: what is said of the last stream must not reach the next one.
    #[tokio::test]
    async fn a_stale_token_reaches_nobody() {
        let hub = Hub::new(HubConfig::default());
        let entrance = Entrance::new(hub.clone());
        let reception = Box::new(Desk::new(&hub));
        let mut lot = Lot::new(entrance, reception, Duration::ZERO).expect("a poller");
        let stale = lot.watch(parked(&hub)).expect("a place");
        lot.remove(stale, Over(CloseReason::Client));
        let next = lot.watch(parked(&hub)).expect("a place");
        assert_eq!(number(next), number(stale), "in the place of the first");
        lot.step(stale, |_, _| panic!("it reached somebody else's stream"));
        let mut reached = false;
        lot.step(next, |_, _| {
            reached = true;
            Ok(Flow::Idle)
        });
        assert!(reached);
    }
}
