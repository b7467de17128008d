//! Ends of TLS sessions for tests: the server's released as on a stream, the client's of rustls.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::SealedTransport;
use super::record_layer::{RecordLayer, flush};
use super::secrets::{SecretLog, catching};
use super::test_sessions::{client, configs_with, records};
use crate::server::reactor::Transport;

static CONFIGS: LazyLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = LazyLock::new(|| {
    let (mut server, client) = configs_with(default_provider(), default_provider());
    server.enable_secret_extraction = true;
    server.key_log = Arc::new(SecretLog);
    (server.into(), client.into())
});

/// What a stream writes to on this socket, and the client's session.
pub(in crate::server) fn sealed_on(socket: TcpStream) -> (Transport, ClientConnection) {
    let (sealed, client) = sealed(mio::net::TcpStream::from_std(socket));
    (Transport::Sealed(Box::new(sealed)), client)
}

/// The same on a socket of the test.
pub(in crate::server) fn sealed<S: Read + Write>(
    socket: S,
) -> (SealedTransport<S>, ClientConnection) {
    let mut server = ServerConnection::new(CONFIGS.0.clone()).expect("begun");
    let mut client = client(CONFIGS.1.clone());
    let mut secrets = None;
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
        server.read_tls(&mut &records(&mut client)[..]).expect("memory");
        let (processed, caught) = catching(|| server.process_new_packets());
        processed.expect("a handshake");
        secrets = secrets.or(caught);
        let mut wire = Vec::new();
        flush(&mut server, &mut wire).expect("memory");
        client.read_tls(&mut &wire[..]).expect("memory");
        client.process_new_packets().expect("a handshake");
    }
    let secrets = secrets.expect("derived in the handshake");
    let layer = RecordLayer::take_over(server, &secrets, 0).expect("a session of TLS 1.3");
    (SealedTransport::new(socket, layer, Vec::new(), Vec::new()), client)
}

/// The data in these records. Returns whether close_notify is the last of them.
pub(in crate::server) fn open(
    client: &mut ClientConnection,
    mut wire: &[u8],
    data: &mut Vec<u8>,
) -> Result<bool, rustls::Error> {
    loop {
        if !wire.is_empty() {
            client.read_tls(&mut wire).expect("memory");
        }
        let processed = client.process_new_packets();
        let read = client.reader().read_to_end(data);
        processed?;
        match read {
            Ok(_) => return Ok(true),
            Err(why) if why.kind() == ErrorKind::WouldBlock && wire.is_empty() => return Ok(false),
            Err(why) if why.kind() == ErrorKind::WouldBlock => {}
            Err(why) => panic!("{why}"),
        }
    }
}
