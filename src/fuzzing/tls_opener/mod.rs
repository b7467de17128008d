//! The opener of TLS records: whatever a client sends that has the keys or has not, each record is opened as a naive
//! reading of RFC 8446 opens it, or refused with the alert that the RFC demands; and what is sealed meanwhile, key
//! updates and alerts too, is what the client's end of the RFC opens.

pub(crate) mod naive;

use std::io::IoSlice;

use arbitrary::{Result as Choice, Unstructured};

use self::naive::Naive;
use crate::server::record_layer::{
    Alert, CONTENT_BYTES_MAX, HEADER_BYTES, Received, RecordLayer, RecordLayerState,
};

/// A record layer, and what a client knows that has the same keys.
pub(crate) struct Run {
    pub(crate) layer: RecordLayer,
    /// Seals as the client.
    pub(crate) client: Naive,
    /// Opens as the client.
    server: Naive,
    /// Bytes of a handshake message that is not complete.
    handshake: Vec<u8>,
    update_is_due: bool,
    /// The record that was opened last.
    last: Vec<u8>,
}

/// One byte is one choice, so that a seed can be written by hand. The first one chooses the suite. A run ends with the
/// first alert of either side.
pub fn tls_opener(input: &[u8]) {
    let mut bytes = Unstructured::new(input);
    let Ok(suite) = bytes.int_in_range(1..=3u8) else { return };
    let mut run = Run::new(suite);
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() || run.step(&mut bytes) != Ok(true) {
            return;
        }
    }
}

const STEPS_MAX: usize = 200;

// ===== impl Run =====

impl Run {
    pub(crate) fn new(suite: u8) -> Self {
        let secret = |byte| vec![byte; Naive::secret_bytes(suite)];
        let (client, server) = (Naive::new(suite, &secret(1)), Naive::new(suite, &secret(2)));
        Self::with(client, server)
    }

    /// The server has sealed so many records.
    #[cfg(test)]
    pub(crate) fn with_sealed(suite: u8, records: u64) -> Self {
        let Self { client, server, .. } = Self::new(suite);
        Self::with(client, server.at(records))
    }

    /// Begins where both directions are.
    pub(crate) fn with(client: Naive, server: Naive) -> Self {
        let layer = Self::layer(&client, &server).expect("valid");
        let (handshake, last) = (Vec::new(), Vec::new());
        Self { layer, client, server, handshake, update_is_due: false, last }
    }

    /// The other end of both.
    pub(crate) fn layer(client: &Naive, server: &Naive) -> Option<RecordLayer> {
        let mut state = Vec::new();
        let mut to = minicbor::Encoder::new(&mut state);
        to.array(5).expect("memory");
        server.encode(&mut to);
        client.encode(&mut to);
        to.bytes(&[0; 4]).and_then(|to| to.u8(0)?.bool(false)).expect("memory");
        let state: RecordLayerState = minicbor::decode(&state).expect("valid");
        RecordLayer::restore(state)
    }

    /// The record layer updates its key by itself, before it seals again.
    #[cfg(test)]
    pub(crate) fn expect_update(&mut self) {
        self.update_is_due = true;
    }

    /// Takes a step, and returns whether the connection goes on.
    fn step(&mut self, bytes: &mut Unstructured<'_>) -> Choice<bool> {
        let step = bytes.int_in_range(0..=14u8)?;
        let mut size = || bytes.arbitrary::<u8>().map(usize::from);
        Ok(match step {
            0 => self.data(size()?, size()?),
            1 => {
                let message = [24, 0, 0, 1, size()? as u8];
                let (first, rest) = message.split_at(size()?.min(message.len()));
                let mut parts = [first, rest].into_iter().filter(|part| !part.is_empty());
                parts.all(|part| self.send(part, 22, 0))
            }
            2 => self.send(&[size()? as u8, size()? as u8], 21, 0),
            3 => {
                let (kind, length) = (size()? as u8, size()?);
                let length = length.min(bytes.len());
                self.send(bytes.bytes(length)?, kind, 0)
            }
            4 => {
                let (at, bit) = (size()?, size()? % 8);
                let mut record = self.client.seal(b"x\x17");
                let at = at % record.len();
                record[at] ^= 1 << bit;
                self.refused(record)
            }
            5 if self.last.is_empty() => true,
            5 => self.refused(self.last.clone()),
            6 => {
                self.client.seal(b"never arrives\x17");
                let record = self.client.seal(b"y\x17");
                self.refused(record)
            }
            7 => {
                let (cut, mends) = (1 + size()?, size()? % 2 == 1);
                let record = self.client.seal(b"z\x17");
                self.refused(truncated(record, cut, mends))
            }
            8 => self.send(&vec![b'o'; CONTENT_BYTES_MAX - 1 + size()? % 4], 23, size()? % 3),
            9 => {
                let length = size()?.min(bytes.len());
                self.refused(bytes.bytes(length)?.to_vec())
            }
            10 => self.seal(size()? * size()?),
            11 => {
                let mut wire = Vec::new();
                self.layer.request_key_update(&mut wire);
                self.update_is_due = false;
                self.receive(&wire, &[&[24, 0, 0, 1, 1, 22]])
            }
            12 => {
                let mut wire = Vec::new();
                self.layer.seal_due_update(&mut wire);
                let is_due = std::mem::take(&mut self.update_is_due);
                self.receive(&wire, &[&[24, 0, 0, 1, 0, 22][..]][..usize::from(is_due)])
            }
            13 => self.hand_over(),
            _ => {
                // An empty content, which only data may have.
                self.send(&[], [21, 22, 23][size()? % 3], size()?)
            }
        })
    }

    fn data(&mut self, length: usize, padding: usize) -> bool {
        self.send(&vec![b'd'; length], 23, padding)
    }

    /// Opens what the client seals, and compares.
    pub(crate) fn send(&mut self, content: &[u8], kind: u8, padding: usize) -> bool {
        let inner = [content, &[kind], &vec![0; padding]].concat();
        let mut record = self.client.seal(&inner);
        self.last.clone_from(&record);
        let wanted = if record.len() - HEADER_BYTES > CONTENT_BYTES_MAX + 256 {
            Err(Alert::RecordOverflow)
        } else {
            self.wanted(&inner)
        };
        let opened = self.layer.open(&mut record);
        assert_eq!(
            opened, wanted,
            "content {content:?} of type {kind}, {padding} bytes of padding"
        );
        assert_eq!(self.layer.update_is_due(), self.update_is_due);
        match opened {
            Ok(received) => received != Received::Closed,
            Err(alert) => self.end(alert),
        }
    }

    /// What the RFC demands for an authentic record.
    fn wanted(&mut self, inner: &[u8]) -> Result<Received, Alert> {
        // 5.4: "the full encoded TLSInnerPlaintext MUST NOT exceed 2^14 + 1 octets"
        if inner.len() > 16_385 {
            return Err(Alert::RecordOverflow);
        }
        let mut content = inner.to_vec();
        while content.last() == Some(&0) {
            content.pop();
        }
        // 5.4: "If a receiving implementation does not find a non-zero octet in the cleartext, it MUST terminate the
        // connection with an "unexpected_message" alert."
        let kind = content.pop().ok_or(Alert::UnexpectedMessage)?;
        // 5.1: "there MUST NOT be any other records between them"; 5.4: neither handshake nor alert may be empty.
        let is_interrupted = kind != 22 && !self.handshake.is_empty();
        if is_interrupted || (matches!(kind, 21 | 22) && content.is_empty()) {
            return Err(Alert::UnexpectedMessage);
        }
        match kind {
            21 if content.len() == 2 => Ok(Received::Closed),
            21 => Err(Alert::DecodeError),
            22 => self.wanted_handshake(&content),
            23 => Ok(Received::Data),
            _ => Err(Alert::UnexpectedMessage),
        }
    }

    /// A KeyUpdate, in pieces or whole, is the end of its record; there is nothing else (RFC 8446, 4.6.3, 5.1).
    fn wanted_handshake(&mut self, content: &[u8]) -> Result<Received, Alert> {
        self.handshake.extend(content);
        match self.handshake[..] {
            [24, 0, 0, 1, _, _, ..] => Err(Alert::UnexpectedMessage),
            [24] | [24, 0] | [24, 0, 0] | [24, 0, 0, 1] => Ok(Received::KeyUpdate),
            [24, 0, 0, 1, request @ (0 | 1)] => {
                self.update_is_due |= request == 1;
                self.handshake.clear();
                self.client.update();
                Ok(Received::KeyUpdate)
            }
            [24, 0, 0, 1, _] => Err(Alert::IllegalParameter),
            [24, ..] => Err(Alert::DecodeError),
            _ => Err(Alert::UnexpectedMessage),
        }
    }

    /// Opens what the client has not sealed so, here and now.
    pub(crate) fn refused(&mut self, mut record: Vec<u8>) -> bool {
        let length =
            record.get(3..5).map(|length| usize::from(length[0]) << 8 | usize::from(length[1]));
        let wanted = match length {
            None => Alert::DecodeError,
            Some(_) if record[0] != 23 => Alert::UnexpectedMessage,
            Some(length) if length > 16_640 => Alert::RecordOverflow,
            Some(length) if length != record.len() - HEADER_BYTES => Alert::DecodeError,
            Some(_) => Alert::BadRecordMac,
        };
        assert_eq!(self.layer.open(&mut record), Err(wanted));
        self.end(wanted)
    }

    /// Seals data as long as this, in three parts, and compares.
    pub(crate) fn seal(&mut self, length: usize) -> bool {
        let data: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let (first, rest) = data.split_at(length / 3);
        let (second, third) = rest.split_at(rest.len() / 2);
        let parts = [first, second, &[], third].map(IoSlice::new);
        let mut wire = b"before".to_vec();
        let taken = self.layer.seal(&parts, &mut wire);
        assert_eq!(taken, length.min(CONTENT_BYTES_MAX));
        let wire = wire.strip_prefix(b"before").expect("appended");
        if taken == 0 {
            assert!(wire.is_empty());
            return true;
        }
        let record = [&data[..taken], &[23]].concat();
        let is_due = std::mem::take(&mut self.update_is_due);
        let wanted = [&[24, 0, 0, 1, 0, 22][..], &record];
        self.receive(wire, if is_due { &wanted } else { &wanted[1..] })
    }

    /// Opens as the client, which finds these.
    fn receive(&mut self, mut wire: &[u8], wanted: &[&[u8]]) -> bool {
        for inner in wanted {
            let length = usize::from(wire[3]) << 8 | usize::from(wire[4]);
            let (record, rest) = wire.split_at(HEADER_BYTES + length);
            assert_eq!(self.server.open(record).as_deref(), Some(*inner));
            if inner.ends_with(&[22]) {
                self.server.update();
            }
            wire = rest;
        }
        assert!(wire.is_empty(), "{} bytes more", wire.len());
        assert_eq!(self.layer.update_is_due(), self.update_is_due);
        assert_eq!(self.layer.records_sealed(), self.server.sequence);
        true
    }

    /// Goes on with what is left of the record layer in another process.
    fn hand_over(&mut self) -> bool {
        let mut state = Vec::new();
        minicbor::encode(self.layer.state(), &mut state).expect("memory");
        let state = minicbor::decode(&state).expect("what was encoded");
        self.layer = RecordLayer::restore(state).expect("what was restored");
        true
    }

    /// The alert is sent, and the client knows it as an error.
    fn end(&mut self, alert: Alert) -> bool {
        let mut wire = Vec::new();
        self.layer.seal_alert(alert, &mut wire);
        self.receive(&wire, &[&[2, alert as u8, 21]]);
        false
    }
}

/// A record that lacks its last bytes, and says so if it is mended.
pub(crate) fn truncated(mut record: Vec<u8>, cut: usize, mends: bool) -> Vec<u8> {
    record.truncate(record.len().saturating_sub(cut));
    if mends && record.len() > HEADER_BYTES {
        let length = record.len() - HEADER_BYTES;
        record[3..5].copy_from_slice(&(length as u16).to_be_bytes());
    }
    record
}
