//! The keys of one direction of a TLS 1.3 connection, and its sequence number (RFC 8446, 5.2, 5.3, 7.2, 7.3).
//!
//! What is secret is derived into its place on the heap, and wiped there when it is dropped. An expanded key lives for
//! one record; aws-lc wipes it when it frees it, and aws-lc-rs the secret from which it derives. Out of reach, and left
//! to be overwritten, is what calls leave on the stack and in registers: copies of the keys that rustls extracts, and
//! of those that are decoded from a state.

use std::fmt;

use aws_lc_rs::aead;
use minicbor::{Decode, Encode};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::secrets::{SECRET_BYTES_MAX, Secret};
use super::suite::Suite;

/// One direction. Nothing else has its sequence number, and there is no `Clone`: a number that was used with a key
/// twice would give both away.
#[derive(PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct TrafficKeys {
    #[n(0)]
    suite: Suite,
    /// `application_traffic_secret_N`, in as many bytes as the hash has.
    #[cbor(n(1), with = "minicbor::bytes")]
    secret: [u8; SECRET_BYTES_MAX],
    /// `write_key`, in as many bytes as the cipher takes.
    #[cbor(n(2), with = "minicbor::bytes")]
    key: [u8; KEY_BYTES_MAX],
    /// `write_iv`.
    #[cbor(n(3), with = "minicbor::bytes")]
    iv: [u8; aead::NONCE_LEN],
    /// Records that were protected with this key: the number of the next one.
    #[n(4)]
    sequence: u64,
}

const KEY_BYTES_MAX: usize = 32;

/// Bytes by which every cipher's output is longer than its input.
pub(super) const TAG_BYTES: usize = 16;

// ===== impl TrafficKeys =====

impl TrafficKeys {
    /// A place for keys, without any.
    pub(super) fn blank() -> Self {
        Self {
            suite: Suite::Aes128GcmSha256,
            secret: [0; SECRET_BYTES_MAX],
            key: [0; KEY_BYTES_MAX],
            iv: [0; aead::NONCE_LEN],
            sequence: 0,
        }
    }

    /// Copies these keys, in place. Both must never seal.
    pub(super) fn copy_to(&self, copy: &mut Self) {
        let Self { suite, secret, key, iv, sequence } = self;
        (copy.suite, copy.sequence) = (*suite, *sequence);
        copy.secret.copy_from_slice(secret);
        copy.key.copy_from_slice(key);
        copy.iv.copy_from_slice(iv);
    }

    /// Takes a first traffic secret, from which [`Self::find`] has to go on. Returns false if the suite has secrets of
    /// another length.
    #[must_use]
    pub(super) fn begin(&mut self, suite: Suite, secret: &Secret) -> bool {
        let secret = secret.as_bytes();
        if secret.len() != suite.hash_bytes() {
            return false;
        }
        self.suite = suite;
        self.secret[..secret.len()].copy_from_slice(secret);
        true
    }

    /// Takes keys whose secret comes from the first one by so many updates at most, and whose next record has this
    /// number. Returns whether they do. The iv is evidence enough: to derive the key, too, would cost a connection as much
    /// again.
    #[must_use]
    pub(super) fn find(&mut self, key: &[u8], iv: &[u8], sequence: u64, updates_max: u32) -> bool {
        for _ in 0..=updates_max {
            let mut derived = Zeroizing::new([0; aead::NONCE_LEN]);
            self.suite.expand_label(self.secret(), b"iv", &mut derived[..]);
            if derived.ct_eq(iv).into() {
                self.iv = *derived;
                self.key[..key.len()].copy_from_slice(key);
                self.sequence = sequence;
                return true;
            }
            self.next_secret();
        }
        false
    }

    /// Replaces the secret by the next one, and with it the keys (RFC 8446, 7.2).
    pub(super) fn update(&mut self) {
        self.next_secret();
        self.derive();
    }

    fn next_secret(&mut self) {
        let mut next = Zeroizing::new([0; SECRET_BYTES_MAX]);
        let next = &mut next[..self.suite.hash_bytes()];
        self.suite.expand_label(self.secret(), b"traffic upd", next);
        self.secret[..next.len()].copy_from_slice(next);
    }

    /// Derives what depends on the secret (RFC 8446, 7.3). The sequence begins again (5.3).
    fn derive(&mut self) {
        let Self { suite, secret, key, iv, sequence } = self;
        let secret = &secret[..suite.hash_bytes()];
        suite.expand_label(secret, b"key", &mut key[..suite.aead().key_len()]);
        suite.expand_label(secret, b"iv", iv);
        *sequence = 0;
    }

    pub(super) fn suite(&self) -> Suite {
        self.suite
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    fn secret(&self) -> &[u8] {
        &self.secret[..self.suite.hash_bytes()]
    }

    fn key(&self) -> &[u8] {
        &self.key[..self.suite.aead().key_len()]
    }

    /// Encrypts in place, under the next number (RFC 8446, 5.2). Returns the tag, which comes after it.
    pub(super) fn seal(&mut self, header: &[u8], plaintext: &mut [u8]) -> aead::Tag {
        let key = self.expand();
        let nonce = self.next_nonce().expect("fewer than 2^64 records");
        key.seal_in_place_separate_tag(nonce, aead::Aad::from(header), plaintext)
            .expect("not longer than a record")
    }

    /// Decrypts in place. `None`: it was not protected with this key, under this number, as it is, or there are no
    /// numbers any more.
    pub(super) fn open<'a>(
        &mut self,
        header: &[u8],
        ciphertext: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let key = self.expand();
        let nonce = self.next_nonce()?;
        key.open_in_place(nonce, aead::Aad::from(header), ciphertext).ok()
    }

    /// The number that the next record has, padded, XOR the iv (RFC 8446, 5.3). No number is given twice: they never
    /// wrap.
    fn next_nonce(&mut self) -> Option<aead::Nonce> {
        let number = self.sequence;
        self.sequence = number.checked_add(1)?;
        let mut nonce = self.iv;
        let padded = nonce[aead::NONCE_LEN - 8..].iter_mut().zip(number.to_be_bytes());
        padded.for_each(|(byte, number)| *byte ^= number);
        Some(aead::Nonce::assume_unique_for_key(nonce))
    }

    /// 600 bytes, which a stream does not keep.
    fn expand(&self) -> aead::LessSafeKey {
        let key = aead::UnboundKey::new(self.suite.aead(), self.key());
        aead::LessSafeKey::new(key.expect("as long as the cipher's keys"))
    }
}

impl Drop for TrafficKeys {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.key.zeroize();
        self.iv.zeroize();
    }
}

impl fmt::Debug for TrafficKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, record {}", self.suite, self.sequence)
    }
}
