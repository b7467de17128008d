//! HAProxy in front of servers.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::node::free_address;
use crate::Outcome;
use crate::shared::process::{Process, guarded, now};

/// A running HAProxy, ended when this is dropped.
pub(crate) struct Proxy {
    process: Process,
    pub(crate) address: SocketAddr,
    config: PathBuf,
}

const CONFIG: &str = include_str!("haproxy.cfg");
const INSTALL: &str = "haproxy is missing: install it (Debian: apt-get install haproxy)";
const START: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// Its version, or how to install it.
pub(crate) fn version() -> Outcome<String> {
    let printed = Command::new("haproxy").arg("-v").output().map_err(|_| INSTALL)?;
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    let version = text.split_whitespace().nth(2).unwrap_or_default();
    Ok(format!("HAProxy {version}"))
}

// ===== impl Proxy =====

impl Proxy {
    pub(crate) fn start(servers: &[SocketAddr]) -> Outcome<Self> {
        let address = free_address()?;
        let mut text = CONFIG.replace("ADDRESS", &address.to_string());
        for (number, server) in servers.iter().enumerate() {
            text += &format!("    server node{number} {server}\n");
        }
        let config = std::env::temp_dir().join(format!("nudged-haproxy-{}.cfg", process::id()));
        fs::write(&config, text)?;
        let mut command = guarded("haproxy")?;
        command.arg("-db").arg("-f").arg(&config);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::spawn(&mut command)?;
        let mut proxy = Self { process, address, config };
        let start = now();
        while TcpStream::connect(address).is_err() {
            if proxy.process.child.try_wait()?.is_some() || start.elapsed() > START {
                return Err("haproxy does not listen".into());
            }
            thread::sleep(PAUSE);
        }
        Ok(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It keeps on with the streams that it has, unless it is killed.
        self.process.child.kill().ok();
        fs::remove_file(&self.config).ok();
    }
}
