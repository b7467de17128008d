//! Pushpin, with the origin that its streams come from.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use nudged::bench::Ramp;

use super::ours::ourselves;
use super::start::free_port;
use super::{PACE, Server};
use crate::configuration::Pushpin;
use crate::measure::Plan;
use crate::program::Program;
use crate::protocol::Protocol;
use crate::shared::process::{Process, guarded};

/// Descriptors for everything but the streams.
const RESERVED: u64 = 2000;

pub(super) fn start(folder: PathBuf, plan: &Plan) -> io::Result<Server> {
    let origin = Process::start(&mut ourselves(&folder, "serve-origin")?)?;
    let (port, publish_port) = (free_port()?, free_port()?);
    let most = rlimit::increase_nofile_limit(u64::MAX)?.saturating_sub(RESERVED);
    let connections = plan.connections.map_or(most, |connections| connections as u64);
    let configuration = Pushpin { folder: &folder, port, publish_port, connections };
    fs::create_dir_all(folder.join("run"))?;
    fs::create_dir_all(folder.join("log"))?;
    fs::write(folder.join("pushpin.conf"), configuration.text()?)?;
    let route = format!("* {}\n", origin.url.trim_start_matches("http://"));
    fs::write(folder.join("routes"), route)?;
    let mut command = guarded(Program::Pushpin.name())?;
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
    server.wait_until_ok("/api/probe/events")?;
    Ok(server)
}
