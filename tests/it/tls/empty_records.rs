//! A TLS 1.3 client that can send empty records of data, which rustls accepts and does not send.

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::crypto::cipher::{
    AeadKey, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundOpaqueMessage,
    OutboundPlainMessage, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::{
    CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, Error, SupportedCipherSuite,
    Tls13CipherSuite,
};

/// This byte, alone in a record, is left out of it.
pub(super) const NOTHING: u8 = 0xee;

struct Emptying(&'static dyn Tls13AeadAlgorithm);

struct EmptyingEncrypter(Box<dyn MessageEncrypter>);

/// Cryptography with the one suite that leaves [`NOTHING`] out.
pub(super) fn provider() -> CryptoProvider {
    let SupportedCipherSuite::Tls13(suite) = cipher_suite::TLS13_AES_128_GCM_SHA256 else {
        panic!("a suite of TLS 1.3");
    };
    let CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit, .. } = suite.common;
    let emptying = Tls13CipherSuite {
        common: CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit },
        hkdf_provider: suite.hkdf_provider,
        aead_alg: Box::leak(Box::new(Emptying(suite.aead_alg))),
        quic: None,
    };
    let suite = SupportedCipherSuite::Tls13(Box::leak(Box::new(emptying)));
    CryptoProvider { cipher_suites: vec![suite], ..default_provider() }
}

// ===== impl Emptying =====

impl Tls13AeadAlgorithm for Emptying {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(EmptyingEncrypter(self.0.encrypter(key, iv)))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv)
    }
}

// ===== impl EmptyingEncrypter =====

impl MessageEncrypter for EmptyingEncrypter {
    fn encrypt(
        &mut self,
        mut message: OutboundPlainMessage<'_>,
        seq: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        if message.typ == ContentType::ApplicationData && message.payload.to_vec() == [NOTHING] {
            message.payload = OutboundChunks::Single(&[]);
        }
        self.0.encrypt(message, seq)
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        self.0.encrypted_payload_len(payload_len)
    }
}
