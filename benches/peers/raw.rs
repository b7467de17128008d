//! The limit: accept, read the request, write the head, keep the descriptor; on a publish, one
//! `write(2)` of one ready event to each. No timers, no history, nothing that a server would need.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    cache-control: no-cache, no-store, no-transform\r\nx-accel-buffering: no\r\n\
    transfer-encoding: chunked\r\n\r\n";
const CONNECTED: &str = "retry: 1000\nid: 0123456789abcdef-0\nevent: connected\ndata: {}\n\n";
const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}";

/// Sockets only: what is subscribed to is the index of the path.
struct Raw {
    poll: Poll,
    listener: TcpListener,
    asking: Slab<TcpStream>,
    streams: HashMap<String, Vec<TcpStream>>,
    buffer: Vec<u8>,
    greeting: Vec<u8>,
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
    let (asking, streams, buffer) = (Slab::new(), HashMap::new(), vec![0; 16 * 1024]);
    Raw { poll, listener, asking, streams, buffer, greeting }.run()
}

impl Raw {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(why) if why.kind() == ErrorKind::Interrupted => continue,
                done => done?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(at) => self.answer(at)?,
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    let entry = self.asking.vacant_entry();
                    let token = Token(entry.key());
                    self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
                    entry.insert(stream);
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why),
            }
        }
    }

    /// Requests of the load generator come whole, or after `POST` in two reads.
    fn answer(&mut self, at: usize) -> io::Result<()> {
        let Some(stream) = self.asking.get_mut(at) else { return Ok(()) };
        let length = match stream.read(&mut self.buffer) {
            Ok(0) => {
                self.asking.remove(at);
                return Ok(());
            }
            Ok(length) => length,
            Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => {
                self.asking.remove(at);
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..length]).into_owned();
        let path = text.split(' ').nth(1).unwrap_or("/").to_owned();
        if text.starts_with("GET ") {
            let mut stream = self.asking.remove(at);
            // The event loop never hears of a stream again: only writes find out that it is gone.
            self.poll.registry().deregister(&mut stream)?;
            if stream.write(&self.greeting)? == self.greeting.len() {
                self.streams.entry(path).or_default().push(stream);
            }
            return Ok(());
        }
        let Some((_, body)) = text.split_once("\r\n\r\n") else {
            return Err(io::Error::other("the head of a publish came in pieces"));
        };
        let data = format!("id: 0123456789abcdef-1\nevent: invalidate\ndata: {body}\n\n");
        let event = chunk(&data);
        for stream in self.streams.get_mut(&path).into_iter().flatten() {
            if stream.write(&event)? != event.len() {
                return Err(io::Error::other("a subscriber does not read"));
            }
        }
        self.asking[at].write_all(ACCEPTED)
    }
}

fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}
