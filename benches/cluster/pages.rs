//! Streams as `EventSource` has them, in any number: one thread reads all of them. A stream that ends is opened again
//! after the time that its server asked for, with the last id.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nudged::wire::{Event, Parser};

use super::response::Response;
use crate::Outcome;
use crate::shared::http::get;
use crate::shared::process::now;

/// The pages, number `n` on the org `n % orgs`.
pub(crate) struct Pages {
    poll: Poll,
    events: Events,
    address: SocketAddr,
    orgs: Vec<String>,
    all: Vec<Page>,
    /// When which page connects again.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    buffer: Box<[u8]>,
    /// Streams that have had their greeting.
    greeted: usize,
    pub(crate) tally: Tally,
}

/// An event that a page received.
pub(crate) struct Received<'a> {
    pub(crate) page: usize,
    pub(crate) event: &'a Event,
    pub(crate) at: Instant,
}

/// What happened to the streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) connected: u64,
    pub(crate) resumed: u64,
    pub(crate) invalidates: u64,
    /// Streams that ended, or broke.
    pub(crate) ends: u64,
    /// Connects that failed, and responses other than 200, the first one as a text.
    pub(crate) refused: u64,
    pub(crate) refusal: Option<String>,
}

#[derive(Default)]
struct Page {
    stream: Option<TcpStream>,
    has_asked: bool,
    is_greeted: bool,
    response: Response,
    parser: Parser,
    retry: Option<Duration>,
}

/// What browsers take if a server asks for nothing.
const RETRY: Duration = Duration::from_secs(3);
/// Streams that are being opened at once.
const OPENING: usize = 100;
/// How long all of them may take to open.
const OPEN: Duration = Duration::from_secs(60);
const TURN: Duration = Duration::from_millis(10);
const BUFFER: usize = 64 * 1024;

// ===== impl Pages =====

impl Pages {
    pub(crate) fn new(address: SocketAddr, orgs: Vec<String>) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            address,
            orgs,
            all: Vec::new(),
            due: BinaryHeap::new(),
            buffer: vec![0; BUFFER].into(),
            greeted: 0,
            tally: Tally::default(),
        })
    }

    /// Opens pages until there are this many, and waits until each has its greeting.
    pub(crate) fn open(&mut self, count: usize, mut on: impl FnMut(Received<'_>)) -> Outcome<()> {
        let start = now();
        while self.greeted < count {
            while self.all.len() < count && self.all.len() - self.greeted < OPENING {
                self.all.push(Page::default());
                self.connect(self.all.len() - 1);
            }
            self.turn(TURN, &mut on)?;
            if start.elapsed() > OPEN {
                return Err(
                    format!("{} of {count} streams open: {:?}", self.greeted, self.tally).into()
                );
            }
        }
        Ok(())
    }

    /// Reads what has arrived, waiting for it as long as this, and connects those pages again that are due.
    pub(crate) fn turn(
        &mut self,
        wait: Duration,
        mut on: impl FnMut(Received<'_>),
    ) -> io::Result<()> {
        while let Some(Reverse((at, page))) = self.due.peek().copied() {
            if at > now() {
                break;
            }
            self.due.pop();
            self.connect(page);
        }
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(wait)) {
            Err(why) if why.kind() != ErrorKind::Interrupted => return Err(why),
            _ => {}
        }
        for event in &events {
            let number = event.token().0;
            let done = self.ask(number).and_then(|()| self.read(number, &mut on));
            match done {
                Ok(true) => {}
                Ok(false) => self.end(number, None),
                Err(why) => self.end(number, Some(why)),
            }
        }
        self.events = events;
        Ok(())
    }

    /// Pages that have a stream with its greeting.
    pub(crate) fn open_now(&self) -> usize {
        self.greeted
    }

    fn connect(&mut self, number: usize) {
        let opened = TcpStream::connect(self.address).and_then(|mut stream| {
            stream.set_nodelay(true)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(number), interest)?;
            Ok(stream)
        });
        let page = &mut self.all[number];
        let last = page.parser.last_event_id().to_owned();
        *page = Page { retry: page.retry, parser: Parser::resume(last), ..Page::default() };
        match opened {
            Ok(stream) => page.stream = Some(stream),
            Err(why) => self.end(number, Some(why)),
        }
    }

    /// Sends the request once the connection is there. A fresh socket takes it whole.
    fn ask(&mut self, number: usize) -> io::Result<()> {
        let page = &mut self.all[number];
        let Some(stream) = page.stream.as_mut().filter(|_| !page.has_asked) else { return Ok(()) };
        match stream.peer_addr() {
            Err(why) if why.kind() == ErrorKind::NotConnected => {
                return stream.take_error()?.map_or(Ok(()), Err);
            }
            connected => connected?,
        };
        let last = match page.parser.last_event_id() {
            "" => String::new(),
            id => format!("last-event-id: {id}\r\n"),
        };
        let fields = format!("accept: text/event-stream\r\ncache-control: no-store\r\n{last}");
        let path = format!("/api/{}/events", self.orgs[number % self.orgs.len()]);
        stream.write_all(get(&path, &fields).as_bytes())?;
        page.has_asked = true;
        Ok(())
    }

    /// Returns whether the stream goes on.
    fn read(&mut self, number: usize, on: &mut impl FnMut(Received<'_>)) -> io::Result<bool> {
        let Self { all, buffer, tally, greeted, .. } = self;
        let Page { stream, is_greeted, response, parser, has_asked, .. } = &mut all[number];
        let Some(stream) = stream.as_mut().filter(|_| *has_asked) else { return Ok(true) };
        loop {
            let length = match stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => length,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(why) => return Err(why),
            };
            let at = now();
            let mut broken = false;
            let goes_on = response.read(&buffer[..length], |body| {
                let done = parser.push(body, |event| {
                    match event.name.as_str() {
                        "connected" => tally.connected += 1,
                        "resumed" => tally.resumed += 1,
                        "invalidate" => tally.invalidates += 1,
                        _ => {}
                    }
                    if !std::mem::replace(is_greeted, true) {
                        *greeted += 1;
                    }
                    on(Received { page: number, event: &event, at });
                });
                broken |= done.is_err();
            });
            let goes_on = goes_on.map_err(|_| io::Error::other("no chunked response"))?;
            if broken {
                return Err(io::Error::other("an event is too large"));
            }
            if !matches!(response.status, 0 | 200) {
                return Err(io::Error::other(format!("status {}", response.status)));
            }
            if !goes_on {
                return Ok(false);
            }
        }
    }

    /// The stream is over, before its greeting or after it; the page opens it again.
    fn end(&mut self, number: usize, why: Option<io::Error>) {
        let page = &mut self.all[number];
        page.stream = None;
        let asked = page.parser.retry_ms().map(Duration::from_millis);
        page.retry = asked.or(page.retry);
        if page.is_greeted {
            page.is_greeted = false;
            self.greeted -= 1;
            self.tally.ends += 1;
        } else {
            self.tally.refused += 1;
            let why =
                why.map_or_else(|| "an end before the greeting".into(), |why| why.to_string());
            self.tally.refusal.get_or_insert(why);
        }
        let at = now() + self.all[number].retry.unwrap_or(RETRY);
        self.due.push(Reverse((at, number)));
    }
}
