//! A machine that systemd runs, with the units of the project: see `systemd.sh`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::programs::Program;
use super::temp_dir::TempDir;
use super::{Client, eventually};

/// Ended when this is dropped, or when the tests end otherwise.
pub(crate) struct Machine {
    /// It ends the machine once its standard input ends.
    script: Child,
    /// The id of systemd, here.
    systemd: u32,
    _folder: TempDir,
}

/// The machine's service, as systemd sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) active: String,
    pub(crate) main_pid: u32,
    /// How often systemd has started it again by itself.
    pub(crate) restarts: u32,
}

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/systemd.sh");

pub(crate) static SYSTEMD: Program = Program::new(
    &["sh", SCRIPT, "probe"],
    "systemd cannot be run in namespaces: apt-get install systemd iproute2 curl, and run as root",
);

// ===== impl Machine =====

impl Machine {
    pub(crate) fn boot() -> Self {
        let folder = TempDir::new();
        let mut command = Command::new("sh");
        command.args([SCRIPT, "run"]).arg(folder.path());
        command.env("PROJECT", PROJECT).env("PROGRAM", env!("CARGO_BIN_EXE_nudged"));
        let mut script =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh(1)");
        let mut line = String::new();
        BufReader::new(script.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let unshare: u32 = line.trim().parse().expect("the id of a process");
        let mut machine = Self { script, systemd: 0, _folder: folder };
        eventually("systemd is there", || {
            let child = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
            machine.systemd = child.ok().and_then(|id| id.trim().parse().ok()).unwrap_or(0);
            let name = fs::read_to_string(format!("/proc/{}/comm", machine.systemd));
            name.is_ok_and(|name| name == "systemd\n")
        });
        eventually("systemd is ready", || {
            let state = machine.command("systemctl is-system-running").output();
            state.is_ok_and(|state| state.stdout == b"running\n")
        });
        machine
    }

    /// Runs a script as the machine's administrator would, and returns what it prints.
    pub(crate) fn sh(&self, script: &str) -> String {
        let done = self.command(script).output().expect("nsenter(1)");
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{script}: {} {stderr}\n{}", done.status, self.journal());
        String::from_utf8(done.stdout).expect("text").trim_end().to_owned()
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.systemd.to_string()]);
        command.args(["--mount", "--pid", "--net", "--ipc", "--uts", "sh", "-euc", script]);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null());
        command
    }

    /// A connection to a port of the machine.
    pub(crate) fn connect(&self, port: u16) -> Client {
        let file = fs::File::open(format!("/proc/{}/ns/net", self.systemd)).expect("it runs");
        // Only the thread enters its network, and the socket stays there.
        let connecting = thread::spawn(move || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(file.as_fd(), network).expect("root enters a namespace");
            TcpStream::connect(("127.0.0.1", port)).expect("the socket of systemd")
        });
        Client::on(connecting.join().expect("no panic in the namespace"))
    }

    pub(crate) fn service(&self) -> Service {
        let shown = self.sh("systemctl show -p ActiveState -p MainPID -p NRestarts nudged");
        let value = |name: &str| {
            let lines = shown.lines().filter_map(|line| line.split_once('='));
            let mut values = lines.filter(|(key, _)| *key == name).map(|(_, value)| value);
            values.next().expect("a property").to_owned()
        };
        Service {
            active: value("ActiveState"),
            main_pid: value("MainPID").parse().expect("a number"),
            restarts: value("NRestarts").parse().expect("a number"),
        }
    }

    /// The processes of the service, of which one may be about to end.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let group = "/sys/fs/cgroup/system.slice/nudged.service/cgroup.procs";
        let ids = self.sh(&format!("cat {group} 2>/dev/null || true"));
        ids.lines().map(|id| id.parse().expect("a number")).collect()
    }

    /// What the service has logged, and what systemd has logged about it.
    pub(crate) fn journal(&self) -> String {
        let journal = self.command("journalctl --sync; journalctl --no-pager -u nudged").output();
        String::from_utf8_lossy(&journal.expect("nsenter(1)").stdout).into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        _ = self.script.wait();
    }
}
