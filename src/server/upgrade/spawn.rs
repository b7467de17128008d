//! The new process: how it is started, and ended if it does not take over.
//!
//! Between it and this process stands another one, which starts it, waits for it and ends as it does. Once that is ended,
//! the new process is a child of process 1, as a service manager needs it: systemd decides when it receives `MAINPID=` of
//! a new main process, and for good, whether that is its child. For one that is not, it does not wait when it stops the
//! service: it would end the drain by SIGKILL.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio, exit};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, waitid};
use rustix::stdio::dup2_stdin;
use tokio::time::Instant;

use crate::server::Program;

/// A process that has been started and is not live yet.
#[derive(Debug)]
pub(super) struct NewProcess {
    /// What stands between.
    between: Child,
}

/// The variable by which a process knows that its standard input is the control socket of an upgrade.
pub(super) const VARIABLE: &str = "NUDGED_UPGRADE";

/// Its value for the new process.
pub(super) const VALUE: &str = "stdin";

/// Its value for the process that stands between.
pub(super) const BETWEEN: &str = "start";

/// What a service manager has set for this process alone. The new one gets its sockets from here, and its watchdog is
/// pinged by the main process, which it becomes.
const OF_THIS_PROCESS: [&str; 5] =
    ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID", "WATCHDOG_PID"];

/// The longest wait for the exit status of a process that has closed its socket.
const EXIT_MAX: Duration = Duration::from_millis(200);

/// Between two looks at it.
const EXIT_CHECK: Duration = Duration::from_millis(5);

// ===== impl NewProcess =====

impl NewProcess {
    /// Starts the program as this process was started. Its standard input is the other end of the control socket.
    ///
    /// # Errors
    /// It could not be started.
    pub(super) fn start(program: &Program, control: OwnedFd) -> io::Result<Self> {
        let mut command = Command::new(program.path());
        command.args(program.arguments()).env(VARIABLE, BETWEEN).stdin(Stdio::from(control));
        for name in OF_THIS_PROCESS {
            command.env_remove(name);
        }
        Ok(Self { between: command.spawn()? })
    }

    /// How it has ended, if it ends in a moment.
    pub(super) fn exit(&mut self) -> Option<ExitStatus> {
        let until = Instant::now() + EXIT_MAX;
        loop {
            match self.between.try_wait() {
                Ok(None) if Instant::now() < until => thread::sleep(EXIT_CHECK),
                ended => return ended.ok().flatten(),
            }
        }
    }

    /// Ends it at once, if it has not ended.
    pub(super) fn kill(self) {
        let between = Pid::from_child(&self.between);
        // While that one stands still, it starts nothing, and waits for nothing that it has started. All of this fails only
        // if it has ended, and then the new one has too.
        _ = kill_process(between, Signal::STOP);
        let until = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        _ = waitid(WaitId::Pid(between), until);
        for new in children(between) {
            _ = kill_process(new, Signal::KILL);
        }
        self.release();
    }

    /// Leaves it to process 1.
    pub(super) fn release(mut self) {
        // It fails only if it has ended.
        _ = self.between.kill();
        if let Err(why) = self.between.wait() {
            tracing::warn!(%why, "the process that has started the new one could not be waited for");
        }
    }
}

/// The children of a process of one thread.
fn children(of: Pid) -> Vec<Pid> {
    let of = of.as_raw_pid();
    let ids = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    ids.split_whitespace().filter_map(|id| id.parse().ok().and_then(Pid::from_raw)).collect()
}

/// Starts the new process as this one was started, waits for it, and ends as it does.
///
/// # Errors
/// It could not be started.
pub(super) fn stand_between() -> io::Result<()> {
    let mut arguments = env::args_os();
    let program = arguments.next().unwrap_or_default();
    let mut new = Command::new(program).args(arguments).env(VARIABLE, VALUE).spawn()?;
    // The end of the new process is the end of the control socket.
    dup2_stdin(File::open("/dev/null")?)?;
    let status = new.wait()?;
    if let Some(signal) = status.signal().and_then(Signal::from_named_raw) {
        kill_process(getpid(), signal)?;
    }
    exit(status.code().unwrap_or(1))
}

/// How it has ended, after a sentence about it.
pub(super) fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it has ended with exit code {code}"),
        (None, Some(signal)) => format!("signal {signal} has ended it"),
        (None, None) => "it has ended".into(),
    }
}
