//! Clients that block: requests with an answer, and streams that are to be ended in some way.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use nudged::wire::{Event, Parser};
use socket2::{Domain, SockRef, Socket, Type};

/// A connection, and what has been read of a stream on it.
pub(crate) struct Client {
    socket: TcpStream,
    parser: Parser,
}

/// How long a server may take for anything.
const BOUND: Duration = Duration::from_secs(20);

// ===== impl Client =====

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::on(TcpStream::connect_timeout(&address, BOUND)?)
    }

    /// A client whose kernel takes little for it.
    pub(crate) fn connect_small(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_recv_buffer_size(1)?; // The kernel makes it the least that there is.
        socket.connect_timeout(&address.into(), BOUND)?;
        Self::on(socket.into())
    }

    fn on(socket: TcpStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(BOUND))?;
        socket.set_write_timeout(Some(BOUND))?;
        Ok(Self { socket, parser: Parser::default() })
    }

    pub(crate) fn send(&mut self, text: &str) -> io::Result<()> {
        self.socket.write_all(text.as_bytes())
    }

    /// Asks for a stream and reads its greeting.
    pub(crate) fn stream(address: SocketAddr, path: &str, last: Option<&str>) -> io::Result<Self> {
        let mut client = Self::connect(address)?;
        client.send(&request(path, last))?;
        client.greeting()?;
        Ok(client)
    }

    /// Reads up to the first event, which has to be a greeting.
    pub(crate) fn greeting(&mut self) -> io::Result<Event> {
        let mut first = None;
        let mut buffer = [0; 4096];
        while first.is_none() {
            let length = self.socket.read(&mut buffer)?;
            if length == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let keep = |event| _ = first.get_or_insert(event);
            self.parser.push(&buffer[..length], keep).map_err(io::Error::other)?;
        }
        let greeting = first.filter(|event| ["connected", "resumed"].contains(&&*event.name));
        greeting.ok_or_else(|| io::Error::other("the stream does not begin with a greeting"))
    }

    pub(crate) fn last_event_id(&self) -> &str {
        self.parser.last_event_id()
    }

    /// Ends our half, and waits for the server to end the other.
    pub(crate) fn half_close(mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)?;
        match io::copy(&mut self.socket, &mut io::sink()) {
            Err(why) if why.kind() != ErrorKind::ConnectionReset => Err(why),
            _ => Ok(()),
        }
    }

    /// Ends the connection with a RST.
    pub(crate) fn reset(self) -> io::Result<()> {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))
    }

    /// Posts a body and returns the answer's, which has to be 202.
    pub(crate) fn post(&mut self, path: &str, kind: &str, body: &str) -> io::Result<String> {
        self.send(&post(path, kind, body.len()))?;
        self.send(body)?;
        let (head, body) = self.answer()?;
        match head.starts_with("HTTP/1.1 202 ") {
            true => Ok(body),
            false => Err(io::Error::other(format!("refused: {head}{body}"))),
        }
    }

    /// A head, and a body of known length.
    fn answer(&mut self) -> io::Result<(String, String)> {
        let mut text = String::new();
        let mut buffer = [0; 4096];
        loop {
            let length = self.socket.read(&mut buffer)?;
            if length == 0 {
                return Err(io::Error::other(format!("the end, after {text:?}")));
            }
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let field = |line: &str| line.strip_prefix("content-length: ")?.parse().ok();
            if head.lines().find_map(field).is_some_and(|length: usize| body.len() >= length) {
                return Ok((head.to_owned(), body.to_owned()));
            }
        }
    }
}

/// Asks for a stream.
pub(crate) fn request(path: &str, last: Option<&str>) -> String {
    let last = last.map_or_else(String::new, |id| format!("last-event-id: {id}\r\n"));
    format!("GET {path} HTTP/1.1\r\nhost: soak\r\naccept: text/event-stream\r\n{last}\r\n")
}

/// The head of a publish.
pub(crate) fn post(path: &str, kind: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: soak\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    )
}

pub(crate) const JSON: &str = "application/json";
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// Fetches a text, on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut client = Client::connect(address)?;
    client.send(&format!("GET {path} HTTP/1.1\r\nhost: soak\r\nconnection: close\r\n\r\n"))?;
    Ok(client.answer()?.1)
}
