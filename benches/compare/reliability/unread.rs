//! What clients that read nothing after the head of their response cost a server, and the clients that do read; and when
//! the server closes their streams.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nudged::bench::{Load, Options, Quantiles, Tally};
use nudged::client::Verify;
use socket2::{Domain, Protocol, Socket, Type};

use super::padded::padded;
use super::sockets::{self, held, sockets};
use super::{Ask, Question};
use crate::measure::{ORG, Outcome, Plan};
use crate::peer::Peer;
use crate::servers::Server;
use crate::shared::process::now;

pub(super) const QUESTION: Question = Question {
    key: "unread",
    short: "a client that does not read",
    title: "What does a client that does not read cost, and when is its stream closed?",
    how: "100 clients read the head of their response and nothing more, beside 20 that read. Their receive buffer is one \
          of 4 KiB; that of a browser has 128 KiB and more, and it falls behind by so much later. Up to 200 events of \
          1 KiB a second, for 120 s, or until all 100 streams are closed or the server's memory has grown by a GiB. A \
          stream is closed once the server has no descriptor of it. Memory: the most of PSS beyond that before these \
          clients, divided by 100, and the most in a send queue of the kernel. Latencies count from when a publish was \
          due; in brackets those of 2,000 events to the 20 alone. After each 100 events the next ones wait until the \
          20 have received them. Durable Streams ends every stream after 60 s, those of clients that read, too.",
    ask: Ask::Each(ask),
};

/// Clients that do not read.
struct Stalled {
    /// The server's.
    process: u32,
    _clients: Vec<TcpStream>,
    /// The numbers of the server's ends that are open.
    open: HashSet<u64>,
    /// When streams were found to be closed: their number, the time, and the events until then.
    closed: Vec<(usize, Duration, u32)>,
    /// The server's user memory before.
    pss: u64,
    /// The most of user memory that they have cost together, and of the kernel's send queue for one of them.
    pss_max: u64,
    queued_max: u64,
}

/// Clients that do read, and the publishes.
struct Readers {
    load: Load,
    /// What they had received before anything was measured.
    before: Tally,
    /// Ends a part that takes too long: a publish may wait for its response.
    _limit: mpsc::Sender<()>,
    stop: Arc<AtomicBool>,
}

/// What the readers received, in milliseconds from when each publish was due.
struct Part {
    latency: Quantiles,
    /// Events published.
    events: u32,
    /// The same a second, without the looks in between.
    rate: f64,
}

const STALLED: usize = 100;
const READERS: usize = 20;
/// The smallest that is usual; Linux doubles it.
const RECEIVE_BUFFER: usize = 4 * 1024;

/// Events before anything is measured, so that the histories of the servers are full: 4,096 events at most.
const BEFORE: u32 = 4_200;
/// Events to the readers alone.
const ALONE: u32 = 2_000;
const EVERY: Duration = Duration::from_millis(5);
/// Events between two looks at the server.
const BATCH: u32 = 100;
const EVENT_BYTES: u64 = 1_024;

/// How long the stalled clients are waited for: twice the longest timeout of these servers, 60 s (`send_timeout` of nginx,
/// `--stall-timeout` of nudged).
const WAIT: Duration = Duration::from_secs(120);
/// The same by the server's memory: some would fill that of the machine.
const GROWTH_MAX: u64 = 1 << 30;
/// For everything together, publishes that wait included.
const LIMIT: Duration = Duration::from_secs(300);
/// After which events that have not arrived count as missed.
const MISSED: Duration = Duration::from_secs(3);
const READ: Duration = Duration::from_secs(10);
const HEAD_MAX: usize = 16 * 1024;

const KIB: f64 = 1_024.0;
const MIB: f64 = KIB * KIB;

fn ask(peer: Peer, plan: &Plan, log: &dyn Fn(&str)) -> Outcome<String> {
    let mut server = peer.start(plan)?;
    let mut readers = Readers::open(&server)?;
    log("events until the history is full");
    readers.load.publish(BEFORE, Duration::ZERO)?;
    readers.before = readers.load.tally();
    log("events to clients that read");
    let alone = readers.part(|events| events == ALONE)?;
    log("events also to clients that do not read");
    let mut stalled = Stalled::open(&mut server)?;
    let (start, mut fault) = (now(), None);
    let is_over = |events| {
        fault = stalled.look(&server, start.elapsed(), events).err();
        fault.is_some() || stalled.is_over(start.elapsed())
    };
    let both = readers.part(is_over)?;
    if let Some(why) = fault {
        return Err(why.into());
    }
    let took = start.elapsed();
    Ok(format!("{}; {}", stalled.answer(took, both.events), readers.answer(&alone, &both)))
}

// ===== impl Stalled =====

impl Stalled {
    fn open(server: &mut Server) -> Outcome<Self> {
        let (process, pss) = (server.process().id(), server.cost()?.pss);
        let address: SocketAddr = server.address().parse()?;
        let path = server.protocol().stream(ORG);
        let clients = (0..STALLED).map(|_| connect(address, &path));
        let clients = clients.collect::<io::Result<Vec<_>>>()?;
        let theirs = clients.iter().map(TcpStream::local_addr);
        let theirs = theirs.collect::<io::Result<HashSet<_>>>()?;
        let open = sockets::find(STALLED, |socket| {
            socket.local.port() == address.port() && theirs.contains(&socket.remote)
        })?;
        let closed = Vec::new();
        Ok(Self { process, _clients: clients, open, closed, pss, pss_max: 0, queued_max: 0 })
    }

    /// Notes what they cost now, and which of their streams were closed.
    fn look(&mut self, server: &Server, at: Duration, events: u32) -> io::Result<()> {
        let held = held(Path::new("/proc"), self.process)?;
        let before = self.open.len();
        self.open.retain(|inode| held.contains(inode));
        if self.open.len() < before {
            self.closed.push((before - self.open.len(), at, events));
        }
        self.pss_max = self.pss_max.max(server.cost()?.pss.saturating_sub(self.pss));
        let ours = sockets()?.into_iter().filter(|socket| self.open.contains(&socket.inode));
        self.queued_max = self.queued_max.max(ours.map(|socket| socket.queued).max().unwrap_or(0));
        Ok(())
    }

    fn is_over(&self, at: Duration) -> bool {
        self.open.is_empty() || at > WAIT || self.pss_max > GROWTH_MAX
    }

    fn answer(&self, took: Duration, events: u32) -> String {
        let closed = STALLED - self.open.len();
        let user = self.pss_max as f64 / STALLED as f64 / KIB;
        let kernel = self.queued_max as f64 / KIB;
        let cost =
            format!("{} KiB of user memory each, {} KiB in the kernel", short(user), short(kernel));
        let ends = self.closed.first().zip(self.closed.last());
        let when = match ends {
            Some(((_, first, least), (_, last, most))) => {
                let seconds = range(first.as_secs_f64(), last.as_secs_f64(), 0);
                let behind = range(mib(*least), mib(*most), 1);
                let few =
                    if self.open.is_empty() { "" } else { &format!("{closed} of {STALLED} ") };
                format!("{few}closed after {seconds} s, {behind} MiB behind")
            }
            None => {
                let why =
                    if self.pss_max > GROWTH_MAX { ", its memory grown by a GiB" } else { "" };
                let (behind, took) = (mib(events), took.as_secs());
                format!("not closed in {took} s, {behind:.1} MiB behind{why}")
            }
        };
        format!("{when}: {cost}")
    }
}

/// Opens a stream, and reads the head of its response, and perhaps some bytes more.
fn connect(address: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_read_timeout(Some(READ))?;
    socket.connect_timeout(&address.into(), READ)?;
    let mut socket = TcpStream::from(socket);
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    let (mut head, mut buffer) = (Vec::new(), [0; 512]);
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match socket.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if head.len() > HEAD_MAX => return Err(io::ErrorKind::InvalidData.into()),
            length => head.extend_from_slice(&buffer[..length]),
        }
    }
    match head.starts_with(b"HTTP/1.1 200") {
        true => Ok(socket),
        false => Err(io::Error::other(String::from_utf8_lossy(&head))),
    }
}

// ===== impl Readers =====

impl Readers {
    fn open(server: &Server) -> Outcome<Self> {
        let mut publish = server.publish(ORG);
        publish.body = padded(&publish.body).ok_or("a publish without a key")?;
        let options = Options {
            url: server.url(ORG),
            verify: Verify::None,
            http2: None,
            subscribers: READERS,
            ramp: server.pace(),
            headers: Vec::new(),
            sources: Vec::new(),
            publish: Some(publish),
            duration: None,
            processes: Vec::new(),
            drain_timeout: MISSED,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Load::new(&options, Arc::clone(&stop))?;
        load.open(READERS, server.pace(), |_| {})?;
        let (limit, ended) = mpsc::channel();
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                stopped.store(true, Ordering::Relaxed);
            }
        });
        Ok(Self { load, before: Tally::default(), _limit: limit, stop })
    }

    /// Publishes at a steady rate until it is over, which is asked before each batch with the number of events so far.
    fn part(&mut self, mut is_over: impl FnMut(u32) -> bool) -> Outcome<Part> {
        self.load.take_latencies();
        let (mut took, mut events) = (Duration::ZERO, 0);
        while !is_over(events) && !self.stop.load(Ordering::Relaxed) {
            took += self.load.publish(BATCH, EVERY)?;
            events += BATCH;
        }
        let latency = self.load.take_latencies().each().ok_or("no client received an event")?;
        Ok(Part { latency, events, rate: f64::from(events) / took.as_secs_f64() })
    }

    fn answer(&self, alone: &Part, both: &Part) -> String {
        let (before, after) = (self.before, self.load.tally());
        let missed = after.missed - before.missed;
        let twice = after.duplicates - before.duplicates;
        let reordered = after.reordered - before.reordered;
        let ended = after.disconnects - before.disconnects;
        let received = match missed + twice + reordered + ended {
            0 => "received everything".to_owned(),
            _ => format!(
                "{missed} events missed, {twice} received twice, {reordered} out of order, {ended} streams ended"
            ),
        };
        let (p99, max) = (both.latency.p99, both.latency.max);
        let refused = self.load.refusals().map(|(count, why)| format!("; {count} refused: {why}"));
        let slow = match both.rate < alone.rate * 0.95 {
            true => format!("; {:.0} publishes a second instead of {:.0}", both.rate, alone.rate),
            false => String::new(),
        };
        format!(
            "clients that read: {received}, p99 {p99:.1} ms ({:.1} ms), worst {max:.0} ms ({:.0} ms){slow}{}",
            alone.latency.p99,
            alone.latency.max,
            refused.unwrap_or_default()
        )
    }
}

fn mib(events: u32) -> f64 {
    u64::from(events) as f64 * EVENT_BYTES as f64 / MIB
}

/// With a digit after the point where that matters.
fn short(number: f64) -> String {
    if number < 10.0 { format!("{number:.1}") } else { format!("{number:.0}") }
}

/// One number, if the two are the same with so many digits.
fn range(from: f64, to: f64, digits: usize) -> String {
    let [from, to] = [from, to].map(|number| format!("{number:.digits$}"));
    if from == to { to } else { format!("{from} to {to}") }
}
