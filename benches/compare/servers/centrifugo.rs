//! Centrifugo.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use super::start::{certificate, free_port};
use super::{Broker, Server};
use crate::configuration::{Centrifugo, Engine};
use crate::measure::Plan;
use crate::peer::Peer;
use crate::program::Program;
use crate::protocol::Protocol;
use crate::shared::process::{Process, guarded};

/// Of its HTTP API.
const KEY: &str = "benchmark";

pub(super) fn start(peer: Peer, folder: PathBuf, plan: &Plan) -> io::Result<Server> {
    let port = free_port()?;
    let tls = certificate(peer, &folder)?;
    let broker = peer.backplane().map(Broker::start).transpose()?;
    let history = plan.history();
    let engine = match &broker {
        None => Engine::Memory { history },
        Some(Broker::Redis(redis)) => Engine::Redis { url: &redis.url, history },
        Some(Broker::Nats(nats)) => Engine::Nats { url: &nats.url },
    };
    let connections = plan.connections.unwrap_or(0);
    let configuration = Centrifugo { tls: tls.as_ref(), port, key: KEY, engine, connections };
    let file = folder.join("centrifugo.yaml");
    fs::write(&file, configuration.text()?)?;
    let mut command = guarded(Program::Centrifugo.name())?;
    command.arg("--config").arg(&file);
    command.env("GOMAXPROCS", plan.workers.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process::spawn(&mut command)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut server = Server::new(folder, process, format!("{scheme}://127.0.0.1:{port}"));
    server.broker = broker;
    server.protocol = Protocol::Centrifugo { key: KEY.to_owned() };
    server.wait_for(port)?;
    Ok(server)
}
