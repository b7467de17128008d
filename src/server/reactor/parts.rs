//! Writes parts as one, and finds where a full socket cut them.

use std::io::{ErrorKind, IoSlice, Write};

use bytes::Bytes;
use smallvec::SmallVec;

use super::stream_conn::Closed;
use super::transport::Transport;
use crate::ids::Seq;
use crate::wire::Frame;

/// One part of a write: the sequence number of its event, the owner of its memory, and its bytes. Bytes without an
/// owner are in memory that is used again.
pub(super) struct Part<'a> {
    pub(super) seq: Seq,
    pub(super) owner: Option<&'a Bytes>,
    pub(super) bytes: &'a [u8],
}

pub(super) type Parts<'a> = SmallVec<[Part<'a>; 16]>;

/// Where a write stopped: at this byte of this part, or behind the last part if the TLS session holds records of it
/// that the socket has not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) index: usize,
    pub(super) offset: usize,
}

/// Parts of one write; the kernel's limit is 1,024 (`IOV_MAX`).
const PARTS_PER_WRITE: usize = 64;

// ===== impl Part =====

impl Part<'_> {
    /// The bytes from `offset` on, to be kept.
    pub(super) fn rest(&self, offset: usize) -> Bytes {
        let rest = &self.bytes[offset..];
        self.owner.map_or_else(|| Bytes::copy_from_slice(rest), |owner| owner.slice_ref(rest))
    }
}

pub(super) fn part(seq: Seq, frame: &Frame, chunked: bool) -> Part<'_> {
    Part { seq, owner: Some(frame.chunked()), bytes: frame.bytes(chunked) }
}

/// Writes the parts. Returns where a full socket cut them, if it did.
pub(super) fn write(transport: &mut Transport, parts: &[Part<'_>]) -> Result<Option<Cut>, Closed> {
    let mut cut = Cut::default();
    while cut.index < parts.len() {
        let left = &parts[cut.index..];
        let written = match left {
            [one] => transport.write(&one.bytes[cut.offset..]),
            several => {
                let slices = several.iter().take(PARTS_PER_WRITE).map(|part| part.bytes);
                let mut slices: SmallVec<[IoSlice<'_>; 16]> = slices.map(IoSlice::new).collect();
                slices[0].advance(cut.offset);
                transport.write_vectored(&slices)
            }
        };
        match written {
            Ok(n) => cut = advance(parts, cut, n),
            Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(Some(cut)),
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            Err(why) => return Err(why.into()),
        }
    }
    match transport.flush() {
        Ok(()) => Ok(None),
        Err(why) if why.kind() == ErrorKind::WouldBlock => Ok(Some(cut)),
        Err(why) => Err(why.into()),
    }
}

/// The number of parts that were written, in whole or in part.
pub(super) fn begun(parts: &[Part<'_>], cut: Option<Cut>) -> usize {
    cut.map_or(parts.len(), |cut| cut.index + usize::from(cut.offset > 0))
}

fn advance(parts: &[Part<'_>], mut cut: Cut, written: usize) -> Cut {
    cut.offset += written;
    while let Some(part) = parts.get(cut.index)
        && cut.offset >= part.bytes.len()
    {
        cut.offset -= part.bytes.len();
        cut.index += 1;
    }
    cut
}
