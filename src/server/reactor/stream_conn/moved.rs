//! A stream that goes on in another process: what that needs to know, and how it begins there.

use bytes::Bytes;
use mio::net::TcpStream;

use super::super::input_window::InputWindow;
use super::super::transport::Transport;
use super::StreamConn;
use crate::admission::PermitState;
use crate::hub::state::Exporter;
#[cfg(feature = "tls")]
use crate::server::tls::SealedTransport;
use crate::server::upgrade::stream_records::StreamConnState;
use crate::stream::EventStream;
use crate::time::Time;

// ===== impl StreamConn =====

impl StreamConn {
    /// One that has streamed in another process. Its socket does not block. `None` if its TLS keys are no keys.
    pub(crate) fn adopted(
        socket: TcpStream,
        stream: EventStream,
        state: StreamConnState,
        now: Time,
    ) -> Option<Self> {
        let StreamConnState {
            stream: _,
            chunked,
            discarded,
            rest,
            permit: _,
            discarded_s,
            #[cfg(feature = "tls")]
            sealed,
        } = state;
        let rest = rest.map(|rest| Box::new(Bytes::from(rest)));
        #[cfg(feature = "tls")]
        let transport = match sealed {
            None => Transport::Plain(socket),
            Some(state) => Transport::Sealed(Box::new(SealedTransport::restore(socket, state)?)),
        };
        #[cfg(not(feature = "tls"))]
        let transport = Transport::Plain(socket);
        let input = InputWindow::restored(discarded, discarded_s, now);
        Some(Self { transport, stream, rest, input, chunked, finishing: None })
    }

    /// What another process needs to go on with it; `None` if it stays.
    pub(in crate::server::reactor) fn state(
        &self,
        exporter: &Exporter,
        permit: PermitState,
        now: Time,
    ) -> Option<StreamConnState> {
        let Self { transport, stream, rest, input, chunked, finishing } = self;
        if finishing.is_some() || transport.movable().is_none() {
            return None;
        }
        let (discarded, discarded_s) = input.state(now);
        Some(StreamConnState {
            stream: stream.export(exporter, now)?,
            chunked: *chunked,
            discarded,
            rest: rest.as_ref().map(|rest| rest.to_vec()),
            permit,
            discarded_s,
            #[cfg(feature = "tls")]
            sealed: transport.sealed_state(),
        })
    }

    /// Ends here, because it goes on in another process.
    pub(crate) fn give_away(mut self) {
        self.stream.give_away();
    }
}
