//! Cipher suites of TLS 1.3.

use aws_lc_rs::{aead, hkdf};
use minicbor::{Decode, Encode};

/// A cipher suite of TLS 1.3 (RFC 8446, B.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Suite {
    #[n(1)]
    Aes128GcmSha256,
    #[n(2)]
    Aes256GcmSha384,
    #[n(3)]
    Chacha20Poly1305Sha256,
}

/// So many bytes are derived.
struct Length(usize);

const LABEL_PREFIX: &[u8] = b"tls13 ";

// ===== impl Suite =====

impl Suite {
    pub(super) fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128GcmSha256 => &aead::AES_128_GCM,
            Self::Aes256GcmSha384 => &aead::AES_256_GCM,
            Self::Chacha20Poly1305Sha256 => &aead::CHACHA20_POLY1305,
        }
    }

    fn hkdf(self) -> hkdf::Algorithm {
        match self {
            Self::Aes128GcmSha256 | Self::Chacha20Poly1305Sha256 => hkdf::HKDF_SHA256,
            Self::Aes256GcmSha384 => hkdf::HKDF_SHA384,
        }
    }

    pub(super) fn hash_bytes(self) -> usize {
        self.hkdf().hmac_algorithm().tag_len()
    }

    /// HKDF-Expand-Label without a context (RFC 8446, 7.1).
    pub(super) fn expand_label(self, secret: &[u8], label: &[u8], out: &mut [u8]) {
        let length = (out.len() as u16).to_be_bytes();
        let label_length = [LABEL_PREFIX.len() as u8 + label.len() as u8];
        let info = [&length[..], &label_length, LABEL_PREFIX, label, &[0]];
        hkdf::Prk::new_less_safe(self.hkdf(), secret)
            .expand(&info, Length(out.len()))
            .and_then(|okm| okm.fill(out))
            .expect("not longer than a hash");
    }
}

// ===== impl Length =====

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}
