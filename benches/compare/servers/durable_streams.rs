//! Durable Streams, the server in Rust.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use super::Server;
use super::start::free_port;
use crate::measure::{ORG, Plan};
use crate::peer::Peer;
use crate::processors::on_one;
use crate::program::Program;
use crate::protocol::Protocol;
use crate::shared::process::{Process, guarded};

pub(super) fn start(peer: Peer, folder: PathBuf, plan: &Plan) -> io::Result<Server> {
    let port = free_port()?;
    let mut command = guarded(Program::DurableStreams.name())?;
    command.args(["--port", &port.to_string()]);
    command.args(["--worker-threads", &plan.workers.to_string()]);
    if peer == Peer::DurableStreamsMemory {
        // An event is acknowledged before it is on a disk, as nudged does (README, "Flags", "Durability").
        command.args(["--durability", "memory"]);
    }
    command.arg("--data-dir").arg(folder.join("data")).stdout(Stdio::null());
    // `--worker-threads` is not for the threads of its streams: it has one for each processor that it may use.
    let process = match plan.workers {
        1 => on_one(|| Process::spawn(&mut command))?,
        _ => Process::spawn(&mut command)?,
    };
    let mut server = Server::new(folder, process, format!("http://127.0.0.1:{port}"));
    server.protocol = Protocol::DurableStreams;
    server.wait_for(port)?;
    server.create(ORG)?;
    Ok(server)
}
