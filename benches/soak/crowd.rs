//! The steady subscribers: one thread reads for all of them, and holds each to the promise. Now and
//! then all of one org are restarted at once; half of them come back to where they were.

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

use super::client::request;
use super::follower::{Follower, Heard};
use super::stage::{ORGS, Part, Phase, Stage, Tally, add, org};
use crate::shared::process::now;

pub(crate) struct Crowd {
    poll: Poll,
    address: SocketAddr,
    stage: Arc<Stage>,
    /// Number `n` listens to the org `n % ORGS`.
    subscribers: Vec<Subscriber>,
    /// Nobody of this org is there until then.
    away: Option<(usize, Instant)>,
    /// When the next org is restarted, and which.
    next: (usize, Instant),
    buffer: Box<[u8]>,
}

#[derive(Default)]
struct Subscriber {
    stream: Option<TcpStream>,
    parser: Parser,
    follower: Follower,
}

const TURN: Duration = Duration::from_millis(20);
const RESTART_EVERY: Duration = Duration::from_secs(4);
/// Some publishes are missed meanwhile, fewer than are remembered.
const AWAY: Duration = Duration::from_millis(700);
const BUFFER: usize = 64 * 1024;

// ===== impl Crowd =====

impl Crowd {
    pub(crate) fn open(address: SocketAddr, stage: Arc<Stage>, count: usize) -> io::Result<Self> {
        let mut crowd = Self {
            poll: Poll::new()?,
            address,
            stage,
            subscribers: (0..count).map(|_| Subscriber::default()).collect(),
            away: None,
            next: (0, now() + RESTART_EVERY),
            buffer: vec![0; BUFFER].into(),
        };
        (0..ORGS).try_for_each(|org| crowd.come(org))?;
        Ok(crowd)
    }

    pub(crate) fn run(mut self) -> Result<(), Box<dyn Error>> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.stage.phase() {
                Phase::Run => self.restart()?,
                Phase::End => break,
                Phase::Settle | Phase::LastWord => {}
            }
            if let Some((org, until)) = self.away
                && now() >= until
            {
                self.come(org)?;
                self.away = None;
            }
            self.turn(&mut events)?;
            self.settle();
        }
        (0..ORGS).try_for_each(|org| self.go(org, org % 2 == 0))?;
        Ok(())
    }

    /// Sends everybody of one org away.
    fn restart(&mut self) -> io::Result<()> {
        let (org, due) = self.next;
        if self.away.is_some() || now() < due {
            return Ok(());
        }
        self.go(org, fastrand::bool())?;
        self.away = Some((org, now() + AWAY));
        self.next = ((org + 1) % ORGS, now() + RESTART_EVERY);
        add(&self.stage.tally.restarts, 1);
        Ok(())
    }

    fn go(&mut self, org: usize, reset: bool) -> io::Result<()> {
        for subscriber in self.subscribers.iter_mut().skip(org).step_by(ORGS) {
            let Some(stream) = subscriber.stream.take() else { continue };
            if reset {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            }
            subscriber.follower.leave();
            self.stage.tally.open.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A browser comes back to where it was; a page that was loaded again knows of nothing.
    fn come(&mut self, org: usize) -> io::Result<()> {
        for number in (org..self.subscribers.len()).step_by(ORGS) {
            let subscriber = &mut self.subscribers[number];
            if (number / ORGS).is_multiple_of(2) {
                subscriber.follower = Follower::default();
                subscriber.parser = Parser::default();
            }
            let last = subscriber.parser.last_event_id().to_owned();
            let mut stream = std::net::TcpStream::connect(self.address)?;
            let path = format!("/api/{}/events", self::org(org));
            let known = Some(&*last).filter(|last| !last.is_empty());
            stream.write_all(request(&path, known).as_bytes())?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            self.poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            subscriber.stream = Some(stream);
            subscriber.parser = Parser::resume(last);
            add(&self.stage.tally.open, 1);
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
            let subscriber = &mut self.subscribers[number];
            let heard = subscriber.read(&mut self.buffer, &self.stage.tally);
            heard.map_err(|why| format!("subscriber {number}, {}: {why}", org(number % ORGS)))?;
        }
        Ok(())
    }

    /// Says so once everybody is there, and once everybody has heard the last word.
    fn settle(&self) {
        let phase = self.stage.phase();
        // Before the numbers, which are the last ones then.
        let spoken = self.stage.has_reached(Part::Publisher, Phase::LastWord);
        let numbers = self.stage.numbers.each_ref().map(|n| n.load(Ordering::Acquire));
        let is_late = |(number, one): &(usize, &Subscriber)| match phase {
            Phase::LastWord => !spoken || !one.follower.is_at(numbers[number % ORGS]),
            _ => !one.follower.is_greeted(),
        };
        if phase == Phase::Run {
            return;
        }
        let behind = self.subscribers.iter().enumerate().filter(is_late).count() as u64;
        self.stage.tally.behind.store(behind, Ordering::Relaxed);
        if behind == 0 && self.away.is_none() {
            self.stage.reach(Part::Crowd, phase);
        }
    }
}

// ===== impl Subscriber =====

impl Subscriber {
    /// Takes all that has come. The parser is given the chunk framing too: a chunk is a whole event or
    /// comment, and its size line, like a line of the head, is a field that no parser knows.
    fn read(&mut self, buffer: &mut [u8], tally: &Tally) -> Result<(), Box<dyn Error>> {
        // An event of the poller may be of a stream that was sent away meanwhile.
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let follower = &mut self.follower;
        loop {
            let length = match stream.read(buffer) {
                Ok(0) => return Err("the server ended the stream".into()),
                Ok(length) => length,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why.into()),
            };
            let mut broken = None;
            self.parser.push(&buffer[..length], |event| {
                match follower.hear(&event) {
                    Ok(heard) => count(tally, heard),
                    Err(why) => _ = broken.get_or_insert(why),
                };
            })?;
            if let Some(why) = broken {
                return Err(why.into());
            }
        }
    }
}

fn count(tally: &Tally, heard: Heard) {
    let counter = match heard {
        Heard::Connected => &tally.connected,
        Heard::Resumed => &tally.resumed,
        Heard::Reread => &tally.rereads,
        Heard::Invalidate => &tally.heard,
    };
    add(counter, 1);
}
