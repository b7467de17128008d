//! One direction of TLS 1.3, spelled out from RFC 8446 and RFC 5869. It has only the ciphers and HMAC in common with
//! the record layer.

use aws_lc_rs::{aead, hmac};

/// Its secret and the number of its next record.
#[derive(Debug)]
pub(crate) struct Naive {
    suite: u8,
    secret: Vec<u8>,
    pub(crate) sequence: u64,
}

// ===== impl Naive =====

impl Naive {
    /// Suite 0x13NN (RFC 8446, B.4), 1 to 3.
    pub(crate) fn new(suite: u8, secret: &[u8]) -> Self {
        Self { suite, secret: secret.to_vec(), sequence: 0 }
    }

    /// The same, with the next record being this one.
    pub(crate) fn at(self, sequence: u64) -> Self {
        Self { sequence, ..self }
    }

    /// The bytes of a secret.
    pub(crate) fn secret_bytes(suite: u8) -> usize {
        if suite == 2 { 48 } else { 32 }
    }

    /// RFC 8446, 7.1, HKDF-Expand-Label; RFC 5869, 2.3, whose first block is all that is needed.
    fn expand(&self, label: &str, length: usize) -> Vec<u8> {
        let hash = if self.suite == 2 { hmac::HMAC_SHA384 } else { hmac::HMAC_SHA256 };
        let label = format!("tls13 {label}");
        let mut info = vec![(length >> 8) as u8, length as u8, label.len() as u8];
        info.extend(label.bytes());
        info.extend([0, 1]);
        let block = hmac::sign(&hmac::Key::new(hash, &self.secret), &info);
        block.as_ref()[..length].to_vec()
    }

    /// The key and the iv (RFC 8446, 7.3).
    fn keys(&self) -> (Vec<u8>, Vec<u8>) {
        (self.expand("key", if self.suite == 1 { 16 } else { 32 }), self.expand("iv", 12))
    }

    /// RFC 8446, 7.2.
    pub(crate) fn update(&mut self) {
        self.secret = self.expand("traffic upd", self.secret.len());
        self.sequence = 0;
    }

    fn cipher(&mut self) -> (aead::LessSafeKey, aead::Nonce) {
        let algorithm = match self.suite {
            1 => &aead::AES_128_GCM,
            2 => &aead::AES_256_GCM,
            _ => &aead::CHACHA20_POLY1305,
        };
        let (key, iv) = self.keys();
        // RFC 8446, 5.3, as numbers of 96 bits.
        let iv = iv.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
        let nonce = iv ^ u128::from(self.sequence);
        self.sequence += 1;
        let nonce = nonce.to_be_bytes()[4..].try_into().expect("96 bits");
        let key = aead::UnboundKey::new(algorithm, &key).expect("a key");
        (aead::LessSafeKey::new(key), aead::Nonce::assume_unique_for_key(nonce))
    }

    /// A record with this TLSInnerPlaintext: content, type, padding (RFC 8446, 5.2).
    pub(crate) fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        let (key, nonce) = self.cipher();
        let length = inner.len() + 16;
        let mut record = vec![23, 3, 3, (length >> 8) as u8, length as u8];
        let mut sealed = inner.to_vec();
        let aad = aead::Aad::from(record.clone());
        key.seal_in_place_append_tag(nonce, aad, &mut sealed).expect("sealed");
        record.extend(sealed);
        record
    }

    /// The TLSInnerPlaintext of a record, if the other end has sealed it.
    pub(crate) fn open(&mut self, record: &[u8]) -> Option<Vec<u8>> {
        let (key, nonce) = self.cipher();
        let (header, sealed) = record.split_at(5);
        let length = usize::from(header[3]) << 8 | usize::from(header[4]);
        assert_eq!((&header[..3], length), (&[23, 3, 3][..], sealed.len()), "not a record");
        let mut sealed = sealed.to_vec();
        let opened = key.open_in_place(nonce, aead::Aad::from(header), &mut sealed);
        opened.ok().map(|opened| opened.to_vec())
    }

    /// These keys, as they are in the state of a record layer.
    pub(crate) fn encode(&self, to: &mut minicbor::Encoder<&mut Vec<u8>>) {
        let padded = |mut bytes: Vec<u8>, length| {
            bytes.resize(length, 0);
            bytes
        };
        let (key, iv) = self.keys();
        to.array(5)
            .and_then(|to| to.u8(self.suite))
            .and_then(|to| to.bytes(&padded(self.secret.clone(), 48)))
            .and_then(|to| to.bytes(&padded(key, 32)))
            .and_then(|to| to.bytes(&iv))
            .and_then(|to| to.u64(self.sequence))
            .expect("memory");
    }
}
