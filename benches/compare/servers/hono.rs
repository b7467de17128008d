//! An application with Hono, on Node and on Bun.

use std::io;
use std::path::PathBuf;

use super::Server;
use crate::find::hono_folder;
use crate::peer::Peer;
use crate::program::Program;
use crate::shared::process::guarded;

pub(super) fn start(peer: Peer, folder: PathBuf) -> io::Result<Server> {
    let runtime = match peer {
        Peer::HonoBun => Program::Bun,
        _ => Program::Node,
    };
    let mut command = guarded(runtime.name())?;
    Server::start(folder, command.arg("server.mjs").current_dir(hono_folder()))
}
