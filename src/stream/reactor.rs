//! The parking reactor of a worker: a slab of what has a socket, waiting and [`StreamConn`] streams, and the poller
//! of their sockets. The shard's driver owns it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _};
use std::mem;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use mio::{Events, Interest, Token};
use slab::Slab;
use tokio::io::unix::AsyncFd;

use super::handle::{Accepted, Arrival, Entrance, Queue, Reception};
use super::response_head::ResponseHeads;
use super::stream_conn::{Closed, ConnCtx, Flow, StreamConn};
use crate::admission::PermitTable;
use crate::hub::{Batch, SEATS_PER_TURN, WriteKind, WriteOp, shrink_if_sparse};
use crate::ids::Time;

/// The reactor.
#[derive(Debug)]
pub(crate) struct Reactor {
    entrance: Entrance,
    /// Empty between turns; its memory is used again.
    queue: Queue,
    reception: Box<dyn Reception>,
    poller: AsyncFd<mio::Poll>,
    events: Events,
    slots: Slab<Slot>,
    permits: PermitTable,
    generation: u32,
    /// Streams that have more to take.
    unfinished: Vec<Token>,
    /// How long waiting may say nothing, and who came when.
    head_timeout: Duration,
    waiting: VecDeque<(Time, Token)>,
    scratch: Box<[u8]>,
    heads: ResponseHeads,
}

/// A slot of the slab. Slots are used again, and the poller may still speak of the last one.
#[derive(Debug)]
struct Slot {
    generation: u32,
    /// The poller has been asked to tell when the socket takes more.
    watched: bool,
    conn: Conn,
}

/// Who is in a slot.
#[derive(Debug)]
enum Conn {
    Waiting(Accepted),
    Streaming(StreamConn),
    /// For as long as it becomes the other.
    Empty,
}

/// Readiness events that are taken from the poller at once.
const EVENTS_PER_TURN: usize = 64;

/// Connections that come in, or streams that go on, in one turn.
const STREAMS_PER_TURN: usize = SEATS_PER_TURN;

/// Bytes that are read at once. A request that has as many or more is hyper's.
const READ: usize = 4096;

// ===== impl Reactor =====

impl Reactor {
    /// An empty reactor, which gives waiting so long to say something; inside a runtime, which watches the
    /// poller.
    pub(crate) fn new(
        entrance: Entrance,
        reception: Box<dyn Reception>,
        head_timeout: Duration,
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
            events: Events::with_capacity(EVENTS_PER_TURN),
            slots: Slab::new(),
            permits: PermitTable::default(),
            generation: 0,
            unfinished: Vec::new(),
            head_timeout,
            waiting: VecDeque::new(),
            scratch: vec![0; READ].into(),
            heads: ResponseHeads::default(),
        })
    }

    /// Does a bounded part of what does not come from the hub: arrivals, readiness, and streams that
    /// had more to take. Returns whether there may be more of it.
    pub(crate) fn turn(&mut self, now: Time) -> bool {
        let mut queue = mem::take(&mut self.queue);
        self.entrance.take(STREAMS_PER_TURN, &mut queue);
        for accepted in queue.waiting.drain(..) {
            if let Some(token) = self.watch(Conn::Waiting(accepted)) {
                self.waiting.push_back((now, token));
            }
        }
        for Arrival { transport, stream, chunked, discarded, permit } in queue.arrivals.drain(..) {
            let conn = StreamConn::new(transport, stream, chunked, discarded);
            if let Some(token) = self.watch(Conn::Streaming(conn)) {
                self.permits.keep(number(token), permit);
                self.begin(token);
            }
        }
        self.queue = queue;
        let rest = self.unfinished.len().saturating_sub(STREAMS_PER_TURN);
        for token in self.unfinished.split_off(rest) {
            self.step(token, |conn, seat| conn.resume(seat));
        }
        let more = self.poll_sockets();
        more || !self.unfinished.is_empty() || !self.entrance.is_empty()
    }

    /// Does what a turn of the hub's sweeps and wheel found.
    pub(crate) fn serve(&mut self, batch: &mut Batch) {
        for WriteOp { socket, kind } in batch.writes.drain(..) {
            let Some(slot) = self.slots.get(socket as usize) else { continue };
            let token = token(socket, slot.generation);
            match kind {
                WriteKind::CatchUp => self.step(token, |conn, seat| conn.resume(seat)),
                WriteKind::Keepalive => self.step(token, |conn, seat| conn.keep_alive(seat)),
                WriteKind::End(reason) => self.step(token, |conn, _| Err(conn.end(reason))),
                WriteKind::Events { count, view } => {
                    let events = &batch.events[batch.events.len() - count..];
                    self.step(token, |conn, seat| conn.deliver(events, batch.head, view, seat));
                }
            }
        }
    }

    /// Once a second: ends waiting that have said nothing for too long.
    pub(crate) fn tick(&mut self, now: Time) {
        let mut waiting = mem::take(&mut self.waiting);
        waiting.retain(|(came, token)| {
            let waits = self.is_caller(*token);
            let late = waits && came.after(self.head_timeout) <= now;
            if late {
                self.slots.remove(slot_of(*token).0);
            }
            waits && !late
        });
        waiting.shrink_to_fit();
        self.waiting = waiting;
        shrink_if_sparse(&mut self.slots);
    }

    /// Has all waiting served without the reactor, which is about to end.
    pub(crate) fn dismiss(&mut self) {
        self.entrance.take(usize::MAX, &mut self.queue);
        for accepted in self.queue.waiting.drain(..) {
            self.reception.serve(accepted, Bytes::new());
        }
        for (_, token) in mem::take(&mut self.waiting) {
            if self.is_caller(token)
                && let Conn::Waiting(accepted) = self.slots.remove(slot_of(token).0).conn
            {
                self.pass_on(accepted, Bytes::new());
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

    /// Gives a slot to who has a socket, and has the poller watch it.
    fn watch(&mut self, conn: Conn) -> Option<Token> {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let index = self.slots.insert(Slot { generation, watched: false, conn });
        let token = token(u32::try_from(index).expect("fewer than descriptors"), generation);
        let socket = match &mut self.slots[index].conn {
            Conn::Waiting(accepted) => &mut accepted.socket,
            Conn::Streaming(conn) => conn.transport.socket(),
            Conn::Empty => return None,
        };
        // A socket that died on its way here, or that has something to read, is ready at once.
        match self.poller.get_ref().registry().register(socket, token, Interest::READABLE) {
            Ok(()) => Some(token),
            Err(why) => {
                tracing::warn!(%why, "a connection could not be watched");
                if let Conn::Streaming(mut conn) = self.slots.remove(index).conn {
                    conn.close_because(why.into());
                }
                None
            }
        }
    }

    fn begin(&mut self, token: Token) {
        let mut heads = mem::take(&mut self.heads);
        self.step(token, |conn, seat| conn.begin(&mut heads, seat));
        self.heads = heads;
    }

    /// Asks the poller once, if it has something to tell. Returns whether it may have more.
    fn poll_sockets(&mut self) -> bool {
        let mut events = mem::replace(&mut self.events, Events::with_capacity(0));
        let mut more = false;
        _ = self.poller.try_io_mut(tokio::io::Interest::READABLE, |poller| {
            poller.poll(&mut events, Some(Duration::ZERO))?;
            more = events.iter().count() == EVENTS_PER_TURN;
            if more { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) }
        });
        for event in &events {
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.read(event.token(), event.is_read_closed());
            }
            if event.is_writable() {
                self.step(event.token(), |conn, seat| conn.resume(seat));
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
        self.step(token, |conn, _| conn.discard_input(&mut scratch));
        self.scratch = scratch;
    }

    /// Reads what a accepted says first.
    fn receive(&mut self, token: Token) {
        let (index, _) = slot_of(token);
        let Conn::Waiting(accepted) = &mut self.slots[index].conn else { return };
        let length = loop {
            match accepted.socket.read(&mut self.scratch) {
                Ok(length @ 1..) => break length,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return,
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return drop(self.slots.remove(index)),
            }
        };
        let first = Bytes::copy_from_slice(&self.scratch[..length]);
        let conn = mem::replace(&mut self.slots[index].conn, Conn::Empty);
        let Conn::Waiting(accepted) = conn else { return };
        let opened =
            if length == READ { Err(accepted) } else { self.reception.open(accepted, &first) };
        match opened {
            Ok(Arrival { transport, stream, chunked, discarded, permit }) => {
                let conn = StreamConn::new(transport, stream, chunked, discarded);
                self.slots[index].conn = Conn::Streaming(conn);
                self.permits.keep(number(token), permit);
                self.begin(token);
            }
            Err(accepted) => {
                self.slots.remove(index);
                shrink_if_sparse(&mut self.slots);
                self.pass_on(accepted, first);
            }
        }
    }

    /// Has a accepted served without the reactor.
    fn pass_on(&self, mut accepted: Accepted, first: Bytes) {
        match self.poller.get_ref().registry().deregister(&mut accepted.socket) {
            Ok(()) => self.reception.serve(accepted, first),
            Err(why) => tracing::warn!(%why, "a connection is still watched"),
        }
    }

    fn is_caller(&self, token: Token) -> bool {
        let (index, generation) = slot_of(token);
        let slot = self.slots.get(index).filter(|slot| slot.generation == generation);
        slot.is_some_and(|slot| matches!(slot.conn, Conn::Waiting(_)))
    }

    /// Does something with a stream, if it is still there, and what follows from how that went.
    fn step(
        &mut self,
        token: Token,
        act: impl FnOnce(&mut StreamConn, ConnCtx<'_>) -> Result<Flow, Closed>,
    ) {
        let (index, generation) = slot_of(token);
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Conn::Streaming(conn) = &mut slot.conn else { return };
        if slot.generation != generation {
            return;
        }
        let counters = self.entrance.hub().shard_counters();
        match act(conn, ConnCtx { number: number(token), counters }) {
            Ok(Flow::Idle) => {}
            Ok(Flow::More) => self.unfinished.push(token),
            Ok(Flow::Blocked) if slot.watched => {}
            Ok(Flow::Blocked) => {
                let registry = self.poller.get_ref().registry();
                let both = Interest::READABLE | Interest::WRITABLE;
                match registry.reregister(conn.transport.socket(), token, both) {
                    Ok(()) => slot.watched = true,
                    Err(why) => self.remove(token, why.into()),
                }
            }
            Err(over) => self.remove(token, over),
        }
    }

    fn remove(&mut self, token: Token, over: Closed) {
        let mut slot = self.slots.remove(slot_of(token).0);
        if let Conn::Streaming(conn) = &mut slot.conn {
            conn.close_because(over);
        }
        // Only a closed socket makes room.
        drop(slot);
        self.permits.give_back(number(token));
        shrink_if_sparse(&mut self.slots);
    }
}

fn token(number: u32, generation: u32) -> Token {
    Token((generation as usize) << 32 | number as usize)
}

fn slot_of(token: Token) -> (usize, u32) {
    (token.0 & u32::MAX as usize, (token.0 >> 32) as u32)
}

fn number(token: Token) -> u32 {
    token.0 as u32
}

const _: () = assert!(size_of::<Slot>() <= 80, "a slot is what an idle stream costs its worker");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HubConfig;
    use crate::hub::{Hub, View};
    use crate::metrics::CloseReason;
    use crate::stream::tests::{Desk, narrow_pair};
    use crate::stream::{EventStream, Transport};

    fn parked(hub: &Hub) -> Conn {
        let (socket, _) = narrow_pair();
        socket.set_nonblocking(true).expect("a socket");
        let org = "acme".parse().expect("a name");
        let stream = EventStream::open(hub, &org, View::Member, None, Time(0)).expect("open");
        let transport = Transport::Plain(mio::net::TcpStream::from_std(socket));
        Conn::Streaming(StreamConn::new(transport, stream, true, 0))
    }

    /// Places are used again: what is said of the last stream must not reach the next one.
    #[tokio::test]
    async fn a_stale_token_reaches_nobody() {
        let hub = Hub::new(HubConfig::default());
        let entrance = Entrance::new(hub.clone());
        let reception = Box::new(Desk::new(&hub));
        let mut reactor = Reactor::new(entrance, reception, Duration::ZERO).expect("a poller");
        let stale = reactor.watch(parked(&hub)).expect("a slot");
        reactor.remove(stale, Closed(CloseReason::Client));
        let next = reactor.watch(parked(&hub)).expect("a slot");
        assert_eq!(number(next), number(stale), "in the slot of the first");
        reactor.step(stale, |_, _| panic!("it reached somebody else's stream"));
        let mut reached = false;
        reactor.step(next, |_, _| {
            reached = true;
            Ok(Flow::Idle)
        });
        assert!(reached);
    }
}
