//! `nats-server` with JetStream on a free port of 127.0.0.1.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::process::{Process, guarded, now};

/// A running `nats-server`, ended with its files when this is dropped.
pub(crate) struct Nats {
    pub(crate) process: Process,
    pub(crate) url: String,
    folder: PathBuf,
}

/// How long it may take to listen.
const START: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
const INSTALL: &str = "nats-server is missing: install it (Debian: apt-get install nats-server)";
const LISTENING: &str = "Listening for client connections on ";

/// Its version, or how to install it.
pub(crate) fn version() -> io::Result<String> {
    let printed = Command::new("nats-server")
        .arg("--version")
        .output()
        .map_err(|_| io::Error::other(INSTALL))?;
    Ok(String::from_utf8_lossy(&printed.stdout).trim().replace(": v", " "))
}

// ===== impl Nats =====

impl Nats {
    pub(crate) fn start() -> io::Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("nudged-nats-{}-{number}", process::id()));
        fs::create_dir_all(&folder)?;
        let log = folder.join("log");
        let mut command = guarded("nats-server")?;
        command.args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd"]).arg(&folder);
        command.arg("-l").arg(&log).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::spawn(&mut command)?;
        let mut nats = Self { process, url: String::new(), folder };
        let start = now();
        while start.elapsed() < START {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let address = text.split_once(LISTENING).and_then(|(_, rest)| rest.lines().next());
            // It listens on the port before it is ready.
            if let Some(address) = address.filter(|_| text.contains("Server is ready")) {
                nats.url = format!("nats://{address}");
                return Ok(nats);
            }
            if nats.process.child.try_wait()?.is_some() {
                break;
            }
            thread::sleep(PAUSE);
        }
        let text = fs::read_to_string(&log)?;
        Err(io::Error::other(format!("nats-server does not listen: {text}")))
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // It may have ended already.
        self.process.stop().ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}
