//! What goes on while a server is replaced: publishes on connections that stay open, and connects.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::crowd::{key, now};
use super::http::{Connection, JSON, get, post};

/// A thread that publishes a key to each of some organisations, again and again.
pub(crate) struct Publisher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Published>>,
}

/// What became of its publishes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    /// Numbers up to here were published to each organisation, in their order, those that failed too.
    pub(crate) next: u64,
    /// Publishes without a `202`.
    pub(crate) failed: u64,
    pub(crate) failure: Option<String>,
    /// Times that its server ended the connection in good order.
    pub(crate) closed: u64,
    pub(crate) longest: Duration,
    /// By organisation.
    pub(crate) accepted: Vec<Vec<u64>>,
}

/// A thread that connects, sends a request, and reads the response, all the time.
pub(crate) struct Prober {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Probed>>,
}

/// What became of its connects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probed {
    pub(crate) answered: u64,
    /// Connects that were refused.
    pub(crate) refused: u64,
    /// Requests without the response that was due.
    pub(crate) failed: u64,
    pub(crate) failure: Option<String>,
    pub(crate) longest: Duration,
}

/// Publishes of an organisation in immediate succession: the later ones fall into the coalescing window of the first.
const BURST: u64 = 3;

// ===== impl Publisher =====

impl Publisher {
    /// Publishes a burst to every organisation in each `period`, numbered from `first` on.
    pub(crate) fn start(
        server: SocketAddr,
        first: u64,
        orgs: Vec<String>,
        period: Duration,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut published = Published {
                next: first,
                accepted: vec![Vec::new(); orgs.len()],
                ..Published::default()
            };
            let mut connection = None;
            while !stopped.load(Ordering::Relaxed) {
                let round = now();
                for (org, name) in orgs.iter().enumerate() {
                    let pause = period * u32::try_from(org).unwrap_or(0)
                        / u32::try_from(orgs.len()).unwrap_or(1);
                    thread::sleep(pause.saturating_sub(round.elapsed()));
                    for number in published.next..published.next + BURST {
                        published.publish(server, &mut connection, (org, name), number);
                    }
                }
                published.next += BURST;
                thread::sleep(period.saturating_sub(round.elapsed()));
            }
            published
        });
        Self { stop, thread: Some(thread) }
    }

    pub(crate) fn stop(mut self) -> Published {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is stopped once").join().expect("it does not panic")
    }
}

// ===== impl Published =====

impl Published {
    fn publish(
        &mut self,
        server: SocketAddr,
        kept: &mut Option<Connection>,
        (org, name): (usize, &str),
        number: u64,
    ) {
        let body = format!("{{\"keys\":[\"{}\"]}}", key(number));
        let request = post(&format!("/api/{name}/events"), JSON, "", &body);
        let start = now();
        match exchange(server, kept, &request) {
            Ok(is_closed) => {
                self.accepted[org].push(number);
                self.closed += u64::from(is_closed);
            }
            Err(why) => {
                *kept = None;
                self.failed += 1;
                self.failure.get_or_insert_with(|| format!("number {number} to {name}: {why}"));
            }
        }
        self.longest = self.longest.max(start.elapsed());
    }
}

/// Publishes on the connection that is kept, if there is one. Returns whether the server closes it.
fn exchange(server: SocketAddr, kept: &mut Option<Connection>, request: &str) -> io::Result<bool> {
    let connection = match kept {
        Some(connection) => connection,
        None => kept.insert(Connection::open(server)?),
    };
    connection.send(request)?;
    let head = connection.read_head()?;
    let mut body = vec![0; head.length];
    io::Read::read_exact(&mut connection.0, &mut body)?;
    if head.status != 202 {
        let body = String::from_utf8_lossy(&body);
        return Err(io::Error::other(format!("{}: {body}", head.status)));
    }
    if head.closes {
        *kept = None;
    }
    Ok(head.closes)
}

// ===== impl Prober =====

impl Prober {
    pub(crate) fn start(server: SocketAddr, period: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut probed = Probed::default();
            while !stopped.load(Ordering::Relaxed) {
                probed.probe(server);
                thread::sleep(period);
            }
            probed
        });
        Self { stop, thread: Some(thread) }
    }

    pub(crate) fn stop(mut self) -> Probed {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is stopped once").join().expect("it does not panic")
    }
}

// ===== impl Probed =====

impl Probed {
    fn probe(&mut self, server: SocketAddr) {
        let start = now();
        match Connection::open(server) {
            Err(why) => {
                self.refused += 1;
                self.failure.get_or_insert_with(|| format!("a connect: {why}"));
            }
            Ok(mut connection) => match connection.exchange(&get("/livez", ""), 200) {
                Ok(_) => self.answered += 1,
                Err(why) => {
                    self.failed += 1;
                    self.failure.get_or_insert_with(|| format!("a request: {why}"));
                }
            },
        }
        self.longest = self.longest.max(start.elapsed());
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
