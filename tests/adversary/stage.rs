//! The server under attack, its log and its published keys.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{ChildStderr, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::shared::process::{NUDGED, guarded};
use crate::support::certificate::Certificate;
use crate::support::{Server, Transport};

/// A running server with an address that speaks TLS, one in cleartext, and one that attackers do not reach.
pub(crate) struct Stage {
    pub(crate) server: Server,
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    /// Where backends publish, and the harness reads the metrics: the internal address, if there is one.
    pub(crate) backend: SocketAddr,
    pub(crate) certificate: Certificate,
    pub(crate) log: Arc<Log>,
    pub(crate) sizes: Sizes,
    /// The flags of the server, without files and secrets.
    pub(crate) flags: Vec<String>,
}

/// The honest subscribers, by transport and by kind of org.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Of the org [`BIG`], in cleartext.
    pub(crate) big: usize,
    /// Each of an org of its own, in cleartext.
    pub(crate) small: usize,
    /// Over TLS, of the org `secure`.
    pub(crate) tls: usize,
    /// Over HTTP/2 and TLS, of the org `shared`.
    pub(crate) http2: usize,
}

/// What reads the server's log: sometimes not at all.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) paused: AtomicBool,
    pub(crate) lines: AtomicU64,
}

pub(crate) const BIG: &str = "big";

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const PUBLISH_KEY: &str = "the-key-of-an-honest-backend";

/// Streams on each of the honest HTTP/2 connections.
pub(crate) const STREAMS_PER_CONNECTION: usize = 100;

/// The limits of one address. The honest subscribers come from [`HONEST_ADDRESSES`].
pub(crate) const ADDRESS_MAX: usize = 400;
pub(crate) const HONEST_ADDRESSES: usize = 20;

/// The address of a balancer, whose connections begin with a header of the PROXY protocol.
pub(crate) const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 99, 1);

/// The limit of the public streams of an org.
pub(crate) const ORG_PUBLIC_MAX: usize = 50;

/// The drain may take this long, and the streams are spread over the shorter time.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);
const DRAIN_WINDOW: &str = "2s";

/// Published keys with a `kid`, and as many without one as a token is tried with.
const NAMED_KEYS: usize = 28;
const NAMELESS_KEYS: usize = 4;

/// A public key on Ed25519 (RFC 8037, A.2).
const PUBLIC_KEY: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwaaPJHURo0";

const PAUSE: Duration = Duration::from_millis(20);

// ===== impl Sizes =====

impl Sizes {
    pub(crate) fn of(subscribers: usize) -> Self {
        let (small, tls, http2) = (subscribers / 12, subscribers / 25, subscribers / 12);
        Self { big: subscribers - small - tls - http2, small, tls, http2 }
    }

    /// Connections of the honest subscribers.
    pub(crate) fn connections(&self) -> usize {
        self.big + self.small + self.tls + self.http2.div_ceil(STREAMS_PER_CONNECTION)
    }

    pub(crate) fn subscribers(&self) -> usize {
        self.big + self.small + self.tls + self.http2
    }

    /// Connections that the server accepts besides.
    pub(crate) fn spare(&self) -> usize {
        (self.subscribers() * 3 / 10).max(100)
    }

    /// What an attack does per this many of 5,000 subscribers.
    pub(crate) fn scaled(&self, of_5000: usize) -> usize {
        (of_5000 * self.subscribers() / 5_000).max(2)
    }
}

// ===== impl Stage =====

impl Stage {
    /// Without an internal address if all of its clients are to use the public ones.
    pub(crate) fn start(sizes: Sizes, public_only: bool) -> io::Result<Self> {
        let certificate = Certificate::of_tests();
        let (log, mut flags) = (Arc::<Log>::default(), flags(sizes));
        if !public_only {
            flags.extend(["--internal-listen", "127.0.0.1:0"].map(str::to_owned));
        }
        let keys = format!("http://{}/", publish_keys()?);
        let mut command = guarded(NUDGED)?;
        command.arg("serve").stdout(Stdio::piped()).stderr(Stdio::piped());
        command.args(["--jwt-secret", SECRET, "--publish-key", PUBLISH_KEY]);
        command.args(["--jwks-url", &keys, "--jwt-audience", "any"]);
        command.args(certificate.flags());
        let args: Vec<_> = flags.iter().map(String::as_str).collect();
        let mut server = Server::start_as(command, Transport::Http1, &args);
        let stderr = server.take_stderr();
        let reader = log.clone();
        thread::Builder::new().name("log".into()).spawn(move || reader.read(stderr))?;
        let (tls, plain) = (server.addresses[0], server.addresses[1]);
        let backend = server.addresses.get(2).copied().unwrap_or(plain);
        Ok(Self { server, plain, tls, backend, certificate, log, sizes, flags })
    }
}

fn flags(sizes: Sizes) -> Vec<String> {
    let text = |flags: &[&str]| flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>();
    let mut flags = text(&["--workers", "2", "--log", "debug", "--public-orgs", "*"]);
    flags.extend(text(&["--listen", "127.0.0.1:0", "--plain-listen", "127.0.0.1:0"]));
    flags.extend(["--proxy-protocol-from".to_owned(), BALANCER.to_string()]);
    flags.extend(text(&["--drain-window", DRAIN_WINDOW, "--drain-timeout", "8s"]));
    for (flag, limit) in [
        ("--connections", sizes.connections() + sizes.spare()),
        ("--address-connections", ADDRESS_MAX),
        ("--address-streams", ADDRESS_MAX),
        ("--org-streams", sizes.big + 100),
        ("--org-public-streams", ORG_PUBLIC_MAX),
    ] {
        flags.extend([flag.to_owned(), limit.to_string()]);
    }
    flags
}

/// Serves a set of keys: answers the first request for it, and never a later one.
fn publish_keys() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let key = |kid: Option<usize>| {
        let mut key = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": PUBLIC_KEY});
        if let Some(kid) = kid {
            key["kid"] = Value::from(format!("key-{kid}"));
        }
        key
    };
    let keys = (0..NAMED_KEYS).map(Some).chain((0..NAMELESS_KEYS).map(|_| None)).map(key);
    let body = json!({ "keys": keys.collect::<Vec<_>>() }).to_string();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let serve = move || {
        let mut silent = Vec::new();
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            if silent.is_empty() {
                _ = socket.read(&mut [0; 4096]).and_then(|_| socket.write_all(answer.as_bytes()));
            }
            silent.push(socket);
        }
    };
    // It ends with the process.
    thread::Builder::new().name("keys".into()).spawn(serve)?;
    Ok(address)
}

// ===== impl Log =====

impl Log {
    fn read(&self, stderr: ChildStderr) {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        while stderr.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            self.lines.fetch_add(1, Ordering::Relaxed);
            let text = String::from_utf8_lossy(&line);
            // What no client may cause: a panic, or an error of the server itself.
            if text.contains("panicked") || text.contains(" ERROR ") {
                eprint!("the server's log: {text}");
            }
            line.clear();
            while self.paused.load(Ordering::Relaxed) {
                thread::sleep(PAUSE);
            }
        }
    }
}
