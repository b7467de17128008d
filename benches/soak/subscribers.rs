//! The steady subscribers: one thread reads all of their streams, and checks each. Every few seconds all
//! subscribers of one org are restarted; half of them resume.

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nudged::wire::Parser;
use socket2::SockRef;

use super::checker::{Checker, Received};
use super::client::subscribe;
use super::phase::{ORGS, Phase, Role, Shared, Tally, add, org};
use crate::shared::process::now;

pub(crate) struct Subscribers {
    poll: Poll,
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Number `n` subscribes to the org `n % ORGS`.
    all: Vec<Subscriber>,
    /// The org whose subscribers are disconnected, and until when.
    away: Option<(usize, Instant)>,
    /// The org that is restarted next, and when.
    next: (usize, Instant),
    buffer: Box<[u8]>,
}

#[derive(Default)]
struct Subscriber {
    stream: Option<TcpStream>,
    parser: Parser,
    checker: Checker,
}

const TURN: Duration = Duration::from_millis(20);
const RESTART_EVERY: Duration = Duration::from_secs(4);
/// Long enough to miss publishes, short enough to resume.
const AWAY: Duration = Duration::from_millis(700);
const BUFFER: usize = 64 * 1024;

// ===== impl Subscribers =====

impl Subscribers {
    pub(crate) fn open(address: SocketAddr, shared: Arc<Shared>, count: usize) -> io::Result<Self> {
        let mut subscribers = Self {
            poll: Poll::new()?,
            address,
            shared,
            all: (0..count).map(|_| Subscriber::default()).collect(),
            away: None,
            next: (0, now() + RESTART_EVERY),
            buffer: vec![0; BUFFER].into(),
        };
        (0..ORGS).try_for_each(|org| subscribers.connect(org))?;
        Ok(subscribers)
    }

    pub(crate) fn run(mut self) -> Result<(), Box<dyn Error>> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.shared.phase() {
                Phase::Run => self.restart()?,
                Phase::Stop => break,
                Phase::Settle | Phase::Quiesce => {}
            }
            if let Some((org, until)) = self.away
                && now() >= until
            {
                self.connect(org)?;
                self.away = None;
            }
            self.turn(&mut events)?;
            self.report();
        }
        (0..ORGS).try_for_each(|org| self.disconnect(org, org % 2 == 0))?;
        Ok(())
    }

    /// Disconnects all subscribers of one org, when it is due.
    fn restart(&mut self) -> io::Result<()> {
        let (org, due) = self.next;
        if self.away.is_some() || now() < due {
            return Ok(());
        }
        self.disconnect(org, fastrand::bool())?;
        self.away = Some((org, now() + AWAY));
        self.next = ((org + 1) % ORGS, now() + RESTART_EVERY);
        add(&self.shared.tally.restarts, 1);
        Ok(())
    }

    fn disconnect(&mut self, org: usize, reset: bool) -> io::Result<()> {
        for subscriber in self.all.iter_mut().skip(org).step_by(ORGS) {
            let Some(stream) = subscriber.stream.take() else { continue };
            if reset {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            }
            subscriber.checker.disconnect();
            self.shared.tally.open.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Connects the subscribers of one org: half of them like browsers that reconnect, half like pages that are
    /// reloaded.
    fn connect(&mut self, org: usize) -> io::Result<()> {
        for number in (org..self.all.len()).step_by(ORGS) {
            let subscriber = &mut self.all[number];
            if (number / ORGS).is_multiple_of(2) {
                subscriber.checker = Checker::default();
                subscriber.parser = Parser::default();
            }
            let last = subscriber.parser.last_event_id().to_owned();
            let mut stream = std::net::TcpStream::connect(self.address)?;
            let path = format!("/api/{}/events", self::org(org));
            let known = Some(&*last).filter(|last| !last.is_empty());
            stream.write_all(subscribe(&path, known).as_bytes())?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            self.poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            subscriber.stream = Some(stream);
            subscriber.parser = Parser::resume(last);
            add(&self.shared.tally.open, 1);
        }
        Ok(())
    }

    fn turn(&mut self, events: &mut Events) -> Result<(), Box<dyn Error>> {
        match self.poll.poll(events, Some(TURN)) {
            Err(why) if why.kind() != ErrorKind::Interrupted => return Err(why.into()),
            _ => {}
        }
        for event in &*events {
            let number = event.token().0;
            let subscriber = &mut self.all[number];
            let done = subscriber.read(&mut self.buffer, &self.shared.tally);
            done.map_err(|why| format!("subscriber {number}, {}: {why}", org(number % ORGS)))?;
        }
        Ok(())
    }

    /// Reports the phase as reached once every subscriber has its greeting, and in the last phases the
    /// last number too.
    fn report(&self) {
        let phase = self.shared.phase();
        // Loaded before the numbers, which no longer change then.
        let published = self.shared.has_reached(Role::Publisher, Phase::Quiesce);
        let numbers = self.shared.numbers.each_ref().map(|n| n.load(Ordering::Acquire));
        let is_late = |(number, one): &(usize, &Subscriber)| match phase {
            Phase::Quiesce => !published || !one.checker.is_at(numbers[number % ORGS]),
            _ => !one.checker.is_greeted(),
        };
        if phase == Phase::Run {
            return;
        }
        let behind = self.all.iter().enumerate().filter(is_late).count() as u64;
        self.shared.tally.behind.store(behind, Ordering::Relaxed);
        if behind == 0 && self.away.is_none() {
            self.shared.reach(Role::Subscribers, phase);
        }
    }
}

// ===== impl Subscriber =====

impl Subscriber {
    /// Reads all bytes that have arrived. The parser is passed the head and the chunk framing too: a chunk is
    /// exactly one event or comment, and its size line, like a line of the head, is an unknown field.
    fn read(&mut self, buffer: &mut [u8], tally: &Tally) -> Result<(), Box<dyn Error>> {
        // The stream may have been disconnected after the poller reported it.
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let checker = &mut self.checker;
        loop {
            let length = match stream.read(buffer) {
                Ok(0) => return Err("the server ended the stream".into()),
                Ok(length) => length,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why.into()),
            };
            let mut broken = None;
            self.parser.push(&buffer[..length], |event| {
                match checker.check(&event) {
                    Ok(received) => count(tally, received),
                    Err(why) => _ = broken.get_or_insert(why),
                };
            })?;
            if let Some(why) = broken {
                return Err(why.into());
            }
        }
    }
}

fn count(tally: &Tally, received: Received) {
    let counter = match received {
        Received::Connected => &tally.connected,
        Received::Resumed => &tally.resumed,
        Received::Reread => &tally.rereads,
        Received::Invalidate => &tally.received,
    };
    add(counter, 1);
}
