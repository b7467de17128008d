//! Processes that say where they listen, and that end when asked to.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) const NUDGED: &str = env!("CARGO_BIN_EXE_nudged");

/// How long a server may take to end when asked to.
const END: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// Starts it and waits until it prints where. Its output has to stay open, so that it can go on.
pub(crate) fn spawn_talking(command: &mut Command) -> io::Result<(Child, ChildStdout, String)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    while output.read_line(&mut line)? > 0 {
        if let Some((_, rest)) = line.split_once("listening on ") {
            let base = rest.split_whitespace().next().unwrap_or_default().to_owned();
            return Ok((child, output.into_inner(), base));
        }
        line.clear();
    }
    child.kill()?;
    Err(io::Error::other(format!("{command:?} ended without listening: {}", child.wait()?)))
}

/// Asks with SIGTERM, and does not wait for ever.
pub(crate) fn end(child: &mut Child) -> io::Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status); // Its id may be another's by now.
    }
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    id.map(|id| kill_process(id, Signal::TERM));
    let start = now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > END {
            child.kill()?;
        }
        thread::sleep(PAUSE);
    }
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
