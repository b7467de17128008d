//! A server process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use super::bridge::{Bridge, Way};
use super::tls::Certificate;
use super::{Answer, Client, OVER, Stream, eventually};

/// A running server on a port of its own, killed when this is dropped.
pub struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Where clients that speak HTTP/1 over cleartext reach it.
    pub addresses: Vec<SocketAddr>,
    _bridges: Vec<Bridge>,
}

// ===== impl Server =====

impl Server {
    /// Starts a server on a free loopback port; later arguments override.
    pub fn start(args: &[&str]) -> Self {
        Self::start_as(Self::command(), args)
    }

    /// Starts a server that may open so many files, and cannot help it.
    pub fn start_with_files(files: u32, args: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")]);
        command.arg(env!("CARGO_BIN_EXE_nudged")).stdin(Stdio::null()).stdout(Stdio::piped());
        Self::start_as(command, args)
    }

    pub fn start_as(mut command: Command, args: &[&str]) -> Self {
        let listen =
            if args.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"] };
        let (way, args) = take_way(args);
        if matches!(way, Some(Way::Tls | Way::Http2)) {
            command.args(Certificate::of_tests().flags());
        }
        let mut child = command.args(listen).args(args).spawn().expect("the server starts");
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
        let mut bridges = Vec::new();
        if let Some(way) = way {
            bridges.extend(addresses.iter().map(|address| Bridge::to(*address, way)));
            addresses = bridges.iter().map(|bridge| bridge.address).collect();
        }
        Self { child, stdout, addresses, _bridges: bridges }
    }

    /// The program, with nothing of our environment in its settings.
    pub fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nudged"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NUDGED_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    /// Runs a server that has to refuse to start, and returns its exit code and what it said.
    pub fn refuses_to_start(args: &[&str]) -> (Option<i32>, String) {
        Self::refuses_to_start_as(Self::command(), args)
    }

    pub fn refuses_to_start_as(mut command: Command, args: &[&str]) -> (Option<i32>, String) {
        let mut child = command.args(args).stderr(Stdio::piped()).spawn().expect("a program");
        let mut stderr = child.stderr.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        // From here on it is killed however this ends.
        let mut server = Self { child, stdout, addresses: Vec::new(), _bridges: Vec::new() };
        let code = server.wait();
        let mut said = String::new();
        stderr.read_to_string(&mut said).expect("text");
        (code, said)
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// What it logs, where that was piped.
    pub fn take_stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("piped")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// Opens the member stream of an org and reads its head.
    pub fn stream(&self, org: &str) -> Stream {
        self.stream_with(&format!("/api/{org}/events"), "")
    }

    /// Opens so many of them, and has the server greet each.
    pub fn streams(&self, org: &str, count: usize) -> Vec<Stream> {
        let mut streams: Vec<_> = (0..count).map(|_| self.stream(org)).collect();
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        streams
    }

    /// Opens a stream with more header lines, each ended by CRLF.
    pub fn stream_with(&self, path: &str, headers: &str) -> Stream {
        Stream::open(self.connect(), path, headers)
    }

    pub fn request(&self, request: &str) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.read_answer()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"))
    }

    pub fn post(&self, path: &str, content_type: &str, body: &str) -> Answer {
        let length = body.len();
        self.request(&format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    }

    /// Publishes keys and returns the event's id, if it has one.
    pub fn publish(&self, org: &str, keys: &[&str]) -> Option<String> {
        let body = serde_json::json!({ "keys": keys }).to_string();
        let answer = self.post(&format!("/api/{org}/events"), "application/json", &body);
        assert_eq!(answer.status(), 202, "{answer:?}");
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        body.get("id").map(|id| id.as_str().expect("a string").to_owned())
    }

    /// The value of a line of `/metrics`, by its name with labels.
    pub fn metric(&self, name: &str) -> u64 {
        let metrics = self.get("/metrics").body;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in:\n{metrics}")).parse().expect("a number")
    }

    /// Streams that ended, by cause; causes that never came about are left out.
    pub fn closed(&self) -> BTreeMap<String, u64> {
        let metrics = self.get("/metrics").body;
        let lines = metrics.lines();
        let lines = lines.filter_map(|l| l.strip_prefix("nudged_streams_closed_total{reason=\""));
        let causes = lines.map(|line| line.split_once("\"} ").expect("a cause and a number"));
        let causes = causes.map(|(cause, n)| (cause.to_owned(), n.parse().expect("a number")));
        causes.filter(|(_, n)| *n > 0).collect()
    }

    /// Taken seats, from the slabs.
    pub fn seats(&self) -> u64 {
        self.metric("nudged_seats")
    }

    /// Open descriptors of the process.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    /// Open descriptors once every worker has served streams and they are gone. Before that, a
    /// worker may still be opening what it opens once.
    pub fn descriptors_at_rest(&self) -> usize {
        // As many as make it certain enough that the kernel gave each worker some.
        drop(self.streams("warm", 32));
        eventually("the first streams are gone", || self.seats() == 0);
        self.descriptors()
    }

    /// Bytes of memory that are its own, a shared page in parts (PSS, proc_pid_smaps(5)).
    pub fn memory(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.pid());
        let rollup = std::fs::read_to_string(path).expect("it runs");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// The most memory that the process ever had resident, in bytes (`proc_pid_status(5)`).
    pub fn memory_peak(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-s", signal, &pid]).status().expect("kill(1)");
        assert!(status.success());
    }

    /// Waits for the process to end and returns its exit code.
    pub fn wait(&mut self) -> Option<i32> {
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

/// Takes [`OVER`] out of the arguments.
fn take_way<'a>(args: &[&'a str]) -> (Option<Way>, Vec<&'a str>) {
    let mut args = args.to_vec();
    let Some(at) = args.iter().position(|arg| *arg == OVER) else { return (None, args) };
    let way = match args.drain(at..at + 2).nth(1) {
        Some("tls") => Way::Tls,
        Some("h2") => Way::Http2,
        Some("h2c") => Way::PlainHttp2,
        other => panic!("no way: {other:?}"),
    };
    (Some(way), args)
}
