//! The two formats of the log, and a log that is not read.

use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::TcpStream;
use std::process::{ChildStderr, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};
use serde_json::Value;

use crate::support::killed::Killed;
use crate::support::port::ReservedPort;
use crate::support::server::{Signal, signal};
use crate::support::{Client, Server, Transport, eventually};

/// Sends a server without a certificate SIGHUP and SIGTERM, and returns its log.
fn log_of(args: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = Server::command();
    command.envs(environment.iter().copied()).stderr(Stdio::piped());
    let mut server = Server::start_as(command, Transport::Http1, args);
    let mut log = server.take_stderr();
    server.signal(Signal::HUP);
    server.signal(Signal::TERM);
    server.wait();
    let mut text = String::new();
    log.read_to_string(&mut text).expect("text");
    text
}

const MESSAGE: &str = "SIGHUP: there is no certificate, file of keys or JWK set to read again";

#[test]
fn a_log_line_is_a_json_object_if_configured() {
    // Causes a second line, which has a field.
    let many = ["--connections", "90000000"];
    for (flags, environment) in
        [(&["--log-format", "json"][..], &[][..]), (&[], &[("NUDGED_LOG_FORMAT", "json")])]
    {
        let log = log_of(&[&many, flags].concat(), environment);
        let lines: Vec<Value> =
            log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert_eq!(lines.len(), 2, "{log}");
        for line in &lines {
            assert_eq!(line["level"], "WARN", "{line}");
            let target = line["target"].as_str().expect("a target");
            assert!(target.starts_with("nudged"), "{line}");
            let time = line["timestamp"].as_str().expect("a time");
            assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
            assert!(line["message"].is_string(), "{line}");
        }
        assert_eq!(lines[0]["connections_max"], 90_000_000);
        assert_eq!(lines[1]["message"], MESSAGE);
    }
}

#[test]
fn a_log_line_is_text_by_default() {
    for flags in [&[][..], &["--log-format", "text"]] {
        let log = log_of(flags, &[]);
        assert!(log.ends_with(&format!(" WARN nudged: {MESSAGE}\n")), "{log}");
    }
    let (code, log) = Server::refuses_to_start(&["--log-format", "xml"]);
    assert_eq!(code, Some(2));
    assert!(log.contains("[possible values: text, json]"), "{log}");
}

// ===== a log that is not read =====

/// Connections that each cause a log line: more than fit into a pipe (64 KiB) and the server's queue (1,024 lines).
const BAD_CONNECTIONS: usize = 4_000;

/// A server whose log fills its pipe and its queue.
struct Unread {
    server: Server,
    log: ChildStderr,
}

/// Collects a log as it is written.
struct LogReader {
    text: Arc<Mutex<String>>,
    is_json: bool,
}

/// SCENARIO: `--log debug`, nothing reads standard error, and 500 clients fail in their handshakes.
/// BUG: the pipe was full, and every worker waited in a write to it.
/// FIX: a thread of its own writes the log. Beyond a bound lines are dropped, and counted in the log and in `/metrics`.
#[test]
fn a_log_that_is_not_read_blocks_nothing() {
    for (format, transport) in
        [("text", Transport::Http1), ("json", Transport::Http1), ("text", Transport::Tls)]
    {
        let Unread { server, log } = Unread::start(&["--log-format", format], transport);
        let mut stream = server.stream("acme");
        stream.connected();
        // So many that each worker almost certainly gets some of them.
        (0..32).for_each(|_| assert_eq!(server.get("/livez").status(), 200));
        let id = server.publish("acme", &["posts"]).expect("an id");
        stream.expect_invalidate(&id, &["posts"]);

        let dropped = || server.metric("nudged_log_lines_dropped_total");
        assert!(dropped() > 0, "{BAD_CONNECTIONS} lines fit");
        let reader = LogReader::start(log, format);
        eventually("the log says how many lines were dropped", || reader.reported() == dropped());
    }
}

/// The same; the server is asked to stop, and then once more.
#[test]
fn a_log_that_is_not_read_does_not_delay_the_exit() {
    for (second, code) in [(None, 0), (Some(Signal::INT), 130)] {
        let Unread { mut server, log } =
            Unread::start(&["--drain-timeout", "1h"], Transport::Http1);
        let _publish = second.map(|_| begun_publish(&server));
        server.signal(Signal::TERM);
        if let Some(second) = second {
            // Of two signals that wait, the one with the lower number comes first.
            eventually("it stops", || TcpStream::connect(server.listens_on[0]).is_err());
            server.signal(second);
        }
        assert_eq!(server.wait(), Some(code));
        drop(log);
    }
}

/// SCENARIO: a program that ends with an error, a server whose address is taken, has a standard error that is full.
/// BUG: it waited in the write of its last words, and never ended.
/// FIX: it waits for a second.
#[test]
fn an_error_that_is_not_read_does_not_keep_the_program_from_ending() {
    let (_unread, full) = full_pipe();
    let mut command = Server::command();
    command.args(["--keepalive", "1s", "--retry-min", "2s", "--retry-max", "1s"]).stderr(full);
    let mut server = Killed(command.spawn().expect("the program"));
    assert_eq!(server.wait(), Some(2));
}

/// SCENARIO: a worker panics while standard error is full.
/// BUG: the panic waited in the write of its message; the process neither served nor ended.
/// FIX: the message is a log line.
#[test]
fn a_panic_that_is_not_read_ends_the_program() {
    // A worker that cannot open its poller panics. It opens it last, so with a few descriptors less the program ends
    // otherwise, and one limit fits.
    let start = |files: u32, stderr: Stdio| {
        let script = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
        let mut command = Server::command_by(&["sh", "-c", &script]);
        command.args(["--listen", "127.0.0.1:0", "--workers", "1"]).stderr(stderr);
        command.spawn().expect("a shell")
    };
    let panics = |files: &u32| {
        let mut server = Killed(start(*files, Stdio::piped()));
        server.wait();
        let mut log = String::new();
        server.0.stderr.take().expect("piped").read_to_string(&mut log).expect("text");
        log.contains(" ERROR nudged: thread nudged-worker panicked at ")
    };
    let files = (6..64).find(panics).expect("one of them");
    let (_unread, full) = full_pipe();
    assert_eq!(Killed(start(files, full.into())).wait(), Some(1));
}

/// SCENARIO: the output of the server is a pipe that is full already.
/// BUG: it waited in the write of its greeting, and served no client.
/// FIX: it waits for a second.
#[test]
fn a_greeting_that_is_not_read_does_not_keep_the_server_from_serving() {
    let (_unread, full) = full_pipe();
    let port = ReservedPort::new();
    let mut command = Server::command();
    command.args(["--listen", &port.address.to_string()]).stdout(full);
    let mut server = Killed(command.spawn().expect("the program"));
    eventually("it listens", || TcpStream::connect(port.address).is_ok());
    let mut client = Client::connect(port.address);
    client.send("GET /livez HTTP/1.1\r\nhost: t\r\n\r\n");
    assert_eq!(client.read_answer().status(), 200);
    signal(server.0.id(), Signal::TERM).expect("it runs");
    assert_eq!(server.wait(), Some(0));
}

/// Both ends of a pipe that is full.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (output, mut input) = std::io::pipe().expect("a pipe");
    fcntl_setpipe_size(&input, 4096).expect("a pipe");
    let size = fcntl_getpipe_size(&input).expect("a pipe");
    input.write_all(&vec![b'.'; size]).expect("it has room");
    (output, input)
}

/// A publish that the server has begun to read, and that keeps it from ending.
fn begun_publish(server: &Server) -> Client {
    let mut client = server.connect();
    client.send(
        "POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
         content-length: 14\r\nexpect: 100-continue\r\n\r\n",
    );
    client.read_head();
    client
}

// ===== impl Unread =====

impl Unread {
    fn start(settings: &[&str], transport: Transport) -> Self {
        let mut command = Server::command();
        command.stderr(Stdio::piped());
        let settings = [settings, &["--log", "debug", "--workers", "2"]].concat();
        let mut server = Server::start_as(command, transport, &settings);
        let log = server.take_stderr();
        for _ in 0..BAD_CONNECTIONS {
            // No TLS handshake, and no HTTP.
            let mut client = Client::connect(server.listens_on[0]);
            client.send("\0\r\n\r\n");
            let ended = client.try_read_to_end().map_err(|why| why.kind());
            assert_ne!(ended, Err(ErrorKind::WouldBlock), "the worker serves it within the bound");
        }
        Self { server, log }
    }
}

// ===== impl LogReader =====

impl LogReader {
    fn start(mut log: ChildStderr, format: &str) -> Self {
        let (text, is_json) = (Arc::new(Mutex::new(String::new())), format == "json");
        let read = Arc::clone(&text);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = log.read(&mut buffer) {
                *read.lock().expect("no panic") +=
                    std::str::from_utf8(&buffer[..len]).expect("ASCII");
            }
        });
        Self { text, is_json }
    }

    /// How many lines were dropped, as the log says.
    fn reported(&self) -> u64 {
        let text = self.text.lock().expect("no panic");
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        let counts = complete.lines().filter_map(|line| match self.is_json {
            true => serde_json::from_str::<Value>(line).expect(line)["lines"].as_u64(),
            false => line.rsplit_once(" lines=")?.1.parse().ok(),
        });
        counts.sum()
    }
}
