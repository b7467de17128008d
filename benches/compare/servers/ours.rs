//! nudged, and the servers that are roles of this program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::start::certificate;
use super::{Broker, Server};
use crate::measure::Plan;
use crate::peer::Peer;
use crate::shared::process::{NUDGED, guarded};

pub(super) fn nudged(peer: Peer, folder: PathBuf, plan: &Plan) -> io::Result<Server> {
    let before = plan.nudged_before.as_deref();
    let program = match peer.is_before() {
        true => before.ok_or_else(|| io::Error::other("no --nudged-before"))?,
        false => Path::new(NUDGED),
    };
    let mut command = guarded(program)?;
    command.args(["serve", "--listen", "127.0.0.1:0", "--coalesce", "0ms", "--keepalive", "30s"]);
    command.args(["--history-events", &plan.history().to_string()]);
    command.args(["--workers", &plan.workers.to_string()]);
    if let Some(connections) = plan.connections {
        command.args(["--connections", &connections.to_string()]);
    }
    if let Some(tls) = certificate(peer, &folder)? {
        command.arg("--tls-cert").arg(tls.certificate).arg("--tls-key").arg(tls.key);
    }
    let broker = peer.backplane().map(Broker::start).transpose()?;
    if let Some(broker) = &broker {
        command.args(["--backplane", broker.url()]);
    }
    let mut server = Server::start(folder, &mut command)?;
    server.http2 = peer.http2();
    server.broker = broker;
    if server.broker.is_some() {
        server.wait_until_ok("/readyz")?;
    }
    Ok(server)
}

/// A server of `benches/peers` that is built into this program.
pub(super) fn itself(peer: Peer, folder: PathBuf, plan: &Plan) -> io::Result<Server> {
    let mut command = match peer {
        Peer::Raw => ourselves(&folder, "serve-raw")?,
        Peer::Hyper => ourselves(&folder, "serve-hyper")?,
        _ => ourselves(&folder, "serve-axum")?,
    };
    if peer == Peer::Axum {
        command.arg(plan.workers.to_string());
    }
    Server::start(folder, &mut command)
}

/// This program in another role, from a copy of its file: the PSS of processes that map the same file would divide its
/// pages among them.
pub(super) fn ourselves(folder: &Path, role: &str) -> io::Result<Command> {
    let copy = folder.join(role);
    fs::copy(std::env::current_exe()?, &copy)?;
    let mut command = guarded(copy)?;
    command.arg(role);
    Ok(command)
}
