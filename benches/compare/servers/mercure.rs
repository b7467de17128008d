//! Mercure.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::Server;
use super::start::{certificate, free_port};
use crate::configuration::{Mercure, Transport};
use crate::measure::Plan;
use crate::peer::Peer;
use crate::program::Program;
use crate::protocol::Protocol;
use crate::shared::process::{Process, guarded};

/// The key of its quickstart.
const KEY: &str = "!ChangeThisMercureHubJWTSecretKey!";

pub(super) fn start(peer: Peer, folder: PathBuf, plan: &Plan) -> io::Result<Server> {
    let port = free_port()?;
    let tls = certificate(peer, &folder)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://127.0.0.1:{port}");
    let database = folder.join("mercure.db");
    let transport = match peer {
        Peer::MercureBolt => Transport::Bolt { file: &database, history: plan.history() },
        _ => Transport::Local,
    };
    let configuration = Mercure { tls: tls.as_ref(), url: &url, key: KEY, transport };
    let file = folder.join("Caddyfile");
    fs::write(&file, configuration.text()?)?;
    let token = mint(&url)?;
    let mut command = guarded(Program::Mercure.name())?;
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file);
    command.env("GOMAXPROCS", plan.workers.to_string());
    keep_files_in(&folder, &mut command);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = Server::new(folder, Process::spawn(&mut command)?, url);
    server.protocol = Protocol::Mercure { token };
    server.wait_for(port)?;
    Ok(server)
}

/// A publisher's token.
fn mint(url: &str) -> io::Result<String> {
    let audience = format!("{url}/.well-known/mercure");
    let token = Program::Mercure.output(&[
        "mercure-token",
        "--iss",
        "https://localhost",
        "--key",
        KEY,
        "--publish",
        "*",
        "--aud",
        &audience,
    ]);
    let text = token.map_err(io::Error::other)?;
    // Anything else that it prints is a warning.
    let is_token = |line: &&str| line.split('.').count() == 3 && !line.contains(' ');
    let token = text.lines().find(is_token);
    token.map(str::to_owned).ok_or_else(|| io::Error::other(format!("no token: {text}")))
}

/// Caddy keeps some in the home of its user otherwise.
fn keep_files_in(folder: &Path, command: &mut std::process::Command) {
    command.env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
}
