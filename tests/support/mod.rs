//! A server process and raw clients for tests on the wire. Every wait has a bound, and running into it
//! is a failure that says what was waited for.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "every test binary uses its part; tests have a clock"
)]

pub mod bridge;
pub mod faulty;
pub mod frames;
pub mod front;
pub mod proxy;
pub mod script;
pub mod tls;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use socket2::SockRef;

use self::bridge::{Bridge, Way};
use self::tls::Certificate;

/// Longer than anything that works takes, and shorter than anyone wants to wait for what does not.
pub const BOUND: Duration = Duration::from_secs(20);

/// The ways in which a stream of cleartext HTTP/1 is held: parked, and polled by hyper.
pub const PLAIN_PATHS: [&[&str]; 2] = [&["--park", "on"], &["--park", "off"]];

/// Those, and the same within TLS.
pub const PATHS: [&[&str]; 4] =
    [&["--park", "on"], &["--park", "off"], &[OVER, "tls"], &[OVER, "tls", "--park", "off"]];

/// Those, and HTTP/2 within TLS and without.
pub const ALL_PATHS: [&[&str]; 6] =
    [PATHS[0], PATHS[1], PATHS[2], PATHS[3], &[OVER, "h2"], &[OVER, "h2c"]];

/// Puts a bridge between the server and its clients: `tls`, `h2`, or `h2c`. Not a flag of the server.
const OVER: &str = "--over";

/// A running server on a port of its own, killed when this is dropped.
pub struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Where clients that speak HTTP/1 over cleartext reach it.
    pub addresses: Vec<SocketAddr>,
    _bridges: Vec<Bridge>,
}

/// A connection that speaks bytes.
pub struct Client {
    socket: TcpStream,
    /// Read and not yet looked at.
    buffer: Vec<u8>,
}

/// An answer with a body of known length.
#[derive(Debug)]
pub struct Answer {
    pub head: String,
    pub body: String,
}

/// A stream over HTTP/1.1, whose chunk framing is checked strictly.
pub struct Stream {
    pub client: Client,
    pub head: String,
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
    pub fn take_stderr(&mut self) -> std::process::ChildStderr {
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
        let mut streams: Vec<_> = (0..32).map(|_| self.stream("warm")).collect();
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        drop(streams);
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

/// Asks until it is so. A generous bound, not a hope: what never comes about fails here.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < BOUND, "did not come about: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

// ===== impl Client =====

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).expect("the server listens"))
    }

    /// A client on a connection that was made in a way of its own.
    pub fn on(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(BOUND)).expect("a socket");
        socket.set_write_timeout(Some(BOUND)).expect("a socket");
        Self { socket, buffer: Vec::new() }
    }

    pub fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server reads");
    }

    /// Bytes up to and with `end`.
    pub fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return self.buffer.drain(..at + end.len()).collect();
            }
            self.fill();
        }
    }

    pub fn read_exact(&mut self, len: usize) -> Vec<u8> {
        while self.buffer.len() < len {
            self.fill();
        }
        self.buffer.drain(..len).collect()
    }

    /// The head of an answer, with the empty line.
    pub fn read_head(&mut self) -> String {
        String::from_utf8(self.read_until(b"\r\n\r\n")).expect("ASCII")
    }

    pub fn read_answer(&mut self) -> Answer {
        let head = self.read_head();
        let length =
            header(&head, "content-length").map_or(0, |len| len.parse().expect("a length"));
        let body = String::from_utf8(self.read_exact(length)).expect("UTF-8");
        Answer { head, body }
    }

    /// Everything up to the end of the connection.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.buffer);
        self.socket.read_to_end(&mut rest).expect("an orderly end within the bound");
        rest
    }

    /// The connection itself, for what a test does to it.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether nothing has come that was not looked at.
    pub fn is_silent(&self) -> bool {
        self.socket.set_nonblocking(true).expect("a socket");
        let mut byte = [0];
        let silent = self
            .socket
            .peek(&mut byte)
            .is_err_and(|why| why.kind() == std::io::ErrorKind::WouldBlock);
        self.socket.set_nonblocking(false).expect("a socket");
        silent && self.buffer.is_empty()
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).expect("a socket");
    }

    /// Ends our half of the connection.
    pub fn half_close(&self) {
        self.socket.shutdown(Shutdown::Write).expect("connected");
    }

    fn fill(&mut self) {
        let mut buf = [0; 16 * 1024];
        match self.socket.read(&mut buf) {
            Ok(0) => panic!("the connection ended after {}", self.last_read()),
            Ok(n) => self.buffer.extend_from_slice(&buf[..n]),
            Err(why) => panic!("{why} after {}", self.last_read()),
        }
    }

    /// The end of what was read, as much of it as helps.
    fn last_read(&self) -> String {
        let last = &self.buffer[self.buffer.len().saturating_sub(500)..];
        format!("{} bytes, ending in {:?}", self.buffer.len(), String::from_utf8_lossy(last))
    }
}

// ===== impl Stream =====

impl Stream {
    /// Asks for a stream on a connection and reads its head.
    pub fn open(mut client: Client, path: &str, headers: &str) -> Self {
        client.send(&format!(
            "GET {path} HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n{headers}\r\n"
        ));
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        Self { client, head }
    }

    /// The next chunk, which is one event or comment.
    pub fn next(&mut self) -> String {
        let line = self.client.read_until(b"\r\n");
        let size = std::str::from_utf8(&line[..line.len() - 2]).expect("ASCII");
        assert!(size == "0" || !size.starts_with('0'), "a size with leading zeros: {size:?}");
        let size = usize::from_str_radix(size, 16).expect("a size in hexadecimal");
        let mut chunk = self.client.read_exact(size + 2);
        assert!(chunk.ends_with(b"\r\n"), "CRLF ends a chunk");
        chunk.truncate(size);
        String::from_utf8(chunk).expect("UTF-8")
    }

    /// The first event: `retry`, id and name.
    pub fn greeting(&mut self) -> (u64, String, String) {
        let block = self.next();
        let lines: Vec<_> = block.split('\n').collect();
        let [retry, id, event, "data: {}", "", ""] = lines[..] else { panic!("{block:?}") };
        let retry = retry.strip_prefix("retry: ").expect("retry").parse().expect("milliseconds");
        let id = id.strip_prefix("id: ").expect("an id").to_owned();
        (retry, id, event.strip_prefix("event: ").expect("a name").to_owned())
    }

    /// Reads the greeting and returns its id.
    pub fn connected(&mut self) -> String {
        let (_, id, name) = self.greeting();
        assert_eq!(name, "connected");
        id
    }

    /// Reads the last words and the end, and returns the reconnection time.
    pub fn farewell(&mut self) -> u64 {
        let words = self.next();
        let retry = words.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n"));
        let retry = retry.unwrap_or_else(|| panic!("no last words: {words:?}"));
        assert_eq!(self.client.read_to_end(), b"0\r\n\r\n", "the last chunk and no more");
        retry.parse().expect("milliseconds")
    }

    /// The next event, which has to be this.
    pub fn expect_invalidate(&mut self, id: &str, keys: &[&str]) {
        let keys = serde_json::to_string(keys).expect("strings");
        assert_eq!(
            self.next(),
            format!("id: {id}\nevent: invalidate\ndata: {{\"keys\":{keys}}}\n\n")
        );
    }
}

// ===== impl Answer =====

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).expect("a status").parse().expect("a number")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The detail of a problem body, whose other members are checked.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: serde_json::Value = serde_json::from_str(&self.body).expect("JSON");
        assert_eq!(problem["status"], self.status());
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()));
        problem["detail"].as_str().expect("a detail").to_owned()
    }
}

/// The value of a header field.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}
