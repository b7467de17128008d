//! The servers that are compared, each a process or a few of this machine.

mod centrifugo;
mod durable_streams;
mod hono;
mod mercure;
mod nginx;
mod ours;
mod pushpin;
mod start;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nudged::bench::{Cost, Publish, Ramp};

use super::peer::Backplane;
use super::protocol::Protocol;
use crate::shared::http::{Connection, JSON, get};
use crate::shared::nats::Nats;
use crate::shared::process::{NUDGED, Process, guarded, now};
use crate::shared::redis::Redis;

/// A server, which runs until this is dropped.
pub(crate) struct Server {
    pace: Ramp,
    /// The server itself, whose cost is measured, and then what it needs: Pushpin's origin.
    processes: Vec<Process>,
    url: String,
    http2: Option<usize>,
    protocol: Protocol,
    folder: PathBuf,
    /// Whose cost is not measured.
    broker: Option<Broker>,
}

/// A running backplane, which ends when this is dropped.
enum Broker {
    Nats(Nats),
    Redis(Redis),
}

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(20);
/// So many that no server idles, and so few that none refuses connections.
const PACE: Ramp = Ramp { per_second: None, pending_max: 128 };
const PAUSE: Duration = Duration::from_millis(20);

// ===== impl Server =====

impl Server {
    /// nudged with one worker and its default settings.
    pub(crate) fn with_defaults() -> io::Result<Self> {
        let mut command = guarded(NUDGED)?;
        Self::start(
            start::make_folder()?,
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
        Self { pace: PACE, processes, url, http2, protocol, folder, broker: None }
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

    pub(crate) fn protocol(&self) -> &Protocol {
        &self.protocol
    }

    pub(crate) fn pace(&self) -> Ramp {
        self.pace
    }

    pub(crate) fn cost(&self) -> io::Result<Cost> {
        Cost::of(&[self.processes[0].id()])
    }

    /// Its main process.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.processes[0]
    }

    /// Starts it again at the address that it had, with what it has stored, after its main process has ended.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        let address: SocketAddr = self.address().parse().map_err(io::Error::other)?;
        self.processes[0].start_again(address)?;
        self.wait_for(address.port())
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

    /// Waits until it answers a GET with 200.
    fn wait_until_ok(&self, path: &str) -> io::Result<()> {
        let address: SocketAddr = self.address().parse().map_err(io::Error::other)?;
        let probe = || -> io::Result<bool> {
            let mut connection = Connection::open(address)?;
            connection.send(&get(path, ""))?;
            Ok(connection.read_head()?.status == 200)
        };
        let start = now();
        while !probe().unwrap_or(false) {
            if start.elapsed() > START {
                return Err(io::Error::other(format!("it does not answer {path} with 200")));
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

// ===== impl Broker =====

impl Broker {
    fn start(backplane: Backplane) -> io::Result<Self> {
        Ok(match backplane {
            Backplane::Nats => Self::Nats(Nats::start()?),
            Backplane::Redis => Self::Redis(Redis::start()?),
        })
    }

    fn url(&self) -> &str {
        match self {
            Self::Nats(nats) => &nats.url,
            Self::Redis(redis) => &redis.url,
        }
    }
}
