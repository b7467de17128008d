//! The server, or by now one of its successors.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::Outcome;
use crate::shared::group::{is_running, members};
use crate::shared::process::{NUDGED, Process, guarded, now};

/// A server whose successors are in its process group.
pub(crate) struct Server {
    process: Process,
    pub(crate) address: SocketAddr,
    /// The one that serves.
    pub(crate) pid: u32,
    group: Pid,
    log: Receiver<String>,
    /// Ends the group if this program is killed.
    _watchdog: Watchdog,
}

/// One upgrade, as the server tells it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upgraded {
    /// For how long no stream was served.
    pub(crate) stopped: Duration,
    /// From the signal until the new process serves.
    pub(crate) took: Duration,
    /// From the signal until the old process has ended.
    pub(crate) until_end: Duration,
    /// Processor time of the old process meanwhile, as far as it could be read, and of the new one.
    pub(crate) cpu: Duration,
}

struct Watchdog(Child);

const BOUND: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);

// ===== impl Server =====

impl Server {
    pub(crate) fn start(listen: &str, settings: &[&str]) -> Outcome<Self> {
        let mut command = guarded(NUDGED)?;
        command.args(["serve", "--listen", listen]).args(settings);
        let mut process = Process::start(command.stderr(Stdio::piped()).process_group(0))?;
        let address = process.url.trim_start_matches("http://").parse()?;
        let pid = process.id();
        let group = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no process")?;
        let (sender, log) = channel();
        let stderr = process.child.stderr.take().expect("piped");
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { return };
                if line.contains(" WARN ") || line.contains(" ERROR ") {
                    eprintln!("server: {line}");
                }
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { process, address, pid, group, log, _watchdog: Watchdog::start(group)? })
    }

    /// Has it replaced, and waits until only the successor runs. `None` if the upgrade fails, and it goes on.
    pub(crate) fn upgrade(&mut self) -> Outcome<Option<Upgraded>> {
        let (old, start) = (self.pid, now());
        let before = super::memory::cpu(old)?;
        kill_process(Pid::from_raw(i32::try_from(old)?).ok_or("no process")?, Signal::USR2)?;
        let stopped = loop {
            let line = self.log.recv_timeout(BOUND).map_err(|_| "the upgrade does not end")?;
            if line.contains("the upgrade has failed") {
                return Ok(None);
            }
            if let Some((_, rest)) = line.split_once("stopped_ms=") {
                break Duration::from_millis(rest.split(' ').next().unwrap_or_default().parse()?);
            }
        };
        let took = start.elapsed();
        let mut last = before;
        while is_running(old) {
            last = super::memory::cpu(old).unwrap_or(last);
            if start.elapsed() > BOUND {
                return Err("the old process does not end".into());
            }
            thread::sleep(PAUSE);
        }
        let until_end = start.elapsed();
        let all = members(self.group.as_raw_pid());
        let [new] = &all[..] else { return Err(format!("{all:?} are left").into()) };
        self.pid = new.pid;
        let cpu = last.saturating_sub(before) + super::memory::cpu(new.pid)?;
        Ok(Some(Upgraded { stopped, took, until_end, cpu }))
    }

    /// Sends SIGTERM, and waits for the end of its drain.
    pub(crate) fn stop(&mut self) -> Outcome<()> {
        let start = now();
        kill_process(Pid::from_raw(i32::try_from(self.pid)?).ok_or("no process")?, Signal::TERM)?;
        while is_running(self.pid) {
            _ = self.process.child.try_wait()?;
            if start.elapsed() > BOUND {
                return Err("the server does not end".into());
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        _ = kill_process_group(self.group, Signal::KILL);
    }
}

// ===== impl Watchdog =====

impl Watchdog {
    fn start(group: Pid) -> Outcome<Self> {
        let script = format!("read end || kill -TERM -- -{}", group.as_raw_pid());
        let mut command = Command::new("sh");
        // A group of its own, so that it outlives a signal to this program's.
        command.args(["-c", &script]).stdin(Stdio::piped()).process_group(0);
        Ok(Self(command.stderr(Stdio::null()).spawn()?))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.0.stdin.take() {
            stdin.write_all(b"\n").ok();
        }
        self.0.wait().ok();
    }
}
