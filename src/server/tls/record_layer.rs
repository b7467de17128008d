//! The record layer of a TLS 1.3 connection that streams (RFC 8446): it seals events, opens what the client sends,
//! answers key updates, and does nothing else. It has no I/O and no clock. It takes over from a rustls session, of
//! whose 8 KiB it keeps a few hundred bytes.

mod alert;
mod take_over;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::IoSlice;

use minicbor::{Decode, Encode};

pub(crate) use self::alert::Alert;
pub(crate) use self::take_over::flush;
use super::traffic_keys::{TAG_BYTES, TrafficKeys};

/// Both directions of a connection. It alone advances their sequence numbers, and there is no `Clone`. In a box, so
/// that no copy of a key is left where it was moved from.
pub(crate) struct RecordLayer(Box<Layer>);

/// The same on its way to another process: it can be restored there, or the record layer goes on here, never both.
#[derive(PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct RecordLayerState(#[n(0)] Box<Layer>);

#[derive(PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Layer {
    #[n(0)]
    sealing: TrafficKeys,
    #[n(1)]
    opening: TrafficKeys,
    /// The beginning of a handshake message whose rest comes with the next record (RFC 8446, 5.1).
    #[cbor(n(2), with = "minicbor::bytes")]
    fragment: [u8; KEY_UPDATE_BYTES - 1],
    #[n(3)]
    fragment_bytes: u8,
    /// The client has requested an update of our keys.
    #[n(4)]
    update_is_due: bool,
}

/// What a record contained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Application data, maybe none. A stream has no use for it.
    Data,
    /// A key update, or a part of one.
    KeyUpdate,
    /// close_notify, or an error: the client reads no more.
    Closed,
}

/// Bytes of a record's header (RFC 8446, 5.1, 5.2).
pub(crate) const HEADER_BYTES: usize = 5;

/// The longest record that may be received, header included (RFC 8446, 5.2).
pub(crate) const RECORD_BYTES_MAX: usize = HEADER_BYTES + CONTENT_BYTES_MAX + 256;

/// Data of one record, at most (RFC 8446, 5.1).
pub(crate) const CONTENT_BYTES_MAX: usize = 1 << 14;

/// Records that are sealed with one key, at most. AES-GCM may have 24 million (RFC 8446, 5.5). Streams end before; what
/// is sealed all the same gets the next key.
pub(crate) const RECORDS_MAX: u64 = 1 << 24;

/// A direction that is restored has had at most so many records, so that their numbers never wrap (RFC 8446, 5.3).
const SEQUENCE_MAX: u64 = 1 << 48;

// Content types (RFC 8446, 5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Handshake type of a KeyUpdate, and its bytes: type, length (24 bits), `request_update` (RFC 8446, 4, 4.6.3).
const KEY_UPDATE: u8 = 24;
const KEY_UPDATE_BYTES: usize = 5;
const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;

/// The bytes of the record that begins with this header (RFC 8446, 5.1, 5.2).
///
/// # Errors
/// The alert, if it is none of application data, or longer than [`RECORD_BYTES_MAX`].
pub(crate) fn record_bytes(header: [u8; HEADER_BYTES]) -> Result<usize, Alert> {
    let [kind, _, _, length @ ..] = header;
    // change_cipher_spec, too, has no place after the handshake.
    if kind != APPLICATION_DATA {
        return Err(Alert::UnexpectedMessage);
    }
    let bytes = HEADER_BYTES + usize::from(u16::from_be_bytes(length));
    if bytes > RECORD_BYTES_MAX { Err(Alert::RecordOverflow) } else { Ok(bytes) }
}

// ===== impl RecordLayer =====

impl RecordLayer {
    /// Bytes of memory that it has beside its own.
    pub(super) const BOXED_BYTES: usize = size_of::<Layer>();

    /// Appends one record of application data to `out`: as much of the parts as fits into it. Returns the bytes that
    /// were taken. A key update that is due comes before it, in `out` too. Without data nothing is appended.
    pub(crate) fn seal(&mut self, parts: &[IoSlice<'_>], out: &mut Vec<u8>) -> usize {
        if parts.iter().all(|part| part.is_empty()) {
            return 0;
        }
        if self.0.sealing.sequence() >= RECORDS_MAX {
            self.0.update_is_due = true;
        }
        self.seal_due_update(out);
        self.0.seal(APPLICATION_DATA, parts, out)
    }

    /// Appends the answer to a client that has requested a key update, if it is due.
    pub(crate) fn seal_due_update(&mut self, out: &mut Vec<u8>) {
        if self.0.update_is_due {
            self.0.update_sealing(UPDATE_NOT_REQUESTED, out);
        }
    }

    /// Appends a key update that has the client update its keys too.
    pub(crate) fn request_key_update(&mut self, out: &mut Vec<u8>) {
        self.0.update_sealing(UPDATE_REQUESTED, out);
    }

    /// Appends an alert, after which nothing may be sealed: close_notify, or the error that [`Self::open`] returned.
    pub(crate) fn seal_alert(&mut self, alert: Alert, out: &mut Vec<u8>) {
        self.0.seal(ALERT, &[IoSlice::new(&alert.to_bytes())], out);
    }

    /// Whether the client has requested a key update, and none was sealed since.
    pub(crate) fn update_is_due(&self) -> bool {
        self.0.update_is_due
    }

    /// Opens one whole record, header included, in place.
    ///
    /// # Errors
    /// The alert with which the connection has to end.
    pub(crate) fn open(&mut self, record: &mut [u8]) -> Result<Received, Alert> {
        let (header, sealed) = record.split_first_chunk_mut().ok_or(Alert::DecodeError)?;
        if record_bytes(*header)? != HEADER_BYTES + sealed.len() {
            return Err(Alert::DecodeError);
        }
        // RFC 8446, 5.2: the header is authenticated as it came.
        let plaintext = self.0.opening.open(header, sealed).ok_or(Alert::BadRecordMac)?;
        if plaintext.len() > CONTENT_BYTES_MAX + 1 {
            return Err(Alert::RecordOverflow);
        }
        // RFC 8446, 5.4: the content, its type, which is not zero, and padding, which is.
        let kind = plaintext.iter().rposition(|byte| *byte != 0).ok_or(Alert::UnexpectedMessage)?;
        let (content, kind) = (&plaintext[..kind], plaintext[kind]);
        match kind {
            HANDSHAKE => self.0.receive_handshake(content),
            // RFC 8446, 5.1: a handshake message is not interrupted.
            _ if self.0.fragment_bytes > 0 => Err(Alert::UnexpectedMessage),
            APPLICATION_DATA => Ok(Received::Data),
            ALERT => alert::receive(content),
            _ => Err(Alert::UnexpectedMessage),
        }
    }

    /// How many records were sealed with the present key, by the session too.
    pub(crate) fn records_sealed(&self) -> u64 {
        self.0.sealing.sequence()
    }

    /// What another process goes on with. From here on it, or this record layer, is not to be used any more.
    pub(crate) fn state(&self) -> RecordLayerState {
        let mut copy = Box::new(Layer::blank());
        let Layer { sealing, opening, fragment, fragment_bytes, update_is_due } = &*self.0;
        sealing.copy_to(&mut copy.sealing);
        opening.copy_to(&mut copy.opening);
        (copy.fragment, copy.fragment_bytes) = (*fragment, *fragment_bytes);
        copy.update_is_due = *update_is_due;
        RecordLayerState(copy)
    }

    /// Goes on with what another process has left. `None`: it is no state of a record layer.
    pub(crate) fn restore(RecordLayerState(layer): RecordLayerState) -> Option<Self> {
        let is_valid = layer.sealing.suite() == layer.opening.suite()
            && layer.sealing.sequence().max(layer.opening.sequence()) <= SEQUENCE_MAX
            && usize::from(layer.fragment_bytes) < KEY_UPDATE_BYTES;
        is_valid.then_some(Self(layer))
    }
}

impl fmt::Debug for RecordLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Layer { sealing, opening, .. } = &*self.0;
        f.debug_struct("RecordLayer").field("sealing", sealing).field("opening", opening).finish()
    }
}

impl fmt::Debug for RecordLayerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordLayerState")
    }
}

// ===== impl Layer =====

impl Layer {
    fn blank() -> Self {
        Self {
            sealing: TrafficKeys::blank(),
            opening: TrafficKeys::blank(),
            fragment: [0; KEY_UPDATE_BYTES - 1],
            fragment_bytes: 0,
            update_is_due: false,
        }
    }

    /// Appends one record: a header, and, protected, content and its type, without padding (RFC 8446, 5.2). Returns how
    /// many bytes of the parts it has.
    fn seal(&mut self, kind: u8, parts: &[IoSlice<'_>], out: &mut Vec<u8>) -> usize {
        let given: usize = parts.iter().map(|part| part.len()).sum();
        let taken = given.min(CONTENT_BYTES_MAX);
        let [high, low] = ((taken + 1 + TAG_BYTES) as u16).to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, high, low];
        out.reserve(HEADER_BYTES + taken + 1 + TAG_BYTES);
        out.extend_from_slice(&header);
        let begin = out.len();
        for part in parts {
            let room = begin + taken - out.len();
            out.extend_from_slice(&part[..part.len().min(room)]);
        }
        out.push(kind);
        let tag = self.sealing.seal(&header, &mut out[begin..]);
        out.extend_from_slice(tag.as_ref());
        taken
    }

    /// Appends a KeyUpdate, and uses the next key after it (RFC 8446, 4.6.3). It answers whatever requests there were.
    fn update_sealing(&mut self, request: u8, out: &mut Vec<u8>) {
        let message = [KEY_UPDATE, 0, 0, 1, request];
        self.seal(HANDSHAKE, &[IoSlice::new(&message)], out);
        self.sealing.update();
        self.update_is_due = false;
    }

    /// Takes a fragment of a handshake message. After the handshake a client sends KeyUpdates only.
    fn receive_handshake(&mut self, content: &[u8]) -> Result<Received, Alert> {
        // RFC 8446, 5.4: no fragment is empty.
        if content.is_empty() {
            return Err(Alert::UnexpectedMessage);
        }
        let held = usize::from(self.fragment_bytes);
        let (content, excess) = content.split_at(content.len().min(KEY_UPDATE_BYTES - held));
        let mut message = [0; KEY_UPDATE_BYTES];
        message[..held].copy_from_slice(&self.fragment[..held]);
        message[held..][..content.len()].copy_from_slice(content);
        match &message[..held + content.len()] {
            [kind, ..] if *kind != KEY_UPDATE => Err(Alert::UnexpectedMessage),
            begin if !begin.iter().zip(&[KEY_UPDATE, 0, 0, 1]).all(|(is, must)| is == must) => {
                Err(Alert::DecodeError)
            }
            // RFC 8446, 5.1: a change of keys is the end of its record.
            _ if !excess.is_empty() => Err(Alert::UnexpectedMessage),
            [_, _, _, _, request] => self.update_opening(*request),
            begin => {
                self.fragment[..begin.len()].copy_from_slice(begin);
                self.fragment_bytes = begin.len() as u8;
                Ok(Received::KeyUpdate)
            }
        }
    }

    /// Goes on with the client's next key (RFC 8446, 4.6.3). Several requests before the next record are answered once.
    fn update_opening(&mut self, request: u8) -> Result<Received, Alert> {
        match request {
            UPDATE_REQUESTED => self.update_is_due = true,
            UPDATE_NOT_REQUESTED => {}
            _ => return Err(Alert::IllegalParameter),
        }
        self.fragment_bytes = 0;
        self.opening.update();
        Ok(Received::KeyUpdate)
    }
}
