//! The connections of a reactor: a slab of them, and the poller that watches their sockets.

use std::collections::VecDeque;
use std::io;
use std::mem;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Token};
use slab::Slab;
use tokio::io::unix::AsyncFd;

use super::input_window::TurnInput;
use super::stream_conn::{Closed, ConnCtx, Flow, StreamConn};
use super::waiting::Waiting;
#[cfg(target_os = "linux")]
use crate::admission::PermitState;
use crate::admission::{ConnPermit, PermitTable};
#[cfg(feature = "tls")]
use crate::config::TlsRecords;
use crate::hub::{Hub, SocketId, shrink_if_sparse};

/// Every connection that the reactor watches.
#[derive(Debug)]
pub(super) struct Conns {
    poller: AsyncFd<mio::Poll>,
    slots: Slab<Slot>,
    /// The permits of streaming connections, by socket number.
    permits: PermitTable,
    generation: u32,
    /// Streams that can be written to and have more to take.
    unfinished: Vec<Token>,
    /// Streams whose clients may have sent more, each once, in the order in which they are read.
    unread: VecDeque<Token>,
    #[cfg(feature = "tls")]
    pub(super) tls_records: TlsRecords,
    hub: Hub,
}

/// A slot of the slab. Slots are used again, and the poller may still report events of the last socket, so
/// each use has a generation of its own (an ABA guard).
#[derive(Debug)]
struct Slot {
    generation: u32,
    /// The socket is registered with the poller.
    is_watched: bool,
    /// It is, or will be, registered for writability too.
    watches_writes: bool,
    /// It is in [`Conns::unread`].
    is_unread: bool,
    conn: Conn,
}

/// A connection, by what it is waiting for.
#[derive(Debug)]
enum Conn {
    /// For its first request.
    Waiting(Waiting),
    /// For events.
    Streaming(StreamConn),
    /// For the outcome of its first request, which is being read.
    Opening,
}

// ===== impl Conns =====

impl Conns {
    /// No connections yet. Inside a runtime, which watches the poller.
    pub(super) fn new(hub: Hub) -> io::Result<Self> {
        // Its successor, `register`, is unsafe because of types that replace their descriptor. A
        // poller keeps the one it has.
        #[expect(deprecated, reason = "the safe constructor")]
        let poller = AsyncFd::with_interest(mio::Poll::new()?, tokio::io::Interest::READABLE)?;
        Ok(Self {
            poller,
            slots: Slab::new(),
            permits: PermitTable::default(),
            generation: 0,
            unfinished: Vec::new(),
            unread: VecDeque::new(),
            #[cfg(feature = "tls")]
            tls_records: TlsRecords::default(),
            hub,
        })
    }

    /// Makes room for so many connections more, and no more than that.
    pub(super) fn reserve(&mut self, count: usize) {
        self.slots.reserve_exact(count);
    }

    /// Takes a connection that waits for its request. Its socket is not watched yet.
    pub(super) fn insert_waiting(&mut self, waiting: Waiting) -> Token {
        self.insert(Conn::Waiting(waiting))
    }

    /// Watches the socket of a streaming connection.
    pub(super) fn insert_streaming(
        &mut self,
        conn: StreamConn,
        permit: ConnPermit,
    ) -> Option<Token> {
        let token = self.insert(Conn::Streaming(conn));
        self.permits.keep(socket_id(token), permit);
        self.watch(token).then_some(token)
    }

    fn insert(&mut self, conn: Conn) -> Token {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot =
            Slot { generation, is_watched: false, watches_writes: false, is_unread: false, conn };
        let index = self.slots.insert(slot);
        token(u32::try_from(index).expect("fewer than descriptors"), generation)
    }

    /// Watches the socket of a connection, if it is still there. Returns whether it is. A socket that has died
    /// meanwhile, or that has something to read, is ready at once.
    pub(super) fn watch(&mut self, token: Token) -> bool {
        let (index, generation) = slot_of(token);
        let slot = self.slots.get_mut(index).filter(|slot| slot.generation == generation);
        let Some(slot) = slot else { return false };
        let socket = match &mut slot.conn {
            Conn::Waiting(waiting) => &mut waiting.accepted.socket,
            Conn::Streaming(conn) => conn.transport.socket(),
            Conn::Opening => return false,
        };
        let interest = match slot.watches_writes {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        match self.poller.get_ref().registry().register(socket, token, interest) {
            Ok(()) => {
                slot.is_watched = true;
                true
            }
            Err(why) => {
                tracing::warn!(%why, "a connection could not be watched");
                match slot.conn {
                    Conn::Streaming(_) => self.close(token, why.into()),
                    _ => self.free(token),
                }
                false
            }
        }
    }

    /// The token of the connection that has this id now.
    pub(super) fn token(&self, socket: SocketId) -> Option<Token> {
        let slot = self.slots.get(socket.0 as usize)?;
        Some(token(socket.0, slot.generation))
    }

    /// The connection, if it is there and waits for its request.
    pub(super) fn waiting(&mut self, token: Token) -> Option<&mut Waiting> {
        match &mut self.slot(token)?.conn {
            Conn::Waiting(waiting) => Some(waiting),
            _ => None,
        }
    }

    /// Takes a waiting connection out of its slot, which has to be given to a stream or freed next.
    pub(super) fn take_waiting(&mut self, token: Token) -> Option<Waiting> {
        let conn = &mut self.slot(token).filter(|slot| matches!(slot.conn, Conn::Waiting(_)))?.conn;
        match mem::replace(conn, Conn::Opening) {
            Conn::Waiting(waiting) => Some(waiting),
            _ => None,
        }
    }

    /// Has the connection that was taken out stream from now on. Its socket stays watched.
    pub(super) fn begin_streaming(&mut self, token: Token, conn: StreamConn, permit: ConnPermit) {
        if let Some(slot) = self.slot(token) {
            slot.conn = Conn::Streaming(conn);
            self.permits.keep(socket_id(token), permit);
        }
    }

    /// Frees the slot of a connection that was taken out or has ended before its request.
    pub(super) fn free(&mut self, token: Token) {
        self.slots.try_remove(slot_of(token).0);
        shrink_if_sparse(&mut self.slots);
    }

    /// Stops watching the socket of a connection that was taken out, if it is watched, and frees its slot.
    pub(super) fn release(&mut self, token: Token, socket: &mut TcpStream) -> io::Result<()> {
        let is_watched = self.slot(token).is_some_and(|slot| slot.is_watched);
        self.free(token);
        if !is_watched {
            return Ok(());
        }
        self.poller.get_ref().registry().deregister(socket)
    }

    /// Runs `act` on a streaming connection, if it is still there, and does what follows from its result.
    pub(super) fn step(
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
        let ctx = ConnCtx {
            socket: socket_id(token),
            counters: self.hub.shard_counters(),
            #[cfg(feature = "tls")]
            tls_records: &self.tls_records,
        };
        match act(conn, ctx) {
            Ok(Flow::Idle) => {}
            Ok(Flow::More) => self.unfinished.push(token),
            Ok(Flow::Unread) => {
                if !mem::replace(&mut slot.is_unread, true) {
                    self.unread.push_back(token);
                }
            }
            Ok(Flow::Blocked) => {
                if mem::replace(&mut slot.watches_writes, true) || !slot.is_watched {
                    return;
                }
                let registry = self.poller.get_ref().registry();
                let both = Interest::READABLE | Interest::WRITABLE;
                if let Err(why) = registry.reregister(conn.transport.socket(), token, both) {
                    self.close(token, why.into());
                }
            }
            Err(closed) => self.close(token, closed),
        }
    }

    fn close(&mut self, token: Token, closed: Closed) {
        let mut slot = self.slots.remove(slot_of(token).0);
        if let Conn::Streaming(conn) = &mut slot.conn {
            conn.close_because(closed);
        }
        // The permit is given back once the socket is closed: only then is there room for another.
        drop(slot);
        self.permits.give_back(socket_id(token));
        shrink_if_sparse(&mut self.slots);
    }

    /// The streams, each with what its connection counts for.
    #[cfg(target_os = "linux")]
    pub(super) fn streams(&self) -> impl Iterator<Item = (Token, &StreamConn, PermitState)> {
        self.slots.iter().filter_map(|(index, slot)| {
            // What the poller and the lists below know of it is found out anew by its successor.
            let Slot { generation, is_watched: _, watches_writes: _, is_unread: _, conn } = slot;
            let Conn::Streaming(conn) = conn else { return None };
            let token = token(u32::try_from(index).expect("fewer than descriptors"), *generation);
            Some((token, conn, self.permits.state(socket_id(token))))
        })
    }

    /// The socket of a stream that can be given away.
    #[cfg(target_os = "linux")]
    pub(super) fn socket(&self, token: Token) -> Option<BorrowedFd<'_>> {
        match &self.slots.get(slot_of(token).0)?.conn {
            Conn::Streaming(conn) => Some(conn.transport.movable()?.as_fd()),
            _ => None,
        }
    }

    /// Forgets streams that have been given away. Their sockets are open in another process, and stay so: no end is
    /// sent, and they have to leave the poller, which watches what is open, not what this process has.
    #[cfg(target_os = "linux")]
    pub(super) fn forget(&mut self, given: Vec<Token>) {
        for token in given {
            let slot = self.slots.try_remove(slot_of(token).0);
            let Some(Slot { conn: Conn::Streaming(mut conn), .. }) = slot else { continue };
            if let Err(why) = self.poller.get_ref().registry().deregister(conn.transport.socket()) {
                tracing::warn!(%why, "a connection is still watched");
            }
            conn.give_away();
            self.permits.give_back(socket_id(token));
        }
        self.shrink();
        self.slots.shrink_to_fit();
    }

    /// Goes on with at most `count_max` of the streams that have more to take.
    pub(super) fn resume_some(&mut self, count_max: usize) {
        let rest = self.unfinished.len().saturating_sub(count_max);
        for token in self.unfinished.split_off(rest) {
            self.step(token, |conn, ctx| conn.resume(ctx));
        }
    }

    pub(super) fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Reads and discards what the client of a stream has sent, unless it waits for its turn to be read.
    pub(super) fn discard_input(&mut self, token: Token, scratch: &mut [u8], turn: &mut TurnInput) {
        if self.slot(token).is_some_and(|slot| !slot.is_unread) {
            self.step(token, |conn, _| conn.discard_input(scratch, turn));
        }
    }

    /// Reads from at most `count_max` of the streams whose clients may have sent more.
    pub(super) fn discard_some(
        &mut self,
        count_max: usize,
        scratch: &mut [u8],
        turn: &mut TurnInput,
    ) {
        for _ in 0..self.unread.len().min(count_max) {
            if turn.left == 0 {
                return;
            }
            let Some(token) = self.unread.pop_front() else { return };
            if let Some(slot) = self.slot(token) {
                slot.is_unread = false;
                self.step(token, |conn, _| conn.discard_input(scratch, turn));
            }
        }
    }

    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Gives memory back that connections before needed.
    pub(super) fn shrink(&mut self) {
        shrink_if_sparse(&mut self.slots);
        self.unread.shrink_to_fit();
    }

    /// Resolves when the poller may have events.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poller.poll_read_ready(cx).map(|_| ())
    }

    /// Asks the poller once for events, if it may have any. Returns whether it may have more than fit.
    pub(super) fn poll_events(&mut self, events: &mut Events) -> bool {
        let mut more = false;
        _ = self.poller.try_io_mut(tokio::io::Interest::READABLE, |poller| {
            poller.poll(events, Some(Duration::ZERO))?;
            more = events.iter().count() == events.capacity();
            if more { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        more
    }

    fn slot(&mut self, token: Token) -> Option<&mut Slot> {
        let (index, generation) = slot_of(token);
        self.slots.get_mut(index).filter(|slot| slot.generation == generation)
    }
}

fn token(number: u32, generation: u32) -> Token {
    Token((generation as usize) << 32 | number as usize)
}

fn slot_of(token: Token) -> (usize, u32) {
    (token.0 & u32::MAX as usize, (token.0 >> 32) as u32)
}

fn socket_id(token: Token) -> SocketId {
    SocketId(token.0 as u32)
}

/// 72 bytes; a debug build of mio adds 8 to a socket.
const _: () = assert!(
    size_of::<Slot>() <= 64 + size_of::<TcpStream>().next_multiple_of(8),
    "a slot is what an idle stream costs its worker"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HubConfig;
    use crate::hub::View;
    use crate::metrics::CloseReason;
    use crate::server::reactor::tests::narrow_pair;
    use crate::server::reactor::transport::Transport;
    use crate::stream::EventStream;
    use crate::time::Time;

    fn insert_stream(conns: &mut Conns) -> Token {
        let (socket, _) = narrow_pair();
        socket.set_nonblocking(true).expect("a socket");
        let org = "acme".parse().expect("a name");
        let stream = EventStream::open(&conns.hub, &org, View::Member, None, Time(0));
        let transport = Transport::Plain(TcpStream::from_std(socket));
        let conn = StreamConn::new(transport, stream.expect("open"), true, 0);
        conns.insert_streaming(conn, ConnPermit::default()).expect("a slot")
    }

    /// Slots are reused: an event of the former socket must not reach the connection that now has its slot.
    #[tokio::test]
    async fn a_stale_token_reaches_no_connection() {
        let mut conns = Conns::new(Hub::new(HubConfig::default())).expect("a poller");
        let stale = insert_stream(&mut conns);
        conns.close(stale, Closed(CloseReason::Client));
        let next = insert_stream(&mut conns);
        assert_eq!(socket_id(next), socket_id(stale), "in the slot of the first");
        conns.step(stale, |_, _| panic!("the event reached another connection's stream"));
        let mut reached = false;
        conns.step(next, |_, _| {
            reached = true;
            Ok(Flow::Idle)
        });
        assert!(reached);
    }
}
