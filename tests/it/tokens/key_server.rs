//! A server of a JWK set on loopback.
#![expect(
    clippy::disallowed_types,
    reason = "tests use the real clock, and loom does not replace their locks"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// A server of a JWK set: its current response, and the number of requests.
pub(super) struct Keys {
    address: SocketAddr,
    answer: Arc<Mutex<Response>>,
    requests: Arc<AtomicUsize>,
}

/// How it responds.
#[derive(Clone)]
enum Response {
    Set(String),
    /// It closes the connection.
    Close,
    /// It keeps the connection, and never responds.
    Silence,
}

// ===== impl Keys =====

impl Keys {
    /// It closes each connection, until there are keys.
    pub(super) fn start() -> Self {
        Self::start_with(None)
    }

    /// The same over HTTPS.
    pub(super) fn start_with(tls: Option<rustls::ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let (answer, requests) =
            (Arc::new(Mutex::new(Response::Close)), Arc::new(AtomicUsize::new(0)));
        let keys = Self { address, answer: answer.clone(), requests: requests.clone() };
        let tls = tls.map(Arc::new);
        // The thread ends with the process; each request is bounded in time.
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for socket in listener.incoming() {
                let socket = socket.expect("accepted");
                socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
                requests.fetch_add(1, Ordering::SeqCst);
                let body = match answer.lock().expect("no panic").clone() {
                    Response::Set(set) => Some(set),
                    Response::Close => None,
                    Response::Silence => {
                        silent.push(socket);
                        continue;
                    }
                };
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

    pub(super) fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Responds with keys on Ed25519, each of which may have a name.
    pub(super) fn publish(&self, keys: &[(Option<&str>, &str)]) {
        let keys: Vec<_> = keys.iter().map(|(kid, x)| jwk(*kid, x)).collect();
        self.respond(Response::Set(json!({ "keys": keys }).to_string()));
    }

    pub(super) fn fail(&self) {
        self.respond(Response::Close);
    }

    pub(super) fn fall_silent(&self) {
        self.respond(Response::Silence);
    }

    /// How often the set was requested.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn respond(&self, response: Response) {
        *self.answer.lock().expect("no panic") = response;
    }
}

fn jwk(kid: Option<&str>, x: &str) -> Value {
    let mut key = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x});
    if let Some(kid) = kid {
        key["kid"] = kid.into();
    }
    key
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
pub(super) fn raw_key(public: &str) -> String {
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
