//! Many subscribers in one thread, each of which checks every byte that it receives: the framing in chunks, the order
//! of ids without a gap, and that the text of an event is the same for all streams of its organisation. None of them
//! reconnects.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nudged::ids::EventId;
use socket2::{Domain, Protocol, Socket, Type};

/// The subscribers, number `n` of the organisation `n % orgs`.
pub(crate) struct Crowd {
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    server: SocketAddr,
    all: Vec<Subscriber>,
    orgs: Vec<Org>,
    greeted: usize,
    pub(crate) tally: Tally,
}

/// What happened to all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Greetings and later ones: of each stream exactly one.
    pub(crate) connected: u64,
    pub(crate) resumed: u64,
    pub(crate) events: u64,
    pub(crate) keepalives: u64,
    /// Streams that ended, in good order or not.
    pub(crate) ends: u64,
    /// Events whose number a stream skipped.
    pub(crate) lost: u64,
    /// Events that a stream received again.
    pub(crate) doubled: u64,
    /// Whatever else a stream received that it must not.
    pub(crate) wrong: u64,
    /// The first few of the above, in words.
    pub(crate) faults: Vec<String>,
    /// The longest time that a stream was without anything to read; see [`Crowd::take_longest`].
    pub(crate) longest_gap: Duration,
    /// From a publish to the arrival of its event.
    pub(crate) longest_latency: Duration,
}

struct Subscriber {
    socket: Option<TcpStream>,
    /// Bytes of a chunk that is not complete.
    pending: Vec<u8>,
    has_head: bool,
    position: Option<EventId>,
    /// When it read something last.
    read: Instant,
}

/// What the streams of an organisation have received, as the first of them received it.
struct Org {
    name: String,
    /// The number of the newest event.
    head: u64,
    /// By the number of an event.
    events: HashMap<u64, Reference>,
    /// How often each number that was published has arrived.
    numbers: HashMap<u64, u32>,
}

#[derive(Clone, Copy)]
struct Reference {
    /// Of its text.
    hash: u64,
    /// When the first publish in it was sent.
    sent: Duration,
}

/// A key that is published once, and says when.
pub(crate) fn key(number: u64) -> String {
    format!("k:{number}:{}", wall_clock().as_micros())
}

const FAULTS: usize = 8;
const BUFFER: usize = 64 * 1024;
/// Streams of one address of loopback.
const OF_AN_ADDRESS: usize = 1_000;
/// Streams that are being opened at once.
const OPENING: usize = 200;
const OPEN: Duration = Duration::from_secs(60);
const TURN: Duration = Duration::from_millis(5);

// ===== impl Crowd =====

impl Crowd {
    pub(crate) fn new(server: SocketAddr, orgs: &[String]) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; BUFFER].into(),
            server,
            all: Vec::new(),
            orgs: orgs.iter().map(|name| Org::new(name)).collect(),
            greeted: 0,
            tally: Tally::default(),
        })
    }

    /// Opens streams until there are this many, and waits until each has its greeting.
    pub(crate) fn open(&mut self, count: usize) -> io::Result<()> {
        let start = now();
        while self.greeted < count {
            while self.all.len() < count && self.all.len() - self.greeted < OPENING {
                self.connect()?;
            }
            self.turn(TURN)?;
            if self.tally.ends > 0 || start.elapsed() > OPEN {
                let (greeted, tally) = (self.greeted, &self.tally);
                return Err(io::Error::other(format!("{greeted} of {count} are open: {tally:?}")));
            }
        }
        Ok(())
    }

    /// Reads what has arrived, waiting for it as long as this.
    pub(crate) fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(wait)) {
            Err(why) if why.kind() != ErrorKind::Interrupted => return Err(why),
            _ => {}
        }
        for event in &events {
            let number = event.token().0;
            if let Err(why) = self.read(number) {
                self.all[number].socket = None;
                self.tally.ends += 1;
                self.tally.fault(format!("stream {number}: {why}"));
            }
        }
        self.events = events;
        Ok(())
    }

    /// Streams that have not ended.
    pub(crate) fn open_now(&self) -> usize {
        self.all.iter().filter(|one| one.socket.is_some()).count()
    }

    /// Events that have arrived at one stream of their organisation and not yet at another one that is open.
    pub(crate) fn behind(&self) -> u64 {
        let of = |(number, one): (usize, &Subscriber)| {
            let head = self.orgs[number % self.orgs.len()].head;
            let at = one.position.map_or(0, |position| position.seq.0);
            if one.socket.is_some() { head.saturating_sub(at) } else { 0 }
        };
        self.all.iter().enumerate().map(of).sum()
    }

    /// How many of these numbers have not arrived at an organisation at all.
    pub(crate) fn missing(&self, org: usize, numbers: impl IntoIterator<Item = u64>) -> u64 {
        let arrived = &self.orgs[org].numbers;
        numbers.into_iter().filter(|number| !arrived.contains_key(number)).count() as u64
    }

    /// The longest times since the last call: without anything to read, and from a publish to its arrival.
    pub(crate) fn take_longest(&mut self) -> (Duration, Duration) {
        let Tally { longest_gap, longest_latency, .. } = &mut self.tally;
        (std::mem::take(longest_gap), std::mem::take(longest_latency))
    }

    fn connect(&mut self) -> io::Result<()> {
        let number = self.all.len();
        let socket =
            Socket::new(Domain::for_address(self.server), Type::STREAM, Some(Protocol::TCP))?;
        if self.server.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            let last = u8::try_from(2 + number / OF_AN_ADDRESS).map_err(io::Error::other)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())?;
        }
        socket.connect(&self.server.into())?;
        let mut socket = std::net::TcpStream::from(socket);
        let org = &self.orgs[number % self.orgs.len()].name;
        let get = format!("GET /api/{org}/events HTTP/1.1\r\nhost: localhost\r\n\r\n");
        socket.write_all(get.as_bytes())?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        self.poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
        self.all.push(Subscriber::new(socket));
        Ok(())
    }

    fn read(&mut self, number: usize) -> io::Result<()> {
        let count = self.orgs.len();
        let Self { all, orgs, buffer, tally, greeted, .. } = self;
        let (one, org) = (&mut all[number], &mut orgs[number % count]);
        while let Some(socket) = &mut one.socket {
            let length = match socket.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(why) if why.kind() == ErrorKind::Interrupted => continue,
                Err(why) => return Err(why),
            };
            let at = now();
            let gap = at.duration_since(std::mem::replace(&mut one.read, at));
            let was_greeted = one.position.is_some();
            one.take(&buffer[..length], org, tally)?;
            if was_greeted {
                tally.longest_gap = tally.longest_gap.max(gap);
            } else if one.position.is_some() {
                *greeted += 1;
            }
        }
        Ok(())
    }
}

// ===== impl Subscriber =====

impl Subscriber {
    fn new(socket: TcpStream) -> Self {
        Self {
            socket: Some(socket),
            pending: Vec::new(),
            has_head: false,
            position: None,
            read: now(),
        }
    }

    /// Takes what is complete.
    fn take(&mut self, bytes: &[u8], org: &mut Org, tally: &mut Tally) -> io::Result<()> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let mut rest = &pending[..];
        if !self.has_head {
            let Some(end) = find(rest, b"\r\n\r\n") else {
                self.pending = pending;
                return Ok(());
            };
            let head = String::from_utf8_lossy(&rest[..end]);
            if !head.starts_with("HTTP/1.1 200 OK\r\n")
                || !head.contains("transfer-encoding: chunked")
            {
                return Err(wrong("a response", &rest[..end]));
            }
            self.has_head = true;
            rest = &rest[end + 4..];
        }
        while let Some((text, after)) = chunk(rest)? {
            self.check(text, org, tally)?;
            rest = after;
        }
        let done = pending.len() - rest.len();
        pending.drain(..done);
        self.pending = pending;
        Ok(())
    }

    /// One event, comment or end.
    fn check(&mut self, text: &[u8], org: &mut Org, tally: &mut Tally) -> io::Result<()> {
        let parts = std::str::from_utf8(text).ok().and_then(Event::parse);
        match parts {
            Some(Event::Comment) => tally.keepalives += 1,
            Some(Event::Greeting { name: "connected", id }) => {
                tally.connected += 1;
                if self.position.replace(id).is_some() {
                    tally.wrong += 1;
                    tally.fault(format!("{}: another `connected`, with {id}", org.name));
                }
            }
            Some(Event::Greeting { .. }) => {
                tally.resumed += 1;
                tally.fault(format!("{}: `resumed`, without a request for it", org.name));
            }
            Some(Event::Invalidate { id, data }) => self.invalidate(id, data, text, org, tally),
            None => return Err(wrong("a chunk", text)),
        }
        Ok(())
    }

    fn invalidate(
        &mut self,
        id: EventId,
        data: &str,
        text: &[u8],
        org: &mut Org,
        tally: &mut Tally,
    ) {
        tally.events += 1;
        let Some(last) = self.position else {
            tally.wrong += 1;
            return tally.fault(format!("{}: {id} before the greeting", org.name));
        };
        if last.epoch != id.epoch {
            tally.wrong += 1;
            tally.fault(format!("{}: {id} after {last}", org.name));
        } else if id.seq <= last.seq {
            tally.doubled += 1;
            return tally.fault(format!("{}: {id} again, after {last}", org.name));
        } else if id.seq.0 > last.seq.0 + 1 {
            tally.lost += id.seq.0 - last.seq.0 - 1;
            tally.fault(format!("{}: {id} after {last}", org.name));
        }
        self.position = Some(id);
        let hash = hash(text);
        let reference = org.events.get(&id.seq.0).copied();
        let reference = reference.unwrap_or_else(|| org.first(id.seq.0, hash, data, tally));
        if reference.hash != hash {
            tally.wrong += 1;
            tally.fault(format!("{}: {id} is not for all the same", org.name));
        }
        let latency = wall_clock().saturating_sub(reference.sent);
        tally.longest_latency = tally.longest_latency.max(latency);
    }
}

// ===== impl Org =====

impl Org {
    fn new(name: &str) -> Self {
        Self { name: name.into(), head: 0, events: HashMap::new(), numbers: HashMap::new() }
    }

    /// Remembers an event that none of its streams has had before.
    fn first(&mut self, seq: u64, hash: u64, data: &str, tally: &mut Tally) -> Reference {
        let mut sent = Duration::MAX;
        for (number, at) in data.split('"').filter_map(parse_key) {
            sent = sent.min(at);
            let times = self.numbers.entry(number).or_default();
            *times += 1;
            if *times > 1 {
                tally.doubled += 1;
                tally.fault(format!("{}: number {number} in another event, {seq}", self.name));
            }
        }
        let reference = Reference { hash, sent };
        self.events.insert(seq, reference);
        self.head = self.head.max(seq);
        reference
    }
}

// ===== impl Tally =====

impl Tally {
    /// What no stream may notice, in words; `None` if nothing did happen to any of so many.
    pub(crate) fn noticed(&self, streams: usize) -> Option<String> {
        let Self { connected, resumed, ends, lost, doubled, wrong, faults, .. } = self;
        let extra = connected.abs_diff(streams as u64);
        let none =
            [extra, *resumed, *ends, *lost, *doubled, *wrong].iter().all(|count| *count == 0);
        (!none).then(|| {
            format!(
                "{connected} connected of {streams}, {resumed} resumed, {ends} ended, {lost} lost, {doubled} doubled, \
                 {wrong} wrong: {faults:#?}"
            )
        })
    }

    fn fault(&mut self, what: String) {
        if self.faults.len() < FAULTS {
            self.faults.push(what);
        }
    }
}

/// A chunk of a stream.
enum Event<'a> {
    Comment,
    Greeting { name: &'a str, id: EventId },
    Invalidate { id: EventId, data: &'a str },
}

// ===== impl Event =====

impl<'a> Event<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if text.starts_with(": ") {
            return (text.find('\n') == Some(text.len() - 1)).then_some(Self::Comment);
        }
        let lines: Vec<_> = text.strip_suffix("\n\n")?.split('\n').collect();
        match lines[..] {
            [retry, id, event, data]
                if retry.starts_with("retry: ") && data.starts_with("data: ") =>
            {
                let id = id.strip_prefix("id: ")?.parse().ok()?;
                Some(Self::Greeting { name: event.strip_prefix("event: ")?, id })
            }
            [id, "event: invalidate", data] => {
                let id = id.strip_prefix("id: ")?.parse().ok()?;
                Some(Self::Invalidate { id, data: data.strip_prefix("data: ")? })
            }
            _ => None,
        }
    }
}

/// The first chunk, and what follows it; `None` if it is not complete.
fn chunk(bytes: &[u8]) -> io::Result<Option<(&[u8], &[u8])>> {
    let Some(end) = find(bytes, b"\r\n") else {
        return if bytes.len() > 16 { Err(wrong("the size of a chunk", bytes)) } else { Ok(None) };
    };
    let size = std::str::from_utf8(&bytes[..end]).ok().filter(|size| !size.starts_with('0'));
    let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
    // The last chunk is an end too.
    let size = size.ok_or_else(|| wrong("the size of a chunk", &bytes[..end]))?;
    let Some((text, after)) = bytes[end + 2..].split_at_checked(size) else { return Ok(None) };
    match after {
        [b'\r', b'\n', after @ ..] => Ok(Some((text, after))),
        [] | [b'\r'] => Ok(None),
        _ => Err(wrong("the end of a chunk", after)),
    }
}

/// The number in a key of [`key`], and when it was made.
fn parse_key(key: &str) -> Option<(u64, Duration)> {
    let (number, at) = key.strip_prefix("k:")?.split_once(':')?;
    Some((number.parse().ok()?, Duration::from_micros(at.parse().ok()?)))
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn wrong(what: &str, bytes: &[u8]) -> io::Error {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    io::Error::other(format!("{what} is not what a stream has: {shown:?}"))
}

/// FNV-1a.
fn hash(text: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    text.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Since 1970: processes of a machine agree about it.
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
