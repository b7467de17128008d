//! The pages of `cargo bench --bench herd`, in Node, and how it counts.

#[path = "../../benches/herd/times.rs"]
mod times;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::Value;
use times::{counts, length, most};

use crate::support::port::ReservedPort;
use crate::support::programs::{NODE, requires};
use crate::support::{Server, eventually};

/// Pages, most of them hidden, and the backend that they re-read from.
struct Pages {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    reads: Arc<AtomicU64>,
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/herd/pages.mjs");
const PAGES: u64 = 10;
const HIDDEN: u64 = 8;

#[test]
fn a_page_re_reads_once_for_each_event_and_a_hidden_one_when_it_is_looked_at() {
    requires!(NODE);
    let port = ReservedPort::new();
    let server = server(port.address);
    let mut pages = Pages::start(port.address, false);
    pages.expect(PAGES - HIDDEN, HIDDEN);
    pages.mark();
    server.publish("herd", &["posts"]);
    pages.expect(PAGES - HIDDEN, HIDDEN);
    pages.mark();
    drop(server);
    let _server = self::server(port.address);
    pages.expect(PAGES - HIDDEN, HIDDEN);
    let happened = pages.ask("happened");
    assert_eq!(happened["openings"].as_array().unwrap().len() as u64, PAGES, "{happened}");
    assert_eq!(happened["faults"], Value::Array([].into()));
}

#[test]
fn a_hidden_page_re_reads_at_once_where_the_option_says_so() {
    requires!(NODE);
    let port = ReservedPort::new();
    let server = server(port.address);
    let mut pages = Pages::start(port.address, true);
    pages.expect(PAGES, 0);
    pages.mark();
    server.publish("herd", &["posts"]);
    pages.expect(PAGES, 0);
}

#[test]
fn the_fullest_second_may_begin_at_any_time() {
    let times = [0.0, 2.0, 0.9, 1.5, 1.8, 5.0];
    assert_eq!(most(&times, 1.0), 3, "from 0.9 to 1.9, and from 1.5 to 2.5");
    assert_eq!(most(&times, 0.1), 1);
    assert_eq!(most(&[1.0, 2.0], 1.0), 1, "a second does not include its end");
    assert_eq!(most(&[], 1.0), 0);
    assert_eq!(length(&times), 5.0);
    assert_eq!(counts(&times, 1.0), [2, 2, 1, 0, 0, 1]);
}

/// Its clients come back soon.
fn server(address: SocketAddr) -> Server {
    let listen = address.to_string();
    Server::start(&["--listen", &listen, "--retry-min", "20ms", "--retry-max", "20ms"])
}

/// Answers GETs, and counts them.
fn backend(reads: Arc<AtomicU64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().take(PAGES as usize) {
            let reads = Arc::clone(&reads);
            let socket = socket.unwrap();
            thread::spawn(move || answer(socket, &reads));
        }
    });
    address
}

fn answer(mut socket: TcpStream, reads: &AtomicU64) {
    let lines = BufReader::new(socket.try_clone().unwrap()).lines();
    for _ in lines.map_while(Result::ok).filter(String::is_empty) {
        reads.fetch_add(1, Ordering::SeqCst);
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]").unwrap();
    }
}

// ===== impl Pages =====

impl Pages {
    /// Returns when all have their stream.
    fn start(server: SocketAddr, hidden: bool) -> Self {
        let reads = Arc::new(AtomicU64::new(0));
        let backend = backend(Arc::clone(&reads));
        let mut command = Command::new("node");
        command.args([SCRIPT, &format!("\"http://{server}\""), &backend.port().to_string()]);
        command.args([&PAGES.to_string(), &HIDDEN.to_string(), &hidden.to_string(), "0"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut pages = Self { child, stdin, stdout, reads };
        assert!(pages.answer()["node"].is_string());
        pages
    }

    /// After something that every page receives: so many re-read at once, and so many when they are looked at.
    fn expect(&mut self, at_once: u64, later: u64) {
        eventually("all pages have received it, on their streams", || {
            let count = self.ask("count");
            count["open"] == PAGES && count["moved"] == PAGES
        });
        self.ask("settle");
        assert_eq!(self.reads.swap(0, Ordering::SeqCst), at_once);
        self.ask("look 10");
        assert_eq!(self.reads.swap(0, Ordering::SeqCst), later);
    }

    fn mark(&mut self) {
        self.ask("mark");
    }

    fn ask(&mut self, command: &str) -> Value {
        writeln!(self.stdin, "{command}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|why| panic!("{line:?}: {why}"))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
