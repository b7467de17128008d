//! The reactor in a freeze: it gives its streams away, and goes on with what has stayed.

use std::io;
use std::mem;
use std::os::fd::BorrowedFd;

use mio::Token;
use smallvec::SmallVec;

use super::Reactor;
use super::conns::Conns;
use crate::hub::state::Exporter;
use crate::server::upgrade::control::ControlError;
use crate::server::upgrade::freeze::{SentStreams, Streams};
use crate::server::upgrade::stream_records::StreamWriter;
use crate::time::Time;

/// The streams of a reactor that has stopped.
struct Frozen<'a> {
    conns: &'a mut Conns,
    exporter: Exporter,
    now: Time,
    /// Those that have a record, in its order.
    given: Vec<Token>,
}

/// Bytes of cut events and TLS records in the records of a worker. A stream that is beyond that stays, so that clients
/// that do not read cannot make the file as large as they like.
const REST_BYTES_MAX: usize = 64 * 1024 * 1024;

// ===== impl Reactor =====

impl Reactor {
    /// Stops until the outcome of the freeze that has been asked for.
    pub(super) fn freeze(&mut self, now: Time) {
        let Some(stop) = self.context.reactor.take_stop() else { return };
        // A stream that has been opened meanwhile begins before it is given.
        self.register(usize::MAX, now);
        let exporter = self.context.reactor.hub().exporter();
        let mut frozen = Frozen { conns: &mut self.conns, exporter, now, given: Vec::new() };
        let Some(successor) = stop.wait(&mut frozen) else { return };
        let given = mem::take(&mut frozen.given);
        self.conns.forget(given);
        self.context.reactor.set_successor(successor);
        if let Some(connections) = &self.connections {
            connections.send_modify(|_| ());
        }
    }
}

// ===== impl Frozen =====

impl Streams for Frozen<'_> {
    fn write(&mut self, records: &mut StreamWriter<'_>) -> io::Result<SentStreams> {
        let mut kept = 0;
        let mut rest_bytes = 0;
        for (token, conn, permit) in self.conns.streams() {
            let state = conn.state(&self.exporter, permit, self.now);
            let state = state.filter(|state| {
                let rest = state.rest_bytes();
                rest_bytes += rest;
                rest == 0 || rest_bytes <= REST_BYTES_MAX
            });
            match state {
                Some(state) => {
                    records.write(&state)?;
                    self.given.push(token);
                }
                None => kept += 1,
            }
        }
        Ok(SentStreams { given: self.given.len() as u64, kept })
    }

    fn sockets(
        &mut self,
        most: usize,
        send: &mut dyn FnMut(&[BorrowedFd<'_>]) -> Result<(), ControlError>,
    ) -> Result<(), ControlError> {
        for tokens in self.given.chunks(most) {
            let sockets: SmallVec<[BorrowedFd<'_>; 256]> =
                tokens.iter().filter_map(|token| self.conns.socket(*token)).collect();
            send(&sockets)?;
        }
        Ok(())
    }
}
