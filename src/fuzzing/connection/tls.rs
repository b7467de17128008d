//! The client's half of a TLS 1.3 session. It can send what no TLS library sends: records of any type, empty ones, as
//! many key updates as wanted.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustls::client::{ClientConnectionData, Resumption, UnbufferedClientConnection};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::cipher::{
    InboundOpaqueMessage, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::kernel::KernelConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{
    ClientConfig, ConnectionTrafficSecrets, ContentType, ProtocolVersion, RootCertStore,
    SupportedCipherSuite,
};

use crate::config::{TlsFiles, TlsSessions};
use crate::server::Tls;

/// A handshake in progress.
pub(super) struct Handshake(UnbufferedClientConnection);

/// What a handshake does next.
pub(super) enum Progress {
    /// It needs more bytes from the server.
    Blocked(Box<Handshake>),
    Done(Box<Session>),
    Failed,
}

/// A session whose handshake is done.
pub(super) struct Session {
    kernel: KernelConnection<ClientConnectionData>,
    encrypter: Box<dyn MessageEncrypter>,
    decrypter: Box<dyn MessageDecrypter>,
    /// Numbers of the next records.
    sent: u64,
    received: u64,
    /// The connection is HTTP/2.
    pub(super) is_http2: bool,
}

/// Type, version and length.
const HEADER_LEN: usize = 5;

/// The longest encrypted record (RFC 8446, 5.2).
const RECORD_LEN_MAX: usize = 16_384 + 256;

/// The type of a handshake message (RFC 8446, 4).
const KEY_UPDATE: u8 = 24;

/// The server's certificate, and its key, which is no secret.
pub(super) static SERVER: LazyLock<Tls> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/tls");
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    Tls::read(TlsFiles { certificate, key }, TlsSessions::Release)
        .expect("a certificate and its key")
});

/// Without HTTP/2, and with it.
static CLIENTS: LazyLock<[Arc<ClientConfig>; 2]> =
    LazyLock::new(|| [b"http/1.1".as_slice(), b"h2"].map(|alpn| Arc::new(client(alpn))));

fn client(alpn: &[u8]) -> ClientConfig {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/tls/certificate.pem");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file).expect("PEM")).expect("a certificate");
    let config = ClientConfig::builder_with_provider(default_provider().into());
    let config = config.with_protocol_versions(&[&rustls::version::TLS13]).expect("supported");
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = true;
    config
}

// ===== impl Handshake =====

impl Handshake {
    pub(super) fn new(http2: bool) -> Box<Self> {
        let name = ServerName::try_from("localhost").expect("a name");
        let config = CLIENTS[usize::from(http2)].clone();
        Box::new(Self(UnbufferedClientConnection::new(config, name).expect("a complete config")))
    }

    /// Goes on with what was received, which it removes, and adds what has to be sent.
    pub(super) fn advance(
        mut self: Box<Self>,
        received: &mut Vec<u8>,
        send: &mut Vec<u8>,
    ) -> Progress {
        loop {
            let UnbufferedStatus { discard, state, .. } = self.0.process_tls_records(received);
            let (mut is_blocked, mut is_done) = (false, false);
            match state {
                Ok(ConnectionState::EncodeTlsData(mut record)) => {
                    let start = send.len();
                    send.resize(start + RECORD_LEN_MAX, 0);
                    let len = record.encode(&mut send[start..]).expect("there is room");
                    send.truncate(start + len);
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::BlockedHandshake) => is_blocked = true,
                Ok(ConnectionState::WriteTraffic(_)) => is_done = true,
                _ => return Progress::Failed,
            }
            received.drain(..discard);
            if is_done {
                return Progress::Done(Box::new(Session::new(self.0)));
            }
            if is_blocked {
                return Progress::Blocked(self);
            }
        }
    }
}

// ===== impl Session =====

impl Session {
    fn new(connection: UnbufferedClientConnection) -> Self {
        let is_http2 = connection.alpn_protocol() == Some(b"h2");
        let (secrets, kernel) =
            connection.dangerous_into_kernel_connection().expect("it is configured");
        let ((sent, tx), (received, rx)) = (secrets.tx, secrets.rx);
        let suite = kernel.negotiated_cipher_suite();
        let (encrypter, decrypter) = (encrypter(suite, tx), decrypter(suite, rx));
        Self { kernel, encrypter, decrypter, sent, received, is_http2 }
    }

    /// A record with this content.
    pub(super) fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let plain = OutboundPlainMessage {
            typ: kind.into(),
            version: ProtocolVersion::TLSv1_3,
            payload: OutboundChunks::Single(content),
        };
        let record = self.encrypter.encrypt(plain, self.sent).expect("it is short");
        self.sent += 1;
        record.encode()
    }

    /// A record with a KeyUpdate; later ones are encrypted with the next keys.
    pub(super) fn key_update(&mut self, requested: bool) -> Vec<u8> {
        let handshake = ContentType::Handshake.into();
        let record = self.record(handshake, &[KEY_UPDATE, 0, 0, 1, requested.into()]);
        let (number, secrets) = self.kernel.update_tx_secret().expect("TLS 1.3");
        self.encrypter = encrypter(self.kernel.negotiated_cipher_suite(), secrets);
        self.sent = number;
        record
    }

    /// The application data in these records of the server. Each of them has to be valid; the last one may be cut.
    pub(super) fn decrypt(mut self, mut records: Vec<u8>) -> Vec<u8> {
        let mut data = Vec::new();
        let mut rest = &mut records[..];
        while let Some(len) = record_len(rest) {
            let (record, after) = rest.split_at_mut(len);
            rest = after;
            let kind = ContentType::from(record[0]);
            let body = &mut record[HEADER_LEN..];
            let record = InboundOpaqueMessage::new(kind, ProtocolVersion::TLSv1_2, body);
            let plain = self.decrypter.decrypt(record, self.received).expect("a valid record");
            self.received += 1;
            let is_handshake = plain.typ == ContentType::Handshake;
            match plain.typ {
                ContentType::ApplicationData => data.extend_from_slice(plain.payload),
                ContentType::Handshake | ContentType::Alert => {}
                other => panic!("{other:?} after the handshake"),
            }
            // It is the last message of its record (RFC 8446, 5.1).
            if is_handshake && plain.payload.ends_with(&[KEY_UPDATE, 0, 0, 1, 0]) {
                let (number, secrets) = self.kernel.update_rx_secret().expect("TLS 1.3");
                self.decrypter = decrypter(self.kernel.negotiated_cipher_suite(), secrets);
                self.received = number;
            }
        }
        data
    }
}

/// The length of the first record, if it is complete. Checks its header.
fn record_len(bytes: &[u8]) -> Option<usize> {
    let [kind, major, _, high, low, ..] = *bytes else { return None };
    let len = usize::from(high) << 8 | usize::from(low);
    assert!((20..=23).contains(&kind) && major == 3 && len <= RECORD_LEN_MAX, "no record");
    (HEADER_LEN + len <= bytes.len()).then_some(HEADER_LEN + len)
}

/// Records that were received before or instead of a session; the last one may be cut.
pub(super) fn check_records(mut bytes: &[u8]) {
    while let Some(len) = record_len(bytes) {
        bytes = &bytes[len..];
    }
}

fn encrypter(
    suite: SupportedCipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Box<dyn MessageEncrypter> {
    let (key, iv) = parts(secrets);
    suite.tls13().expect("TLS 1.3").aead_alg.encrypter(key, iv)
}

fn decrypter(
    suite: SupportedCipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Box<dyn MessageDecrypter> {
    let (key, iv) = parts(secrets);
    suite.tls13().expect("TLS 1.3").aead_alg.decrypter(key, iv)
}

fn parts(
    secrets: ConnectionTrafficSecrets,
) -> (rustls::crypto::cipher::AeadKey, rustls::crypto::cipher::Iv) {
    use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
    match secrets {
        Aes128Gcm { key, iv } | Aes256Gcm { key, iv } | Chacha20Poly1305 { key, iv } => (key, iv),
        _ => panic!("an unknown cipher"),
    }
}
