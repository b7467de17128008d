//! Streams over HTTP/1, each on a connection of its own: one thread, one poller, one read buffer for
//! all of them.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use super::head::Head;
use super::link::{Got, Link};
use super::now;
use super::ramp::{Carrier, SILENT, connect};
use super::subscriber::{Phase, Subscriber};
use super::subscribers::Crowd;
use super::target::{Error, Target};
use crate::client::tls::hopeless;

/// Many streams of one URL.
#[derive(Debug)]
pub(crate) struct Swarm<L: Link> {
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    target: Target,
    sources: Vec<IpAddr>,
    request: Vec<u8>,
    shared: L::Shared,
    streams: Vec<Stream<L>>,
}

/// A stream, from the first packet to its end.
#[derive(Debug)]
struct Stream<L> {
    link: Option<L>,
    head: Head,
    subscriber: Subscriber,
}

const BUFFER: usize = 64 * 1024;
const EVENTS: usize = 1024;

/// How a body ends (RFC 9112, 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

// ===== impl Swarm =====

impl<L: Link> Swarm<L> {
    pub(crate) fn new(
        target: Target,
        shared: L::Shared,
        sources: Vec<IpAddr>,
        headers: &[(String, String)],
    ) -> Result<Self, Error> {
        Ok(Self {
            poll: Poll::new().map_err(Error::system("opening a poller"))?,
            events: Events::with_capacity(EVENTS),
            buffer: vec![0; BUFFER].into(),
            request: request(&target, headers),
            target,
            sources,
            shared,
            streams: Vec::new(),
        })
    }

    fn connect(&self, number: usize) -> io::Result<L> {
        let source = self.target.source(number, &self.sources);
        let mut socket = TcpStream::from_std(connect(self.target.address, source)?);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(number), interest)?;
        L::over(socket, &self.shared)
    }

    fn ask(&mut self, crowd: &mut Crowd, number: usize) -> Result<(), Error> {
        let Stream { link, subscriber, .. } = &mut self.streams[number];
        let Some(link) = link else { return Ok(()) };
        match link.ask(&self.request, &mut self.buffer) {
            Ok(true) => subscriber.phase = Phase::Asking,
            Ok(false) => {}
            Err(why) => {
                if let Some(why) = hopeless(&why) {
                    return Err(Error::Server { authority: self.target.authority.clone(), why });
                }
                self.lose(crowd, number, Some(why.to_string()));
            }
        }
        Ok(())
    }

    fn read(&mut self, crowd: &mut Crowd, number: usize, closing: bool) {
        loop {
            let Stream { link, head, subscriber } = &mut self.streams[number];
            let Some(link) = link else { return };
            let got = link.receive(&mut self.buffer, |bytes| hear(crowd, subscriber, head, bytes));
            match got {
                Ok(Got::End) => return self.lose(crowd, number, None),
                Ok(Got::Part(length)) => crowd.tally.bytes += length as u64,
                Ok(Got::All(length)) => {
                    crowd.tally.bytes += length as u64;
                    // Emptied, unless its end follows.
                    if !closing {
                        return;
                    }
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => return,
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return self.lose(crowd, number, Some(why.to_string())),
            }
        }
    }

    fn lose(&mut self, crowd: &mut Crowd, number: usize, why: Option<String>) {
        let stream = &mut self.streams[number];
        stream.link = None;
        crowd.lose(&mut stream.subscriber, why);
    }
}

impl<L: Link> Carrier for Swarm<L> {
    fn reserve(&mut self, count: usize) {
        self.streams.reserve_exact(count);
    }

    fn dial(&mut self, next: u32) -> Result<(), Error> {
        let link =
            self.connect(self.streams.len()).map_err(Error::system("opening a connection"))?;
        let subscriber = Subscriber::new(Phase::Connecting, next);
        self.streams.push(Stream { link: Some(link), head: Head::default(), subscriber });
        Ok(())
    }

    fn turn(&mut self, crowd: &mut Crowd, wait: Duration) -> Result<(), Error> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(wait)) {
            Err(why) if why.kind() != ErrorKind::Interrupted => {
                return Err(Error::system("waiting for events")(why));
            }
            _ => {}
        }
        for event in &events {
            let number = event.token().0;
            if self.streams[number].subscriber.phase == Phase::Connecting {
                self.ask(crowd, number)?;
            }
            let closing = event.is_read_closed() || event.is_error();
            let connected = self.streams[number].subscriber.phase != Phase::Connecting;
            if connected && (event.is_readable() || closing) {
                self.read(crowd, number, closing);
            }
        }
        self.events = events;
        Ok(())
    }

    fn abandon(&mut self, crowd: &mut Crowd) {
        for number in 0..self.streams.len() {
            let phase = self.streams[number].subscriber.phase;
            if matches!(phase, Phase::Connecting | Phase::Asking) {
                self.lose(crowd, number, Some(SILENT.into()));
            }
        }
    }

    fn is_behind(&self, published: u32) -> bool {
        self.streams.iter().any(|stream| stream.subscriber.is_behind(published))
    }

    fn settle(&mut self, crowd: &mut Crowd, published: u32) {
        crowd.settle(self.streams.iter_mut().map(|stream| &mut stream.subscriber), published);
    }

    fn close(&mut self, reset: bool) -> io::Result<()> {
        for stream in self.streams.drain(..) {
            if let Some(link) = &stream.link
                && reset
            {
                SockRef::from(link.socket()).set_linger(Some(Duration::ZERO))?;
            }
        }
        Ok(())
    }
}

/// False if the stream is over.
fn hear(crowd: &mut Crowd, subscriber: &mut Subscriber, head: &mut Head, bytes: &[u8]) -> bool {
    let mut body = bytes;
    if subscriber.phase == Phase::Asking {
        let Some(end) = head.read(bytes) else { return true };
        if !crowd.answer(subscriber, head.status) {
            return false;
        }
        body = &bytes[end..];
    }
    crowd.hear(subscriber, body, now());
    !(body == LAST_CHUNK || body.ends_with(b"\r\n0\r\n\r\n"))
}

fn request(target: &Target, headers: &[(String, String)]) -> Vec<u8> {
    let mut text = format!("GET {} HTTP/1.1\r\nhost: {}\r\n", target.path, target.authority);
    text += "accept: text/event-stream\r\ncache-control: no-cache\r\n";
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_stays_small() {
        // The socket is four bytes, and more where mio checks its use.
        let ours = size_of::<Stream<TcpStream>>() - size_of::<TcpStream>();
        assert!(ours <= 32, "{ours} bytes");
    }
}
