//! Whether this machine has the servers that are compared, and in which version.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::configuration::{NCHAN_MODULE, PEERS};
use super::peer::{Backplane, Peer};
use super::program::{self, Program};
use crate::shared::process::NUDGED;
use crate::shared::{nats, redis};

/// How it is started, and what it has no setting for.
const DURABLE_STREAMS: &str = "with --workers 1 on one processor, which it cannot leave; a stream gets a control event \
                               each 15 s and ends after 60 s, so that `idle` holds it for 30 s";

// ===== impl Peer =====

impl Peer {
    /// The version, or what is missing and how to get it. `before` is the other build of nudged.
    pub(crate) fn find(self, before: Option<&Path>) -> Result<String, String> {
        let version = match self {
            Self::Raw => "benches/peers/raw.rs".into(),
            Self::Nudged | Self::NudgedTls | Self::NudgedH2 | Self::NudgedNats => {
                self.find_nudged(Path::new(NUDGED))?
            }
            Self::NudgedRedis if cfg!(feature = "redis") => self.find_nudged(Path::new(NUDGED))?,
            Self::NudgedRedis => {
                return Err("this build has no Redis: cargo bench --features bench,redis".into());
            }
            Self::NudgedBefore | Self::NudgedTlsBefore | Self::NudgedH2Before => {
                let program = before.ok_or("give its program with --nudged-before")?;
                format!("{}, {}", self.find_nudged(program)?, program.display())
            }
            Self::Hyper => "benches/peers/hyper.rs, hyper 1, tokio 1 (Cargo.lock)".into(),
            Self::Axum => "axum 0.8, tokio 1 (Cargo.lock)".into(),
            Self::Nchan => nchan()?,
            Self::NchanTls => format!("{}, {}", nchan()?, openssl()?),
            Self::Pushpin => pushpin()?,
            Self::Mercure => format!("{}, transport local", mercure()?),
            Self::MercureBolt => format!("{}, transport bolt", mercure()?),
            Self::MercureTls => {
                openssl()?;
                format!("{}, transport local", mercure()?)
            }
            Self::Centrifugo | Self::CentrifugoRedis | Self::CentrifugoNats => centrifugo()?,
            Self::CentrifugoTls => {
                openssl()?;
                centrifugo()?
            }
            Self::DurableStreams | Self::DurableStreamsMemory => {
                let version = program::durable_streams(&Program::DurableStreams.bytes()?);
                let mode = if self == Self::DurableStreams { "wal" } else { "memory" };
                format!("{version}, --durability {mode}, {DURABLE_STREAMS}")
            }
            Self::Hono => {
                let node = Program::Node.first_line(&["--version"])?;
                format!("Node {node}, {}, node-server {}", hono()?, pinned("@hono/node-server")?)
            }
            Self::HonoBun => {
                let bun = Program::Bun.first_line(&["--version"])?;
                format!("Bun {bun}, {}", hono()?)
            }
        };
        Ok(match self.backplane() {
            None => version,
            Some(backplane) => {
                format!("{version}, {} (its cost is not counted)", backplane.find()?)
            }
        })
    }

    fn find_nudged(self, program: &Path) -> Result<String, String> {
        if self.is_secure() {
            openssl()?;
            if !has_tls(program) {
                let program = program.display();
                return Err(format!("{program} has no --tls-cert: build it with the feature tls"));
            }
        }
        nudged_version(program)
    }
}

// ===== impl Backplane =====

impl Backplane {
    fn find(self) -> Result<String, String> {
        let version = match self {
            Self::Nats => nats::version(),
            Self::Redis => redis::version(),
        };
        version.map_err(|why| why.to_string())
    }
}

fn nudged_version(program: &Path) -> Result<String, String> {
    let done = Command::new(program).arg("--version").output();
    let done = done.map_err(|why| format!("{}: {why}", program.display()))?;
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

fn has_tls(program: &Path) -> bool {
    let help = Command::new(program).args(["serve", "--help"]).output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--tls-cert"))
}

fn openssl() -> Result<String, String> {
    Program::OpenSsl.first_line(&["version"])
}

fn nchan() -> Result<String, String> {
    if !Path::new(NCHAN_MODULE).exists() {
        return Err(format!("{NCHAN_MODULE} is missing: {}", Program::Nginx.install()));
    }
    let nginx = Program::Nginx.first_line(&["-v"])?;
    let package =
        Command::new("dpkg-query").args(["-W", "-f", "${Version}", "libnginx-mod-nchan"]).output();
    let package = package.map(|done| String::from_utf8_lossy(&done.stdout).into_owned());
    Ok(format!("{nginx}, nchan {}", package.as_deref().unwrap_or("?")))
}

fn pushpin() -> Result<String, String> {
    Program::Condure.first_line(&["--version"])?;
    Program::Zurl.first_line(&["--version"])?;
    Program::Pushpin.first_line(&["--version"])
}

fn mercure() -> Result<String, String> {
    let build_info = Program::Mercure.output(&["build-info"])?;
    program::mercure(&build_info)
        .ok_or_else(|| "mercure build-info does not name github.com/dunglas/mercure".into())
}

fn centrifugo() -> Result<String, String> {
    let printed = Program::Centrifugo.first_line(&["version"])?;
    program::centrifugo(&printed, || Program::Centrifugo.bytes())
}

/// The folder in which it is installed.
pub(super) fn hono_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("hono")
}

/// Installs it, if it is not, and returns its version.
fn hono() -> Result<String, String> {
    let (from, to) = (Path::new(PEERS).join("hono"), hono_folder());
    let failed = |why: io::Error| format!("{}: {why}", to.display());
    fs::create_dir_all(&to).map_err(failed)?;
    for file in ["package.json", "server.mjs"] {
        fs::copy(from.join(file), to.join(file)).map_err(failed)?;
    }
    if !to.join("node_modules/hono").exists() {
        let mut npm = Command::new(Program::Npm.name());
        npm.args(["install", "--no-audit", "--no-fund", "--silent"]).current_dir(&to);
        let done = npm.output().map_err(|_| Program::Npm.missing())?;
        if !done.status.success() {
            return Err(format!("npm install: {}", String::from_utf8_lossy(&done.stderr)));
        }
    }
    Ok(format!("hono {}", pinned("hono")?))
}

/// The version of a package in `package.json`.
fn pinned(name: &str) -> Result<String, String> {
    let manifest = Path::new(PEERS).join("hono/package.json");
    let text = fs::read_to_string(&manifest).map_err(|why| format!("{manifest:?}: {why}"))?;
    let rest = text.split_once(&format!("\"{name}\": \"")).map(|(_, rest)| rest);
    Ok(rest.and_then(|rest| rest.split('"').next()).unwrap_or("?").to_owned())
}
