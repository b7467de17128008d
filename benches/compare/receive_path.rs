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
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::setsid;
use socket2::SockRef;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use super::measure::Outcome;
use super::processors::Processors;
use super::rps::{HELD, LOOPBACK, clear, hold, mask};

/// While this lives, packets of loopback are received on other processors than the server's.
pub(crate) struct ReceivePath {
    holder: Child,
    is_held: bool,
}

/// The first argument of the process that holds the setting; the second is its value.
pub(crate) const HOLD: &str = "hold-receive-path";

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
    /// Steers what is received to the processors that the server does not have, and leaves this thread on the server's.
    /// The error is the reason why that is impossible here.
    pub(crate) fn on_others(processors: &Processors) -> Outcome<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args([HOLD, &mask(processors.others())]);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let said = BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line);
        let mut path = Self { holder, is_held: false };
        said?;
        match line.trim() {
            HELD => path.is_held = true,
            "" => return Err("the process that was to set it has ended".into()),
            why => return Err(why.into()),
        }
        match takes_effect(processors)? {
            true => Ok(path),
            // That of a container may not be the one that `/sys` shows.
            false => Err("the loopback here is not the one whose setting /sys has".into()),
        }
    }
}

impl Drop for ReceivePath {
    fn drop(&mut self) {
        self.holder.stdin = None;
        let ended = self.holder.wait();
        if self.is_held && !ended.as_ref().is_ok_and(ExitStatus::success) {
            let cleared = clear(Path::new(LOOPBACK));
            eprintln!("what held {LOOPBACK}/*/rps_cpus: {ended:?}; restored here: {cleared:?}");
        }
    }
}

/// Whether what the server's processor sends is received on another one.
fn takes_effect(processors: &Processors) -> Outcome<bool> {
    processors.take_first()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    sender.write_all(&[0])?;
    receiver.read_exact(&mut [0])?;
    let received_on = SockRef::from(&receiver).cpu_affinity()?;
    Ok(processors.others().any(|processor| processor == received_on))
}
