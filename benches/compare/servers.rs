//! Starting and stopping the servers that are compared.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use nudged::client::bench::{Cost, Pace, Publish};

use super::peer::{NCHAN_MODULE, PEERS, Peer, hono, nginx, nudged_has};
use crate::shared::process::{NUDGED, end, now, spawn_talking};

/// A server that runs until this is dropped.
pub(crate) struct Server {
    pace: Pace,
    /// Each with its own way to end; Pushpin's origin comes last.
    children: Vec<Child>,
    /// Open, so that a server that prints does not die of it.
    _output: Vec<ChildStdout>,
    /// The processes whose cost counts.
    measured: Vec<u32>,
    base: String,
    http2: Option<usize>,
    publish_base: Option<String>,
    dir: PathBuf,
}

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);
/// Enough that no server runs dry, and few enough that none has to queue more than it takes.
const PACE: Pace = Pace { per_second: None, at_once: 128 };
const PAUSE: Duration = Duration::from_millis(20);

const PUSHPIN_LIB: &str = "/usr/lib/pushpin";

// ===== impl Peer =====

impl Peer {
    /// Starts it with this many workers, where it lets itself be told.
    pub(crate) fn start(self, workers: usize) -> io::Result<Server> {
        let dir = std::env::temp_dir().join(format!("nudged-bench-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        match self {
            Self::Raw => talking(dir.clone(), &mut ourselves(&dir, "serve-raw")?),
            Self::Axum => {
                let mut axum = ourselves(&dir, "serve-axum")?;
                talking(dir, axum.arg("--workers").arg(workers.to_string()))
            }
            Self::Nudged | Self::NudgedHyper | Self::NudgedTls | Self::NudgedH2 => {
                let mut nudged = nudged(self, workers, &dir)?;
                let mut server = talking(dir, &mut nudged)?;
                server.http2 = self.http2();
                Ok(server)
            }
            Self::Hono => talking(dir, Command::new("node").arg("server.mjs").current_dir(hono())),
            Self::Nchan | Self::NchanTls => nchan(self, dir, workers),
            Self::Pushpin => pushpin(dir),
        }
    }
}

fn nudged(peer: Peer, workers: usize, dir: &Path) -> io::Result<Command> {
    let mut command = Command::new(NUDGED);
    command.args(["serve", "--listen", "127.0.0.1:0", "--coalesce", "0ms"]);
    command.args(["--history-events", "4096", "--workers", &workers.to_string()]);
    if nudged_has("--park") {
        command.args(["--park", if peer == Peer::NudgedHyper { "off" } else { "on" }]);
    }
    if peer.is_secure() {
        let [certificate, key] = make_certificate(dir)?;
        command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
    }
    Ok(command)
}

/// A certificate that signs itself, and its key: the smallest handshake there is.
fn make_certificate(dir: &Path) -> io::Result<[PathBuf; 2]> {
    let files = [dir.join("certificate.pem"), dir.join("key.pem")];
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args(["-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.arg("-out").arg(&files[0]).arg("-keyout").arg(&files[1]);
    let done = openssl.output()?;
    match done.status.success() {
        true => Ok(files),
        false => Err(io::Error::other(String::from_utf8_lossy(&done.stderr))),
    }
}

/// This program in another role, from a copy of its file: pages of a file that several processes
/// share would be divided among them in their PSS.
fn ourselves(dir: &Path, role: &str) -> io::Result<Command> {
    let copy = dir.join(role);
    fs::copy(std::env::current_exe()?, &copy)?;
    let mut command = Command::new(copy);
    command.arg(role);
    Ok(command)
}

/// Starts a server that prints where it listens.
fn talking(dir: PathBuf, command: &mut Command) -> io::Result<Server> {
    let (child, output, base) = spawn_talking(command)?;
    let measured = vec![child.id()];
    let (children, _output) = (vec![child], vec![output]);
    let (pace, http2, publish_base) = (PACE, None, None);
    Ok(Server { pace, children, _output, measured, base, http2, publish_base, dir })
}

fn nchan(peer: Peer, dir: PathBuf, workers: usize) -> io::Result<Server> {
    let port = free_port()?;
    let descriptors = rlimit::increase_nofile_limit(u64::MAX)?;
    let config = dir.join("nchan.conf");
    let (scheme, ssl, tls) = if peer.is_secure() {
        let [certificate, key] = make_certificate(&dir)?;
        let file = |path: PathBuf| path.display().to_string();
        let words = [("certificate", file(certificate)), ("key", file(key))];
        ("https", "ssl", fill("nchan-tls.conf", &words)?)
    } else {
        ("http", "", String::new())
    };
    let words = [
        ("ssl", ssl.to_owned()),
        ("tls", tls),
        ("module", NCHAN_MODULE.to_owned()),
        ("dir", dir.display().to_string()),
        ("workers", workers.to_string()),
        ("descriptors", descriptors.to_string()),
        ("port", port.to_string()),
    ];
    fs::write(&config, fill("nchan.conf", &words)?)?;
    let mut command = Command::new(nginx());
    command.arg("-c").arg(&config).arg("-p").arg(&dir).args(["-e", "stderr"]);
    let child = command.stdin(Stdio::null()).spawn()?;
    let measured = vec![child.id()];
    let mut server = Server {
        pace: PACE,
        children: vec![child],
        _output: Vec::new(),
        measured,
        base: format!("{scheme}://127.0.0.1:{port}"),
        http2: None,
        publish_base: None,
        dir,
    };
    server.wait_for(port)?;
    Ok(server)
}

fn pushpin(dir: PathBuf) -> io::Result<Server> {
    let mut origin = ourselves(&dir, "serve-origin")?;
    let (origin, output, origin_base) = spawn_talking(&mut origin)?;
    let (port, publish_port) = (free_port()?, free_port()?);
    let connections = rlimit::increase_nofile_limit(u64::MAX)?.saturating_sub(2000);
    let words = [
        ("libdir", PUSHPIN_LIB.to_owned()),
        ("dir", dir.display().to_string()),
        ("port", port.to_string()),
        ("publish_port", publish_port.to_string()),
        ("connections", connections.to_string()),
    ];
    fs::create_dir_all(dir.join("run"))?;
    fs::create_dir_all(dir.join("log"))?;
    fs::write(dir.join("pushpin.conf"), fill("pushpin.conf", &words)?)?;
    fs::write(dir.join("routes"), format!("* {}\n", origin_base.trim_start_matches("http://")))?;
    let mut command = Command::new("pushpin");
    command.arg("--config").arg(dir.join("pushpin.conf")).stdin(Stdio::null());
    let child = command.stdout(Stdio::null()).spawn()?;
    let measured = vec![child.id()];
    let mut server = Server {
        // It asks its origin for each, and answers some with 502 when more wait.
        pace: Pace { at_once: 16, ..PACE },
        children: vec![child, origin],
        _output: vec![output],
        measured,
        base: format!("http://127.0.0.1:{port}"),
        http2: None,
        publish_base: Some(format!("http://127.0.0.1:{publish_port}/publish/")),
        dir,
    };
    server.wait_for(port)?;
    server.wait_for(publish_port)?;
    // It answers 502 until its processes have found each other.
    let start = now();
    while !answers_200(port) {
        if start.elapsed() > START {
            return Err(io::Error::other("it does not answer 200"));
        }
        thread::sleep(PAUSE);
    }
    Ok(server)
}

fn answers_200(port: u16) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /api/probe/events HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

fn fill(name: &str, words: &[(&str, String)]) -> io::Result<String> {
    let mut text = fs::read_to_string(Path::new(PEERS).join(name))?;
    for (word, value) in words {
        text = text.replace(&format!("{{{word}}}"), value);
    }
    Ok(text)
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

// ===== impl Server =====

impl Server {
    /// nudged with one worker, and all else as it comes.
    pub(crate) fn with_defaults() -> io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("nudged-bench-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        talking(dir, Command::new(NUDGED).args(["--listen", "127.0.0.1:0", "--workers", "1"]))
    }

    /// The streams on each connection, where they come over HTTP/2.
    pub(crate) fn http2(&self) -> Option<usize> {
        self.http2
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    pub(crate) fn url(&self, org: &str) -> String {
        format!("{}/api/{org}/events", self.base)
    }

    pub(crate) fn publish(&self, org: &str) -> Publish {
        let (url, body) = match &self.publish_base {
            None => (self.url(org), r#"{"keys":["{n}"]}"#.to_owned()),
            Some(url) => {
                let event = r#"event: invalidate\ndata: {\"keys\":[\"{n}\"]}\n\n"#;
                let formats = format!(r#"{{"http-stream":{{"content":"{event}"}}}}"#);
                let item = format!(r#"{{"channel":"{org}","formats":{formats}}}"#);
                (url.clone(), format!(r#"{{"items":[{item}]}}"#))
            }
        };
        Publish { url, body, content_type: "application/json".into(), every: Duration::ZERO }
    }

    pub(crate) fn pace(&self) -> Pace {
        self.pace
    }

    pub(crate) fn cost(&self) -> io::Result<Cost> {
        Cost::of(&self.measured)
    }

    fn wait_for(&mut self, port: u16) -> io::Result<()> {
        let start = now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if let Some(status) = self.children[0].try_wait()? {
                return Err(io::Error::other(format!("it ended without listening: {status}")));
            }
            if start.elapsed() > START {
                return Err(io::Error::other(format!("it does not listen on port {port}")));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may be gone by now, which is as well.
            end(child).ok();
        }
        fs::remove_dir_all(&self.dir).ok();
    }
}
