//! The same behind TLS 1.3. What the clients receive is counted in records, and not decrypted: that would allocate.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use nudged::config::{Config, TlsFiles};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::counting::{LIVE_BLOCKS, allocations};
use super::{EVENT_END, KEYS, connect, post, read_until, serve};

/// A folder that is removed.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Of a stream: its transport, its keys, and the one that it may have in cleartext too.
const BLOCKS: f64 = 3.0;

pub(super) fn check() {
    let folder = Folder(std::env::temp_dir().join(format!("nudged-alloc-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).expect("a folder");
    let Some(files) = certificate(&folder) else {
        assert!(std::env::var_os("NUDGED_TEST_ALL").is_none(), "openssl is missing");
        return println!("TLS: skipped, openssl is missing");
    };
    let trusting = trusting(&files);
    let plain_listen = vec![([127, 0, 0, 1], 0).into()];
    let config = Config { tls: Some(files), plain_listen, ..Config::default() };
    let (addresses, _stop) = serve(config);
    let [secure, plain] = addresses[..] else { panic!("{addresses:?}") };

    let (mut publisher, post) = (connect(plain), post(&KEYS));
    let (mut streams, mut of_a_publish, mut live) = (Vec::new(), usize::MAX, Vec::new());
    for count in [1, 200, 1_200] {
        streams.reserve_exact(count - streams.len());
        while streams.len() < count {
            streams.push(subscribe(secure, &trusting));
        }
        let rounds = (0..20).map(|_| deliver(&mut publisher, &post, &mut streams));
        let of_all = rounds.min().expect("twenty");
        of_a_publish = of_a_publish.min(if count == 1 { of_all } else { usize::MAX });
        println!("TLS: allocations of a publish to 1: {of_a_publish}, to {count}: {of_all}");
        assert!(of_all <= of_a_publish, "{count} deliveries took {}", of_all - of_a_publish);
        live.push(LIVE_BLOCKS.load(Relaxed));
    }
    let left = (live[2] as f64 - live[1] as f64) / 1_000.0;
    println!("TLS: blocks for each open stream: {left:.3}");
    assert!(left <= BLOCKS, "{left} blocks a stream");
}

/// Publishes, and reads one record on every stream. Returns the number of allocations.
fn deliver(publisher: &mut TcpStream, post: &str, streams: &mut [TcpStream]) -> usize {
    allocations(|| {
        publisher.write_all(post.as_bytes()).expect("it listens");
        read_until(publisher, b"}");
        streams.iter_mut().for_each(read_record);
    })
}

fn read_record(stream: &mut TcpStream) {
    let mut record = [0; 4096];
    let (header, rest) = record.split_at_mut(5);
    stream.read_exact(header).expect("a record, in time");
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    assert_eq!(header[0], 23, "application data");
    stream.read_exact(&mut rest[..length]).expect("its rest, in time");
}

/// A stream that has received its greeting. The session is dropped, without a word to the server.
fn subscribe(address: SocketAddr, trusting: &Arc<ClientConfig>) -> TcpStream {
    let name = "localhost".try_into().expect("a name");
    let session = ClientConnection::new(trusting.clone(), name).expect("begun");
    let mut stream = StreamOwned::new(session, connect(address));
    let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", KEYS.stream);
    stream.write_all(request.as_bytes()).expect("a handshake");
    let mut received = Vec::new();
    while !received.ends_with(EVENT_END) {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).expect("more, in time");
        assert_ne!(length, 0, "the connection ended");
        received.extend_from_slice(&bytes[..length]);
    }
    stream.sock
}

/// `None` without openssl.
fn certificate(folder: &Folder) -> Option<TlsFiles> {
    let files = TlsFiles { certificate: folder.0.join("cert.pem"), key: folder.0.join("key.pem") };
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=tests"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&files.key)
        .arg("-out")
        .arg(&files.certificate)
        .output();
    made.is_ok_and(|output| output.status.success()).then_some(files)
}

fn trusting(files: &TlsFiles) -> Arc<ClientConfig> {
    let mut trusted = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(&files.certificate).expect("a certificate");
    trusted.add(certificate).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("versions");
    config.with_root_certificates(trusted).with_no_client_auth().into()
}
