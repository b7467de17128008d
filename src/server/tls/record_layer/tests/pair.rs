//! A record layer that has taken over a session, and the client's session of rustls.

use std::io::{IoSlice, Read as _, Write as _};
use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, ServerConfig,
    ServerConnection,
};

use super::super::{RecordLayer, record_bytes};
use crate::server::tls::secrets::{SecretLog, TrafficSecrets, catching};
use crate::server::tls::test_sessions::{client, configs_with, records};

/// Both ends after the handshake, while the server has its session.
pub(super) struct Sessions {
    pub(super) server: ServerConnection,
    pub(super) client: ClientConnection,
    pub(super) secrets: Box<TrafficSecrets>,
}

/// Both ends after the session is gone.
pub(super) struct Pair {
    pub(super) layer: RecordLayer,
    pub(super) client: ClientConnection,
}

type Configs = (Arc<ServerConfig>, Arc<ClientConfig>);

/// Every suite of TLS 1.3 that rustls has.
pub(super) const SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

static CONFIGS: LazyLock<[Configs; 3]> = LazyLock::new(|| {
    SUITES.map(|suite| {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|known| known.suite() == suite);
        configs(provider.clone(), provider)
    })
});

/// A server's that catches secrets, and a client's.
fn configs(server: CryptoProvider, client: CryptoProvider) -> Configs {
    let (mut server, client) = configs_with(server, client);
    server.enable_secret_extraction = true;
    server.key_log = Arc::new(SecretLog);
    (server.into(), client.into())
}

// ===== impl Sessions =====

impl Sessions {
    /// Two sessions that have done their handshake, with nothing left to send.
    pub(super) fn new(suite: CipherSuite) -> Self {
        let which = SUITES.iter().position(|known| *known == suite).expect("one of them");
        Self::handshake(CONFIGS[which].clone())
    }

    fn handshake((server, trusting): Configs) -> Self {
        let mut server = ServerConnection::new(server).expect("begun");
        let (client, secrets) = handshake(&mut server, trusting);
        Self { server, client, secrets: secrets.expect("derived in the handshake") }
    }

    /// Has the server's session process what the client sends.
    pub(super) fn client_sends(&mut self) {
        receive(&mut self.server, &records(&mut self.client));
    }

    pub(super) fn take_over(self, updates_max: u32) -> Pair {
        let layer = RecordLayer::take_over(self.server, &self.secrets, updates_max);
        Pair { layer: layer.expect("a session of TLS 1.3"), client: self.client }
    }
}

/// Performs a handshake, and returns the client, and the secrets that the server derived.
fn handshake(
    server: &mut ServerConnection,
    trusting: Arc<ClientConfig>,
) -> (ClientConnection, Option<Box<TrafficSecrets>>) {
    let mut client = client(trusting);
    let mut secrets = None;
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
        let caught = receive(server, &records(&mut client));
        secrets = secrets.or(caught);
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        client.read_tls(&mut &wire[..]).expect("memory");
        client.process_new_packets().expect("a handshake");
    }
    (client, secrets)
}

/// A server's session of TLS 1.2, and the secrets that were caught.
pub(super) fn tls12() -> (ServerConnection, Option<Box<TrafficSecrets>>) {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_none());
    let (server, trusting) = configs(provider.clone(), provider);
    let mut server = ServerConnection::new(server).expect("begun");
    let (_, secrets) = handshake(&mut server, trusting);
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    (server, secrets)
}

/// Sessions that did not begin as most do: with a second hello, or with a ticket of another session.
pub(super) fn other_handshakes() -> [Sessions; 2] {
    let every = aws_lc_rs::default_provider();
    let mut few = every.clone();
    few.kx_groups = vec![aws_lc_rs::kx_group::SECP384R1];
    let again = configs(few, every.clone());
    let resumed = configs(every.clone(), every);
    drop(Sessions::handshake(resumed.clone()));
    let sessions = [again, resumed].map(Sessions::handshake);
    let kinds = [HandshakeKind::FullWithHelloRetryRequest, HandshakeKind::Resumed];
    assert_eq!(sessions.each_ref().map(|these| these.client.handshake_kind()), kinds.map(Some));
    sessions
}

/// Processes records, and returns the secrets that were derived.
fn receive(server: &mut ServerConnection, wire: &[u8]) -> Option<Box<TrafficSecrets>> {
    server.read_tls(&mut &wire[..]).expect("memory");
    let (processed, caught) = catching(|| server.process_new_packets());
    processed.expect("valid records");
    caught
}

// ===== impl Pair =====

impl Pair {
    pub(super) fn new(suite: CipherSuite) -> Self {
        Sessions::new(suite).take_over(0)
    }

    /// Seals data, and returns the bytes for the wire.
    pub(super) fn seal(&mut self, data: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        assert_eq!(self.layer.seal(&[IoSlice::new(data)], &mut wire), data.len());
        wire
    }

    /// What the client reads of this.
    pub(super) fn client_reads(&mut self, wire: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        let mut rest = wire;
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).expect("memory");
            self.client.process_new_packets().expect("valid records");
            match self.client.reader().read_to_end(&mut data) {
                Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {}
                read => _ = read.expect("data"),
            }
        }
        data
    }

    /// Records with this data, from the client.
    pub(super) fn client_writes(&mut self, data: &[u8]) -> Vec<Vec<u8>> {
        self.client.writer().write_all(data).expect("a session");
        split(&records(&mut self.client))
    }

    /// The records that the client has to send.
    pub(super) fn client_records(&mut self) -> Vec<Vec<u8>> {
        split(&records(&mut self.client))
    }
}

/// The records of these bytes.
pub(super) fn split(mut wire: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some(header) = wire.first_chunk() {
        let (record, rest) = wire.split_at(record_bytes(*header).expect("application data"));
        records.push(record.to_vec());
        wire = rest;
    }
    records
}
