//! All subscribers of an organisation are cut off at once, events are published meanwhile, and all come back: what each
//! has missed, what the server has stated about it, and what that costs.

mod figures;
mod record;

use std::fs;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nudged::bench::Publish;

use self::figures::Figures;
pub(crate) use self::record::{Record, Runs};
use super::clients::{Clients, Target};
use super::measure::{ORG, Outcome, Plan, SETTLE, micros};
use super::numbered::mark;
use super::peer::Peer;
use super::protocol::Client;
use super::servers::Server;
use crate::order;
use crate::shared::http::Connection;
use crate::shared::process::now;

/// What happens to the subscribers.
#[derive(Clone, Debug)]
pub(crate) struct Herd {
    pub(crate) plan: Plan,
    /// Events that are published while none of them is connected.
    pub(crate) absent: usize,
    /// How many connect at once, where it is not as many as in the other parts.
    pub(crate) at_once: Option<usize>,
}

/// A run that is under way.
struct Run<'a> {
    server: &'a Server,
    herd: &'a Herd,
    clients: Clients,
    publish: Publish,
}

/// Events that each subscriber receives before it is cut off.
const FIRST: usize = 20;
/// How long all subscribers may take to connect.
const CONNECT: Duration = Duration::from_secs(120);
/// How long an event may take to all of them.
const DELIVERY: Duration = Duration::from_secs(10);
/// Events after the return, until one has reached all of them.
const LIVE_MAX: usize = 3;
/// A server is quiet once it uses less than this part of a processor for so long.
const QUIET_SHARE: f64 = 0.02;
const QUIET: Duration = Duration::from_millis(200);
const QUIET_MAX: Duration = Duration::from_secs(15);
/// From then on, until its memory is measured.
const REST: Duration = Duration::from_secs(5);
/// The time between two measurements of its memory during the return. Each stops a server with much of it for some
/// milliseconds.
const SAMPLE: Duration = Duration::from_millis(250);

/// All runs, in turn, backwards every second time.
pub(crate) fn alternate(
    servers: &[(Peer, String)],
    herd: &Herd,
    turns: usize,
    log: impl Fn(&str),
) -> Vec<Runs> {
    let mut all: Vec<_> =
        servers.iter().flat_map(|(peer, version)| of(*peer, version, herd)).collect();
    for turn in 1..=turns {
        for at in order(turn, all.len()) {
            let runs = &mut all[at];
            let name = format!("{}, {}", runs.peer.name(), runs.client_name());
            let progress = |what: &str| log(&format!("run {turn} of {turns}: {name}: {what}"));
            let figures = run(runs.peer, runs.client, herd, progress);
            let figures = figures.map_err(|why| why.to_string());
            figures.iter().for_each(|figures| log(&format!("{name}: {figures:?}")));
            figures.as_ref().err().iter().for_each(|why| log(&format!("FAULT: {name}: {why}")));
            runs.all.push(figures);
        }
    }
    all
}

/// Those of a server: with an `EventSource`, and with its own client if it has one.
fn of(peer: Peer, version: &str, herd: &Herd) -> Vec<Runs> {
    let has_own = peer.start(&herd.plan).is_ok_and(|server| server.protocol().has_own_client());
    let own = has_own.then_some(Client::Own);
    let clients = [Client::EventSource].into_iter().chain(own);
    clients.map(|client| Runs::new(peer, version, client)).collect()
}

/// One run of one server and one kind of client.
fn run(
    peer: Peer,
    client: Client,
    herd: &Herd,
    mut progress: impl FnMut(&str),
) -> Outcome<Figures> {
    let server = peer.start(&herd.plan)?;
    thread::sleep(SETTLE);
    let mut run = Run::new(&server, client, herd)?;
    let mut figures = Figures { fresh: server.cost()?.pss, ..Figures::default() };
    progress("connect");
    run.connect()?;
    figures.before = run.rested()?;
    progress("cut off");
    run.miss()?;
    progress("come back");
    let (done, peak) = sampled(&server, || run.come_back(&mut figures));
    done?;
    figures.settled = run.rested()?;
    figures.peak = peak.max(figures.before).max(figures.settled);
    run.count(&mut figures);
    run.clients.cut()?;
    // Some servers find dead streams only by writing to them.
    let next = run.live().end;
    (next..next + 2).try_for_each(|number| post_event(&run.publish, number))?;
    figures.closed = run.rested()?;
    Ok(figures)
}

// ===== impl Run =====

impl<'a> Run<'a> {
    fn new(server: &'a Server, client: Client, herd: &'a Herd) -> Outcome<Self> {
        let pace = server.pace().pending_max;
        let target = Target {
            address: server.address().parse()?,
            protocol: server.protocol().clone(),
            org: ORG.to_owned(),
            client,
            pending_max: herd.at_once.unwrap_or(pace),
        };
        let clients = Clients::new(target, herd.plan.subscribers)?;
        Ok(Self { server, herd, clients, publish: server.publish(ORG) })
    }

    /// The numbers of the events that are published while none is connected.
    fn absent(&self) -> std::ops::Range<usize> {
        FIRST..FIRST + self.herd.absent
    }

    /// And of those after the return.
    fn live(&self) -> std::ops::Range<usize> {
        let start = self.absent().end;
        start..start + LIVE_MAX
    }

    /// Each has a position then.
    fn connect(&mut self) -> Outcome<()> {
        self.open()?;
        self.clients.wait(SETTLE)?;
        (0..FIRST).try_for_each(|number| post_event(&self.publish, number))?;
        let all_have = |clients: &Clients| (0..FIRST).all(|number| clients.all_have(number));
        if !self.clients.until(DELIVERY, all_have)? {
            let missed = self.clients.missed(0..FIRST);
            return Err(format!("{missed} of the first {FIRST} events each have not come").into());
        }
        Ok(())
    }

    fn open(&mut self) -> Outcome<()> {
        self.clients.come();
        if !self.clients.until(CONNECT, Clients::are_open)? {
            let (counts, all) = (&self.clients.counts, self.clients.len());
            return Err(format!("not all of {all} have a stream: {counts:?}").into());
        }
        Ok(())
    }

    /// All are cut off, and the server has nothing left to do when the events come.
    fn miss(&mut self) -> Outcome<()> {
        self.clients.cut()?;
        self.quiet()?;
        self.absent().try_for_each(|number| post_event(&self.publish, number))?;
        self.quiet()
    }

    /// All come back, and receive one more event.
    fn come_back(&mut self, figures: &mut Figures) -> Outcome<()> {
        let (before, start, thread) = (self.server.cost()?, now(), thread_time()?);
        self.open()?;
        let since = |at: Option<Instant>| at.map(|at| at.duration_since(start).as_secs_f64());
        figures.responses_s = since(self.clients.counts.last_response);
        for number in self.live() {
            figures.live += 1;
            if self.reaches_all(number)? {
                figures.served_s = since(self.clients.last_arrival(number..number + 1));
                break;
            }
        }
        let wall = start.elapsed();
        figures.generator = (thread_time()? - thread).as_secs_f64() / wall.as_secs_f64();
        if figures.served_s.is_none() {
            return Err(format!("none of {LIVE_MAX} events has reached all of them").into());
        }
        self.quiet()?;
        figures.caught_up_s = since(self.clients.last_arrival(self.absent()));
        let used = self.server.cost()? - before;
        figures.cpu_us = micros(used) / self.clients.len() as f64;
        Ok(())
    }

    /// Publishes from another thread: some servers respond only once they have written to every stream.
    fn reaches_all(&mut self, number: usize) -> Outcome<bool> {
        let publish = self.publish.clone();
        let post = thread::spawn(move || post_event(&publish, number));
        let all = self.clients.until(DELIVERY, |clients| clients.all_have(number))?;
        post.join().expect("it does not panic")?;
        Ok(all)
    }

    fn count(&self, figures: &mut Figures) {
        let counts = &self.clients.counts;
        figures.retried = counts.refused.values().sum();
        figures.reasons = counts.refused.keys().cloned().collect();
        figures.ended = counts.ended;
        figures.missed = self.clients.missed(self.absent());
        figures.duplicates = self.clients.duplicates();
        figures.stated = self.clients.stated();
    }

    /// Until the server has nothing left to do, or for [`QUIET_MAX`].
    fn quiet(&mut self) -> Outcome<()> {
        let start = now();
        let mut before = self.server.cost()?;
        while start.elapsed() < QUIET_MAX {
            self.clients.wait(QUIET)?;
            let after = self.server.cost()?;
            if (after - before).cpu < QUIET.mul_f64(QUIET_SHARE) {
                break;
            }
            before = after;
        }
        Ok(())
    }

    /// Its memory after a rest.
    fn rested(&mut self) -> Outcome<u64> {
        self.quiet()?;
        self.clients.wait(REST)?;
        Ok(self.server.cost()?.pss)
    }
}

/// Runs this, and measures the memory of the server meanwhile; returns its peak.
fn sampled<T>(server: &Server, work: impl FnOnce() -> T) -> (T, u64) {
    // It is dropped on a panic, too.
    let (done, end) = channel::<()>();
    thread::scope(move |scope| {
        let sampler = scope.spawn(move || {
            let mut peak = 0;
            loop {
                peak = server.cost().map_or(peak, |cost| peak.max(cost.pss));
                if end.recv_timeout(SAMPLE) != Err(RecvTimeoutError::Timeout) {
                    return peak;
                }
            }
        });
        let result = work();
        drop(done);
        (result, sampler.join().expect("it does not panic"))
    })
}

/// Publishes the event with this number, on a connection of its own.
fn post_event(publish: &Publish, number: usize) -> io::Result<()> {
    let Publish { url, body, content_type, headers, .. } = publish;
    let (address, path) = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(|| io::Error::other(format!("{url} has no host and path")))?;
    let fields: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let body = body.replace("{n}", &mark(number));
    let length = body.len();
    let mut connection = Connection::open(address.parse().map_err(io::Error::other)?)?;
    connection.send(&format!(
        "POST /{path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: {content_type}\r\n{fields}\
         content-length: {length}\r\n\r\n{body}"
    ))?;
    match connection.read_head()?.status {
        200..300 => Ok(()),
        status => Err(io::Error::other(format!("a publish was refused: status {status}"))),
    }
}

/// The processor time of this thread so far.
fn thread_time() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split(' ').next().and_then(|field| field.parse().ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
