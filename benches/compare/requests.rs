//! What a flood of requests adds to deliveries: the time until an event has reached the last subscriber, while the
//! worker is idle and while clients pipeline requests.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nudged::bench::Quantiles;

use super::measure::{ORG, Outcome, Plan, load};
use super::peer::Peer;
use super::processors::Processors;
use super::servers::Server;
use crate::shared::http::{Connection, get};
use crate::shared::process::now;
use crate::shared::record::heading;

/// The time until the last subscriber was reached, in milliseconds.
pub(crate) struct Requests {
    peer: Peer,
    quiet: Quantiles,
    busy: Quantiles,
    requests_per_second: f64,
}

/// A client that pipelines.
struct Pipeline {
    socket: TcpStream,
    /// Bytes of the responses that have not arrived yet.
    owed: usize,
    /// Bytes of the requests that are not sent yet.
    unsent: usize,
}

const CLIENTS: usize = 300;
/// Requests that a client sends at once; it sends as many again once all are answered.
const DEPTH: usize = 16;
const PATH: &str = "/livez";

/// How long to wait between two events.
const GAP: Duration = Duration::from_millis(5);
/// Time limit of a part: a server that starves its subscribers is measured with fewer events.
const PART: Duration = Duration::from_secs(30);
/// How often the flood looks whether it has to end.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) fn run(peer: Peer, plan: &Plan, mut progress: impl FnMut(&str)) -> Outcome<Requests> {
    let processors = Processors::find()?;
    processors.take_first()?;
    let started = peer.start(plan);
    processors.take_others()?;
    let server = started?;
    let mut load = load(&server, ORG, plan.subscribers)?;
    progress("connect");
    load.open(plan.subscribers, server.pace(), |_| {})?;
    load.publish(1, Duration::ZERO)?;

    let mut part = || -> Outcome<Quantiles> {
        load.take_latencies();
        let start = now();
        for _ in 0..plan.rounds {
            load.publish(1, Duration::ZERO)?;
            load.wait(Some(GAP))?;
            if start.elapsed() > PART {
                break;
            }
        }
        load.take_latencies().last().ok_or_else(|| "no event reached all subscribers".into())
    };
    progress("deliveries alone");
    let quiet = part()?;
    progress("deliveries in a flood of requests");
    let done = Arc::new(AtomicBool::new(false));
    let (stop, mut clients) = (Arc::clone(&done), Flood::open(&server)?);
    let flood = thread::spawn(move || clients.run(&stop));
    let busy = part();
    done.store(true, Ordering::Relaxed);
    let requests_per_second = flood.join().expect("the flood does not panic")?;
    if !load.tally().is_clean() {
        return Err(format!("events were lost: {:?}", load.tally()).into());
    }
    load.close(true)?;
    Ok(Requests { peer, quiet, busy: busy?, requests_per_second })
}

/// The clients that pipeline, and the length of what they send and receive.
struct Flood {
    poll: Poll,
    clients: Vec<Pipeline>,
    requests: Vec<u8>,
    response_length: usize,
}

// ===== impl Flood =====

impl Flood {
    fn open(server: &Server) -> Outcome<Self> {
        let address: SocketAddr = server.address().parse()?;
        let request = get(PATH, "");
        let response_length = response_length(address, &request)?;
        let poll = Poll::new()?;
        let mut clients = Vec::with_capacity(CLIENTS);
        for number in 0..CLIENTS {
            let mut socket = TcpStream::connect(address)?;
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut socket, Token(number), both)?;
            clients.push(Pipeline { socket, owed: 0, unsent: 0 });
        }
        Ok(Self { poll, clients, requests: request.repeat(DEPTH).into(), response_length })
    }

    /// Sends requests until `done`. Returns the number of responses a second.
    fn run(&mut self, done: &AtomicBool) -> io::Result<f64> {
        let mut events = Events::with_capacity(CLIENTS);
        let (start, mut received) = (now(), 0);
        while !done.load(Ordering::Relaxed) {
            self.poll.poll(&mut events, Some(LOOK))?;
            for event in &events {
                let client = &mut self.clients[event.token().0];
                received += client.go_on(&self.requests, self.response_length * DEPTH)?;
            }
        }
        Ok((received / self.response_length) as f64 / start.elapsed().as_secs_f64())
    }
}

/// The bytes of a response, head and body.
fn response_length(address: SocketAddr, request: &str) -> io::Result<usize> {
    let mut connection = Connection::open(address)?;
    connection.send(request)?;
    let (mut length, mut body) = (0, 0);
    loop {
        let line = connection.read_line()?;
        length += line.len() + "\r\n".len();
        match line.to_ascii_lowercase().strip_prefix("content-length: ") {
            Some(number) => body = number.parse().map_err(io::Error::other)?,
            None if line.is_empty() => return Ok(length + body),
            None => {}
        }
    }
}

// ===== impl Pipeline =====

impl Pipeline {
    /// Sends and receives as much as the socket allows. Returns the number of bytes received.
    fn go_on(&mut self, requests: &[u8], responses_length: usize) -> io::Result<usize> {
        let (mut received, mut buffer) = (0, [0; 16 * 1024]);
        loop {
            if self.owed == 0 {
                (self.owed, self.unsent) = (responses_length, requests.len());
            }
            if self.unsent > 0 {
                match self.socket.write(&requests[requests.len() - self.unsent..]) {
                    Ok(sent) => self.unsent -= sent,
                    Err(why) if is_for_later(&why) => return Ok(received),
                    Err(why) => return Err(why),
                }
            }
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    received += length;
                    self.owed = self.owed.checked_sub(length).ok_or(ErrorKind::InvalidData)?;
                }
                Err(why) if is_for_later(&why) => return Ok(received),
                Err(why) => return Err(why),
            }
        }
    }
}

fn is_for_later(why: &io::Error) -> bool {
    // A socket is not connected yet.
    matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

pub(crate) fn markdown(plan: &Plan, all: &[Requests], absent: &[(Peer, String)]) -> String {
    let mut text = heading("requests");
    let _ = write!(
        text,
        "One worker on a processor of its own. Up to {} events, one at a time, go to {} subscribers, first alone, then \
         while {CLIENTS} further clients each pipeline {DEPTH} × `GET {PATH}` again and again. The time from a publish \
         to the last subscriber, in ms. The generator has the other processors, and shares them with the flood.\n\n\
         | | p50 alone | p99 alone | p50 in the flood | p99 in the flood | p50 ratio | p99 ratio | events | requests/s |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        plan.rounds, plan.subscribers
    );
    for Requests { peer, quiet, busy, requests_per_second } in all {
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {:.1} | {} | {requests_per_second:.0} |",
            peer.name(),
            quiet.p50,
            quiet.p99,
            busy.p50,
            busy.p99,
            busy.p50 / quiet.p50,
            busy.p99 / quiet.p99,
            busy.count
        );
    }
    for (peer, why) in absent {
        let _ = writeln!(text, "\n{}: not measured: {why}", peer.name());
    }
    text
}
