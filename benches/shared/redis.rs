//! `redis-server` on a free port of 127.0.0.1.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::process::{Process, guarded, now};

/// A running `redis-server`, ended with its files when this is dropped.
pub(crate) struct Redis {
    pub(crate) process: Process,
    pub(crate) url: String,
    folder: PathBuf,
}

/// How long it may take to listen.
const START: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
const INSTALL: &str = "redis-server is missing: install it (Debian: apt-get install redis-server)";

/// What differs from the defaults, which are those of Debian too.
const SETTINGS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "everysec"];

/// Its version and settings, or how to install it.
pub(crate) fn version() -> io::Result<String> {
    let printed = Command::new("redis-server")
        .arg("--version")
        .output()
        .map_err(|_| io::Error::other(INSTALL))?;
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
    let version = version.unwrap_or_default();
    Ok(format!("redis-server {version}, appendonly yes, appendfsync everysec"))
}

// ===== impl Redis =====

impl Redis {
    pub(crate) fn start() -> io::Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("nudged-redis-{}-{number}", process::id()));
        fs::create_dir_all(&folder)?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let log = folder.join("log");
        let mut command = guarded("redis-server")?;
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(SETTINGS).arg("--dir").arg(&folder);
        command.stdout(File::create(&log)?).stderr(Stdio::null());
        let process = Process::spawn(&mut command)?;
        let mut redis = Self { process, url: format!("redis://{address}"), folder };
        let start = now();
        while TcpStream::connect(address).is_err() {
            if redis.process.child.try_wait()?.is_some() || start.elapsed() > START {
                let text = fs::read_to_string(log)?;
                return Err(io::Error::other(format!("redis-server does not listen: {text}")));
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
