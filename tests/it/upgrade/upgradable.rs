//! A server that is started from a path of its own, so that another program may be put there, and its successors.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, kill_process_group};
use serde_json::Value;

use super::shared::group::{is_running, members};
use crate::support::log::Log;
use crate::support::server::{Server, Signal, signal};
use crate::support::temp_dir::TempDir;
use crate::support::{Transport, eventually};

/// The server, or by now one of its successors. All of them are one process group, which is killed when this is dropped.
pub(super) struct Upgradable {
    /// The first one, through whose addresses the others are reached.
    server: Server,
    /// The one that serves.
    pid: u32,
    group: Pid,
    pub(super) log: Log,
    dir: TempDir,
}

/// The program that the tests are about.
pub(super) const PROGRAM: &str = env!("CARGO_BIN_EXE_nudged");

/// An upgrade is logged, and the old process ends quickly if something has to stay with it.
const SETTINGS: [&str; 2] = ["--drain-delay", "0"];
const LOG: [&str; 2] = ["--log", "info"];
const WINDOW: [&str; 2] = ["--drain-window", "200ms"];

// ===== impl Upgradable =====

impl Upgradable {
    pub(super) fn start(args: &[&str]) -> Self {
        Self::start_on(Transport::Http1, args)
    }

    pub(super) fn start_on(transport: Transport, args: &[&str]) -> Self {
        let dir = TempDir::new();
        let path = dir.path().join("nudged");
        std::os::unix::fs::symlink(PROGRAM, &path).expect("a link");
        let mut command = Server::command_at(&path);
        command.process_group(0).stderr(Stdio::piped());
        let window: &[&str] = if args.contains(&WINDOW[0]) { &[] } else { &WINDOW };
        let log: &[&str] = if args.contains(&LOG[0]) { &[] } else { &LOG };
        let args = [&SETTINGS, window, log, args].concat();
        let mut server = Server::start_as(command, transport, &args);
        let pid = server.pid();
        let group = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process");
        Self { log: Log::of(&mut server), server, pid, group, dir }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn signal(&self, which: Signal) {
        signal(self.pid, which).expect("it runs");
    }

    /// Puts the program itself into its place again.
    pub(super) fn install_program(&self) {
        let new = self.dir.path().join("new");
        std::os::unix::fs::symlink(PROGRAM, &new).expect("a link");
        fs::rename(new, self.path()).expect("one folder");
    }

    /// Puts a script into its place.
    pub(super) fn install(&self, script: &str) {
        let new = self.dir.path().join("new");
        fs::write(&new, script).expect("a file");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("a file");
        fs::rename(new, self.path()).expect("one folder");
    }

    /// Puts something into its place that is no program.
    pub(super) fn install_nothing(&self) {
        fs::remove_file(self.path()).expect("it is there");
    }

    /// Puts the relay into its place, which does this (see `relay.py`).
    pub(super) fn install_relay(&self, mut plan: Value) {
        plan["program"] = PROGRAM.into();
        fs::write(self.dir.path().join("plan.json"), plan.to_string()).expect("a file");
        self.install(include_str!("relay.py"));
    }

    /// What the relay has forwarded.
    pub(super) fn trace(&self) -> String {
        fs::read_to_string(self.dir.path().join("trace")).unwrap_or_default()
    }

    /// Has it replaced, and returns the line of its log that says so.
    pub(super) fn upgrade(&mut self) -> String {
        self.signal(Signal::USR2);
        self.upgraded()
    }

    /// Waits until it has been replaced.
    pub(super) fn upgraded(&mut self) -> String {
        let line = self.log.line(&["the new process has taken over"]);
        self.old_ends();
        line
    }

    /// Waits until only the successor runs.
    pub(super) fn old_ends(&mut self) {
        let old = self.pid;
        eventually("the old process ends", || !is_running(old));
        let all = self.servers();
        let [new] = all[..] else { panic!("{all:?} instead of one successor: {}", self.trace()) };
        self.pid = new;
    }

    /// The process that serves from here on.
    pub(super) fn go_on_with(&mut self, pid: u32) {
        self.pid = pid;
        self.forget_trace();
    }

    /// Each step has a trace of its own.
    pub(super) fn forget_trace(&self) {
        _ = fs::remove_file(self.dir.path().join("trace"));
    }

    /// Has it try to be replaced, which has to fail, and returns the line of its log that says why. No other process
    /// is left then.
    pub(super) fn fails_to_upgrade(&self) -> String {
        self.signal(Signal::USR2);
        let line = self.log.line(&[" WARN ", "the upgrade has failed"]);
        self.is_alone();
        line
    }

    /// Waits until no other server and no relay runs.
    pub(super) fn is_alone(&self) {
        eventually("the others end", || self.processes() == [self.pid]);
    }

    /// Those processes of the group which are servers.
    pub(super) fn servers(&self) -> Vec<u32> {
        let program = fs::canonicalize(PROGRAM).expect("it is there");
        let is_server =
            |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
        self.processes().into_iter().filter(is_server).collect()
    }

    /// The processes of the group that have not ended.
    pub(super) fn processes(&self) -> Vec<u32> {
        members(self.group.as_raw_pid()).into_iter().map(|member| member.pid).collect()
    }

    /// Threads of the server that serve connections.
    pub(super) fn workers(&self) -> usize {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).expect("it runs");
        let names =
            threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("nudged-worker")).count()
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("nudged")
    }
}

/// Its addresses, and requests to them. What is about the first process itself has another meaning here.
impl Deref for Upgradable {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Drop for Upgradable {
    fn drop(&mut self) {
        _ = kill_process_group(self.group, Signal::KILL);
    }
}
