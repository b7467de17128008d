//! The lower limit: accept, read the request, write the head, keep the descriptor. A publish is one `write(2)` of an
//! encoded event to each subscriber; once a second, each subscriber that was idle for nudged's keepalive time is sent
//! a comment. It has no history, and nothing else that a server would need.

use std::array;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::shared::process::now;

const LISTENER: Token = Token(usize::MAX);
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    cache-control: no-cache, no-store, no-transform\r\nx-accel-buffering: no\r\nx-content-type-options: nosniff\r\n\
    transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
const CONNECTED: &str =
    "retry: 1000\nid: 0123456789abcdef-0\nevent: connected\ndata: {\"keepalive\":30}\n\n";
const KEEPALIVE: &[u8] = b"c\r\n: keepalive\n\r\n";
const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}";

/// Idle seconds before a keepalive comment: 75 to 100 % of 30 s, less a second for a late tick, as in nudged.
const KEEPALIVE_AFTER: std::ops::RangeInclusive<usize> = 22..=29;
const SLOTS: usize = 64;

struct Raw {
    poll: Poll,
    listener: TcpListener,
    /// Connections that have not opened a stream.
    waiting: Slab<TcpStream>,
    channels: HashMap<String, Channel>,
    buffer: Vec<u8>,
    greeting: Vec<u8>,
    second: usize,
    next_second: Instant,
}

/// The sockets that subscribed to one path.
struct Channel {
    streams: Vec<TcpStream>,
    /// A timer wheel: by second, the streams whose keepalive may be due then.
    due: [Vec<u32>; SLOTS],
    /// When an event was last written to all of them.
    written: usize,
}

pub(crate) fn serve() -> io::Result<()> {
    let poll = Poll::new()?;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    let mut listener = TcpListener::from_std(socket.into());
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("listening on http://{}", listener.local_addr()?);
    let greeting = [HEAD.as_bytes(), &chunk(CONNECTED)].concat();
    let (waiting, channels, buffer) = (Slab::new(), HashMap::new(), vec![0; 16 * 1024]);
    let (second, next_second) = (0, now() + Duration::from_secs(1));
    Raw { poll, listener, waiting, channels, buffer, greeting, second, next_second }.run()
}

// ===== impl Raw =====

impl Raw {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        loop {
            let left = self.next_second.saturating_duration_since(now());
            match self.poll.poll(&mut events, Some(left)) {
                Err(why) if why.kind() == ErrorKind::Interrupted => continue,
                done => done?,
            }
            if now() >= self.next_second {
                self.second += 1;
                self.next_second += Duration::from_secs(1);
                let second = self.second;
                self.channels.values_mut().try_for_each(|channel| channel.keep_alive(second))?;
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(at) => self.respond(at)?,
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    let entry = self.waiting.vacant_entry();
                    let token = Token(entry.key());
                    self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
                    entry.insert(stream);
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why),
            }
        }
    }

    /// Serves one read, which holds a whole request: the load generator sends each in one piece.
    fn respond(&mut self, at: usize) -> io::Result<()> {
        let Some(stream) = self.waiting.get_mut(at) else { return Ok(()) };
        let length = match stream.read(&mut self.buffer) {
            Ok(0) => {
                self.waiting.remove(at);
                return Ok(());
            }
            Ok(length) => length,
            Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => {
                self.waiting.remove(at);
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..length]).into_owned();
        let path = text.split(' ').nth(1).unwrap_or("/").to_owned();
        if text.starts_with("GET ") {
            let mut stream = self.waiting.remove(at);
            // A stream is never read again: only a write detects that its client has disconnected.
            self.poll.registry().deregister(&mut stream)?;
            if stream.write(&self.greeting)? == self.greeting.len() {
                self.channels.entry(path).or_insert_with(Channel::new).add(stream, self.second);
            }
            return Ok(());
        }
        let Some((_, body)) = text.split_once("\r\n\r\n") else {
            return Err(io::Error::other("the head of a publish arrived in pieces"));
        };
        let data = format!("id: 0123456789abcdef-1\nevent: invalidate\ndata: {body}\n\n");
        let event = chunk(&data);
        if let Some(channel) = self.channels.get_mut(&path) {
            channel.written = self.second;
            channel.streams.iter_mut().try_for_each(|stream| write(stream, &event))?;
        }
        self.waiting[at].write_all(ACCEPTED)
    }
}

// ===== impl Channel =====

impl Channel {
    fn new() -> Self {
        Self { streams: Vec::new(), due: array::from_fn(|_| Vec::new()), written: 0 }
    }

    fn add(&mut self, stream: TcpStream, second: usize) {
        let number = u32::try_from(self.streams.len()).expect("fewer streams than descriptors");
        self.streams.push(stream);
        self.schedule(number, second);
    }

    fn schedule(&mut self, number: u32, idle_since: usize) {
        self.due[(idle_since + fastrand::usize(KEEPALIVE_AFTER)) % SLOTS].push(number);
    }

    fn keep_alive(&mut self, second: usize) -> io::Result<()> {
        for number in std::mem::take(&mut self.due[second % SLOTS]) {
            let is_idle = self.written + KEEPALIVE_AFTER.start() <= second;
            if is_idle {
                write(&mut self.streams[number as usize], KEEPALIVE)?;
            }
            self.schedule(number, if is_idle { second } else { self.written });
        }
        Ok(())
    }
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    match stream.write(bytes)? {
        all if all == bytes.len() => Ok(()),
        _ => Err(io::Error::other("a subscriber is not reading")),
    }
}

fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}
