//! Short-lived streams and requests, which end in every way that a client can end them.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::checker::NEVER;
use super::client::{Client, subscribe};
use super::phase::{ORGS, Phase, Role, Shared, org};
use crate::shared::http::{JSON, NDJSON, post};
use crate::shared::process::now;

/// How a client ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Close,
    Reset,
    /// It closes its half, and waits for the server to close the other.
    HalfClose,
    /// It closes or resets before it has read a byte of the response.
    Unread,
    /// It closes or resets in the middle of a request head.
    PartialHead,
    /// It closes or resets in the middle of the body of a publish.
    PartialBody,
    /// It stops reading until the server has closed the connection.
    Stall,
    /// Its process is killed (SIGKILL).
    Kill,
    /// It closes, reconnects with its `Last-Event-ID`, and closes again.
    Resume,
}

pub(crate) struct Churn {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Clients that do not read, each with the time since then.
    stalled: VecDeque<(Instant, Vec<Client>)>,
    /// Streams opened, which number the orgs that no other client uses.
    opened: u64,
}

/// Clients with the same ending, one after the other.
pub(crate) const BATCH: usize = 25;
/// The interval of batches: about 300 clients a second, including the endings that take longer.
const EVERY: Duration = Duration::from_millis(60);
/// Stalled clients stay longer than the server's stall timeout.
const STALL: Duration = Duration::from_secs(15);
/// Stalled clients at once, however slow the machine is.
pub(crate) const STALLED_MAX: usize = 20 * BATCH;
/// A publish too large for the buffers of a socket that is not read.
const LARGE_KEYS: usize = 64;
const LARGE_PUBLISHES: usize = 3;
/// Longer than the server's coalescing window.
const WINDOW: Duration = Duration::from_millis(60);

/// The first argument that makes this program only hold streams until it is killed: `soak hold ADDRESS`.
pub(crate) const HOLD: &str = "hold";

// ===== impl Ending =====

impl Ending {
    const ALL: [Self; 9] = [
        Self::Close,
        Self::Reset,
        Self::HalfClose,
        Self::Unread,
        Self::PartialHead,
        Self::PartialBody,
        Self::Stall,
        Self::Kill,
        Self::Resume,
    ];
}

// ===== impl Churn =====

impl Churn {
    pub(crate) fn new(address: SocketAddr, shared: Arc<Shared>) -> Self {
        Self { address, shared, stalled: VecDeque::new(), opened: 0 }
    }

    pub(crate) fn run(mut self) -> Result<(), Box<dyn Error>> {
        for turn in 0.. {
            match self.shared.phase() {
                Phase::Run => {
                    let (start, ending) = (now(), Ending::ALL[turn % Ending::ALL.len()]);
                    self.batch(ending).map_err(|why| format!("{ending:?}: {why}"))?;
                    self.drop_stalled();
                    thread::sleep(EVERY.saturating_sub(start.elapsed()));
                }
                Phase::Stop => break,
                phase => self.shared.idle(Role::Churn, phase),
            }
        }
        Ok(())
    }

    fn batch(&mut self, ending: Ending) -> io::Result<()> {
        match ending {
            Ending::Stall => return self.stall(),
            Ending::Kill => return kill(self.address),
            _ => {}
        }
        for n in 0..BATCH {
            match ending {
                Ending::Close => drop(self.open()?),
                Ending::Reset => self.open()?.reset()?,
                Ending::HalfClose => self.open()?.half_close()?,
                Ending::Unread => self.send_part(n, &subscribe(&any_path(n), None))?,
                Ending::PartialHead => {
                    self.send_part(n, "GET /api/acme/events HTTP/1.1\r\nhost: lo")?
                }
                Ending::PartialBody => {
                    let path = format!("/api/{}/events", org(n % ORGS));
                    let whole = post(&path, JSON, "", &format!("{{\"keys\":[\"{NEVER}\"]}}"));
                    self.send_part(n, whole.strip_suffix("\"]}").unwrap_or_default())?;
                }
                Ending::Resume => {
                    let path = any_path(n);
                    let first = Client::stream(self.address, &path, None)?;
                    let last = first.last_event_id().to_owned();
                    drop(first);
                    drop(Client::stream(self.address, &path, Some(&last))?);
                }
                Ending::Stall | Ending::Kill => {}
            }
        }
        Ok(())
    }

    /// Sends an incomplete request, and closes or resets.
    fn send_part(&self, n: usize, text: &str) -> io::Result<()> {
        let mut client = Client::connect(self.address)?;
        client.send(text)?;
        if n.is_multiple_of(2) { client.reset() } else { Ok(()) }
    }

    /// A stream that has its greeting.
    fn open(&mut self) -> io::Result<Client> {
        self.opened += 1;
        let path = match self.opened % 5 {
            0 => format!("/api/visitor-{}/events", self.opened),
            _ => any_path(fastrand::usize(..2 * ORGS)),
        };
        Client::stream(self.address, &path, None)
    }

    fn stall(&mut self) -> io::Result<()> {
        let mut clients = Vec::with_capacity(BATCH);
        for _ in 0..BATCH {
            let mut client = Client::connect_small(self.address)?;
            client.send(&subscribe("/api/stalls/events", None))?;
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

    /// Closes clients that have stalled for long enough.
    fn drop_stalled(&mut self) {
        let most = STALLED_MAX / BATCH;
        while self.stalled.front().is_some_and(|(since, _)| since.elapsed() > STALL)
            || self.stalled.len() > most
        {
            self.stalled.pop_front();
        }
    }
}

/// One of the streams of the steady orgs, of both kinds.
fn any_path(n: usize) -> String {
    let kind = if n % (2 * ORGS) < ORGS { "events" } else { "public/events" };
    format!("/api/{}/{kind}", org(n % ORGS))
}

/// Starts a process that opens streams, and kills it.
fn kill(address: SocketAddr) -> io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(HOLD).arg(address.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
    child.kill()?;
    child.wait()?;
    match line.is_empty() {
        true => Err(io::Error::other("the process to be killed ended by itself")),
        false => Ok(()),
    }
}

/// The process to be killed: opens streams, and waits.
pub(crate) fn hold(address: SocketAddr) -> io::Result<()> {
    let open = |n: usize| Client::stream(address, &format!("/api/{}/events", org(n % ORGS)), None);
    let streams = (0..BATCH).map(open).collect::<io::Result<Vec<_>>>()?;
    println!("{} streams", streams.len());
    io::stdout().flush()?;
    // Ends when the soak has ended, which closes the pipe.
    io::stdin().read(&mut [0]).map(drop)
}
