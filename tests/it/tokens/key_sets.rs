//! JWK sets that are fetched, and change while streams are open.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests use the real clock, and loom does not replace their locks"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;

use super::{bearer, key_pair, mint_with, status_of};
use crate::support::certificate::Certificate;
use crate::support::programs::{OPENSSL, requires};
use crate::support::temp_dir::TempDir;
use crate::support::{Server, Transport, eventually};

/// A server of a JWK set on loopback: its current response, if any, and the number of requests.
struct Keys {
    address: SocketAddr,
    answer: Arc<Mutex<Option<String>>>,
    requests: Arc<AtomicUsize>,
}

impl Keys {
    fn start() -> Self {
        Self::start_with(None)
    }

    /// The same over HTTPS.
    fn start_with(tls: Option<rustls::ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let (answer, requests) = (Arc::new(Mutex::new(None)), Arc::new(AtomicUsize::new(0)));
        let keys = Self { address, answer: answer.clone(), requests: requests.clone() };
        let tls = tls.map(Arc::new);
        // The thread ends with the process; each request is bounded in time.
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let socket = socket.expect("accepted");
                socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
                requests.fetch_add(1, Ordering::SeqCst);
                let body = answer.lock().expect("no panic").clone();
                // A client that does not trust the certificate closes the connection during the handshake.
                _ = match &tls {
                    None => answer_with(socket, body),
                    Some(tls) => {
                        let session = rustls::ServerConnection::new(tls.clone());
                        let session = session.expect("a configuration");
                        answer_with(rustls::StreamOwned::new(session, socket), body)
                    }
                };
            }
        });
        keys
    }

    fn publish(&self, keys: &[(&str, &str)]) {
        let keys: Vec<_> = keys
            .iter()
            .map(|(kid, x)| json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": kid, "x": x}))
            .collect();
        *self.answer.lock().expect("no panic") = Some(json!({ "keys": keys }).to_string());
    }

    fn fail(&self) {
        *self.answer.lock().expect("no panic") = None;
    }
}

fn answer_with(mut io: impl Read + Write, body: Option<String>) -> std::io::Result<()> {
    _ = io.read(&mut [0; 4096])?;
    let Some(body) = body else { return Ok(()) };
    write!(
        io,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )?;
    io.flush()
}

/// The raw key at the end of an Ed25519 public key, in base64url as in a JWK (RFC 8037).
fn raw_key(public: &str) -> String {
    let args = ["pkey", "-pubin", "-in", public, "-outform", "DER"];
    let der = Command::new("openssl").args(args).output().expect("openssl").stdout;
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in der[der.len() - 32..].chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        let digit = |n: usize| char::from(digits[(bits >> (18 - 6 * n)) as usize & 63]);
        text.extend((0..=three.len()).map(digit));
    }
    text
}

/// While streams are open, a token uses a key that the server has not fetched yet; the set's server fails; tokens name
/// unknown keys.
#[test]
fn keys_are_fetched_when_needed_and_kept_when_fetching_fails() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let pairs = ["one", "two"].map(|name| key_pair(&folder, name, &["-algorithm", "ED25519"]));
    let [one, two] = pairs.each_ref().map(|[_, public]| raw_key(public));
    let tokens = [("1", 0), ("2", 1)]
        .map(|(kid, pair)| mint_with(&["--org", "acme", "--key", &pairs[pair][0], "--kid", kid]));
    let unknown = mint_with(&["--org", "acme", "--key", &pairs[0][0], "--kid", "3"]);

    let keys = Keys::start();
    keys.publish(&[("1", &one)]);
    let url = format!("http://{}/keys", keys.address);
    let server = Server::start(&["--jwks-url", &url, "--jwks-interval", "300ms"]);
    let mut first = server.stream_with("/api/acme/events", &bearer(&tokens[0]));
    first.connected();

    keys.publish(&[("1", &one), ("2", &two)]);
    eventually("the new key is accepted", || status_of_stream(&server, &tokens[1]) == 200);

    keys.fail();
    assert_eq!(status_of(&server, &unknown), 401);
    for token in &tokens {
        server.stream_with("/api/acme/events", &bearer(token)).connected();
    }

    let requests = keys.requests.load(Ordering::SeqCst);
    let start = Instant::now();
    (0..200).for_each(|_| assert_eq!(status_of(&server, &unknown), 401));
    let fetches = keys.requests.load(Ordering::SeqCst) - requests;
    let most = start.elapsed().as_millis() / 300 + 2;
    assert!(fetches as u128 <= most, "{fetches} fetches, {most} allowed by the interval");
}

/// All requests carry a token with a known key, so that only the periodic refresh fetches the set again.
#[test]
fn a_token_of_a_withdrawn_key_opens_no_more_streams() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let pairs = ["one", "two"].map(|name| key_pair(&folder, name, &["-algorithm", "ED25519"]));
    let [one, two] = pairs.each_ref().map(|[_, public]| raw_key(public));
    let token = mint_with(&["--org", "acme", "--key", &pairs[0][0], "--kid", "1"]);
    let keys = Keys::start();
    keys.publish(&[("1", &one)]);
    let url = format!("http://{}/keys", keys.address);
    let flags = ["--jwks-url", &url, "--jwks-interval", "100ms", "--jwks-refresh", "1s"];
    let server = Server::start(&flags);
    eventually("the key is accepted", || status_of_stream(&server, &token) == 200);
    keys.publish(&[("2", &two)]);
    eventually("it is withdrawn", || status_of_stream(&server, &token) == 401);
}

/// `SSL_CERT_FILE` replaces the root certificates of the system.
#[test]
fn keys_are_fetched_over_https_with_the_root_certificates_of_the_system() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let authority = Certificate::make_with(
        &["basicConstraints=critical,CA:TRUE"],
        &folder.path().join("authority"),
        "a private authority",
    );
    let leaf = authority.sign(&folder.path().join("leaf"), "keys");
    let chain = CertificateDer::from_pem_file(&leaf.certificate).expect("PEM");
    let key = PrivateKeyDer::from_pem_file(&leaf.key).expect("PEM");
    let provider = rustls::crypto::aws_lc_rs::default_provider().into();
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .expect("a pair");
    let [private, public] = key_pair(&folder, "one", &["-algorithm", "ED25519"]);
    let keys = Keys::start_with(Some(tls));
    keys.publish(&[("1", &raw_key(&public))]);
    let token = mint_with(&["--org", "acme", "--key", &private, "--kid", "1"]);
    let url = format!("https://{}/keys", keys.address);
    for (trusted, status) in [(&authority, 200), (&Certificate::of_tests(), 401)] {
        let mut command = Server::command();
        command.env("SSL_CERT_FILE", &trusted.certificate).env_remove("SSL_CERT_DIR");
        let requests = keys.requests.load(Ordering::SeqCst);
        let server = Server::start_as(
            command,
            Transport::Http1,
            &["--jwks-url", &url, "--jwks-interval", "300ms"],
        );
        eventually("the server has fetched the keys", || {
            keys.requests.load(Ordering::SeqCst) > requests
        });
        assert_eq!(status_of_stream(&server, &token), status);
    }
}

/// The status of a response that may be a stream.
fn status_of_stream(server: &Server, token: &str) -> u16 {
    let mut client = server.connect();
    client.send(&format!("GET /api/acme/events HTTP/1.1\r\nhost: t\r\n{}\r\n", bearer(token)));
    client.read_head().split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}
