//! Streams and requests that come and go, in every way that there is to go.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Client, JSON, NDJSON, post, request};
use super::follower::NEVER;
use super::stage::{ORGS, Part, Phase, Stage, org};
use crate::shared::process::now;

/// How clients go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// A close.
    Fin,
    /// A reset.
    Reset,
    /// They close their half, and wait for the server's.
    HalfClose,
    /// Before they have read a byte of the answer, with a close or a reset.
    Unheard,
    /// In the middle of the head of their request.
    HeadCut,
    /// In the middle of the body of a publish.
    BodyCut,
    /// They stay, and do not read until the server has cut them.
    Stall,
    /// Their process is killed (SIGKILL).
    Kill,
    /// They close and come back with their `Last-Event-ID`, and close again.
    Return,
}

pub(crate) struct Churn {
    address: SocketAddr,
    stage: Arc<Stage>,
    /// Those who do not read, and since when.
    stalled: VecDeque<(Instant, Vec<Client>)>,
    /// Names that nobody had before.
    visitors: u64,
}

/// Clients of one way, one after the other.
pub(crate) const BATCH: usize = 25;
/// From one batch to the next: some 300 clients a second, with what takes longer.
const EVERY: Duration = Duration::from_millis(60);
/// Stalled clients keep their sockets for longer than a server may let them have a seat.
const STALL: Duration = Duration::from_secs(15);
/// Stalled clients at once, whatever the machine does.
pub(crate) const STALLED_MAX: usize = 20 * BATCH;
/// A publish that does not go into a socket of which nothing is read.
const LARGE_KEYS: usize = 64;
const LARGE_PUBLISHES: usize = 3;

/// As which this program is the process to be killed: `soak hold ADDRESS`.
pub(crate) const HOLD: &str = "hold";

// ===== impl Way =====

impl Way {
    const ALL: [Self; 9] = [
        Self::Fin,
        Self::Reset,
        Self::HalfClose,
        Self::Unheard,
        Self::HeadCut,
        Self::BodyCut,
        Self::Stall,
        Self::Kill,
        Self::Return,
    ];
}

// ===== impl Churn =====

impl Churn {
    pub(crate) fn new(address: SocketAddr, stage: Arc<Stage>) -> Self {
        Self { address, stage, stalled: VecDeque::new(), visitors: 0 }
    }

    pub(crate) fn run(mut self) -> Result<(), Box<dyn Error>> {
        for turn in 0.. {
            match self.stage.phase() {
                Phase::Run => {
                    let (start, way) = (now(), Way::ALL[turn % Way::ALL.len()]);
                    self.batch(way).map_err(|why| format!("{way:?}: {why}"))?;
                    self.forget();
                    thread::sleep(EVERY.saturating_sub(start.elapsed()));
                }
                Phase::End => break,
                phase => self.stage.rest(Part::Churn, phase),
            }
        }
        Ok(())
    }

    fn batch(&mut self, way: Way) -> io::Result<()> {
        match way {
            Way::Stall => return self.stall(),
            Way::Kill => return kill(self.address),
            _ => {}
        }
        for n in 0..BATCH {
            match way {
                Way::Fin => drop(self.visit()?),
                Way::Reset => self.visit()?.reset()?,
                Way::HalfClose => self.visit()?.half_close()?,
                Way::Unheard => self.cut(n, &request(&self.any_path(n), None))?,
                Way::HeadCut => self.cut(n, "GET /api/acme/events HTTP/1.1\r\nhost: so")?,
                Way::BodyCut => {
                    let path = format!("/api/{}/events", org(n % ORGS));
                    let head = post(&path, JSON, 100);
                    self.cut(n, &format!("{head}{{\"keys\":[\"{NEVER}\""))?;
                }
                Way::Return => {
                    let path = self.any_path(n);
                    let first = Client::stream(self.address, &path, None)?;
                    let last = first.last_event_id().to_owned();
                    drop(first);
                    drop(Client::stream(self.address, &path, Some(&last))?);
                }
                Way::Stall | Way::Kill => {}
            }
        }
        Ok(())
    }

    /// Goes after these words, with a close or a reset.
    fn cut(&self, n: usize, words: &str) -> io::Result<()> {
        let mut client = Client::connect(self.address)?;
        client.send(words)?;
        if n.is_multiple_of(2) { client.reset() } else { Ok(()) }
    }

    /// A stream that has begun.
    fn visit(&mut self) -> io::Result<Client> {
        self.visitors += 1;
        let path = match self.visitors % 5 {
            // An org that nobody else will ever listen to.
            0 => format!("/api/visitor-{}/events", self.visitors),
            _ => self.any_path(fastrand::usize(..2 * ORGS)),
        };
        Client::stream(self.address, &path, None)
    }

    /// One of the streams of the crowd's orgs, of both kinds.
    fn any_path(&self, n: usize) -> String {
        let kind = if n % (2 * ORGS) < ORGS { "events" } else { "public/events" };
        format!("/api/{}/{kind}", org(n % ORGS))
    }

    fn stall(&mut self) -> io::Result<()> {
        let mut clients = Vec::with_capacity(BATCH);
        for _ in 0..BATCH {
            let mut client = Client::connect_small(self.address)?;
            client.send(&request("/api/stalls/events", None))?;
            client.greeting()?;
            clients.push(client);
        }
        self.stalled.push_back((now(), clients));
        let key = "x".repeat(500);
        let keys = (0..LARGE_KEYS).map(|n| format!("\"{n}{key}\"")).collect::<Vec<_>>().join(",");
        let line = format!("{{\"org\":\"stalls\",\"keys\":[{keys}]}}\n");
        let mut publisher = Client::connect(self.address)?;
        for _ in 0..LARGE_PUBLISHES {
            publisher.post("/api/events", NDJSON, &line)?;
            thread::sleep(WINDOW);
        }
        Ok(())
    }

    /// Lets go of clients whose time is over.
    fn forget(&mut self) {
        let most = STALLED_MAX / BATCH;
        while self.stalled.front().is_some_and(|(since, _)| since.elapsed() > STALL)
            || self.stalled.len() > most
        {
            self.stalled.pop_front();
        }
    }
}

/// Longer than the server joins publishes.
const WINDOW: Duration = Duration::from_millis(60);

/// Starts a process with streams, and kills it.
fn kill(address: SocketAddr) -> io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(HOLD).arg(address.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line)?;
    child.kill()?;
    child.wait()?;
    match line.is_empty() {
        true => Err(io::Error::other("the process to be killed ended by itself")),
        false => Ok(()),
    }
}

/// The process to be killed: it has streams, and waits.
pub(crate) fn hold(address: SocketAddr) -> io::Result<()> {
    let open = |n: usize| Client::stream(address, &format!("/api/{}/events", org(n % ORGS)), None);
    let streams = (0..BATCH).map(open).collect::<io::Result<Vec<_>>>()?;
    println!("{} streams", streams.len());
    io::stdout().flush()?;
    // Until it is killed, or who started it is gone.
    io::stdin().read(&mut [0]).map(drop)
}
