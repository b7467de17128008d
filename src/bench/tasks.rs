//! Streams with a task each: over HTTP/2, many per connection, and over TLS. Their updates reach the
//! subscribers through one bounded channel.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::connection::{Route, Update, UpdateKind, serve};
use super::error::Error;
use super::ramp::{Transport, connect, source_of};
use super::subscriber::Phase;
use super::subscribers::Subscribers;

/// All streams of one URL.
#[derive(Debug)]
pub(crate) struct Tasks {
    route: Arc<Route>,
    sources: Vec<IpAddr>,
    streams: usize,
    connections: Connections,
}

/// The runtime of the tasks, and the channels to and from them.
#[derive(Debug)]
struct Connections {
    runtime: Runtime,
    updates: Receiver<Update>,
    sender: Sender<Update>,
    /// Takes the numbers of the streams that the newest connection has to start.
    newest: Option<Sender<usize>>,
    /// Duplicates of all sockets, to reset them.
    sockets: Vec<Socket>,
}

/// Updates that may wait in the channel; beyond, the tasks wait.
const UPDATES_MAX: usize = 1024;

// ===== impl Tasks =====

impl Tasks {
    pub(crate) fn new(route: Route, sources: Vec<IpAddr>) -> Result<Self, Error> {
        let connections = Connections::new()?;
        Ok(Self { route: route.into(), sources, streams: 0, connections })
    }

    fn connect(&mut self) -> io::Result<Sender<usize>> {
        let Connections { runtime, sender, sockets, .. } = &mut self.connections;
        let source = source_of(sockets.len(), self.route.address, &self.sources);
        let socket = connect(self.route.address, source)?;
        sockets.push(socket.try_clone()?.into());
        let (newest, numbers) = mpsc::channel(self.route.streams_per_connection());
        runtime.spawn(serve(self.route.clone(), socket, numbers, sender.clone()));
        Ok(newest)
    }
}

impl Transport for Tasks {
    fn open(&mut self) -> Result<(), Error> {
        let is_full = self.streams.is_multiple_of(self.route.streams_per_connection());
        let connection = match self.connections.newest.take_if(|_| !is_full) {
            Some(connection) => connection,
            None => self.connect().map_err(Error::system("opening a connection"))?,
        };
        connection
            .try_send(self.streams)
            .expect("the channel has room for all streams, and its task waits for them");
        self.connections.newest = Some(connection);
        self.streams += 1;
        Ok(())
    }

    fn poll(&mut self, subscribers: &mut Subscribers, wait: Duration) -> Result<(), Error> {
        let Connections { runtime, updates, .. } = &mut self.connections;
        #[expect(clippy::disallowed_methods, reason = "one timer for all streams")]
        let first = runtime.block_on(async { tokio::time::timeout(wait, updates.recv()).await });
        let mut next = first.ok().flatten();
        while let Some(update) = next {
            apply(subscribers, update)?;
            next = self.connections.updates.try_recv().ok();
        }
        Ok(())
    }

    fn close(&mut self, reset: bool) -> io::Result<()> {
        if reset {
            let linger = |socket: &Socket| socket.set_linger(Some(Duration::ZERO));
            self.connections.sockets.iter().try_for_each(linger)?;
        }
        self.streams = 0;
        self.connections = Connections::new().map_err(io::Error::other)?;
        Ok(())
    }
}

fn apply(subscribers: &mut Subscribers, update: Update) -> Result<(), Error> {
    let Update { stream, at, kind } = update;
    match kind {
        // The response arrived after the time limit.
        _ if subscribers.phase(stream) == Phase::Closed => {}
        UpdateKind::Response(status) => {
            if !subscribers.respond(stream, status) {
                subscribers.end(stream, None);
            }
        }
        UpdateKind::Body(bytes) => {
            subscribers.tally.bytes += bytes.len() as u64;
            subscribers.receive(stream, &bytes, at);
        }
        UpdateKind::End(why) => subscribers.end(stream, why),
        UpdateKind::Unusable(why) => return Err(Error::Server(why)),
    }
    Ok(())
}

// ===== impl Connections =====

impl Connections {
    fn new() -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::system("starting a runtime"))?;
        let (sender, updates) = mpsc::channel(UPDATES_MAX);
        Ok(Self { runtime, updates, sender, newest: None, sockets: Vec::new() })
    }
}
