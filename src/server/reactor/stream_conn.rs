//! One streaming connection: its transport, its stream, and nothing else while it is idle.
//!
//! Writing never blocks and never queues. Events that do not fit are given back to the history, all but the rest of
//! the one event that was cut, so a subscriber that does not read costs a constant.

#[cfg(target_os = "linux")]
mod moved;

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use socket2::SockRef;

use super::input_window::{InputWindow, TurnInput};
use super::parts::{Cut, Part, Parts, begun, part, write};
use super::response_head::ResponseHeads;
use super::transport::Transport;
#[cfg(feature = "tls")]
use crate::config::TlsRecords;
use crate::http::Fields;
use crate::hub::{Frames, SocketId, Taken};
use crate::ids::Seq;
use crate::metrics::{self, CloseReason, Counters};
use crate::stream::EventStream;
use crate::wire::{Frame, LAST_CHUNK};

/// A connection that carries an event stream.
#[derive(Debug)]
pub(crate) struct StreamConn {
    pub(crate) transport: Transport,
    stream: EventStream,
    /// The rest of the event that a full socket cut. It shares that event's memory.
    rest: Option<Box<Bytes>>,
    /// What the client sent after its request, as it arrived at the socket. It was discarded.
    input: InputWindow,
    /// HTTP/1.1; an HTTP/1.0 body is not chunked (RFC 9112, 6.1).
    chunked: bool,
    /// `rest` is the end of the body, for this reason.
    finishing: Option<CloseReason>,
}

/// The id by which the hub knows the connection, and the counters of its shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnCtx<'a> {
    pub(crate) socket: SocketId,
    pub(crate) counters: &'a Counters,
    #[cfg(feature = "tls")]
    pub(crate) tls_records: &'a TlsRecords,
}

/// How far writing got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Everything was written.
    Idle,
    /// There is more to take, in a later turn.
    More,
    /// The socket is full. Continue when it is writable.
    Blocked,
    /// The client may have sent more, to be read in a later turn: the poller does not report it again.
    Unread,
}

/// The stream has ended, for this reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed(pub(crate) CloseReason);

/// Takes from the subscription of one stream in a turn.
const TAKES_PER_TURN: usize = 4;

// ===== impl StreamConn =====

impl StreamConn {
    /// A stream whose client has sent `discarded` bytes after its request.
    pub(crate) fn new(
        transport: Transport,
        stream: EventStream,
        chunked: bool,
        discarded: usize,
    ) -> Self {
        let input = InputWindow::new(discarded);
        Self { transport, stream, rest: None, input, chunked, finishing: None }
    }

    /// Goes on with the stream, which has streamed in another process.
    pub(super) fn go_on(&mut self, ctx: ConnCtx<'_>) -> Result<Flow, Closed> {
        let is_blocked = self.stream.subscription().attach(ctx.socket);
        let has_more = is_blocked || self.rest.is_some() || self.transport.has_pending();
        if has_more { self.resume(ctx) } else { Ok(Flow::Idle) }
    }

    /// Writes the response head, the greeting and the missed events as one.
    pub(super) fn begin(
        &mut self,
        heads: &mut ResponseHeads,
        fields: &Fields,
        ctx: ConnCtx<'_>,
    ) -> Result<Flow, Closed> {
        let opening = heads.write(self.chunked, fields);
        self.stream.write_greeting(opening, self.chunked);
        let before = self.stream.subscription().cursor();
        let mut frames = Frames::new();
        let taken = self.stream.subscription().take_frames(ctx.socket, &mut frames);
        let mut parts: Parts<'_> = SmallVec::new();
        parts.push(Part { seq: before, owner: None, bytes: opening });
        parts.extend(frames.iter().map(|(seq, frame)| part(*seq, frame, self.chunked)));
        let cut = write(&mut self.transport, &parts)?;
        self.count(ctx, taken, begun(&parts, cut).saturating_sub(1));
        match cut {
            None if matches!(taken, Taken::Idle) => self.idle(ctx),
            None => self.catch_up(ctx),
            Some(cut) => {
                self.give_back(&parts, taken, cut, before, false, ctx);
                if cut.index == 0 {
                    self.rest = Some(Box::new(parts[0].rest(cut.offset)));
                }
                Ok(Flow::Blocked)
            }
        }
    }

    /// Writes events that a sweep took for this stream, at least one, with their sequence numbers.
    pub(crate) fn deliver(
        &mut self,
        events: &[(Seq, Frame)],
        ctx: ConnCtx<'_>,
    ) -> Result<Flow, Closed> {
        let chunked = self.chunked;
        let before = events.first().map_or(Seq(0), |(seq, _)| Seq(seq.0 - 1));
        if let [(seq, frame)] = events {
            // The common case needs no list.
            return self.write_events(&[part(*seq, frame, chunked)], before, ctx);
        }
        let parts: Parts<'_> =
            events.iter().map(|(seq, frame)| part(*seq, frame, chunked)).collect();
        self.write_events(&parts, before, ctx)
    }

    fn write_events(
        &mut self,
        parts: &[Part<'_>],
        before: Seq,
        ctx: ConnCtx<'_>,
    ) -> Result<Flow, Closed> {
        let cut = write(&mut self.transport, parts)?;
        self.count(ctx, Taken::Some, begun(parts, cut));
        match cut {
            None => self.idle(ctx),
            Some(cut) => Ok(self.give_back(parts, Taken::Some, cut, before, false, ctx)),
        }
    }

    /// Writes a keepalive.
    pub(crate) fn keep_alive(&mut self, ctx: ConnCtx<'_>) -> Result<Flow, Closed> {
        let keepalive = self.stream.subscription().keepalive_frame();
        let part = |seq| [part(seq, &keepalive, self.chunked)];
        let Some(cut) = write(&mut self.transport, &part(Seq(0)))? else { return self.idle(ctx) };
        // The rest of it leaves the stream where it is.
        let before = self.stream.subscription().cursor();
        Ok(self.give_back(&part(before), Taken::Some, cut, before, false, ctx))
    }

    /// Continues after [`Flow::Blocked`] or [`Flow::More`].
    pub(crate) fn resume(&mut self, ctx: ConnCtx<'_>) -> Result<Flow, Closed> {
        let rest = self.rest.take();
        let part = rest.as_ref().map(|rest| Part { seq: Seq(0), owner: Some(rest), bytes: rest });
        if let Some(cut) = write(&mut self.transport, part.as_slice())? {
            self.rest = rest.filter(|_| cut.index == 0).map(|mut rest| {
                *rest = rest.slice(cut.offset..);
                rest
            });
            let took_some = cut != Cut::default() || self.transport.progressed();
            self.stream.subscription().stay_blocked(ctx.socket, took_some);
            return Ok(Flow::Blocked);
        }
        if let Some(reason) = self.finishing {
            return self.close(reason, ctx);
        }
        if rest.is_some() {
            self.stream.subscription().unblock();
        }
        self.catch_up(ctx)
    }

    /// Reads and discards what the client sends, as much as the turn has left. Most often that is the end of the
    /// connection.
    pub(crate) fn discard_input(
        &mut self,
        scratch: &mut [u8],
        turn: &mut TurnInput,
    ) -> Result<Flow, Closed> {
        loop {
            if self.input.is_exceeded() {
                return Err(Closed(CloseReason::Excess));
            }
            let most = scratch.len().min(turn.left);
            if most == 0 {
                return Ok(Flow::Unread);
            }
            match self.transport.discard(&mut scratch[..most]) {
                Ok(0) => return Err(Closed(CloseReason::Client)),
                Ok(n) => {
                    turn.left = turn.left.saturating_sub(n);
                    self.input.add(n, turn.now);
                }
                // TLS may have to answer a record that is no data.
                Err(why) if why.kind() == ErrorKind::WouldBlock => {
                    let cut = write(&mut self.transport, &[])?;
                    return Ok(cut.map_or(Flow::Idle, |_| Flow::Blocked));
                }
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return Err(why.into()),
            }
        }
    }

    /// Discards what was read before the stream began and not used, without a read.
    pub(crate) fn discard_held(&mut self) -> Result<Flow, Closed> {
        match self.transport.discard_held()? {
            true => Err(Closed(CloseReason::Client)),
            false => Ok(Flow::Idle),
        }
    }

    /// Counts the parts that the socket took; the others are given back, and taken and counted again.
    fn count(&mut self, ctx: ConnCtx<'_>, taken: Taken, begun: usize) {
        if taken == Taken::Reread {
            metrics::add(&ctx.counters.rereads, begun as u64);
        } else {
            metrics::add(&ctx.counters.delivered, begun as u64);
            self.stream.count(begun);
        }
    }

    /// Records the reason for which this is dropped.
    pub(crate) fn close_because(&mut self, over: Closed) {
        self.stream.subscription().close_because(over.0);
    }

    /// Takes and writes some of what the stream has missed. Once nothing is left, sweeps serve it again.
    fn catch_up(&mut self, ctx: ConnCtx<'_>) -> Result<Flow, Closed> {
        for take in 0..TAKES_PER_TURN {
            #[cfg(feature = "tls")]
            if self.transport.records_sealed() >= ctx.tls_records.end_after {
                return self.finish(CloseReason::TlsRecords, ctx);
            }
            let before = self.stream.subscription().cursor();
            let mut frames = Frames::new();
            let taken = self.stream.subscription().take_frames(ctx.socket, &mut frames);
            match taken {
                Taken::Idle => return self.idle(ctx),
                Taken::End(
                    reason @ (CloseReason::Drained
                    | CloseReason::Removed
                    | CloseReason::Replaced
                    | CloseReason::Closed),
                ) => return self.finish(reason, ctx),
                Taken::End(reason) => return Err(self.end(reason)),
                Taken::Some | Taken::Reread => {}
            }
            let chunked = self.chunked;
            let parts: Parts<'_> =
                frames.iter().map(|(seq, frame)| part(*seq, frame, chunked)).collect();
            let cut = write(&mut self.transport, &parts)?;
            self.count(ctx, taken, begun(&parts, cut));
            if let Some(cut) = cut {
                return Ok(self.give_back(&parts, taken, cut, before, take > 0, ctx));
            }
        }
        self.stream.subscription().unblock();
        Ok(Flow::More)
    }

    /// Keeps the rest of the part that was cut, and gives back the parts after it. `before` is the position before
    /// the first part; the socket may have taken some of other parts in the same turn.
    fn give_back(
        &mut self,
        parts: &[Part<'_>],
        taken: Taken,
        cut: Cut,
        before: Seq,
        took_others: bool,
        ctx: ConnCtx<'_>,
    ) -> Flow {
        if cut.offset > 0 {
            self.rest = Some(Box::new(parts[cut.index].rest(cut.offset)));
        }
        let begun = begun(parts, Some(cut));
        let reached = begun.checked_sub(1).map_or(before, |last| parts[last].seq);
        let took_some = cut != Cut::default() || took_others || self.transport.progressed();
        // A reread is the last of the parts.
        let reread = taken == Taken::Reread && begun < parts.len();
        self.stream.subscription().give_back(reached, reread, ctx.socket, took_some);
        Flow::Blocked
    }

    /// Ends the body properly: with its last chunk if it is chunked, and with the TLS session if there is one. On a
    /// full socket it stays incomplete, so the client knows that it was cut.
    pub(crate) fn end(&mut self, reason: CloseReason) -> Closed {
        if self.rest.is_none() {
            let ended = if self.chunked { self.transport.write(LAST_CHUNK).is_ok() } else { true };
            if ended {
                _ = self.transport.close();
            }
        }
        if reason == CloseReason::Stalled {
            // Otherwise the kernel would keep its send buffer for a client that does not read.
            _ = SockRef::from(&*self.transport.socket()).set_linger(Some(Duration::ZERO));
        }
        Closed(reason)
    }

    /// What follows once everything is written: nothing, but for a TLS key that has protected many records.
    #[cfg_attr(not(feature = "tls"), expect(clippy::unused_self, reason = "it is about TLS"))]
    fn idle(&mut self, ctx: ConnCtx<'_>) -> Result<Flow, Closed> {
        #[cfg(feature = "tls")]
        if let Transport::Sealed(sealed) = &mut self.transport {
            let records = sealed.records_sealed();
            if records >= ctx.tls_records.end_after {
                return self.finish(CloseReason::TlsRecords, ctx);
            }
            if ctx.tls_records.request_update_after.is_some_and(|after| records >= after) {
                return match sealed.request_key_update() {
                    Err(why) if why.kind() == ErrorKind::WouldBlock => Ok(Flow::Blocked),
                    requested => requested.map(|()| Flow::Idle).map_err(Closed::from),
                };
            }
        }
        _ = ctx;
        Ok(Flow::Idle)
    }

    /// Ends the TLS session, if there is one, after the end of the body. The client gets as long to receive that as it
    /// has for the body.
    fn close(&mut self, reason: CloseReason, ctx: ConnCtx<'_>) -> Result<Flow, Closed> {
        match self.transport.close() {
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                let took_some = self.transport.progressed();
                self.stream.subscription().stay_blocked(ctx.socket, took_some);
                Ok(Flow::Blocked)
            }
            _ => Err(Closed(reason)),
        }
    }

    /// Writes a last frame, if there is one, and the end of the body as one.
    fn finish(&mut self, reason: CloseReason, ctx: ConnCtx<'_>) -> Result<Flow, Closed> {
        let farewell = self.stream.farewell(reason);
        let mut end = farewell.map_or_else(Vec::new, |last| last.bytes(self.chunked).to_vec());
        if self.chunked {
            end.extend_from_slice(LAST_CHUNK);
        }
        let end = Bytes::from(end);
        self.rest = Some(Box::new(end));
        self.finishing = Some(reason);
        self.resume(ctx)
    }
}

// ===== impl Closed =====

impl From<io::Error> for Closed {
    fn from(why: io::Error) -> Self {
        Self(close_reason(&why))
    }
}

/// The reason for the end of a stream whose socket failed.
pub(crate) fn close_reason(why: &io::Error) -> CloseReason {
    match why.kind() {
        ErrorKind::ConnectionReset => CloseReason::Reset,
        // The last two are ICMP errors of a router, which arrive while the kernel retransmits.
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            CloseReason::Timeout
        }
        ErrorKind::BrokenPipe => CloseReason::Client,
        _ => CloseReason::Error,
    }
}
