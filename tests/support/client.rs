//! Raw clients of HTTP/1.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::BOUND;

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
