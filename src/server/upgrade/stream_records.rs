//! The records of streams, one for each socket that is sent.

use std::fs::File;
use std::io::{BufReader, BufWriter};

use minicbor::{Decode, Encode, decode};

use crate::admission::PermitState;
#[cfg(feature = "tls")]
use crate::server::tls::SealedState;
use crate::state::{RecordReader, RecordWriter, Recorded, append, kinds};
use crate::stream::state::StreamState;

/// A connection that streams.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct StreamConnState {
    #[n(0)]
    pub(crate) stream: StreamState,
    /// Its body is chunked.
    #[n(1)]
    pub(crate) chunked: bool,
    /// Bytes that its client has sent after its request.
    #[n(2)]
    pub(crate) discarded: u32,
    /// The rest of the event that a full socket cut.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(crate) rest: Option<Vec<u8>>,
    #[n(4)]
    pub(crate) permit: PermitState,
    /// Seconds since the first of these bytes that its client has sent.
    #[n(5)]
    pub(crate) discarded_s: Option<u32>,
    /// Its keys, if it is behind TLS.
    #[cfg(feature = "tls")]
    #[n(6)]
    pub(crate) sealed: Option<SealedState>,
}

/// A file of such records, which is written.
pub(crate) type StreamWriter<'a> = RecordWriter<BufWriter<&'a File>>;

/// A file of such records, which is read.
pub(crate) type StreamReader = RecordReader<BufReader<File>, StreamConnState>;

/// Bytes that are written to the file, or read from it, at once.
pub(crate) const BUFFER_BYTES: usize = 64 * 1024;

// ===== impl StreamConnState =====

impl StreamConnState {
    /// Bytes that are on their way to the client, or from it.
    pub(crate) fn rest_bytes(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, Vec::len);
        #[cfg(feature = "tls")]
        let rest = rest + self.sealed.as_ref().map_or(0, SealedState::rest_bytes);
        rest
    }

    #[cfg(feature = "tls")]
    fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    #[cfg(not(feature = "tls"))]
    fn is_sealed(&self) -> bool {
        false
    }
}

impl Recorded for StreamConnState {
    fn kind(&self) -> u8 {
        // A version that does not know the keys would write in the clear.
        if self.is_sealed() { kinds::SEALED_STREAM } else { kinds::STREAM }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        append(self, out);
    }

    fn decode(kind: u8, body: &[u8]) -> Option<Result<Self, decode::Error>> {
        let is_known =
            kind == kinds::STREAM || kind == kinds::SEALED_STREAM && cfg!(feature = "tls");
        is_known.then(|| decode(body))
    }
}
