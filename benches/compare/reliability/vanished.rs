//! When a server frees the streams of clients that vanish: their packets are lost from some moment on, so that nothing
//! is acknowledged, and neither a FIN nor a RST comes. Of all servers at once, because it is a wait without load.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nudged::bench::{DRAIN_TIMEOUT, Load, Options};
use nudged::client::Verify;

use super::sockets::{self, held};
use super::{Ask, Question};
use crate::measure::{ORG, Outcome, Plan};
use crate::peer::Peer;
use crate::servers::Server;
use crate::shared::http::Connection;
use crate::shared::machine::{Machine, Vanishes};
use crate::shared::process::now;

pub(super) const QUESTION: Question = Question {
    key: "vanished",
    short: "a client that has vanished is freed",
    title: "Is a client that has vanished freed, and after how long?",
    how: "50 clients in a network namespace open a stream each; then their packets are lost: nothing is acknowledged, \
          and neither a FIN nor a RST comes. Until the server has no descriptor of any of them, at most 20 minutes; \
          all servers at once. With nothing published from then on but keepalives, of 30 s where that can be set; and \
          with an event of some 40 bytes a second: larger ones fill the send queue earlier, by which some servers \
          notice. The kernel by itself gives up after a quarter of an hour (`tcp_retries2`); nudged has it give up \
          after `--peer-timeout` (`TCP_USER_TIMEOUT`), 30 s from the first byte that is not acknowledged. Mercure ends \
          every stream after 480 to 600 s, and an idle connection after 300 s more; Durable Streams ends every stream \
          after 60 s. It needs root and ip(8).",
    ask: Ask::Together(ask),
};

/// A server with the streams of clients that vanish.
struct Held {
    peer: Peer,
    server: Server,
    process: u32,
    /// Open, and never read again.
    _clients: Vec<Connection>,
    /// The numbers of the server's ends.
    streams: HashSet<u64>,
    publishing: Option<Publishing>,
    /// When the first and when the last of the streams was found to be freed.
    first: Option<Duration>,
    last: Option<Duration>,
    /// Streams that it has not freed.
    left: usize,
    /// Why it is asked no more.
    fault: Option<String>,
}

/// A thread that publishes an event in each [`EVERY`], until this is dropped.
struct Publishing {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Clients of each server.
const CLIENTS: usize = 50;
/// Longer than Linux by itself sends again what nothing acknowledges: a quarter of an hour (`tcp_retries2`, tcp(7)).
const WAIT: Duration = Duration::from_secs(20 * 60);
const LOOK: Duration = Duration::from_millis(500);
const EVERY: Duration = Duration::from_secs(1);

/// Asks each of these servers twice: with nothing published after the clients have vanished, and with an event a second.
fn ask(peers: &[Peer], plan: &Plan, log: &dyn Fn(&str)) -> Vec<Outcome<String>> {
    let machine = match machine() {
        Ok(machine) => machine,
        Err(why) => {
            let answer = format!("not answered: needs root and network namespaces: {why}");
            return peers.iter().map(|_| Ok(answer.clone())).collect();
        }
    };
    let start =
        |peer: &Peer| -> Outcome<[Server; 2]> { Ok([peer.start(plan)?, peer.start(plan)?]) };
    let started: Vec<_> = peers.iter().map(start).collect();
    // Only now, so that no stream is much older than the wait: some servers end streams by their age.
    let open = |(peer, servers): (&Peer, Outcome<[Server; 2]>)| -> Outcome<[Held; 2]> {
        let [silent, published] = servers?;
        Ok([Held::open(*peer, silent, &machine)?, Held::open(*peer, published, &machine)?])
    };
    let mut all: Vec<_> = peers.iter().zip(started).map(open).collect();
    let waited = wait(&mut all, &machine, log).map_err(|why| why.to_string());
    let answer = |both: Outcome<[Held; 2]>| {
        waited.clone()?;
        answer(&both?)
    };
    all.into_iter().map(answer).collect()
}

fn machine() -> io::Result<Machine> {
    let machine = Machine::new()?;
    machine.reach_our_loopback()?;
    Ok(machine)
}

/// Lets the clients vanish, and waits until every server has freed them all, or until [`WAIT`] is over.
fn wait(all: &mut [Outcome<[Held; 2]>], machine: &Machine, log: &dyn Fn(&str)) -> Outcome<()> {
    machine.vanish(Vanishes::Packets)?;
    let mut all: Vec<_> = all.iter_mut().flatten().collect();
    for [_, published] in &mut all {
        match Publishing::start(&published.server) {
            Ok(publishing) => published.publishing = Some(publishing),
            Err(why) => published.fault = Some(why.to_string()),
        }
    }
    let start = now();
    let is_waited_for = |both: &&mut [Held; 2]| both.iter().any(Held::is_waited_for);
    while all.iter().any(is_waited_for) && start.elapsed() < WAIT {
        thread::sleep(LOOK);
        all.iter_mut()
            .flat_map(|both| both.iter_mut())
            .for_each(|held| held.look(start.elapsed(), log));
    }
    Ok(())
}

/// The longer time, and then each.
fn answer(both: &[Held; 2]) -> Outcome<String> {
    if let Some(why) = both.iter().find_map(|held| held.fault.clone()) {
        return Err(why.into());
    }
    let [silent, published] = both.each_ref().map(Held::answer);
    let most = both.iter().map(|held| held.last).max().flatten().unwrap_or_default();
    let short = match both.iter().all(|held| held.left == 0) {
        true => format!("after {} s at most", most.as_secs_f64().round()),
        false => format!("not all in {} min", WAIT.as_secs() / 60),
    };
    Ok(format!("{short}: with nothing published, {silent}; with an event a second, {published}"))
}

// ===== impl Held =====

impl Held {
    fn open(peer: Peer, mut server: Server, machine: &Machine) -> Outcome<Self> {
        let process = server.process().id();
        let address: SocketAddr = server.address().parse()?;
        let path = server.protocol().stream(ORG);
        let open = || (0..CLIENTS).map(|_| connect(address, &path)).collect::<io::Result<_>>();
        let clients = machine.run(open)??;
        let streams = sockets::find(CLIENTS, |socket| {
            socket.local.port() == address.port() && socket.remote.ip() == machine.theirs
        })?;
        let (publishing, first, last, fault) = (None, None, None, None);
        let (_clients, left) = (clients, CLIENTS);
        Ok(Self { peer, server, process, _clients, streams, publishing, first, last, left, fault })
    }

    fn is_waited_for(&self) -> bool {
        self.left > 0 && self.fault.is_none()
    }

    /// Notes which streams the server still has.
    fn look(&mut self, at: Duration, log: &dyn Fn(&str)) {
        if !self.is_waited_for() {
            return;
        }
        let left = match held(Path::new("/proc"), self.process) {
            Ok(held) => self.streams.intersection(&held).count(),
            Err(why) => return self.fault = Some(why.to_string()),
        };
        if left < self.left {
            self.first.get_or_insert(at);
            self.last = Some(at);
            log(&format!("{}: {left} streams left after {:.1} s", self.name(), at.as_secs_f64()));
        }
        self.left = left;
    }

    fn name(&self) -> String {
        let with = if self.publishing.is_some() { " with events" } else { "" };
        format!("{}{with}", self.peer.name())
    }

    fn answer(&self) -> String {
        let seconds =
            [self.first, self.last].map(|at| at.unwrap_or_default().as_secs_f64().round());
        match (self.left, seconds) {
            (0, [first, last]) if first == last => format!("{last} s"),
            (0, [first, last]) => format!("{first} to {last} s"),
            (left, _) => format!("{left} of {CLIENTS} not in {} min", WAIT.as_secs() / 60),
        }
    }
}

/// Opens a stream, and reads the head of its response.
fn connect(address: SocketAddr, path: &str) -> io::Result<Connection> {
    let mut connection = Connection::open(address)?;
    connection.send(&format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n"
    ))?;
    match connection.read_head()?.status {
        200 => Ok(connection),
        status => Err(io::Error::other(format!("{status} instead of a stream"))),
    }
}

// ===== impl Publishing =====

impl Publishing {
    fn start(server: &Server) -> Outcome<Self> {
        let options = Options {
            url: server.url(ORG),
            verify: Verify::None,
            http2: None,
            subscribers: 0,
            ramp: server.pace(),
            headers: Vec::new(),
            sources: Vec::new(),
            publish: Some(server.publish(ORG)),
            duration: None,
            processes: Vec::new(),
            drain_timeout: DRAIN_TIMEOUT,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Load::new(&options, Arc::clone(&stop))?;
        let thread = thread::spawn(move || _ = load.publish(u32::MAX, EVERY));
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
