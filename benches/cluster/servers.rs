//! The brokers of a log: each a server of its own on a free port of 127.0.0.1.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;

use super::cpu::cpu_of_family;
use super::node::free_address;
use crate::Outcome;
use crate::shared::nats::{self, Nats};
use crate::shared::process::{Process, guarded, now};

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum BrokerKind {
    Nats,
    Redis,
}

/// A running broker, ended with its files when this is dropped.
pub(crate) enum Broker {
    Nats(Nats),
    Redis(Redis),
}

/// A running `redis-server`.
pub(crate) struct Redis {
    process: Process,
    url: String,
    folder: PathBuf,
}

/// How long it may take to listen.
const START: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
const INSTALL: &str = "redis-server is missing: install it (Debian: apt-get install redis-server)";

/// What differs from the defaults, which are those of Debian too.
const REDIS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "everysec"];

// ===== impl BrokerKind =====

impl BrokerKind {
    pub(crate) fn start(self) -> Outcome<Broker> {
        Ok(match self {
            Self::Nats => Broker::Nats(Nats::start()?),
            Self::Redis => Broker::Redis(Redis::start()?),
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nats => "NATS",
            Self::Redis => "Redis",
        }
    }

    /// Its version, and where it keeps the log; or how to install it.
    pub(crate) fn about(self) -> Outcome<String> {
        Ok(match self {
            Self::Nats => format!("{}, R1, its file on this machine", nats::version()?),
            Self::Redis => {
                let printed = Command::new("redis-server").arg("--version").output();
                let text = String::from_utf8(printed.map_err(|_| INSTALL)?.stdout)?;
                let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
                let version = version.unwrap_or_default();
                format!("redis-server {version}, appendonly yes, appendfsync everysec")
            }
        })
    }
}

/// What is said of these brokers.
pub(crate) fn about(brokers: &[BrokerKind]) -> Outcome<String> {
    let all = brokers.iter().map(|broker| broker.about()).collect::<Outcome<Vec<_>>>()?;
    Ok(all.join("; "))
}

// ===== impl Broker =====

impl Broker {
    pub(crate) fn kind(&self) -> BrokerKind {
        match self {
            Self::Nats(_) => BrokerKind::Nats,
            Self::Redis(_) => BrokerKind::Redis,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.kind().name()
    }

    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Nats(nats) => &nats.url,
            Self::Redis(redis) => &redis.url,
        }
    }

    /// The processor time that it has used.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        let process = match self {
            Self::Nats(nats) => &nats.process,
            Self::Redis(redis) => &redis.process,
        };
        cpu_of_family(process.id())
    }
}

// ===== impl Redis =====

impl Redis {
    fn start() -> Outcome<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("nudged-redis-{}-{number}", process::id()));
        fs::create_dir_all(&folder)?;
        let address = free_address()?;
        let log = folder.join("log");
        let mut command = guarded("redis-server")?;
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(REDIS).arg("--dir").arg(&folder);
        command.stdout(File::create(&log)?).stderr(Stdio::null());
        let process = Process::spawn(&mut command)?;
        let mut redis = Self { process, url: format!("redis://{address}"), folder };
        let start = now();
        while TcpStream::connect(address).is_err() {
            if redis.process.child.try_wait()?.is_some() || start.elapsed() > START {
                let text = fs::read_to_string(log)?;
                return Err(format!("redis-server does not listen: {text}").into());
            }
            thread::sleep(PAUSE);
        }
        Ok(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Killed, because it would write a snapshot. It may have ended already.
        self.process.child.kill().ok();
        self.process.child.wait().ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}
