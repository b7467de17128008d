//! TLS 1.3 records of a client, encrypted one by one, among them those that no library would send.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::crypto::cipher::{AeadKey, Iv, MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::crypto::tls13::OkmBlock;
use rustls::{
    ClientConfig, ContentType, KeyLog, ProtocolVersion, SupportedCipherSuite, Tls13CipherSuite,
};

/// The client's half of a session, from its first record after the handshake on.
pub(super) struct Records {
    suite: &'static Tls13CipherSuite,
    secret: OkmBlock,
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

/// Keeps the secret of one session's client.
#[derive(Default)]
pub(super) struct Secret(OnceLock<Vec<u8>>);

/// A KeyUpdate that requests none in return (RFC 8446, 4.6.3).
const KEY_UPDATE: &[u8] = &[24, 0, 0, 1, 0];

/// The length of the keys of AES-256 and ChaCha20: rustls lets others make no shorter ones.
const KEY: usize = 32;

/// The label under which rustls logs the secret.
const CLIENT_SECRET: &str = "CLIENT_TRAFFIC_SECRET_0";

// ===== impl Secret =====

impl Secret {
    /// The same settings, whose session leaves its secret here.
    pub(super) fn of(config: &ClientConfig) -> (Arc<Self>, Arc<ClientConfig>) {
        let secret = Arc::<Self>::default();
        let mut config = config.clone();
        config.key_log = secret.clone();
        (secret, config.into())
    }
}

impl KeyLog for Secret {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if label == CLIENT_SECRET {
            _ = self.0.set(secret.to_vec());
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

// ===== impl Records =====

impl Records {
    /// `None` if the session is not of TLS 1.3 with a key of 32 bytes, or its handshake is not over.
    pub(super) fn new(suite: Option<SupportedCipherSuite>, secret: &Secret) -> Option<Self> {
        let SupportedCipherSuite::Tls13(suite) = suite? else { return None };
        if suite.aead_alg.key_len() != KEY {
            return None;
        }
        let secret = OkmBlock::new(secret.0.get()?);
        let encrypter = encrypter(suite, &secret);
        Some(Self { suite, secret, encrypter, sequence: 0 })
    }

    /// A record with these bytes.
    pub(super) fn data(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.encrypt(ContentType::ApplicationData, bytes)
    }

    /// A KeyUpdate. What follows is encrypted with the new key.
    pub(super) fn key_update(&mut self) -> Vec<u8> {
        let record = self.encrypt(ContentType::Handshake, KEY_UPDATE);
        let length = self.secret.as_ref().len();
        self.secret = OkmBlock::new(&expand(self.suite, &self.secret, b"traffic upd", length));
        self.encrypter = encrypter(self.suite, &self.secret);
        self.sequence = 0;
        record
    }

    fn encrypt(&mut self, typ: ContentType, bytes: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(bytes);
        let plain = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let record = self.encrypter.encrypt(plain, self.sequence).expect("a short record");
        self.sequence += 1;
        record.encode()
    }
}

fn encrypter(suite: &'static Tls13CipherSuite, secret: &OkmBlock) -> Box<dyn MessageEncrypter> {
    let key: [u8; KEY] = expand(suite, secret, b"key", KEY).try_into().expect("as long");
    let iv: [u8; 12] = expand(suite, secret, b"iv", 12).try_into().expect("as long");
    suite.aead_alg.encrypter(AeadKey::from(key), Iv::from(iv))
}

/// HKDF-Expand-Label without a context (RFC 8446, 7.1).
fn expand(suite: &Tls13CipherSuite, secret: &OkmBlock, label: &[u8], length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    let (size, count) = ((length as u16).to_be_bytes(), [label.len() as u8 + 6]);
    let info = [&size[..], &count, b"tls13 ", label, &[0]];
    let expander = suite.hkdf_provider.expander_for_okm(secret);
    expander.expand_slice(&info, &mut out).expect("a short output");
    out
}
