//! Streams over HTTP/2, many to a connection. A task follows each of them, so that a frame for one
//! costs nothing for the others; what they hear comes to the crowd through one bounded channel.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use socket2::Socket;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::connection::{Route, carry};
use super::ramp::{Carrier, SILENT, connect};
use super::subscriber::{Phase, Subscriber};
use super::subscribers::Crowd;
use super::target::Error;

/// Many streams of one URL.
#[derive(Debug)]
pub(crate) struct Multiplexed {
    route: Route,
    sources: Vec<IpAddr>,
    subscribers: Vec<Subscriber>,
    tasks: Tasks,
}

/// What runs, and how it is heard.
#[derive(Debug)]
struct Tasks {
    runtime: Runtime,
    heard: Receiver<Heard>,
    tell: Sender<Heard>,
    /// Takes the numbers of the streams that the newest connection is to begin.
    newest: Option<Sender<usize>>,
    /// Of every connection, to end it with a RST.
    sockets: Vec<Socket>,
}

/// What came of one stream.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) number: usize,
    pub(crate) at: Instant,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// The status of its answer.
    Answer(u16),
    /// A part of its body.
    Body(Bytes),
    /// Its end, and why it came before an answer.
    End(Option<String>),
    /// No stream of the whole run can come about.
    Hopeless(String),
}

/// How much may have been heard and not taken in; whoever has more to tell waits.
const HEARD_MAX: usize = 1024;

// ===== impl Multiplexed =====

impl Multiplexed {
    pub(crate) fn new(route: Route, sources: Vec<IpAddr>) -> Result<Self, Error> {
        Ok(Self { route, sources, subscribers: Vec::new(), tasks: Tasks::new()? })
    }

    fn connect(&mut self) -> io::Result<Sender<usize>> {
        let number = self.tasks.sockets.len();
        let source = self.route.target.source(number, &self.sources);
        let socket = connect(self.route.target.address, source)?;
        self.tasks.sockets.push(socket.try_clone()?.into());
        let (newest, numbers) = mpsc::channel(self.route.streams_per_connection);
        let (route, tell) = (self.route.clone(), self.tasks.tell.clone());
        self.tasks.runtime.spawn(carry(route, socket, numbers, tell));
        Ok(newest)
    }

    fn take(&mut self, crowd: &mut Crowd, heard: Heard) -> Result<(), Error> {
        let subscriber = &mut self.subscribers[heard.number];
        match heard.what {
            // It was given up, and answered after all.
            _ if subscriber.phase == Phase::Closed => {}
            What::Answer(status) => {
                if !crowd.answer(subscriber, status) {
                    crowd.lose(subscriber, None);
                }
            }
            What::Body(bytes) => {
                crowd.tally.bytes += bytes.len() as u64;
                crowd.hear(subscriber, &bytes, heard.at);
            }
            What::End(why) => crowd.lose(subscriber, why),
            What::Hopeless(why) => {
                let authority = self.route.target.authority.clone();
                return Err(Error::Server { authority, why });
            }
        }
        Ok(())
    }
}

impl Carrier for Multiplexed {
    fn reserve(&mut self, count: usize) {
        self.subscribers.reserve_exact(count);
    }

    fn dial(&mut self, next: u32) -> Result<(), Error> {
        let number = self.subscribers.len();
        let is_full = number.is_multiple_of(self.route.streams_per_connection);
        let connection = match self.tasks.newest.take_if(|_| !is_full) {
            Some(connection) => connection,
            None => self.connect().map_err(Error::system("opening a connection"))?,
        };
        connection
            .try_send(number)
            .expect("it has room for all its streams and lives to take them");
        self.tasks.newest = Some(connection);
        self.subscribers.push(Subscriber::new(Phase::Asking, next));
        Ok(())
    }

    fn turn(&mut self, crowd: &mut Crowd, wait: Duration) -> Result<(), Error> {
        let Tasks { runtime, heard, .. } = &mut self.tasks;
        #[expect(clippy::disallowed_methods, reason = "a client tool that waits for its streams")]
        let first = runtime.block_on(async { tokio::time::timeout(wait, heard.recv()).await });
        let mut next = first.ok().flatten();
        while let Some(heard) = next {
            self.take(crowd, heard)?;
            next = self.tasks.heard.try_recv().ok();
        }
        Ok(())
    }

    fn abandon(&mut self, crowd: &mut Crowd) {
        for subscriber in &mut self.subscribers {
            if subscriber.phase == Phase::Asking {
                crowd.lose(subscriber, Some(SILENT.into()));
            }
        }
    }

    fn is_behind(&self, published: u32) -> bool {
        self.subscribers.iter().any(|subscriber| subscriber.is_behind(published))
    }

    fn settle(&mut self, crowd: &mut Crowd, published: u32) {
        crowd.settle(self.subscribers.iter_mut(), published);
    }

    fn close(&mut self, reset: bool) -> io::Result<()> {
        if reset {
            let linger = |socket: &Socket| socket.set_linger(Some(Duration::ZERO));
            self.tasks.sockets.iter().try_for_each(linger)?;
        }
        self.subscribers.clear();
        self.tasks = Tasks::new().map_err(io::Error::other)?;
        Ok(())
    }
}

// ===== impl Tasks =====

impl Tasks {
    fn new() -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::system("starting the streams"))?;
        let (tell, heard) = mpsc::channel(HEARD_MAX);
        Ok(Self { runtime, heard, tell, newest: None, sockets: Vec::new() })
    }
}
