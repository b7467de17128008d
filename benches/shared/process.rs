//! Server processes: each prints its URL once it listens, and ends with this program, even if this program is killed.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{self, Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};

/// A running server, stopped when this is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// The URL that it printed, if it did.
    pub(crate) url: String,
    /// Kept open, because a server may fail if it cannot print.
    _stdout: Option<ChildStdout>,
    /// The same command as the one that started it.
    command: Command,
}

pub(crate) const NUDGED: &str = env!("CARGO_BIN_EXE_nudged");

/// The first argument that makes this program prepare its process and then execute another program.
const GUARD: &str = "run-guarded";

/// Where a server listens that lets the system choose a port.
const ANY_PORT: &str = "127.0.0.1:0";
const PORT: &str = "PORT";
/// How long a server may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// A command that runs `program` without nudged's settings and [`PORT`] from this program's environment, and whose
/// process the kernel ends when the calling thread ends. A server does not request that itself; so this program starts itself,
/// requests it, and executes the server.
pub(crate) fn guarded(program: impl AsRef<OsStr>) -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(GUARD).arg(process::id().to_string()).arg(program).stdin(Stdio::null());
    for (name, _) in env::vars_os() {
        if name == PORT || name.to_string_lossy().starts_with("NUDGED_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Has to be called first in `main`. In a process that [`guarded`] started, executes the guarded program and returns
/// only if that fails; otherwise returns at once.
pub(crate) fn become_guarded() -> io::Result<()> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != GUARD) {
        return Ok(());
    }
    end_with_parent()?;
    let parent = arguments.next().unwrap_or_default();
    // No signal is sent for a parent that ended before the request.
    if getppid().map(Pid::as_raw_pid).map(|id| OsString::from(id.to_string())) != Some(parent) {
        return Err(io::Error::other("the benchmark that started this process has ended"));
    }
    Err(Command::new(arguments.next().unwrap_or_default()).args(arguments).exec())
}

/// The port of a server that is started again; 0 lets the system choose one.
#[allow(dead_code, reason = "of the benchmark that restarts servers")]
pub(crate) fn given_port() -> u16 {
    env::var(PORT).ok().and_then(|port| port.parse().ok()).unwrap_or(0)
}

/// Makes the kernel end this process when its parent ends, because cargo forwards no signal.
pub(crate) fn end_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::TERM))?)
}

/// The same program, variables and folder, without standard input, and with these arguments instead.
fn again(command: &Command, argument: impl Fn(&OsStr) -> OsString) -> Command {
    let mut again = Command::new(command.get_program());
    again.args(command.get_args().map(argument)).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => again.env(name, value),
            None => again.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        again.current_dir(folder);
    }
    again
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

// ===== impl Process =====

impl Process {
    /// Starts a server that does not print its URL.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        Ok(Self {
            child,
            url: String::new(),
            _stdout: None,
            command: again(command, OsStr::to_owned),
        })
    }

    /// Starts it again after it has ended, at the address that it had: that is an argument in place of [`ANY_PORT`],
    /// and its port is in the variable [`PORT`]. What it prints is dropped.
    #[allow(dead_code, reason = "of the benchmark that restarts servers")]
    pub(crate) fn start_again(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut command = again(&self.command, |argument| match argument == ANY_PORT {
            true => address.to_string().into(),
            false => argument.to_owned(),
        });
        command.env(PORT, address.port().to_string());
        self.child = command.stdout(Stdio::null()).spawn()?;
        self.command = command;
        Ok(())
    }

    /// Starts a server and waits until it prints its URL.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let mut process = Self::spawn(command.stdout(Stdio::piped()))?;
        let mut stdout = BufReader::new(process.child.stdout.take().expect("piped"));
        let mut line = String::new();
        while stdout.read_line(&mut line)? > 0 {
            if let Some((_, rest)) = line.split_once("listening on ") {
                process.url = rest.split_whitespace().next().unwrap_or_default().to_owned();
                process._stdout = Some(stdout.into_inner());
                return Ok(process);
            }
            line.clear();
        }
        let status = process.stop()?;
        Err(io::Error::other(format!("{command:?} ended without listening: {status}")))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM, and SIGKILL if that is not enough.
    pub(crate) fn stop(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status); // Its id may belong to another process by now.
        }
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        id.map(|id| kill_process(id, Signal::TERM));
        let start = now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > STOP {
                self.child.kill()?;
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.stop().ok();
    }
}
