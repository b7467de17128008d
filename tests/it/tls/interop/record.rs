//! Records of TLS 1.3 (RFC 8446, 5), opened as a recording of the wire has them, or sealed as no TLS library would send
//! them. With the server it shares the AEADs, and nothing of what counts, derives and checks.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305};
use aws_lc_rs::aead::{LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, HKDF_SHA384, KeyType, Prk};

/// The keys of one direction.
pub(super) struct Keys {
    suite: u16,
    secret: Vec<u8>,
    /// Number of key updates so far.
    pub(super) generation: u32,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

/// One direction, as its receiver sees it.
pub(super) struct Opener {
    keys: Keys,
    /// The beginning of a handshake message.
    fragment: Vec<u8>,
}

/// What was in a record, and the generation of the keys that it was sealed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) generation: u32,
    pub(super) message: Message,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Data(Vec<u8>),
    /// With or without `update_requested` (RFC 8446, 4.6.3).
    KeyUpdate {
        requested: bool,
    },
    /// Another message of this type.
    Handshake(u8),
    /// Its description (RFC 8446, 6).
    Alert(u8),
}

/// Types of records (RFC 8446, 5.1).
pub(super) mod kind {
    pub(in super::super) const ALERT: u8 = 21;
    pub(in super::super) const HANDSHAKE: u8 = 22;
    pub(in super::super) const DATA: u8 = 23;
}

/// A KeyUpdate (RFC 8446, 4.6.3).
pub(super) const NOT_REQUESTED: [u8; 5] = [24, 0, 0, 1, 0];
/// A KeyUpdate that asks for one of the other side.
pub(super) const REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

/// The header of a record.
pub(super) const HEADER: usize = 5;
/// The tag of every AEAD of TLS 1.3.
const TAG: usize = 16;

struct Length(usize);

// ===== impl Keys =====

impl Keys {
    /// Those of a traffic secret (RFC 8446, 7.3), for the cipher suite with this number.
    pub(super) fn new(suite: u16, secret: Vec<u8>) -> Self {
        let mut iv = [0; 12];
        iv.copy_from_slice(&expand(suite, &secret, "iv", 12));
        let bytes = expand(suite, &secret, "key", aead(suite).key_len());
        let key = UnboundKey::new(aead(suite), &bytes).expect("a key");
        Self { suite, secret, generation: 0, key: LessSafeKey::new(key), iv, sequence: 0 }
    }

    /// Those of the next generation (RFC 8446, 7.2).
    pub(super) fn update(&mut self) {
        let secret = expand(self.suite, &self.secret, "traffic upd", self.secret.len());
        let generation = self.generation + 1;
        *self = Self { generation, ..Self::new(self.suite, secret) };
    }

    /// Seals a record with this type inside (RFC 8446, 5.2).
    pub(super) fn seal(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        self.seal_inner([content, &[kind]].concat())
    }

    /// Seals a record of this TLSInnerPlaintext: content, type and padding.
    pub(super) fn seal_inner(&mut self, mut inner: Vec<u8>) -> Vec<u8> {
        let header = header(kind::DATA, inner.len() + TAG);
        let nonce = self.nonce();
        self.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut inner).expect("sealed");
        [&header[..], &inner].concat()
    }

    /// Opens a whole record. `None` if it was sealed with other keys, or has another sequence number.
    fn open(&mut self, record: &[u8]) -> Option<(u8, Vec<u8>)> {
        let (header, sealed) = record.split_at(HEADER);
        let (mut sealed, nonce) = (sealed.to_vec(), self.nonce());
        let inner = self.key.open_in_place(nonce, Aad::from(header), &mut sealed).ok()?;
        let end = inner.iter().rposition(|byte| *byte != 0)?;
        Some((inner[end], inner[..end].to_vec()))
    }

    /// That of the next record (RFC 8446, 5.3).
    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, of_sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

// ===== impl Opener =====

impl Opener {
    pub(super) fn new(suite: u16, secret: Vec<u8>) -> Self {
        Self { keys: Keys::new(suite, secret), fragment: Vec::new() }
    }

    /// The messages that end in this record. Panics if it cannot be opened.
    pub(super) fn open(&mut self, record: &[u8]) -> Vec<Opened> {
        let generation = self.keys.generation;
        let opened = self.keys.open(record);
        let (kind, content) =
            opened.unwrap_or_else(|| panic!("no record of generation {generation}"));
        let messages = match kind {
            kind::DATA => vec![Message::Data(content)],
            kind::ALERT => vec![Message::Alert(content[1])],
            kind::HANDSHAKE => self.handshake(&content),
            other => panic!("a record of type {other}"),
        };
        messages.into_iter().map(|message| Opened { generation, message }).collect()
    }

    fn handshake(&mut self, content: &[u8]) -> Vec<Message> {
        self.fragment.extend(content);
        let mut messages = Vec::new();
        while let [kind, a, b, c, rest @ ..] = &self.fragment[..] {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some(body) = rest.get(..length) else { break };
            messages.push(match *kind {
                24 => Message::KeyUpdate { requested: body[0] == 1 },
                kind => Message::Handshake(kind),
            });
            self.fragment.drain(..4 + length);
        }
        if messages.iter().any(|message| matches!(message, Message::KeyUpdate { .. })) {
            self.keys.update();
        }
        messages
    }
}

// ===== impl Opened =====

impl Opened {
    /// Whether it is a NewSessionTicket (RFC 8446, 4.6.1).
    pub(super) fn is_ticket(&self) -> bool {
        self.message == Message::Handshake(4)
    }
}

// ===== impl KeyType =====

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// The header of a record with so many bytes (RFC 8446, 5.1).
pub(super) fn header(kind: u8, length: usize) -> [u8; HEADER] {
    let [high, low] = u16::try_from(length).expect("two bytes").to_be_bytes();
    [kind, 3, 3, high, low]
}

/// The whole records that these bytes begin with.
pub(super) fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let [_, _, _, high, low, ..] = bytes {
        let length = HEADER + usize::from(u16::from_be_bytes([*high, *low]));
        let Some((record, rest)) = bytes.split_at_checked(length) else { break };
        records.push(record);
        bytes = rest;
    }
    records
}

fn aead(suite: u16) -> &'static Algorithm {
    match suite {
        0x1301 => &AES_128_GCM,
        0x1302 => &AES_256_GCM,
        0x1303 => &CHACHA20_POLY1305,
        other => panic!("cipher suite {other:#x}"),
    }
}

/// HKDF-Expand-Label without a context (RFC 8446, 7.1).
fn expand(suite: u16, secret: &[u8], label: &str, length: usize) -> Vec<u8> {
    let hash = if suite == 0x1302 { HKDF_SHA384 } else { HKDF_SHA256 };
    let label = format!("tls13 {label}");
    let (length_bytes, label_length) = ((length as u16).to_be_bytes(), [label.len() as u8]);
    let info = [&length_bytes[..], &label_length, label.as_bytes(), &[0]];
    let mut bytes = vec![0; length];
    let prk = Prk::new_less_safe(hash, secret);
    let okm = prk.expand(&info, Length(length)).expect("a length");
    okm.fill(&mut bytes).expect("a length");
    bytes
}
