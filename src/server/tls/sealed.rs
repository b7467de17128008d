//! A stream behind TLS 1.3 whose session has been released: its socket, and the record layer that protects what is
//! written to it (RFC 8446, section 5).
//!
//! A record is sealed once, under its own sequence number, and is ciphertext from then on. So what a full socket does not
//! take of a record is kept as it is, and nothing else is sealed before that is written.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};

use bytes::{Buf as _, Bytes};
use mio::net::TcpStream;

use super::record_layer::{
    Alert, HEADER_BYTES, Received, RecordLayer, RecordLayerState, record_bytes,
};

/// What a stream writes to behind TLS, in its own memory as small as an idle stream allows. The socket does not block;
/// tests have their own.
#[derive(Debug)]
pub(crate) struct SealedTransport<S = TcpStream> {
    socket: S,
    layer: RecordLayer,
    /// What a full socket did not take: at most one record, and what is sent with it, a key update or the session's last
    /// records.
    pending: Option<Box<Bytes>>,
    /// The beginning of a record of which the rest has not arrived.
    #[expect(
        clippy::box_collection,
        reason = "most streams have none, which costs them a pointer"
    )]
    partial: Option<Box<Vec<u8>>>,
    /// The socket took bytes, which [`Self::progressed`] has not reported yet.
    progressed: bool,
    /// An alert was sealed, after which nothing else is.
    closed: bool,
    /// What is pending is of the session, and was not written yet: it goes with the first record, in one write.
    begins: bool,
}

/// What another process needs to go on with it, beside its socket.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(target_os = "linux", derive(minicbor::Encode, minicbor::Decode))]
#[cfg_attr(target_os = "linux", cbor(array))]
pub(crate) struct SealedState {
    #[cfg_attr(target_os = "linux", n(0))]
    layer: RecordLayerState,
    /// Ciphertext to be written before anything else.
    #[cfg_attr(target_os = "linux", cbor(n(1), with = "minicbor::bytes"))]
    pub(crate) pending: Vec<u8>,
    /// The beginning of a record that has been read.
    #[cfg_attr(target_os = "linux", cbor(n(2), with = "minicbor::bytes"))]
    pub(crate) partial: Vec<u8>,
}

thread_local! {
    /// Where the records of this thread's streams are sealed. A delivery needs no memory of its own.
    static SEALED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

// ===== impl SealedState =====

impl SealedState {
    /// Bytes that are on their way to the client, or from it.
    pub(crate) fn rest_bytes(&self) -> usize {
        self.pending.len() + self.partial.len()
    }
}

// ===== impl SealedTransport =====

impl<S: Read + Write> SealedTransport<S> {
    /// Goes on with a session on this socket. `pending` is what is sealed and has to be written first, `partial` what has
    /// been read of the client's next records.
    pub(crate) fn new(socket: S, layer: RecordLayer, pending: Vec<u8>, partial: Vec<u8>) -> Self {
        let begins = !pending.is_empty();
        let pending = begins.then(|| Box::new(pending.into()));
        let partial = (!partial.is_empty()).then(|| Box::new(partial));
        Self { socket, layer, pending, partial, progressed: false, closed: false, begins }
    }

    /// The same in another process; `None` if there are no such keys.
    pub(crate) fn restore(socket: S, state: SealedState) -> Option<Self> {
        let SealedState { layer, pending, partial } = state;
        let restored = Self::new(socket, RecordLayer::restore(layer)?, pending, partial);
        Some(Self { begins: false, ..restored })
    }

    /// What another process needs. From here on either process writes, never both.
    pub(crate) fn state(&self) -> SealedState {
        let Self { socket: _, layer, pending, partial, progressed: _, closed: _, begins: _ } = self;
        SealedState {
            layer: layer.state(),
            pending: pending.as_ref().map_or_else(Vec::new, |pending| pending.to_vec()),
            partial: partial.as_ref().map_or_else(Vec::new, |partial| partial.to_vec()),
        }
    }

    pub(crate) fn socket(&self) -> &S {
        &self.socket
    }

    pub(crate) fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Whether the socket took bytes since this was asked last.
    pub(crate) fn progressed(&mut self) -> bool {
        std::mem::take(&mut self.progressed)
    }

    /// Whether something has to be written before the next event, or instead of one.
    pub(crate) fn has_pending(&self) -> bool {
        self.pending.is_some() || self.layer.update_is_due()
    }

    /// Records that the present key has protected.
    pub(crate) fn records_sealed(&self) -> u64 {
        self.layer.records_sealed()
    }

    /// Seals as much of the parts as fits into one record, once the socket has taken the record before. Returns the bytes
    /// of the parts that were sealed: these are on their way, even if the socket does not take all of the record.
    pub(crate) fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.begins {
            self.write_pending()?;
        }
        if self.closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if parts.iter().all(|part| part.is_empty()) {
            return Ok(0);
        }
        self.send(|layer, out| layer.seal(parts, out))
    }

    /// Writes what is pending, and the answer to a KeyUpdate that requests one (RFC 8446, 4.6.3).
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.write_pending()?;
        if self.layer.update_is_due() && !self.closed {
            self.send(|layer, out| layer.seal_due_update(out))?;
        }
        self.is_flushed()
    }

    /// Updates the key of this side, and requests the same of the client.
    pub(crate) fn request_key_update(&mut self) -> io::Result<()> {
        self.flush()?;
        self.send(|layer, out| layer.request_key_update(out))?;
        self.is_flushed()
    }

    /// Sends close_notify, once (RFC 8446, 6.1).
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`]: the socket has not taken all of it; this has to be called again.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.flush()?;
        if !self.closed {
            self.closed = true;
            self.send(|layer, out| layer.seal_alert(Alert::CloseNotify, out))?;
        }
        self.is_flushed()
    }

    /// Reads some of what the client has sent, and discards the data in it. Returns the number of bytes that were read
    /// from the socket; 0 at the end of the connection, or of the session.
    pub(crate) fn discard(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.socket.read(bytes)?;
        let has_ended = self.discard_held()? || self.receive(&mut bytes[..read])?;
        Ok(if has_ended { 0 } else { read })
    }

    /// Discards the records that have been read and not opened. Returns whether the client has closed the session.
    pub(crate) fn discard_held(&mut self) -> io::Result<bool> {
        let is_whole = |held: &mut Box<Vec<u8>>| {
            let length = held.first_chunk().copied().map(record_bytes);
            // What cannot be a record is refused then, too.
            length.is_some_and(|length| !length.is_ok_and(|length| length > held.len()))
        };
        match self.partial.take_if(is_whole) {
            Some(mut held) => self.receive(&mut held),
            None => Ok(false),
        }
    }

    /// Opens what is whole of these bytes, which follow those of `partial`, and keeps the rest. Returns whether the client
    /// has closed the session.
    fn receive(&mut self, mut bytes: &mut [u8]) -> io::Result<bool> {
        while !bytes.is_empty() {
            let received = match self.partial.take() {
                None => match self.length(bytes)? {
                    Some(length) if length <= bytes.len() => {
                        let (record, rest) = bytes.split_at_mut(length);
                        bytes = rest;
                        self.layer.open(record)
                    }
                    _ => {
                        self.partial = Some(Box::new(bytes.to_vec()));
                        return Ok(false);
                    }
                },
                Some(mut held) => {
                    let missing = self.length(&held)?.unwrap_or(HEADER_BYTES) - held.len();
                    let (some, rest) = bytes.split_at_mut(missing.min(bytes.len()));
                    bytes = rest;
                    extend(&mut held, some, missing);
                    if self.length(&held)?.is_none_or(|length| length > held.len()) {
                        self.partial = Some(held);
                        continue;
                    }
                    self.layer.open(&mut held)
                }
            };
            match received {
                Ok(Received::Closed) => return Ok(true),
                Ok(Received::Data | Received::KeyUpdate) => {}
                Err(alert) => return Err(self.fail(alert)),
            }
        }
        Ok(false)
    }

    /// The length of the record that begins here, once its header is there. What cannot be a record is refused then, so
    /// that no memory is needed for the rest.
    fn length(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let header = bytes.first_chunk().copied();
        header.map(record_bytes).transpose().map_err(|alert| self.fail(alert))
    }

    /// The session cannot go on: sends the alert, if the socket takes it (RFC 8446, 6.2).
    fn fail(&mut self, alert: Alert) -> io::Error {
        if !self.closed && self.write_pending().is_ok() {
            self.closed = true;
            _ = self.send(|layer, out| layer.seal_alert(alert, out));
        }
        io::Error::new(ErrorKind::InvalidData, format!("a TLS record is refused: {alert:?}"))
    }

    /// Writes what `seal` appends to the thread's buffer, and keeps what a full socket does not take. Nothing is pending
    /// but what the stream begins with, which is written before.
    fn send<T>(&mut self, seal: impl FnOnce(&mut RecordLayer, &mut Vec<u8>) -> T) -> io::Result<T> {
        SEALED.with_borrow_mut(|sealed| {
            sealed.clear();
            self.begins = false;
            if let Some(pending) = self.pending.take() {
                sealed.extend_from_slice(&pending);
            }
            let result = seal(&mut self.layer, sealed);
            let mut left = &sealed[..];
            let written = write_some(&mut self.socket, &mut left, &mut self.progressed);
            if !left.is_empty() {
                self.pending = Some(Box::new(Bytes::copy_from_slice(left)));
            }
            match written {
                Err(why) if why.kind() != ErrorKind::WouldBlock => Err(why),
                _ => Ok(result),
            }
        })
    }

    fn write_pending(&mut self) -> io::Result<()> {
        self.begins = false;
        let Some(pending) = &mut self.pending else { return Ok(()) };
        let mut left = &pending[..];
        let written = write_some(&mut self.socket, &mut left, &mut self.progressed);
        pending.advance(pending.len() - left.len());
        written?;
        self.pending = None;
        Ok(())
    }

    fn is_flushed(&self) -> io::Result<()> {
        if self.pending.is_some() { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }
}

/// Writes until nothing is left, or an error such as a full socket.
fn write_some(socket: &mut impl Write, left: &mut &[u8], progressed: &mut bool) -> io::Result<()> {
    while !left.is_empty() {
        match socket.write(left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => {
                *progressed = true;
                *left = &left[written..];
            }
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
    Ok(())
}

/// Appends some of what is missing. The memory grows with what has arrived, and is never more than the record.
fn extend(held: &mut Vec<u8>, some: &[u8], missing: usize) {
    if held.capacity() - held.len() < some.len() {
        held.reserve_exact(some.len().max(held.len()).min(missing));
    }
    held.extend_from_slice(some);
}

/// Two blocks, of which the allocator adds up to 16 bytes to each: at most 0.3 KiB.
const _: () = assert!(
    size_of::<SealedTransport>() + RecordLayer::BOXED_BYTES + 2 * 16 <= 307,
    "what an idle stream costs behind TLS, beside its slot"
);

#[cfg(test)]
mod tests;
