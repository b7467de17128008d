//! The reactor of a worker: it watches the sockets of connections that wait for their first request, and of all HTTP/1
//! streams, in the clear or behind TLS, whose handshakes it performs and whose events it writes itself. None of them has
//! a task or a timer. The driver of the worker's shard owns the reactor and calls it through [`Sockets`].

mod conns;
#[cfg(target_os = "linux")]
mod freeze;
mod handle;
mod handshakes;
mod headers;
mod input_window;
mod parts;
mod response_head;
mod stream_conn;
#[cfg(test)]
mod tests;
mod transport;
mod waiting;

use std::io;
use std::mem;
use std::task::{Context, Poll};

use mio::event::Event;
use mio::{Events, Token};
use tokio::sync::watch;

use self::conns::Conns;
use self::handle::Inbox;
use self::handshakes::{HANDSHAKES_PER_TURN, ReadyHandshakes, Securing};
use self::headers::AwaitedHeaders;
use self::input_window::TurnInput;
use self::response_head::ResponseHeads;
use self::waiting::{Waiting, WaitingConns, is_at_end};
use super::conn_context::ConnContext;
use crate::config::STREAM_INPUT_PER_TURN;
use crate::http::Handoff;
use crate::hub::{Batch, SEATS_PER_TURN, WriteKind, WriteOp};
use crate::stream::Sockets;
use crate::time::Time;

pub(crate) use self::handle::{Accepted, Adopted, Handle};
pub(crate) use self::stream_conn::StreamConn;
pub(super) use self::stream_conn::close_reason;
pub(super) use self::transport::Transport;

/// The connections of one worker that no task serves.
#[derive(Debug)]
pub(crate) struct Reactor {
    context: ConnContext,
    /// Between turns it has those only that have streamed in another process; its memory is used again.
    inbox: Inbox,
    events: Events,
    conns: Conns,
    waiting: WaitingConns,
    handshakes: ReadyHandshakes,
    headers: AwaitedHeaders,
    /// The time of this turn.
    now: Time,
    scratch: Box<[u8]>,
    /// What may still be read from streams in this turn.
    input: TurnInput,
    heads: ResponseHeads,
    /// Wakes the worker's other connections, once they are to be passed on.
    connections: Option<watch::Sender<bool>>,
}

/// Readiness events that are taken from the poller at once.
const EVENTS_PER_TURN: usize = 64;

/// Connections that are registered, or streams that go on, in one turn.
const STREAMS_PER_TURN: usize = SEATS_PER_TURN;

/// Bytes of one read. hyper parses a request whose head does not fit.
const READ_BYTES: usize = 4096;

// ===== impl Reactor =====

impl Reactor {
    /// A reactor without connections. Inside a runtime, which watches its poller.
    pub(crate) fn new(context: ConnContext) -> io::Result<Self> {
        #[cfg_attr(not(feature = "tls"), expect(unused_mut, reason = "only TLS is added"))]
        let mut conns = Conns::new(context.reactor.hub().clone())?;
        #[cfg(feature = "tls")]
        {
            conns.tls_records = context.factory.config().tls_records;
        }
        let headers = AwaitedHeaders::new(context.reactor.hub().clone());
        Ok(Self {
            context,
            inbox: Inbox::default(),
            events: Events::with_capacity(EVENTS_PER_TURN),
            conns,
            waiting: WaitingConns::default(),
            handshakes: ReadyHandshakes::default(),
            headers,
            now: Time(0),
            scratch: vec![0; READ_BYTES].into(),
            input: TurnInput::default(),
            heads: ResponseHeads::default(),
            connections: None,
        })
    }

    /// The same, beside other connections of its worker, which wait for this channel.
    pub(crate) fn beside(self, connections: watch::Sender<bool>) -> Self {
        Self { connections: Some(connections), ..self }
    }

    /// Registers what has been handed over, at most so many connections of each kind.
    fn register(&mut self, count_max: usize, now: Time) {
        self.context.reactor.take(count_max, &mut self.inbox);
        let mut accepted = mem::take(&mut self.inbox.accepted);
        for (accepted, handshake) in accepted.drain(..) {
            let securing = handshake.map(|handshake| Securing::new(handshake, now));
            self.register_waiting(Waiting { accepted, securing }, now);
        }
        self.inbox.accepted = accepted;
        for (transport, handoff) in self.inbox.streams.drain(..) {
            let Handoff { stream, chunked, fields, surplus, permit, .. } = handoff;
            let conn = StreamConn::new(transport, stream, chunked, surplus);
            if let Some(token) = self.conns.insert_streaming(conn, permit) {
                self.conns.step(token, |conn, ctx| conn.begin(&mut self.heads, &fields, ctx));
                self.conns.step(token, |conn, _| conn.discard_held());
            }
        }
        self.register_adopted(count_max);
    }

    /// Registers a connection that waits for its request. In cleartext that is most often here already: then a connect
    /// costs neither a wait for it nor an event of the poller. Where it comes with the header of a proxy, it is the same.
    fn register_waiting(&mut self, waiting: Waiting, now: Time) {
        let is_secure = waiting.securing.is_some();
        let is_announced = waiting.accepted.header.is_awaited();
        let token = self.conns.insert_waiting(waiting);
        let may_read = !is_announced || self.receive_header(token, false);
        if may_read && !is_secure {
            self.receive(token, is_at_end);
        }
        let waits = self.conns.waiting(token).is_some();
        if self.conns.watch(token) && waits {
            self.waiting.push(now, token);
            if is_announced {
                self.await_header(token);
            }
        }
    }

    /// Registers connections that have streamed, and goes on with their streams.
    fn register_adopted(&mut self, count_max: usize) {
        let Adopted(adopted) = &mut self.inbox.adopted;
        if adopted.is_empty() {
            return;
        }
        self.conns.reserve(adopted.len());
        for (conn, permit) in adopted.split_off(adopted.len().saturating_sub(count_max)) {
            if let Some(token) = self.conns.insert_streaming(conn, permit) {
                self.conns.step(token, |conn, ctx| conn.go_on(ctx));
            }
        }
        if self.inbox.adopted.0.is_empty() {
            self.inbox.adopted = Adopted::default();
        }
    }

    /// Handles what the poller reports, at most [`EVENTS_PER_TURN`]. Returns whether there may be more.
    fn poll_sockets(&mut self) -> bool {
        let mut events = mem::replace(&mut self.events, Events::with_capacity(0));
        let more = self.conns.poll_events(&mut events);
        for event in &events {
            self.on_ready(event);
        }
        events.clear();
        self.events = events;
        more
    }

    fn on_ready(&mut self, event: &Event) {
        let token = event.token();
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(token, event.is_read_closed());
        }
        if event.is_writable() {
            self.conns.step(token, |conn, ctx| conn.resume(ctx));
        }
    }

    fn read(&mut self, token: Token, closed: bool) {
        if !self.receive_header(token, closed) || self.note_ready(token, closed) {
            return;
        }
        if self.conns.waiting(token).is_some() {
            self.receive(token, |_| closed);
            if !closed {
                return;
            }
        }
        self.conns.discard_input(token, &mut self.scratch, &mut self.input);
    }
}

impl Sockets for Reactor {
    fn turn(&mut self, now: Time) -> bool {
        self.now = now;
        self.close_evicted();
        self.register(STREAMS_PER_TURN, now);
        let passes_on = self.pass_on_waiting(STREAMS_PER_TURN);
        self.conns.resume_some(STREAMS_PER_TURN);
        self.input = TurnInput { left: STREAM_INPUT_PER_TURN, now };
        self.conns.discard_some(STREAMS_PER_TURN, &mut self.scratch, &mut self.input);
        let mut more = self.poll_sockets();
        more |= self.advance_handshakes(HANDSHAKES_PER_TURN);
        more |= self.conns.has_unfinished() || self.conns.has_unread();
        more || passes_on || !self.inbox.adopted.0.is_empty() || !self.context.reactor.is_empty()
    }

    fn apply(&mut self, batch: &mut Batch) {
        for WriteOp { socket, kind } in batch.writes.drain(..) {
            let Some(token) = self.conns.token(socket) else { continue };
            match kind {
                WriteKind::CatchUp => self.conns.step(token, |conn, ctx| conn.resume(ctx)),
                WriteKind::Keepalive => self.conns.step(token, |conn, ctx| conn.keep_alive(ctx)),
                WriteKind::End(reason) => self.conns.step(token, |conn, _| Err(conn.end(reason))),
                WriteKind::Events { count } => {
                    let events = &batch.events[batch.events.len() - count..];
                    self.conns.step(token, |conn, ctx| conn.deliver(events, ctx));
                }
            }
        }
    }

    fn tick(&mut self, now: Time) {
        self.close_silent(now);
        self.forget_received();
        self.shrink_handshakes();
        self.conns.shrink();
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.context.reactor.is_empty() || self.headers.has_evicted() {
            return Poll::Ready(());
        }
        self.conns.poll_ready(cx)
    }

    fn drain(&mut self) {
        self.register(usize::MAX, Time(0));
        self.release_waiting();
    }

    fn is_to_stop(&self) -> bool {
        self.context.reactor.is_to_stop()
    }

    #[cfg(target_os = "linux")]
    fn stop(&mut self, now: Time) {
        self.freeze(now);
    }
}
