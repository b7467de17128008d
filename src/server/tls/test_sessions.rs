//! TLS sessions for tests, and what a client sends on them.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    ALL_VERSIONS, ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

use crate::server::reactor::Transport;

/// A TLS session on this socket, and the client's session; both have done their handshake.
pub(in crate::server) fn sessions(socket: TcpStream) -> (Transport, ClientConnection) {
    let (server, client) = sessions_in_memory();
    (Transport::tls(mio::net::TcpStream::from_std(socket), server), client)
}

/// A server's configuration, and that of a client that trusts it.
pub(in crate::server) fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    configs_of(ALL_VERSIONS)
}

/// The same with a client of these versions.
pub(in crate::server) fn configs_of(
    versions: &[&'static SupportedProtocolVersion],
) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let (server, client) = make_configs(provider.clone(), provider, versions);
    (server.into(), client.into())
}

/// The same, each with its cryptography.
pub(super) fn configs_with(
    server: CryptoProvider,
    client: CryptoProvider,
) -> (ServerConfig, ClientConfig) {
    make_configs(server, client, ALL_VERSIONS)
}

fn make_configs(
    server: CryptoProvider,
    client: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
) -> (ServerConfig, ClientConfig) {
    let output = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=tests"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "-", "-out", "-"])
        .output()
        .expect("openssl is installed");
    let key = PrivateKeyDer::from_pem_slice(&output.stdout).expect("a key");
    let certificate = CertificateDer::from_pem_slice(&output.stdout).expect("a certificate");
    let mut trusted = RootCertStore::empty();
    trusted.add(certificate.clone()).expect("a certificate");

    let server = ServerConfig::builder_with_provider(server.into());
    let server = server.with_safe_default_protocol_versions().expect("versions");
    let server = server.with_no_client_auth().with_single_cert(vec![certificate], key);
    let client = ClientConfig::builder_with_provider(client.into());
    let client = client.with_protocol_versions(versions).expect("versions");
    let client = client.with_root_certificates(trusted).with_no_client_auth();
    (server.expect("a pair"), client)
}

/// A client that has not sent its hello yet.
pub(in crate::server) fn client(config: Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(config, "localhost".try_into().expect("a name")).expect("begun")
}

/// Two sessions that have done their handshake.
pub(in crate::server) fn sessions_in_memory() -> (ServerConnection, ClientConnection) {
    let (server, config) = configs();
    let mut server = ServerConnection::new(server).expect("begun");
    let mut client = client(config);
    while client.is_handshaking() || server.wants_write() || client.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        server.read_tls(&mut &wire[..]).expect("memory");
        server.process_new_packets().expect("a handshake");
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        client.read_tls(&mut &wire[..]).expect("memory");
        client.process_new_packets().expect("a handshake");
    }
    (server, client)
}

/// Records with as many key updates as rustls accepts at once, and one byte of data.
pub(in crate::server) fn key_updates(client: &mut ClientConnection) -> Vec<u8> {
    (0..32).for_each(|_| client.refresh_traffic_keys().expect("TLS 1.3"));
    client.writer().write_all(b"x").expect("a session");
    records(client)
}

/// The records that a client has to send.
pub(in crate::server) fn records(client: &mut ClientConnection) -> Vec<u8> {
    let mut records = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut records).expect("memory");
    }
    records
}
