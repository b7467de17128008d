//! Starting and stopping the servers that are compared.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::Duration;

use nudged::bench::{Cost, Publish, Ramp};

use super::measure::Plan;
use super::peer::{DURABLE_STREAMS, NCHAN_MODULE, PEERS, Peer, hono, nginx};
use super::protocol::Protocol;
use crate::shared::http::{Connection, JSON, get};
use crate::shared::process::{NUDGED, Process, guarded, now};

/// A server, which runs until this is dropped.
pub(crate) struct Server {
    pace: Ramp,
    /// The server itself, whose cost is measured, and then its helpers: Pushpin's origin.
    processes: Vec<Process>,
    url: String,
    http2: Option<usize>,
    protocol: Protocol,
    folder: PathBuf,
}

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(20);
/// So many that no server idles, and so few that none refuses connections.
const PACE: Ramp = Ramp { per_second: None, pending_max: 128 };
const PAUSE: Duration = Duration::from_millis(20);

/// The key of Mercure's quickstart.
const MERCURE_KEY: &str = "!ChangeThisMercureHubJWTSecretKey!";
const PUSHPIN_LIB: &str = "/usr/lib/pushpin";

// ===== impl Peer =====

impl Peer {
    /// Starts it, with the plan's workers where their number can be set.
    pub(crate) fn start(self, plan: &Plan) -> io::Result<Server> {
        let folder = make_folder()?;
        let workers = plan.workers.to_string();
        match self {
            Self::Raw => Server::start(folder.clone(), &mut ourselves(&folder, "serve-raw")?),
            Self::Hyper => Server::start(folder.clone(), &mut ourselves(&folder, "serve-hyper")?),
            Self::Axum => {
                let mut axum = ourselves(&folder, "serve-axum")?;
                Server::start(folder, axum.arg(workers))
            }
            Self::Nudged
            | Self::NudgedTls
            | Self::NudgedH2
            | Self::NudgedBefore
            | Self::NudgedTlsBefore
            | Self::NudgedH2Before => {
                let before = plan.nudged_before.as_deref();
                let program = match self.is_before() {
                    true => before.ok_or_else(|| io::Error::other("no --nudged-before"))?,
                    false => Path::new(NUDGED),
                };
                let mut command = nudged(program, &workers)?;
                if self.is_secure() {
                    let [certificate, key] = make_certificate(&folder)?;
                    command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
                }
                let mut server = Server::start(folder, &mut command)?;
                server.http2 = self.http2();
                Ok(server)
            }
            Self::Hono => {
                Server::start(folder, guarded("node")?.arg("server.mjs").current_dir(hono()))
            }
            Self::Nchan | Self::NchanTls => nchan(self, folder, &workers),
            Self::Pushpin => pushpin(folder),
            Self::Mercure => mercure(folder, &workers),
            Self::Centrifugo => centrifugo(folder, &workers),
            Self::DurableStreams => durable_streams(folder, &workers),
        }
    }
}

/// For configurations and sockets.
fn make_folder() -> io::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("nudged-bench-{}", process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn nudged(program: &Path, workers: &str) -> io::Result<Command> {
    let mut command = guarded(program)?;
    command.args(["serve", "--listen", "127.0.0.1:0", "--coalesce", "0ms"]);
    command.args(["--history-events", "4096", "--workers", workers]);
    Ok(command)
}

/// A self-signed certificate and its key: the smallest handshake.
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

/// This program in another role, from a copy of its file: the PSS of processes that map the same file would divide its
/// pages among them.
fn ourselves(folder: &Path, role: &str) -> io::Result<Command> {
    let copy = folder.join(role);
    fs::copy(std::env::current_exe()?, &copy)?;
    let mut command = guarded(copy)?;
    command.arg(role);
    Ok(command)
}

fn nchan(peer: Peer, folder: PathBuf, workers: &str) -> io::Result<Server> {
    let port = free_port()?;
    let descriptors = rlimit::increase_nofile_limit(u64::MAX)?;
    let config = folder.join("nchan.conf");
    let (scheme, ssl, tls) = if peer.is_secure() {
        let [certificate, key] = make_certificate(&folder)?;
        let file = |path: PathBuf| path.display().to_string();
        let values = [("certificate", file(certificate)), ("key", file(key))];
        ("https", "ssl", fill("nchan-tls.conf", &values)?)
    } else {
        ("http", "", String::new())
    };
    let values = [
        ("ssl", ssl.to_owned()),
        ("tls", tls),
        ("module", NCHAN_MODULE.to_owned()),
        ("dir", folder.display().to_string()),
        ("workers", workers.to_owned()),
        ("descriptors", descriptors.to_string()),
        ("port", port.to_string()),
    ];
    fs::write(&config, fill("nchan.conf", &values)?)?;
    let mut command = guarded(nginx())?;
    command.arg("-c").arg(&config).arg("-p").arg(&folder).args(["-e", "stderr"]);
    let nginx = Process::spawn(&mut command)?;
    let mut server = Server::new(folder, nginx, format!("{scheme}://127.0.0.1:{port}"));
    server.wait_for(port)?;
    Ok(server)
}

fn pushpin(folder: PathBuf) -> io::Result<Server> {
    let origin = Process::start(&mut ourselves(&folder, "serve-origin")?)?;
    let (port, publish_port) = (free_port()?, free_port()?);
    let connections = rlimit::increase_nofile_limit(u64::MAX)?.saturating_sub(2000);
    let values = [
        ("libdir", PUSHPIN_LIB.to_owned()),
        ("dir", folder.display().to_string()),
        ("port", port.to_string()),
        ("publish_port", publish_port.to_string()),
        ("connections", connections.to_string()),
    ];
    fs::create_dir_all(folder.join("run"))?;
    fs::create_dir_all(folder.join("log"))?;
    fs::write(folder.join("pushpin.conf"), fill("pushpin.conf", &values)?)?;
    let route = format!("* {}\n", origin.url.trim_start_matches("http://"));
    fs::write(folder.join("routes"), route)?;
    let mut command = guarded("pushpin")?;
    command.arg("--config").arg(folder.join("pushpin.conf")).stdout(Stdio::null());
    let pushpin = Process::spawn(&mut command)?;
    let mut server = Server::new(folder, pushpin, format!("http://127.0.0.1:{port}"));
    server.processes.push(origin);
    // Pushpin requests each stream from its origin, and responds to some with 502 when more are pending.
    server.pace = Ramp { pending_max: 16, ..PACE };
    let publish_url = format!("http://127.0.0.1:{publish_port}/publish/");
    server.protocol = Protocol::Pushpin { publish_url };
    server.wait_for(port)?;
    server.wait_for(publish_port)?;
    // Pushpin responds with 502 until its processes have connected to each other.
    let start = now();
    while !answers_200(port) {
        if start.elapsed() > START {
            return Err(io::Error::other("it does not answer 200"));
        }
        thread::sleep(PAUSE);
    }
    Ok(server)
}

fn mercure(folder: PathBuf, workers: &str) -> io::Result<Server> {
    let port = free_port()?;
    let url = format!("http://127.0.0.1:{port}");
    let values = [
        ("site", url.clone()),
        ("key", MERCURE_KEY.to_owned()),
        ("transport", "transport local".to_owned()),
    ];
    let config = folder.join("Caddyfile");
    fs::write(&config, fill("mercure.Caddyfile", &values)?)?;
    let mut mint = Command::new("mercure");
    mint.args(["mercure-token", "--iss", "https://localhost", "--key", MERCURE_KEY]);
    mint.args(["--publish", "*", "--aud"]).arg(format!("{url}/.well-known/mercure"));
    let token = String::from_utf8_lossy(&mint.output()?.stdout).trim().to_owned();
    let mut command = guarded("mercure")?;
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&config);
    command.env("GOMAXPROCS", workers).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = Server::new(folder, Process::spawn(&mut command)?, url);
    server.protocol = Protocol::Mercure { token };
    server.wait_for(port)?;
    Ok(server)
}

fn centrifugo(folder: PathBuf, workers: &str) -> io::Result<Server> {
    let port = free_port()?;
    let key = "benchmark".to_owned();
    let config = folder.join("centrifugo.json");
    let values = [("port", port.to_string()), ("key", key.clone())];
    fs::write(&config, fill("centrifugo.json", &values)?)?;
    let mut command = guarded("centrifugo")?;
    command.arg("--config").arg(&config);
    command.env("GOMAXPROCS", workers).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process::spawn(&mut command)?;
    let mut server = Server::new(folder, process, format!("http://127.0.0.1:{port}"));
    server.protocol = Protocol::Centrifugo { key };
    server.wait_for(port)?;
    Ok(server)
}

fn durable_streams(folder: PathBuf, workers: &str) -> io::Result<Server> {
    let port = free_port()?;
    let mut command = guarded(DURABLE_STREAMS)?;
    command.args(["--port", &port.to_string(), "--worker-threads", workers]);
    command.arg("--data-dir").arg(folder.join("data")).stdout(Stdio::null());
    let process = Process::spawn(&mut command)?;
    let mut server = Server::new(folder, process, format!("http://127.0.0.1:{port}"));
    server.protocol = Protocol::DurableStreams;
    server.wait_for(port)?;
    server.create(super::measure::ORG)?;
    Ok(server)
}

fn answers_200(port: u16) -> bool {
    let probe = || -> io::Result<bool> {
        let mut connection = Connection::open((Ipv4Addr::LOCALHOST, port).into())?;
        connection.send(&get("/api/probe/events", ""))?;
        Ok(connection.read_head()?.status == 200)
    };
    probe().unwrap_or(false)
}

fn fill(file: &str, values: &[(&str, String)]) -> io::Result<String> {
    let mut text = fs::read_to_string(Path::new(PEERS).join(file))?;
    for (name, value) in values {
        text = text.replace(&format!("{{{name}}}"), value);
    }
    Ok(text)
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

// ===== impl Server =====

impl Server {
    /// nudged with one worker and its default settings.
    pub(crate) fn with_defaults() -> io::Result<Self> {
        let mut command = guarded(NUDGED)?;
        Self::start(
            make_folder()?,
            command.args(["serve", "--listen", "127.0.0.1:0", "--workers", "1"]),
        )
    }

    /// Starts a server that prints its URL.
    fn start(folder: PathBuf, command: &mut Command) -> io::Result<Self> {
        let process = Process::start(command)?;
        let url = process.url.clone();
        Ok(Self::new(folder, process, url))
    }

    fn new(folder: PathBuf, process: Process, url: String) -> Self {
        let (processes, http2, protocol) = (vec![process], None, Protocol::Nudged);
        Self { pace: PACE, processes, url, http2, protocol, folder }
    }

    /// The number of streams on each connection; `None` without HTTP/2.
    pub(crate) fn http2(&self) -> Option<usize> {
        self.http2
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// The URL of an organisation's stream.
    pub(crate) fn url(&self, org: &str) -> String {
        format!("{}{}", self.url, self.protocol.stream(org))
    }

    pub(crate) fn publish(&self, org: &str) -> Publish {
        self.protocol.publish(&self.url, org)
    }

    /// Creates the stream of an organisation, where it does not exist by itself.
    pub(crate) fn create(&self, org: &str) -> io::Result<()> {
        let Some(path) = self.protocol.creates(org) else { return Ok(()) };
        let address = self.address().parse().map_err(io::Error::other)?;
        let head = format!(
            "PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\n\
             content-length: 0\r\n\r\n"
        );
        Connection::open(address)?.exchange(&head, 201).map(drop)
    }

    #[expect(dead_code, reason = "of clients that come back")]
    pub(crate) fn protocol(&self) -> &Protocol {
        &self.protocol
    }

    pub(crate) fn pace(&self) -> Ramp {
        self.pace
    }

    pub(crate) fn cost(&self) -> io::Result<Cost> {
        Cost::of(&[self.processes[0].id()])
    }

    fn wait_for(&mut self, port: u16) -> io::Result<()> {
        let start = now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if let Some(status) = self.processes[0].child.try_wait()? {
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
        // In this order: Pushpin ends before its origin, and the folder is removed last.
        self.processes.drain(..).for_each(drop);
        fs::remove_dir_all(&self.folder).ok();
    }
}
