//! Blocking clients: requests with a response, and streams that end in one of several ways.

use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use nudged::wire::{Event, Parser};
use socket2::{Domain, SockRef, Socket, Type};

use crate::shared::http::{self, Connection, JSON};

/// A connection, with the parser of the stream on it.
pub(crate) struct Client {
    connection: Connection,
    parser: Parser,
    /// Events that were read, and not taken yet.
    events: VecDeque<Event>,
    /// The id of the last event that was taken.
    last: String,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

// ===== impl Client =====

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::on(Connection::open(address)?))
    }

    /// A client with the smallest receive buffer.
    pub(crate) fn connect_small(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_recv_buffer_size(1)?; // The kernel raises it to its minimum.
        socket.connect_timeout(&address.into(), CONNECT_TIMEOUT)?;
        Ok(Self::on(Connection::on(TcpStream::from(socket))?))
    }

    fn on(connection: Connection) -> Self {
        Self { connection, parser: Parser::default(), events: VecDeque::new(), last: String::new() }
    }

    pub(crate) fn send(&mut self, text: &str) -> io::Result<()> {
        self.connection.send(text)
    }

    /// Opens a stream and reads its greeting.
    pub(crate) fn stream(address: SocketAddr, path: &str, last: Option<&str>) -> io::Result<Self> {
        let mut client = Self::connect(address)?;
        client.send(&subscribe(path, last))?;
        client.greeting()?;
        Ok(client)
    }

    /// Reads the first event, which must be a greeting.
    pub(crate) fn greeting(&mut self) -> io::Result<Event> {
        let first = Some(self.event()?);
        let greeting = first.filter(|event| ["connected", "resumed"].contains(&&*event.name));
        greeting.ok_or_else(|| io::Error::other("the stream does not begin with a greeting"))
    }

    /// The next event. The parser reads the head and the chunk framing too, whose lines are fields unknown to it.
    pub(crate) fn event(&mut self) -> io::Result<Event> {
        while self.events.is_empty() {
            if !self.read()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let event = self.events.pop_front().expect("not empty");
        self.last.clone_from(&event.id);
        Ok(event)
    }

    /// Waits for the end of the stream, before which there is no event.
    pub(crate) fn expect_end(&mut self) -> io::Result<()> {
        while self.events.is_empty() {
            if !self.read()? {
                return Ok(());
            }
        }
        Err(io::Error::other(format!("{:?} instead of the end", self.events)))
    }

    /// Reads some more. Returns whether the connection goes on.
    fn read(&mut self) -> io::Result<bool> {
        let bytes = self.connection.0.fill_buf()?;
        let length = bytes.len();
        let events = &mut self.events;
        self.parser.push(bytes, |event| events.push_back(event)).map_err(io::Error::other)?;
        self.connection.0.consume(length);
        Ok(length > 0)
    }

    /// That of the last event that was taken.
    pub(crate) fn last_event_id(&self) -> &str {
        &self.last
    }

    /// Closes the client's half, and waits for the server to close the other.
    pub(crate) fn half_close(mut self) -> io::Result<()> {
        self.connection.0.get_ref().shutdown(Shutdown::Write)?;
        match io::copy(&mut self.connection.0, &mut io::sink()) {
            Err(why) if why.kind() != ErrorKind::ConnectionReset => Err(why),
            _ => Ok(()),
        }
    }

    /// Ends the connection with a RST.
    pub(crate) fn reset(self) -> io::Result<()> {
        SockRef::from(self.connection.0.get_ref()).set_linger(Some(Duration::ZERO))
    }

    /// Publishes a body.
    pub(crate) fn post(&mut self, path: &str, content_type: &str, body: &str) -> io::Result<()> {
        let request = http::post(path, content_type, "", body);
        self.connection.exchange(&request, 202).map(drop)
    }

    /// Deletes, with a body of JSON.
    pub(crate) fn delete(&mut self, path: &str, body: &str) -> io::Result<()> {
        let request = http::post(path, JSON, "", body).replacen("POST", "DELETE", 1);
        self.connection.exchange(&request, 202).map(drop)
    }
}

/// The request that opens a stream.
pub(crate) fn subscribe(path: &str, last: Option<&str>) -> String {
    let last = last.map_or_else(String::new, |id| format!("last-event-id: {id}\r\n"));
    http::get(path, &format!("accept: text/event-stream\r\n{last}"))
}

/// Fetches a text on a new connection.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    Connection::open(address)?.exchange(&http::get(path, "connection: close\r\n"), 200)
}
