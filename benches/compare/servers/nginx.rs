//! nginx with nchan.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::Server;
use super::start::{certificate, free_port};
use crate::configuration::Nchan;
use crate::measure::Plan;
use crate::peer::Peer;
use crate::program::Program;
use crate::shared::process::{Process, guarded};

pub(super) fn start(peer: Peer, folder: PathBuf, plan: &Plan) -> io::Result<Server> {
    let port = free_port()?;
    let descriptors = rlimit::increase_nofile_limit(u64::MAX)?;
    let tls = certificate(peer, &folder)?;
    let configuration = Nchan {
        tls: tls.as_ref(),
        folder: &folder,
        port,
        workers: plan.workers,
        descriptors,
        connections: plan.connections.map_or(descriptors, |connections| connections as u64),
        history: plan.history(),
    };
    let file = folder.join("nchan.conf");
    fs::write(&file, configuration.text()?)?;
    let mut command = guarded(Program::Nginx.name())?;
    command.arg("-c").arg(&file).arg("-p").arg(&folder).args(["-e", "stderr"]);
    let nginx = Process::spawn(&mut command)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut server = Server::new(folder, nginx, format!("{scheme}://127.0.0.1:{port}"));
    server.wait_for(port)?;
    Ok(server)
}
