//! The processes of a server.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::sockets;

/// A process and all its descendants.
pub(crate) fn family(process: u32) -> io::Result<Vec<u32>> {
    sockets::family(Path::new("/proc"), process)
}

/// Open descriptors of a process.
pub(crate) fn descriptors(process: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count())
}

pub(crate) fn signal(process: u32, signal: Signal) -> io::Result<()> {
    let id = i32::try_from(process).ok().and_then(Pid::from_raw);
    Ok(kill_process(id.ok_or(io::ErrorKind::InvalidInput)?, signal)?)
}
