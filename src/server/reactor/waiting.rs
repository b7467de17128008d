//! Connections that wait for their first request. One that opens a stream is read here, and streams from its
//! slot; any other, and whatever is malformed, goes to hyper with the bytes that were read.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use mio::Token;
use mio::net::TcpStream;

use super::handle::Accepted;
use super::handshakes::Securing;
use super::stream_conn::StreamConn;
use super::transport::Transport;
use super::{READ_BYTES, Reactor};
use crate::admission::{Admitted, PeerSource};
use crate::http::{Handoff, Verdict};
use crate::metrics::HeaderRefusal;
use crate::server::proxy_protocol::SIGNATURE;
use crate::time::Time;

/// A connection that waits for its first request.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) accepted: Accepted,
    /// Behind TLS.
    pub(super) securing: Option<Securing>,
}

/// The waiting connections in the order in which they were accepted, some of which may have gone on.
#[derive(Debug, Default)]
pub(super) struct WaitingConns(VecDeque<(Time, Token)>);

/// What the first bytes of a connection come to.
pub(super) enum Opened {
    Stream(Handoff),
    /// No stream: hyper responds. A token that was verified need not be verified again.
    Nothing(Option<Verdict>),
    /// They request a stream whose client has gone.
    Gone,
}

// ===== impl WaitingConns =====

impl WaitingConns {
    pub(super) fn push(&mut self, accepted_at: Time, token: Token) {
        self.0.push_back((accepted_at, token));
    }
}

// ===== impl Reactor =====

impl Reactor {
    /// Reads the first bytes of a waiting connection, which are most often its request. `closed` is whether its client
    /// sends no more: then it has gone, if the request is for a stream.
    pub(super) fn receive(&mut self, token: Token, closed: impl FnOnce(&TcpStream) -> bool) {
        if self.context.reactor.successor().is_some() {
            return self.release(token);
        }
        let Some(waiting) = self.conns.waiting(token) else { return };
        let length = match read(&mut waiting.accepted.socket, &mut self.scratch) {
            Ok(length @ 1..) => length,
            Err(why) if why.kind() == ErrorKind::WouldBlock => return,
            Ok(0) | Err(_) => return self.conns.free(token),
        };
        let first = Bytes::copy_from_slice(&self.scratch[..length]);
        let Some(waiting) = self.conns.take_waiting(token) else { return };
        self.check_spoofed(&waiting.accepted, &first);
        let closed = closed(&waiting.accepted.socket);
        match self.open(&waiting.accepted, &first, closed) {
            Opened::Gone => self.conns.free(token),
            Opened::Nothing(verdict) => self.serve(token, waiting, first, verdict),
            Opened::Stream(handoff) => {
                let Accepted { socket, admitted, .. } = waiting.accepted;
                self.begin(token, Transport::Plain(socket), handoff, &admitted);
            }
        }
    }

    /// Notes a header of a peer that is no proxy. It is what it would be without proxies: no request, and no handshake.
    pub(super) fn check_spoofed(&self, accepted: &Accepted, first: &[u8]) {
        if first.starts_with(&SIGNATURE) && accepted.admitted.peer_source() == PeerSource::Socket {
            self.context.refuse_header(HeaderRefusal::Spoofed, &accepted.socket);
        }
    }

    /// Opens the stream that the first bytes of a connection request. `closed` is whether its client sends no more.
    pub(super) fn open(&self, accepted: &Accepted, first: &Bytes, closed: bool) -> Opened {
        let service = self.context.factory.service(accepted.admitted.clone());
        if closed && service.requests_stream(first) {
            return Opened::Gone;
        }
        let open = || if first.len() < READ_BYTES { service.open_stream(first) } else { Err(None) };
        // A panic ends one connection. It comes again in the connection's task, which contains it.
        match catch_unwind(AssertUnwindSafe(open)).unwrap_or(Err(None)) {
            Ok(handoff) => Opened::Stream(handoff),
            Err(verdict) => Opened::Nothing(verdict),
        }
    }

    /// Begins the stream of a connection that was taken out.
    pub(super) fn begin(
        &mut self,
        token: Token,
        transport: Transport,
        handoff: Handoff,
        admitted: &Admitted,
    ) {
        let Handoff { stream, chunked, fields, surplus, permit } = handoff.complete(admitted);
        let conn = StreamConn::new(transport, stream, chunked, surplus);
        self.conns.begin_streaming(token, conn, permit);
        self.conns.step(token, |conn, ctx| conn.begin(&mut self.heads, &fields, ctx));
    }

    /// Closes the connections that have sent no request for the time that a request head may take, which counts from the
    /// driver's last pause: what they sent in it may not have been read yet.
    pub(super) fn close_silent(&mut self, now: Time) {
        let head_timeout = self.context.factory.config().head_timeout;
        let resumed = self.context.reactor.hub().resumed(head_timeout);
        self.waiting.0.retain(|(accepted_at, token)| {
            let Some(waiting) = self.conns.waiting(*token) else { return false };
            let late = resumed.max(*accepted_at).after(head_timeout) <= now;
            if late {
                let Accepted { socket, header, .. } = &waiting.accepted;
                if header.is_awaited() {
                    self.context.refuse_header(header.refusal(), socket);
                }
                self.conns.free(*token);
            }
            !late
        });
        self.waiting.0.shrink_to_fit();
    }

    /// Passes on at most so many of the waiting connections, if there is a successor. Returns whether there are more.
    pub(super) fn pass_on_waiting(&mut self, count_max: usize) -> bool {
        if self.context.reactor.successor().is_none() {
            return false;
        }
        for _ in 0..count_max {
            let Some((_, token)) = self.waiting.0.pop_front() else { break };
            self.release(token);
        }
        !self.waiting.0.is_empty()
    }

    /// Releases a waiting connection, of which nothing has been read but parts of a handshake.
    pub(super) fn release(&mut self, token: Token) {
        if let Some(waiting) = self.conns.take_waiting(token) {
            self.serve(token, waiting, Bytes::new(), None);
        }
    }

    /// Has hyper serve all waiting connections: a request may be on its way, and the reactor is about to end.
    pub(super) fn release_waiting(&mut self) {
        for (_, token) in mem::take(&mut self.waiting.0) {
            self.release(token);
        }
    }

    /// Has hyper, or the successor, serve a connection that was taken out, of which these bytes have been read; behind
    /// TLS the session has them.
    pub(super) fn serve(
        &mut self,
        token: Token,
        waiting: Waiting,
        first: Bytes,
        verdict: Option<Verdict>,
    ) {
        let Waiting { mut accepted, securing } = waiting;
        if let Err(why) = self.conns.release(token, &mut accepted.socket) {
            return tracing::warn!(%why, "a connection is still watched");
        }
        let passes_on = self.context.passes_on();
        if accepted.header.is_awaited() {
            let handshake = securing.map(|securing| securing.handshake);
            return self.context.dispatch(accepted, handshake);
        }
        match securing {
            None if passes_on => self.context.pass_on(accepted, first, false),
            None => self.context.serve(accepted, first, verdict),
            Some(securing) if passes_on && !securing.has_begun() => {
                self.context.pass_on(accepted, Bytes::new(), true);
            }
            Some(securing) => {
                let limit = self.time_left(&securing);
                securing.handshake.serve(accepted, limit, verdict, self.context.clone());
            }
        }
    }
}

fn read(socket: &mut TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(bytes) {
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Whether there is nothing to read any more, and never will be.
pub(super) fn is_at_end(socket: &TcpStream) -> bool {
    socket.peek(&mut [0]).is_ok_and(|length| length == 0)
}
