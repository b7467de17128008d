//! Raw clients of HTTP/1.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::BOUND;

/// A connection on which a test writes and reads bytes.
pub(crate) struct Client {
    socket: TcpStream,
    /// Bytes read and not yet consumed.
    buffer: Vec<u8>,
}

/// A response with a `content-length`.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A stream over HTTP/1.1, whose chunk framing is checked strictly.
pub(crate) struct Stream {
    pub(crate) client: Client,
    pub(crate) head: String,
}

// ===== impl Client =====

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).expect("the server listens"))
    }

    /// A client on an existing connection.
    pub(crate) fn on(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(BOUND)).expect("a socket");
        socket.set_write_timeout(Some(BOUND)).expect("a socket");
        Self { socket, buffer: Vec::new() }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).expect("the server reads");
    }

    /// The same, where the server may have closed the connection.
    pub(crate) fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Bytes up to and including `end`.
    pub(crate) fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        self.try_read_until(end).unwrap_or_else(|why| panic!("{why} after {}", self.last_read()))
    }

    /// The same where the connection may end before.
    pub(crate) fn try_read_until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        let length = self.find(end)?;
        Ok(self.buffer.drain(..length).collect())
    }

    pub(crate) fn read_exact(&mut self, len: usize) -> Vec<u8> {
        self.try_read_exact(len).unwrap_or_else(|why| panic!("{why} after {}", self.last_read()))
    }

    /// The same where the connection may end before.
    pub(crate) fn try_read_exact(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let start = Instant::now();
        while self.buffer.len() < len {
            self.fill(start)?;
        }
        Ok(self.buffer.drain(..len).collect())
    }

    /// The head of a response, with the empty line.
    pub(crate) fn read_head(&mut self) -> String {
        String::from_utf8(self.read_until(b"\r\n\r\n")).expect("ASCII")
    }

    pub(crate) fn read_answer(&mut self) -> Answer {
        let head = self.read_head();
        let length =
            header(&head, "content-length").map_or(0, |len| len.parse().expect("a length"));
        let body = String::from_utf8(self.read_exact(length)).expect("UTF-8");
        Answer { head, body }
    }

    /// Everything up to the end of the connection.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        self.try_read_to_end().expect("an orderly end within the bound")
    }

    /// The same where the connection may be reset.
    pub(crate) fn try_read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.buffer);
        self.socket.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// The connection itself, for socket options and the like.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether there are no unread bytes.
    pub(crate) fn is_silent(&self) -> bool {
        self.socket.set_nonblocking(true).expect("a socket");
        let mut byte = [0];
        let silent =
            self.socket.peek(&mut byte).is_err_and(|why| why.kind() == ErrorKind::WouldBlock);
        self.socket.set_nonblocking(false).expect("a socket");
        silent && self.buffer.is_empty()
    }

    /// Ends the connection with RST.
    pub(crate) fn reset(self) {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).expect("a socket");
    }

    /// Ends our half of the connection.
    pub(crate) fn half_close(&self) {
        self.socket.shutdown(Shutdown::Write).expect("connected");
    }

    /// Reads until `end` is in the buffer, and returns the length up to and including it.
    fn find(&mut self, end: &[u8]) -> io::Result<usize> {
        let start = Instant::now();
        let mut searched: usize = 0;
        loop {
            let from = searched.saturating_sub(end.len() - 1);
            let found = self.buffer[from..].windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                return Ok(from + at + end.len());
            }
            searched = self.buffer.len();
            self.fill(start)?;
        }
    }

    /// Reads some more, for a wait that began at `start`: a peer that keeps sending must not make it endless.
    fn fill(&mut self, start: Instant) -> io::Result<()> {
        if start.elapsed() > BOUND {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut bytes = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => {
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, "the connection ended"));
                }
                Ok(n) => {
                    self.buffer.extend_from_slice(&bytes[..n]);
                    return Ok(());
                }
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
    }

    /// The end of what was read, for an assertion's message.
    fn last_read(&self) -> String {
        let last = &self.buffer[self.buffer.len().saturating_sub(500)..];
        format!("{} bytes, ending in {:?}", self.buffer.len(), String::from_utf8_lossy(last))
    }
}

// ===== impl Stream =====

impl Stream {
    /// Requests a stream on a connection and reads the head of the response.
    pub(crate) fn open(mut client: Client, path: &str, headers: &str) -> Self {
        client.send(&format!(
            "GET {path} HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n{headers}\r\n"
        ));
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        Self { client, head }
    }

    /// The next chunk, which is one event or comment.
    pub(crate) fn next(&mut self) -> String {
        let line = self.client.read_until(b"\r\n");
        let size = std::str::from_utf8(&line[..line.len() - 2]).expect("ASCII");
        assert!(size == "0" || !size.starts_with('0'), "a size with leading zeros: {size:?}");
        let size = usize::from_str_radix(size, 16).expect("a size in hexadecimal");
        let mut chunk = self.client.read_exact(size + 2);
        assert!(chunk.ends_with(b"\r\n"), "CRLF ends a chunk");
        chunk.truncate(size);
        String::from_utf8(chunk).expect("UTF-8")
    }

    /// The next chunk but for keepalives, which come into any test that takes long enough.
    pub(crate) fn next_event(&mut self) -> String {
        let start = Instant::now();
        loop {
            let chunk = self.next();
            if !is_keepalive(&chunk) {
                return chunk;
            }
            assert!(start.elapsed() < BOUND, "nothing but keepalives");
        }
    }

    /// The first event: `retry`, id and name.
    pub(crate) fn greeting(&mut self) -> (u64, String, String) {
        let block = self.next();
        let lines: Vec<_> = block.split('\n').collect();
        let [retry, id, event, data, "", ""] = lines[..] else { panic!("{block:?}") };
        let keepalive =
            data.strip_prefix(r#"data: {"keepalive":"#).and_then(|d| d.strip_suffix('}'));
        assert!(keepalive.is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{block:?}");
        let retry = retry.strip_prefix("retry: ").expect("retry").parse().expect("milliseconds");
        let id = id.strip_prefix("id: ").expect("an id").to_owned();
        (retry, id, event.strip_prefix("event: ").expect("a name").to_owned())
    }

    /// Reads the greeting and returns its id.
    pub(crate) fn connected(&mut self) -> String {
        let (_, id, name) = self.greeting();
        assert_eq!(name, "connected");
        id
    }

    /// Reads the closing `retry` and the end of the stream, and returns the reconnection time.
    pub(crate) fn farewell(&mut self) -> u64 {
        let last = self.next_event();
        let retry = last.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix('\n'));
        let retry = retry.unwrap_or_else(|| panic!("no closing retry: {last:?}"));
        assert_eq!(self.client.read_to_end(), b"0\r\n\r\n", "the last chunk and no more");
        retry.parse().expect("milliseconds")
    }

    /// Reads the next event, which has to be an `invalidate` with this id and these keys.
    pub(crate) fn expect_invalidate(&mut self, id: &str, keys: &[&str]) {
        // JSON on a stream is ASCII.
        let keys: String = serde_json::to_string(keys)
            .expect("strings")
            .chars()
            .map(|c| match c {
                ' '..='~' => c.to_string(),
                c => c
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}"))
                    .collect(),
            })
            .collect();
        assert_eq!(
            self.next_event(),
            format!("id: {id}\nevent: invalidate\ndata: {{\"keys\":{keys}}}\n\n")
        );
    }
}

/// In either form: a comment, or an event, which may have the stream's position.
fn is_keepalive(chunk: &str) -> bool {
    let event = "event: ping\n";
    chunk == ": keepalive\n" || chunk.starts_with(event) || chunk.contains(&format!("\n{event}"))
}

// ===== impl Answer =====

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).expect("a status").parse().expect("a number")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The detail of a problem body, whose other members are checked.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: serde_json::Value = serde_json::from_str(&self.body).expect("JSON");
        assert_eq!(problem["status"], self.status());
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()));
        problem["detail"].as_str().expect("a detail").to_owned()
    }
}

/// The text of a publish request.
pub(crate) fn post(path: &str, content_type: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: {content_type}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The value of a header field.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}
