//! Streams over cleartext HTTP/1.1, each on its own connection: one thread, one poller and one read buffer for all.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use super::error::Error;
use super::now;
use super::ramp::{Transport, connect, source_of};
use super::subscriber::Phase;
use super::subscribers::Subscribers;
use crate::client::url::HttpUrl;

/// All streams of one URL.
#[derive(Debug)]
pub(crate) struct Http1 {
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    address: SocketAddr,
    sources: Vec<IpAddr>,
    requests: Requests,
    streams: Vec<Stream>,
}

/// The requests of the streams.
#[derive(Debug)]
pub(crate) struct Requests {
    url: HttpUrl,
    headers: Vec<(String, String)>,
    /// That of every stream, unless the URL contains the stream's number.
    common: Vec<u8>,
}

/// A stream, from its connect to its end.
#[derive(Debug)]
struct Stream {
    socket: Option<TcpStream>,
    head: ResponseHead,
}

/// The head of a response, parsed byte by byte: its status, and the empty line that ends it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ResponseHead {
    read: u8,
    line_end: u8,
    pub(crate) status: u16,
}

const BUFFER: usize = 64 * 1024;
const EVENTS: usize = 1024;

const HEAD_END: &[u8] = b"\r\n\r\n";

/// The end of a chunked body (RFC 9112, 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

// ===== impl Http1 =====

impl Http1 {
    pub(crate) fn new(
        url: &HttpUrl,
        address: SocketAddr,
        sources: Vec<IpAddr>,
        headers: &[(String, String)],
    ) -> Result<Self, Error> {
        Ok(Self {
            poll: Poll::new().map_err(Error::system("opening a poller"))?,
            events: Events::with_capacity(EVENTS),
            buffer: vec![0; BUFFER].into(),
            address,
            sources,
            requests: Requests::new(url, headers),
            streams: Vec::new(),
        })
    }

    fn connect(&self, number: usize) -> io::Result<TcpStream> {
        let source = source_of(number, self.address, &self.sources);
        let mut socket = TcpStream::from_std(connect(self.address, source)?);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(number), interest)?;
        Ok(socket)
    }

    fn send_request(&mut self, subscribers: &mut Subscribers, number: usize) {
        let Some(socket) = &mut self.streams[number].socket else { return };
        let connected = socket.take_error().and_then(|why| why.map_or(Ok(()), Err));
        // It is far smaller than the send buffer of a fresh socket.
        match connected.and_then(|()| socket.write_all(&self.requests.of(number))) {
            Ok(()) => subscribers.request(number),
            Err(why) => self.end(subscribers, number, Some(why.to_string())),
        }
    }

    fn read(&mut self, subscribers: &mut Subscribers, number: usize, closing: bool) {
        loop {
            let Stream { socket, head } = &mut self.streams[number];
            let Some(socket) = socket else { return };
            match socket.read(&mut self.buffer) {
                Ok(0) => return self.end(subscribers, number, None),
                Ok(length) => {
                    subscribers.tally.bytes += length as u64;
                    if !receive(subscribers, number, head, &self.buffer[..length]) {
                        return self.end(subscribers, number, None);
                    }
                    // A short read has emptied the socket, unless its end follows.
                    if length < self.buffer.len() && !closing {
                        return;
                    }
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => return,
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return self.end(subscribers, number, Some(why.to_string())),
            }
        }
    }

    fn end(&mut self, subscribers: &mut Subscribers, number: usize, why: Option<String>) {
        self.streams[number].socket = None;
        subscribers.end(number, why);
    }
}

impl Transport for Http1 {
    fn reserve(&mut self, count: usize) {
        self.streams.reserve_exact(count);
    }

    fn open(&mut self) -> Result<(), Error> {
        let socket = self.connect(self.streams.len());
        let socket = Some(socket.map_err(Error::system("opening a connection"))?);
        self.streams.push(Stream { socket, head: ResponseHead::default() });
        Ok(())
    }

    fn poll(&mut self, subscribers: &mut Subscribers, wait: Duration) -> Result<(), Error> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(wait)) {
            Err(why) if why.kind() != ErrorKind::Interrupted => {
                return Err(Error::system("waiting for events")(why));
            }
            _ => {}
        }
        for event in &events {
            let number = event.token().0;
            match subscribers.phase(number) {
                Phase::Connecting => self.send_request(subscribers, number),
                Phase::Closed => self.streams[number].socket = None,
                Phase::Requested | Phase::Open => {}
            }
            let closing = event.is_read_closed() || event.is_error();
            if event.is_readable() || closing {
                self.read(subscribers, number, closing);
            }
        }
        self.events = events;
        Ok(())
    }

    fn close(&mut self, reset: bool) -> io::Result<()> {
        for stream in self.streams.drain(..) {
            if let Some(socket) = &stream.socket
                && reset
            {
                SockRef::from(socket).set_linger(Some(Duration::ZERO))?;
            }
        }
        Ok(())
    }
}

/// Handles a part of a response. False if the stream is over.
fn receive(
    subscribers: &mut Subscribers,
    number: usize,
    head: &mut ResponseHead,
    bytes: &[u8],
) -> bool {
    let mut body = bytes;
    if subscribers.phase(number) == Phase::Requested {
        let Some(end) = head.read(bytes) else { return true };
        if !subscribers.respond(number, head.status) {
            return false;
        }
        body = &bytes[end..];
    }
    subscribers.receive(number, body, now());
    !is_last(body)
}

/// Whether these bytes end a chunked body.
pub(crate) fn is_last(body: &[u8]) -> bool {
    body == LAST_CHUNK || body.ends_with(b"\r\n0\r\n\r\n")
}

/// A request for a stream.
fn request(url: &HttpUrl, headers: &[(String, String)]) -> Vec<u8> {
    let mut text = format!("GET {} HTTP/1.1\r\nhost: {}\r\n", url.path, url.authority);
    text += "accept: text/event-stream\r\ncache-control: no-cache\r\n";
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    text.into_bytes()
}

// ===== impl Requests =====

impl Requests {
    pub(crate) fn new(url: &HttpUrl, headers: &[(String, String)]) -> Self {
        Self { url: url.clone(), headers: headers.to_vec(), common: request(url, headers) }
    }

    /// That of the stream with this number.
    pub(crate) fn of(&self, number: usize) -> Cow<'_, [u8]> {
        match self.url.of_stream(number) {
            Some(url) => request(&url, &self.headers).into(),
            None => (&self.common).into(),
        }
    }
}

// ===== impl ResponseHead =====

impl ResponseHead {
    /// Returns where the head ends within `bytes`, if it does.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            // `HTTP/1.1 200`: the status is at 9 to 11.
            if (9..12).contains(&self.read) {
                let digit = u16::from(byte.wrapping_sub(b'0') % 10);
                self.status = self.status * 10 + digit;
            }
            self.read = self.read.saturating_add(1);
            self.line_end = match *byte == HEAD_END[usize::from(self.line_end)] {
                true => self.line_end + 1,
                false => u8::from(*byte == b'\r'),
            };
            if usize::from(self.line_end) == HEAD_END.len() {
                return Some(at + 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::subscriber::Subscriber;
    use super::*;

    #[test]
    fn a_stream_is_at_most_32_bytes() {
        // The socket is four bytes, and more where mio checks its use.
        let ours = size_of::<Stream>() - size_of::<TcpStream>() + size_of::<Subscriber>();
        assert!(ours <= 32, "{ours} bytes");
    }

    #[test]
    fn a_head_may_arrive_in_pieces() {
        let text = b"HTTP/1.1 503 No\r\nA: b\r\n\r\nbody";
        for cut in 0..text.len() - 4 {
            let mut head = ResponseHead::default();
            let first = head.read(&text[..cut]);
            assert_eq!(first, None, "cut at {cut}");
            assert_eq!(head.read(&text[cut..]), Some(text.len() - 4 - cut), "cut at {cut}");
            assert_eq!(head.status, 503);
        }
    }
}
