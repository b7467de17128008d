//! Starting and stopping the servers that are compared.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use nudged::client::bench::{Cost, Pace, Publish};

use super::process::{NUDGED, end, now, spawn_talking};

/// A server to compare, and how it is configured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// the bare write(2) loop: the limit
    Raw,
    /// nudged, streams parked
    Nudged,
    /// nudged, streams left to hyper
    NudgedHyper,
    /// axum's Sse over a broadcast channel
    Axum,
    /// nginx with nchan
    Nchan,
    /// Pushpin behind its origin
    Pushpin,
    /// Hono on Node
    Hono,
}

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
    publish_base: Option<String>,
    dir: PathBuf,
}

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);
/// Enough that no server runs dry, and few enough that none has to queue more than it takes.
const PACE: Pace = Pace { per_second: None, at_once: 128 };
const PAUSE: Duration = Duration::from_millis(20);

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers");
const NCHAN_MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
const PUSHPIN_LIB: &str = "/usr/lib/pushpin";

// ===== impl Peer =====

impl Peer {
    pub(crate) const ALL: [Self; 7] = [
        Self::Raw,
        Self::Nudged,
        Self::NudgedHyper,
        Self::Axum,
        Self::Nchan,
        Self::Pushpin,
        Self::Hono,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw write(2) loop",
            Self::Nudged => "nudged",
            Self::NudgedHyper => "nudged, hyper path",
            Self::Axum => "axum Sse",
            Self::Nchan => "nchan (nginx)",
            Self::Pushpin => "Pushpin",
            Self::Hono => "Hono on Node",
        }
    }

    /// The version, or what is missing and how to get it.
    pub(crate) fn find(self) -> Result<String, String> {
        match self {
            Self::Raw => Ok("benches/peers/raw.rs".into()),
            Self::Nudged if !has_park() => Err("this nudged has no --park".into()),
            Self::Nudged | Self::NudgedHyper => first_line(Command::new(NUDGED).arg("--version")),
            Self::Axum => Ok("axum 0.8, tokio 1 (Cargo.lock)".into()),
            Self::Nchan => nchan_version(),
            Self::Pushpin => pushpin_version(),
            Self::Hono => install_hono(),
        }
    }

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
            Self::Nudged | Self::NudgedHyper => talking(dir, &mut nudged(self, workers)),
            Self::Hono => talking(dir, Command::new("node").arg("server.mjs").current_dir(hono())),
            Self::Nchan => nchan(dir, workers),
            Self::Pushpin => pushpin(dir),
        }
    }
}

fn has_park() -> bool {
    let help = Command::new(NUDGED).args(["serve", "--help"]).output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--park"))
}

fn nudged(peer: Peer, workers: usize) -> Command {
    let mut command = Command::new(NUDGED);
    command.args(["serve", "--listen", "127.0.0.1:0", "--coalesce", "0ms"]);
    command.args(["--history-events", "4096", "--workers", &workers.to_string()]);
    if has_park() {
        command.args(["--park", if peer == Peer::Nudged { "on" } else { "off" }]);
    }
    command
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
    Ok(Server { pace: PACE, children, _output, measured, base, publish_base: None, dir })
}

fn nchan(dir: PathBuf, workers: usize) -> io::Result<Server> {
    let port = free_port()?;
    let descriptors = rlimit::increase_nofile_limit(u64::MAX)?;
    let config = dir.join("nchan.conf");
    let words = [
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
        base: format!("http://127.0.0.1:{port}"),
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

fn nginx() -> &'static str {
    if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" }
}

fn nchan_version() -> Result<String, String> {
    let install = "apt-get install nginx libnginx-mod-nchan";
    if !Path::new(NCHAN_MODULE).exists() {
        return Err(format!("{NCHAN_MODULE} is not there: {install}"));
    }
    let nginx = first_line(Command::new(nginx()).arg("-v")).map_err(|_| install.to_owned())?;
    Ok(format!("{nginx}, nchan {}", package("libnginx-mod-nchan")))
}

fn pushpin_version() -> Result<String, String> {
    let install = |_| {
        "pushpin, condure or zurl is not there: apt-get install pushpin condure zurl".to_owned()
    };
    first_line(Command::new("condure").arg("--version")).map_err(install)?;
    first_line(Command::new("zurl").arg("--version")).map_err(install)?;
    first_line(Command::new("pushpin").arg("--version")).map_err(install)
}

fn package(name: &str) -> String {
    let mut query = Command::new("dpkg-query");
    first_line(query.args(["-W", "-f", "${Version}", name])).unwrap_or_else(|_| "?".into())
}

fn hono() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("hono")
}

fn install_hono() -> Result<String, String> {
    let failed = |why: io::Error| format!("{}: {why}", hono().display());
    let node = first_line(Command::new("node").arg("--version"))
        .map_err(|_| "node is not there: install Node.js 20 or later with npm".to_owned())?;
    fs::create_dir_all(hono()).map_err(failed)?;
    for file in ["package.json", "server.mjs"] {
        fs::copy(Path::new(PEERS).join("hono").join(file), hono().join(file)).map_err(failed)?;
    }
    if !hono().join("node_modules/hono").exists() {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--silent"]).current_dir(hono());
        let done = npm.output().map_err(|_| "npm is not there: install it".to_owned())?;
        if !done.status.success() {
            return Err(format!("npm install: {}", String::from_utf8_lossy(&done.stderr)));
        }
    }
    let manifest = fs::read_to_string(hono().join("package.json")).map_err(failed)?;
    let pinned = |name: &str| {
        let rest = manifest.split_once(&format!("\"{name}\": \"")).map(|(_, rest)| rest);
        rest.and_then(|rest| rest.split('"').next()).unwrap_or("?").to_owned()
    };
    Ok(format!("Node {node}, hono {}, node-server {}", pinned("hono"), pinned("@hono/node-server")))
}

/// The first line that a command prints, on either output.
fn first_line(command: &mut Command) -> Result<String, String> {
    let done = command.output().map_err(|why| format!("{command:?}: {why}"))?;
    let text = [done.stdout, done.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().next().map(str::to_owned).ok_or_else(|| format!("{command:?} said nothing"))
}

// ===== impl Server =====

impl Server {
    /// nudged with one worker, and all else as it comes.
    pub(crate) fn with_defaults() -> io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("nudged-bench-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        talking(dir, Command::new(NUDGED).args(["--listen", "127.0.0.1:0", "--workers", "1"]))
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
