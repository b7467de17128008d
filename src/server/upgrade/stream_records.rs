//! The records of streams, one for each socket that is sent.

use std::fs::File;
use std::io::{BufReader, BufWriter};

use minicbor::{Decode, Encode, decode};

use crate::admission::PermitState;
use crate::state::{RecordReader, RecordWriter, Recorded, append, kinds};
use crate::stream::state::StreamState;

/// A connection that streams.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
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
}

/// A file of such records, which is written.
pub(crate) type StreamWriter<'a> = RecordWriter<BufWriter<&'a File>>;

/// A file of such records, which is read.
pub(crate) type StreamReader = RecordReader<BufReader<File>, StreamConnState>;

/// Bytes that are written to the file, or read from it, at once.
pub(crate) const BUFFER_BYTES: usize = 64 * 1024;

// ===== impl StreamConnState =====

impl Recorded for StreamConnState {
    fn kind(&self) -> u8 {
        kinds::STREAM
    }

    fn encode(&self, out: &mut Vec<u8>) {
        append(self, out);
    }

    fn decode(kind: u8, body: &[u8]) -> Option<Result<Self, decode::Error>> {
        (kind == kinds::STREAM).then(|| decode(body))
    }
}
