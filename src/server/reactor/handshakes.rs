//! Connections behind TLS that wait for their first request. A handshake costs as much as some ten deliveries, so a
//! turn has a number of them.

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use mio::Token;

use super::Reactor;
use super::waiting::{Opened, Waiting};
use crate::server::tls::{Handshake, Progress};
use crate::time::Time;

/// What a waiting connection behind TLS has beside its socket.
#[derive(Debug)]
pub(super) struct Securing {
    pub(super) handshake: Handshake,
    accepted_at: Time,
    ready: Ready,
}

/// Whether the poller has reported the socket since it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    No,
    Readable,
    /// Its client sends no more.
    Closed,
}

/// The connections that are ready, each once, in the order in which they are read.
#[derive(Debug, Default)]
pub(super) struct ReadyHandshakes(VecDeque<Token>);

/// Connections behind TLS that are read in one turn before their stream: a millisecond, or three with an RSA key.
pub(super) const HANDSHAKES_PER_TURN: usize = 8;

// ===== impl Securing =====

impl Securing {
    pub(super) fn new(handshake: Handshake, accepted_at: Time) -> Self {
        Self { handshake, accepted_at, ready: Ready::No }
    }

    /// Whether something was read.
    pub(super) fn has_begun(&self) -> bool {
        self.handshake.has_begun()
    }
}

// ===== impl Reactor =====

impl Reactor {
    /// Notes that a connection can be read, if it is behind TLS and waits for its request. Returns whether it is.
    pub(super) fn note_ready(&mut self, token: Token, closed: bool) -> bool {
        let waiting = self.conns.waiting(token);
        let Some(securing) = waiting.and_then(|waiting| waiting.securing.as_mut()) else {
            return false;
        };
        let ready = if closed { Ready::Closed } else { Ready::Readable };
        match mem::replace(&mut securing.ready, ready) {
            Ready::No => self.handshakes.0.push_back(token),
            Ready::Closed => securing.ready = Ready::Closed,
            Ready::Readable => {}
        }
        true
    }

    /// Goes on with at most `count_max` of the connections that can be read. Returns whether there are more.
    pub(super) fn advance_handshakes(&mut self, count_max: usize) -> bool {
        for _ in 0..count_max {
            let Some(token) = self.handshakes.0.pop_front() else { return false };
            self.advance_handshake(token);
        }
        !self.handshakes.0.is_empty()
    }

    fn advance_handshake(&mut self, token: Token) {
        let Some(waiting) = self.conns.waiting(token) else { return };
        let Waiting { accepted, securing: Some(securing) } = waiting else { return };
        let closed = mem::replace(&mut securing.ready, Ready::No) == Ready::Closed;
        if self.context.reactor.successor().is_some() {
            return self.release(token);
        }
        let is_first = !securing.has_begun();
        // What it has of another connection is none of this one's.
        self.scratch[0] = 0;
        let advance = || securing.handshake.advance(&mut accepted.socket, &mut self.scratch);
        // A panic ends one connection.
        match catch_unwind(AssertUnwindSafe(advance)) {
            Ok(Ok(Progress::Waits)) if !closed => {}
            Ok(Ok(Progress::Unread)) => _ = self.note_ready(token, closed),
            Ok(Ok(Progress::Leaves)) => self.release(token),
            Ok(Ok(Progress::Data(first))) => self.open_secure(token, &first, closed),
            Ok(Ok(Progress::Waits)) | Err(_) => self.conns.free(token),
            Ok(Err(why)) => {
                tracing::debug!(%why, "handshake");
                if let Some(Waiting { accepted, .. }) =
                    self.conns.take_waiting(token).filter(|_| is_first)
                {
                    self.check_spoofed(&accepted, &self.scratch);
                }
                self.conns.free(token);
            }
        }
    }

    /// Begins the stream that the first data request, or has hyper respond.
    fn open_secure(&mut self, token: Token, first: &Bytes, closed: bool) {
        let Some(waiting) = self.conns.take_waiting(token) else { return };
        let handoff = match self.open(&waiting.accepted, first, closed) {
            Opened::Gone => return self.conns.free(token),
            Opened::Nothing(verdict) => return self.serve(token, waiting, Bytes::new(), verdict),
            Opened::Stream(handoff) => handoff,
        };
        let Waiting { accepted, securing: Some(Securing { handshake, .. }) } = waiting else {
            return self.conns.free(token);
        };
        match handshake.into_transport(first.len(), accepted.socket) {
            Ok(transport) => {
                self.begin(token, transport, handoff, &accepted.admitted);
                self.conns.step(token, |conn, _| conn.discard_held());
            }
            Err(why) => {
                tracing::debug!(%why, "a session ended with its first request");
                self.conns.free(token);
            }
        }
        if closed {
            self.conns.discard_input(token, &mut self.scratch, &mut self.input);
        }
    }

    /// The rest of the time that a request may take from when its connection was accepted, or from the last pause.
    pub(super) fn time_left(&self, securing: &Securing) -> Duration {
        let head_timeout = self.context.factory.config().head_timeout;
        let resumed = self.context.reactor.hub().resumed(head_timeout);
        let until = resumed.max(securing.accepted_at).after(head_timeout);
        Duration::from_millis(until.0.saturating_sub(self.now.0))
    }

    pub(super) fn shrink_handshakes(&mut self) {
        self.handshakes.0.shrink_to_fit();
    }
}
