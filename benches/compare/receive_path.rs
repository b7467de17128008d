//! The receive path of loopback, on the receivers' processors.
//!
//! What a server sends to 127.0.0.1 goes through the receiver's half of TCP, and wakes the receiver, on the server's
//! processor and in its time. A network card hands that to another machine. Receive packet steering hands it to other
//! processors of this one, so that the server's time is its own.
//!
//! The setting belongs to the machine. A process of its own makes it and restores it, as soon as its standard input
//! ends: when the [`ReceivePath`] is dropped, after a panic too, and when this program ends in any other way, by SIGKILL
//! too. It has a session of its own and ignores the signals that a terminal or `kill` sends by default.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::setsid;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use super::measure::Outcome;
use super::processors::Processors;
use super::rps::{HELD, LOOPBACK, hold, mask, steered};

/// While this lives, packets of loopback are received on other processors than the server's.
pub(crate) struct ReceivePath {
    holder: Child,
    steered_before: u64,
}

/// The first argument of the process that holds the setting; the second is its value.
pub(crate) const HOLD: &str = "hold-receive-path";

const COUNTERS: &str = "/proc/net/softnet_stat";

/// The role of the process that holds the setting.
pub(crate) fn serve(mask: &str) -> Outcome<()> {
    setsid()?;
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let _inside = runtime.enter();
    for kind in [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::terminate()] {
        // From now on it does not end this process, whether or not something waits for it.
        drop(signal(kind)?);
    }
    Ok(hold(Path::new(LOOPBACK), mask, io::stdout(), io::stdin())?)
}

// ===== impl ReceivePath =====

impl ReceivePath {
    /// Steers what is received to the processors that the server does not have. The error is the reason why that is
    /// impossible here.
    pub(crate) fn on_others(processors: &Processors) -> Outcome<Self> {
        let steered_before = counted()?;
        let mut command = Command::new(env::current_exe()?);
        command.args([HOLD, &mask(processors.others())]);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let said = BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line);
        let held = Self { holder, steered_before };
        said?;
        match line.trim() {
            HELD => Ok(held),
            "" => Err("the process that was to set it has ended".into()),
            why => Err(why.into()),
        }
    }

    /// Fails unless at least so many packets were handed to another processor: the loopback of a container may not be
    /// the one that was set.
    pub(crate) fn check(&self, packets: u64) -> Result<(), String> {
        let counted = counted().map_err(|why| why.to_string())?;
        let steered = counted.saturating_sub(self.steered_before);
        match steered >= packets {
            true => Ok(()),
            false => Err(format!(
                "the setting has no effect: {steered} times did a processor get packets from \
                 another, not {packets} or more ({COUNTERS})"
            )),
        }
    }
}

impl Drop for ReceivePath {
    fn drop(&mut self) {
        self.holder.stdin = None;
        match self.holder.wait() {
            Ok(status) if status.success() => {}
            ended => eprintln!("{LOOPBACK}/*/rps_cpus may not be restored: {ended:?}"),
        }
    }
}

fn counted() -> Outcome<u64> {
    let text = fs::read_to_string(COUNTERS)?;
    Ok(steered(&text).ok_or_else(|| format!("{COUNTERS} has no tenth column"))?)
}
