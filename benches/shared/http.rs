//! A blocking HTTP/1 client: requests as text, responses with a `content-length` or a stream.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One connection.
pub(crate) struct Connection(pub(crate) BufReader<TcpStream>);

/// The head of a response.
pub(crate) struct Head {
    pub(crate) status: u16,
    /// The length of the body; 0 for a stream.
    pub(crate) length: usize,
    /// Whether it is the last response of its connection.
    pub(crate) closes: bool,
}

/// The time limit for every read and write.
const TIMEOUT: Duration = Duration::from_secs(20);
const BUFFER: usize = 1024;

// ===== impl Connection =====

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        Self::on(TcpStream::connect_timeout(&address, TIMEOUT)?)
    }

    pub(crate) fn on(socket: TcpStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        socket.set_nodelay(true)?;
        Ok(Self(BufReader::with_capacity(BUFFER, socket)))
    }

    pub(crate) fn send(&mut self, text: &str) -> io::Result<()> {
        self.0.get_mut().write_all(text.as_bytes())
    }

    /// Sends a request and returns the body of its response, which must have this status.
    pub(crate) fn exchange(&mut self, request: &str, status: u16) -> io::Result<String> {
        self.send(request)?;
        let head = self.read_head()?;
        let mut body = vec![0; head.length];
        self.0.read_exact(&mut body)?;
        let body = String::from_utf8(body).map_err(io::Error::other)?;
        match head.status == status {
            true => Ok(body),
            false => Err(io::Error::other(format!("{} instead of {status}: {body}", head.status))),
        }
    }

    pub(crate) fn read_head(&mut self) -> io::Result<Head> {
        let line = self.read_line()?;
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {line:?}")))?;
        let mut head = Head { status, length: 0, closes: false };
        loop {
            let line = self.read_line()?;
            match line.split_once(": ") {
                _ if line.is_empty() => return Ok(head),
                Some(("content-length", length)) => {
                    head.length = length.parse().map_err(io::Error::other)?;
                }
                Some(("connection", "close")) => head.closes = true,
                _ => {}
            }
        }
    }

    /// A line without its end.
    pub(crate) fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

/// A GET request. `fields` are header lines, each with its CRLF.
pub(crate) fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n")
}

/// A POST request.
pub(crate) fn post(path: &str, content_type: &str, fields: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\n{fields}\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) const JSON: &str = "application/json";
pub(crate) const NDJSON: &str = "application/x-ndjson";
