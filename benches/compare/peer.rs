//! The servers that are compared: their names, and whether this machine has them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shared::process::NUDGED;

/// A server to compare, with its configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// the bare write(2) loop: the lower limit
    Raw,
    /// nudged
    Nudged,
    /// another build of nudged (--nudged-before)
    #[value(skip)]
    NudgedBefore,
    /// nudged over TLS
    NudgedTls,
    /// another build of nudged over TLS (--nudged-before)
    #[value(skip)]
    NudgedTlsBefore,
    /// nudged over TLS and HTTP/2, 100 streams to a connection
    NudgedH2,
    /// another build of nudged over TLS and HTTP/2 (--nudged-before)
    #[value(skip)]
    NudgedH2Before,
    /// nudged's hub, mounted in plain hyper
    Hyper,
    /// axum's Sse over a broadcast channel
    Axum,
    /// nginx with nchan
    Nchan,
    /// nginx with nchan over TLS
    NchanTls,
    /// Pushpin behind its origin
    Pushpin,
    /// Mercure, without a history
    Mercure,
    /// Centrifugo, its engine in memory
    Centrifugo,
    /// Durable Streams, the server in Rust
    DurableStreams,
    /// Hono on Node
    Hono,
}

pub(super) const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers");
pub(super) const NCHAN_MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

pub(super) const DURABLE_STREAMS: &str = "durable-streams-server";
const CENTRIFUGO: &str =
    "centrifugo is missing: go install github.com/centrifugal/centrifugo/v6@v6.9.1";
const MERCURE: &str = "mercure is missing: in caddy/ of its source, go build -tags \
                       nobadger,nomysql,nopgx -o mercure ./mercure";

// ===== impl Peer =====

impl Peer {
    pub(crate) const ALL: [Self; 16] = [
        Self::Raw,
        Self::Nudged,
        Self::NudgedBefore,
        Self::NudgedTls,
        Self::NudgedTlsBefore,
        Self::NudgedH2,
        Self::NudgedH2Before,
        Self::Hyper,
        Self::Axum,
        Self::Nchan,
        Self::NchanTls,
        Self::Pushpin,
        Self::Mercure,
        Self::Centrifugo,
        Self::DurableStreams,
        Self::Hono,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw write(2) loop",
            Self::Nudged => "nudged",
            Self::NudgedBefore => "nudged, before",
            Self::NudgedTls => "nudged, TLS",
            Self::NudgedTlsBefore => "nudged, TLS, before",
            Self::NudgedH2 => "nudged, TLS and HTTP/2",
            Self::NudgedH2Before => "nudged, TLS and HTTP/2, before",
            Self::Hyper => "nudged's hub in hyper",
            Self::Axum => "axum Sse",
            Self::Nchan => "nchan (nginx)",
            Self::NchanTls => "nchan (nginx), TLS",
            Self::Pushpin => "Pushpin",
            Self::Mercure => "Mercure",
            Self::Centrifugo => "Centrifugo",
            Self::DurableStreams => "Durable Streams",
            Self::Hono => "Hono on Node",
        }
    }

    /// The version, or what is missing and how to get it. `before` is the other build of nudged.
    pub(crate) fn find(self, before: Option<&Path>) -> Result<String, String> {
        match self {
            Self::Raw => Ok("benches/peers/raw.rs".into()),
            Self::Nudged | Self::NudgedTls | Self::NudgedH2 => self.find_nudged(Path::new(NUDGED)),
            Self::NudgedBefore | Self::NudgedTlsBefore | Self::NudgedH2Before => {
                let program = before.ok_or("give its program with --nudged-before")?;
                Ok(format!("{}, {}", self.find_nudged(program)?, program.display()))
            }
            Self::Hyper => Ok("benches/peers/hyper.rs, hyper 1, tokio 1 (Cargo.lock)".into()),
            Self::Axum => Ok("axum 0.8, tokio 1 (Cargo.lock)".into()),
            Self::Nchan => nchan_version(),
            Self::NchanTls => Ok(format!("{}, {}", nchan_version()?, openssl_version()?)),
            Self::Pushpin => pushpin_version(),
            Self::Mercure => mercure_version(),
            Self::Centrifugo => first_line(Command::new("centrifugo").arg("version"))
                .map_err(|_| CENTRIFUGO.to_owned()),
            Self::DurableStreams => durable_streams_version(),
            Self::Hono => install_hono(),
        }
    }

    /// Whether it is compared. `only` has what was asked for, and nothing if that is everything; `has_before` says
    /// whether there is another build of nudged. That has a column beside each of nudged, and one without TLS also if
    /// no column of nudged was asked for.
    pub(crate) fn is_asked_for(self, only: &[Self], has_before: bool) -> bool {
        let asks_for = |peer| only.is_empty() || only.contains(&peer);
        match self {
            Self::NudgedTlsBefore => has_before && asks_for(Self::NudgedTls),
            Self::NudgedH2Before => has_before && asks_for(Self::NudgedH2),
            Self::NudgedBefore => {
                let has_others = asks_for(Self::NudgedTls) || asks_for(Self::NudgedH2);
                has_before && (asks_for(Self::Nudged) || !has_others)
            }
            _ => asks_for(self),
        }
    }

    /// Whether it is another build of nudged.
    pub(super) fn is_before(self) -> bool {
        matches!(self, Self::NudgedBefore | Self::NudgedTlsBefore | Self::NudgedH2Before)
    }

    /// Whether its streams use TLS.
    pub(super) fn is_secure(self) -> bool {
        match self {
            Self::NudgedTls | Self::NudgedTlsBefore | Self::NchanTls => true,
            _ => self.http2().is_some(),
        }
    }

    /// With HTTP/2, the streams on each connection.
    pub(super) fn http2(self) -> Option<usize> {
        matches!(self, Self::NudgedH2 | Self::NudgedH2Before).then_some(100)
    }

    fn find_nudged(self, program: &Path) -> Result<String, String> {
        if self.is_secure() {
            openssl_version()?;
            if !has_tls(program) {
                let program = program.display();
                return Err(format!("{program} has no --tls-cert: build it with the feature tls"));
            }
        }
        nudged_version(program)
    }
}

fn nudged_version(program: &Path) -> Result<String, String> {
    first_line(Command::new(program).arg("--version"))
}

fn has_tls(program: &Path) -> bool {
    let help = Command::new(program).args(["serve", "--help"]).output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--tls-cert"))
}

pub(super) fn nginx() -> &'static str {
    if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" }
}

fn nchan_version() -> Result<String, String> {
    let install = "apt-get install nginx libnginx-mod-nchan";
    if !Path::new(NCHAN_MODULE).exists() {
        return Err(format!("{NCHAN_MODULE} is missing: {install}"));
    }
    let nginx = first_line(Command::new(nginx()).arg("-v")).map_err(|_| install.to_owned())?;
    Ok(format!("{nginx}, nchan {}", package("libnginx-mod-nchan")))
}

fn openssl_version() -> Result<String, String> {
    let found = first_line(Command::new("openssl").arg("version"));
    found.map_err(|_| "openssl is missing: apt-get install openssl".to_owned())
}

fn pushpin_version() -> Result<String, String> {
    let install =
        |_| "pushpin, condure or zurl is missing: apt-get install pushpin condure zurl".to_owned();
    first_line(Command::new("condure").arg("--version")).map_err(install)?;
    first_line(Command::new("zurl").arg("--version")).map_err(install)?;
    first_line(Command::new("pushpin").arg("--version")).map_err(install)
}

fn package(name: &str) -> String {
    let mut query = Command::new("dpkg-query");
    first_line(query.args(["-W", "-f", "${Version}", name])).unwrap_or_else(|_| "?".into())
}

/// Of Mercure and of the Caddy that it is built into.
fn mercure_version() -> Result<String, String> {
    first_line(Command::new("mercure").arg("version"))
        .map(|caddy| format!("Caddy {caddy}"))
        .map_err(|_| MERCURE.to_owned())
}

fn durable_streams_version() -> Result<String, String> {
    let listed = Command::new(DURABLE_STREAMS).arg("--help").output();
    listed
        .map(|_| DURABLE_STREAMS.to_owned())
        .map_err(|_| format!("{DURABLE_STREAMS} is missing: cargo install durable-streams"))
}

pub(super) fn hono() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("hono")
}

fn install_hono() -> Result<String, String> {
    let failed = |why: io::Error| format!("{}: {why}", hono().display());
    let node = first_line(Command::new("node").arg("--version"))
        .map_err(|_| "node is missing: install Node.js 20 or later with npm".to_owned())?;
    fs::create_dir_all(hono()).map_err(failed)?;
    for file in ["package.json", "server.mjs"] {
        fs::copy(Path::new(PEERS).join("hono").join(file), hono().join(file)).map_err(failed)?;
    }
    if !hono().join("node_modules/hono").exists() {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--silent"]).current_dir(hono());
        let done = npm.output().map_err(|_| "npm is missing: install it".to_owned())?;
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
    text.lines().next().map(str::to_owned).ok_or_else(|| format!("{command:?} printed nothing"))
}
