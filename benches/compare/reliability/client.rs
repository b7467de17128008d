//! Clients that read a stream as it arrives, and a publisher.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nudged::wire::Event;
use socket2::SockRef;

use super::timed_out;
use crate::measure::ORG;
use crate::protocol::{Client, Notice, Position, Protocol, Request};
use crate::response::{Head, Response};
use crate::servers::Server;
use crate::shared::process::now;

/// One stream, whose socket does not block.
pub(crate) struct Stream {
    socket: TcpStream,
    protocol: Protocol,
    response: Response,
    position: Position,
    events: Vec<Event>,
    /// What its events state.
    stated: Option<Notice>,
    /// Where a client that reads the head has asked for the stream to go on.
    asked: Option<Position>,
    end: Option<(End, Instant)>,
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// With its last chunk, or a body of known length.
    Complete,
    /// With a FIN, of a response without chunks: one that broke ends in the same way.
    Unmarked,
    /// With a FIN in the middle of a response.
    Closed,
    /// With a RST.
    Reset,
    /// The response cannot be read.
    Malformed(String),
}

/// How long a connect, a response and a delivery may take.
pub(crate) const BOUND: Duration = Duration::from_secs(5);
/// How long a stream is read after its head, so that it is certainly subscribed.
pub(crate) const SETTLE: Duration = Duration::from_millis(200);
/// Between two looks at sockets that have nothing.
const PAUSE: Duration = Duration::from_millis(1);
const BUFFER: usize = 16 * 1024;

/// Reads streams until something is so. Returns whether it became so in time.
pub(crate) fn watch(
    streams: &mut [Stream],
    bound: Duration,
    mut is_so: impl FnMut(&[Stream]) -> bool,
) -> bool {
    let start = now();
    loop {
        let arrived = streams.iter_mut().fold(false, |any, stream| stream.read() | any);
        if is_so(streams) {
            return true;
        }
        if start.elapsed() > bound {
            return false;
        }
        if !arrived {
            thread::sleep(PAUSE);
        }
    }
}

/// Publishes event number `number` and returns the status of the response.
pub(crate) fn publish(server: &Server, org: &str, number: u32) -> io::Result<u16> {
    let publish = server.publish(org);
    let rest = publish.url.trim_start_matches("http://");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let body = publish.body.replace("{n}", &name(number));
    // A server may distinguish hosts.
    let mut request = format!(
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: {}\r\ncontent-length: {}\r\n",
        publish.content_type,
        body.len()
    );
    for (name, value) in &publish.headers {
        request.extend([name, ": ", value, "\r\n"]);
    }
    request.extend(["\r\n", &body]);
    let address = host.parse().map_err(io::Error::other)?;
    let mut socket = TcpStream::connect_timeout(&address, BOUND)?;
    socket.set_read_timeout(Some(BOUND))?;
    socket.write_all(request.as_bytes())?;
    let mut response = Response::default();
    let mut buffer = [0; BUFFER];
    while response.head().is_none() {
        match socket.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            length => response.push(&buffer[..length], |_| {})?,
        }
    }
    Ok(response.head().map_or(0, |head| head.status))
}

/// Publishes event number `number`, which the server must accept.
pub(crate) fn must_publish(server: &Server, org: &str, number: u32) -> io::Result<()> {
    match publish(server, org, number)? {
        200..300 => Ok(()),
        status => Err(io::Error::other(format!("a publish got {status}"))),
    }
}

/// How event number `number` is recognised, wherever it is in the data of another.
fn name(number: u32) -> String {
    format!("event-{number}-")
}

// ===== impl Stream =====

impl Stream {
    /// Connects and requests; the response is still to come.
    pub(crate) fn request(server: &Server, request: &Request) -> io::Result<Self> {
        let address: SocketAddr = server.address().parse().map_err(io::Error::other)?;
        let mut socket = TcpStream::connect_timeout(&address, BOUND)?;
        socket.set_nodelay(true)?;
        socket.write_all(request.text(server.address()).as_bytes())?;
        socket.set_nonblocking(true)?;
        let last_event_id = request.last_event_id.clone().unwrap_or_default();
        Ok(Self {
            socket,
            protocol: server.protocol().clone(),
            response: Response::resume(&last_event_id),
            position: Position { last_event_id, ..Position::default() },
            events: Vec::new(),
            stated: None,
            asked: None,
            end: None,
        })
    }

    /// A stream that is open, and certainly subscribed.
    pub(crate) fn open(server: &Server, request: &Request) -> io::Result<Self> {
        Self::request(server, request)?.opened()
    }

    /// That of a client that comes back.
    pub(crate) fn come_back(
        server: &Server,
        client: Client,
        position: &Position,
    ) -> io::Result<Self> {
        let mut stream = Self::request(server, &server.protocol().resume(ORG, client, position))?;
        stream.asked = (client == Client::Own).then(|| position.clone());
        stream.opened()
    }

    fn opened(mut self) -> io::Result<Self> {
        let stream = &mut self;
        stream.wait(BOUND, "a response", |stream| stream.head().is_some())?;
        match stream.head().map(|head| head.status) {
            Some(200) => {}
            status => return Err(io::Error::other(format!("a stream got {status:?}"))),
        }
        stream.read_for(SETTLE);
        Ok(self)
    }

    /// That of a client without a position.
    pub(crate) fn open_new(server: &Server, org: &str) -> io::Result<Self> {
        let path = server.protocol().stream(org);
        Self::open(server, &Request { path, last_event_id: None })
    }

    pub(crate) fn head(&self) -> Option<&Head> {
        self.response.head()
    }

    /// What the client would come back with.
    pub(crate) fn position(&self) -> Position {
        let last_event_id = self.response.last_event_id().to_owned();
        Position { last_event_id, ..self.position.clone() }
    }

    /// What its client can read about what it has missed.
    pub(crate) fn stated(&self) -> Option<Notice> {
        let head = self.asked.as_ref().zip(self.head());
        let head = head.and_then(|(asked, head)| self.protocol.read_head(head, asked));
        self.stated.or(head)
    }

    pub(crate) fn retry_ms(&self) -> Option<u64> {
        self.response.retry_ms()
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.head().is_some() || self.end.is_some()
    }

    pub(crate) fn end(&self) -> Option<&(End, Instant)> {
        self.end.as_ref()
    }

    /// How often event number `number` has arrived.
    pub(crate) fn count(&self, number: u32) -> usize {
        let name = name(number);
        self.events.iter().map(|event| event.data.matches(&name).count()).sum()
    }

    /// Reads until event number `number` has arrived.
    pub(crate) fn must_receive(&mut self, number: u32) -> io::Result<()> {
        self.wait(BOUND, &format!("event {number}"), |stream| stream.count(number) > 0)
    }

    pub(crate) fn read_for(&mut self, duration: Duration) {
        watch(std::slice::from_mut(self), duration, |_| false);
    }

    /// Reads until something is so, or fails.
    pub(crate) fn wait(
        &mut self,
        bound: Duration,
        what: &str,
        is_so: impl Fn(&Self) -> bool,
    ) -> io::Result<()> {
        let is_over = |streams: &[Self]| is_so(&streams[0]) || streams[0].end.is_some();
        watch(std::slice::from_mut(self), bound, is_over);
        match (&self.end, is_so(self)) {
            (_, true) => Ok(()),
            (Some((end, _)), false) => Err(io::Error::other(format!("{end:?} before {what}"))),
            (None, false) => Err(timed_out(&format!("no {what} within {bound:?}"))),
        }
    }

    /// Ends it with a RST.
    pub(crate) fn reset(self) -> io::Result<()> {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))
    }

    /// Takes what has arrived; returns whether anything has.
    fn read(&mut self) -> bool {
        let mut buffer = [0; BUFFER];
        if self.end.is_some() {
            return false;
        }
        let end = match self.socket.read(&mut buffer) {
            Ok(0) => self.end_of_input(),
            Ok(length) => match self.take(&buffer[..length]) {
                Ok(()) if self.response.is_complete() => End::Complete,
                Ok(()) => return true,
                Err(why) => End::Malformed(why.to_string()),
            },
            Err(why) if why.kind() == ErrorKind::WouldBlock => return false,
            Err(why) if why.kind() == ErrorKind::Interrupted => return true,
            Err(_) => End::Reset,
        };
        self.end = Some((end, now()));
        true
    }

    /// What a FIN before the last chunk means.
    fn end_of_input(&self) -> End {
        let has = |name| self.head().is_some_and(|head| head.field(name).is_some());
        match (self.head(), has("transfer-encoding"), has("content-length")) {
            (None, ..) | (_, true, _) => End::Closed,
            (_, _, true) => End::Complete,
            _ => End::Unmarked,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self { response, protocol, position, events, stated, .. } = self;
        response.push(bytes, |event| {
            *stated = protocol.read(&event, position).or(*stated);
            events.push(event);
        })
    }
}

// ===== impl Request =====

impl Request {
    /// As a browser sends it to this host and port.
    fn text(&self, host: &str) -> String {
        let id = self.last_event_id.as_ref().map(|id| format!("last-event-id: {id}\r\n"));
        format!(
            "GET {} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n\
             cache-control: no-cache\r\n{}\r\n",
            self.path,
            id.unwrap_or_default()
        )
    }
}
