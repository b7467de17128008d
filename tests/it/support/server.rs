//! A server process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};

use super::bridge::Bridge;
use super::certificate::Certificate;
use super::client::post;
use super::transport::Transport;
use super::{Answer, Client, Stream, eventually};

pub(crate) use rustix::process::Signal;

/// A running server on its own port, killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    /// Kept open, because the server may write to it.
    _stdout: BufReader<ChildStdout>,
    /// Where clients of cleartext HTTP/1 reach it.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Where it listens itself, in its own transport.
    pub(crate) listens_on: Vec<SocketAddr>,
    _bridges: Vec<Bridge>,
}

// ===== impl Server =====

impl Server {
    /// Starts a server on a free loopback port; later arguments override.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_on(Transport::Http1, args)
    }

    /// The same; its clients reach it over this transport.
    pub(crate) fn start_on(transport: Transport, args: &[&str]) -> Self {
        Self::start_as(Self::command(), transport, args)
    }

    /// Starts a server with this limit of open files, which it cannot raise.
    pub(crate) fn start_with_files(files: u32, transport: Transport, args: &[&str]) -> Self {
        let script = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
        Self::start_as(Self::command_by(&["sh", "-c", &script]), transport, args)
    }

    pub(crate) fn start_as(mut command: Command, transport: Transport, args: &[&str]) -> Self {
        if !args.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if transport.is_secure() {
            command.args(Certificate::of_tests().flags());
        }
        let mut child = command.args(args).spawn().expect("the server starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut addresses = Vec::new();
        loop {
            let mut line = String::new();
            assert!(
                stdout.read_line(&mut line).expect("text") > 0,
                "the server ended at its start"
            );
            if line.starts_with("try: ") {
                break;
            }
            if let Some((_, rest)) = line.split_once("listening on http") {
                let url = rest.split(' ').next().expect("a URL");
                let address = url.trim_start_matches("s").trim_start_matches("://");
                addresses.push(address.parse().expect("an address"));
            }
        }
        let listens_on = addresses.clone();
        let mut bridges = Vec::new();
        if transport != Transport::Http1 {
            bridges.extend(addresses.iter().map(|address| Bridge::to(*address, transport)));
            addresses = bridges.iter().map(|bridge| bridge.address).collect();
        }
        Self { child, _stdout: stdout, addresses, listens_on, _bridges: bridges }
    }

    /// The program, without settings from the environment of the tests.
    pub(crate) fn command() -> Command {
        isolated(Command::new(env!("CARGO_BIN_EXE_nudged")))
    }

    /// The program under another path.
    pub(crate) fn command_at(path: &std::path::Path) -> Command {
        isolated(Command::new(path))
    }

    /// The same, run by another program, which gets its path and its arguments.
    pub(crate) fn command_by(program: &[&str]) -> Command {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(env!("CARGO_BIN_EXE_nudged"));
        isolated(command)
    }

    /// The program on this listening socket, as a service manager starts it.
    pub(crate) fn activated(listener: &TcpListener) -> Command {
        let mut command = Command::new("sh");
        let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
        command.args(["-c", script, env!("CARGO_BIN_EXE_nudged")]);
        let socket: OwnedFd = listener.try_clone().expect("a descriptor").into();
        let mut command = isolated(command);
        command.stdin(Stdio::from(socket)).stdout(Stdio::piped());
        command
    }

    /// Runs a server that has to refuse to start, and returns its exit code and its stderr.
    pub(crate) fn refuses_to_start(args: &[&str]) -> (Option<i32>, String) {
        Self::refuses_to_start_as(Self::command(), args)
    }

    pub(crate) fn refuses_to_start_as(
        mut command: Command,
        args: &[&str],
    ) -> (Option<i32>, String) {
        let mut child = command.args(args).stderr(Stdio::piped()).spawn().expect("a program");
        let mut stderr = child.stderr.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        // From here on it is killed even if this panics.
        let (addresses, listens_on) = (Vec::new(), Vec::new());
        let mut server =
            Self { child, _stdout: stdout, addresses, listens_on, _bridges: Vec::new() };
        let code = server.wait();
        let mut message = String::new();
        stderr.read_to_string(&mut message).expect("text");
        (code, message)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Its log, where stderr is piped.
    pub(crate) fn take_stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("piped")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// Opens the member stream of an org and reads its head.
    pub(crate) fn stream(&self, org: &str) -> Stream {
        self.stream_with(&format!("/api/{org}/events"), "")
    }

    /// Opens `count` member streams, and reads their greetings.
    pub(crate) fn streams(&self, org: &str, count: usize) -> Vec<Stream> {
        let mut streams: Vec<_> = (0..count).map(|_| self.stream(org)).collect();
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        streams
    }

    /// Opens a stream with more header lines, each ended by CRLF.
    pub(crate) fn stream_with(&self, path: &str, headers: &str) -> Stream {
        Stream::open(self.connect(), path, headers)
    }

    pub(crate) fn request(&self, request: &str) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.read_answer()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"))
    }

    pub(crate) fn post(&self, path: &str, content_type: &str, body: &str) -> Answer {
        self.request(&post(path, content_type, body))
    }

    /// Returns once a server with one worker has read everything sent to it before. It accepts in order, and accepts
    /// the second of these requests only after it has read every connection accepted together with the first.
    pub(crate) fn settle(&self) {
        (0..2).for_each(|_| assert_eq!(self.get("/livez").status(), 200));
    }

    /// Publishes keys and returns the event's id, if it has one.
    pub(crate) fn publish(&self, org: &str, keys: &[&str]) -> Option<String> {
        let body = serde_json::json!({ "keys": keys }).to_string();
        let answer = self.post(&format!("/api/{org}/events"), "application/json", &body);
        assert_eq!(answer.status(), 202, "{answer:?}");
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        body.get("id").map(|id| id.as_str().expect("a string").to_owned())
    }

    /// The value of a line of `/metrics`, by its name with labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let metrics = self.get("/metrics").body;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in:\n{metrics}")).parse().expect("a number")
    }

    /// Ended streams by cause, without causes that did not occur.
    pub(crate) fn closed(&self) -> BTreeMap<String, u64> {
        let metrics = self.get("/metrics").body;
        let lines = metrics.lines();
        let lines = lines.filter_map(|l| l.strip_prefix("nudged_streams_closed_total{reason=\""));
        let causes = lines.map(|line| line.split_once("\"} ").expect("a cause and a number"));
        let causes = causes.map(|(cause, n)| (cause.to_owned(), n.parse().expect("a number")));
        causes.filter(|(_, n)| *n > 0).collect()
    }

    /// Number of occupied seats, counted in the slabs.
    pub(crate) fn seats(&self) -> u64 {
        self.metric("nudged_seats")
    }

    /// Open descriptors of the process.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    /// Open descriptors after every worker has served streams and they have ended: each worker
    /// opens some of its own with its first connection.
    pub(crate) fn descriptors_at_rest(&self) -> usize {
        // So many that each worker almost certainly gets some of them.
        drop(self.streams("warm", 32));
        eventually("the first streams have ended", || self.seats() == 0);
        self.descriptors()
    }

    /// Its own memory in bytes, without the pages of the program (proc_pid_smaps(5)): its share of these grows when
    /// another test's server ends.
    pub(crate) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.pid());
        let rollup = std::fs::read_to_string(path).expect("it runs");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// The most memory that the process ever had resident, in bytes (`proc_pid_status(5)`).
    pub(crate) fn memory_peak(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self::signal(self.pid(), signal).expect("it runs");
    }

    /// Stops the process for `time`, as a suspended machine would, and acts meanwhile.
    pub(crate) fn pause(&self, time: Duration, meanwhile: impl FnOnce()) {
        self.signal(Signal::STOP);
        let status = format!("/proc/{}/status", self.pid());
        eventually("the process stops", || {
            std::fs::read_to_string(&status).expect("it exists").contains("\nState:\tT")
        });
        let stopped = Instant::now();
        meanwhile();
        std::thread::sleep(time.saturating_sub(stopped.elapsed()));
        self.signal(Signal::CONT);
    }

    /// Waits for the process to end and returns its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the server ends", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("ended").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Removes nudged's settings from the environment of a command, and pipes its output.
fn isolated(mut command: Command) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NUDGED_")) {
        command.env_remove(name);
    }
    // The names by which the clients of the tests call an open server.
    command.env("NUDGED_HOST", "t,test");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: u32, signal: Signal) -> rustix::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, signal)
}
