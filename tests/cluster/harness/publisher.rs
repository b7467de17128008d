//! Backends: each writes rows into the database and then publishes their keys, again and again until the answer is 202.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::database::Database;
use super::directory::Directory;
use crate::support::client::post;
use crate::support::{Client, header};

/// Several backends, stopped when this is dropped.
pub(crate) struct Publishers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    database: Arc<Database>,
    directory: Arc<Directory>,
    /// The next row to write.
    next: AtomicUsize,
    pace: Duration,
    over: AtomicBool,
    accepted: AtomicUsize,
    unavailable: AtomicUsize,
    failed: AtomicUsize,
}

/// What the backends were answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answers {
    /// 202.
    pub(crate) accepted: usize,
    /// 503.
    pub(crate) unavailable: usize,
    /// Nothing: the connection ended.
    pub(crate) failed: usize,
}

/// A row that was written.
struct Written {
    key: usize,
    version: u64,
}

/// Between two attempts of the same publish.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a publish may be repeated once the backends are to stop.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long an answer may take: longer than a node waits for the broker.
const ANSWER: Duration = Duration::from_secs(30);

// ===== impl Publishers =====

impl Publishers {
    /// Starts backends that publish once in `pace` each.
    pub(crate) fn start(
        count: usize,
        pace: Duration,
        database: &Arc<Database>,
        directory: &Arc<Directory>,
    ) -> Self {
        let shared = Arc::new(Shared {
            database: Arc::clone(database),
            directory: Arc::clone(directory),
            next: AtomicUsize::new(0),
            pace,
            over: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            unavailable: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
        });
        let threads = (0..count).map(|_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.run())
        });
        Self { threads: threads.collect(), shared }
    }

    pub(crate) fn answers(&self) -> Answers {
        let [accepted, unavailable, failed] =
            [&self.shared.accepted, &self.shared.unavailable, &self.shared.failed]
                .map(|count| count.load(Ordering::Relaxed));
        Answers { accepted, unavailable, failed }
    }

    /// Waits until so many more publishes have been accepted.
    pub(crate) fn progress(&self, more: usize) {
        let aim = self.answers().accepted + more;
        crate::support::eventually("publishes are accepted", || self.answers().accepted >= aim);
    }

    /// Stops them, once everything that was written is acknowledged.
    pub(crate) fn stop(mut self) -> Answers {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("every publish is accepted in the end");
        }
        self.answers()
    }
}

impl Drop for Publishers {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

// ===== impl Shared =====

impl Shared {
    fn run(&self) {
        let mut client = None;
        while !self.over.load(Ordering::Relaxed) {
            // Each row once in a round, so that no later publish hides that an earlier one was lost.
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let org = turn % self.database.orgs();
            let first = turn / self.database.orgs() * 2;
            let keys = [first, first + 1].map(|key| key % self.database.keys(org));
            let rows = keys.map(|key| Written { key, version: self.database.update(org, key) });
            self.publish(&mut client, org, &rows);
            for row in rows {
                self.database.acknowledge(org, row.key, row.version);
            }
            thread::sleep(self.pace);
        }
    }

    /// Returns once it has been accepted.
    fn publish(&self, client: &mut Option<Client>, org: usize, rows: &[Written]) {
        let keys: Vec<_> = rows.iter().map(|row| format!("k{}", row.key)).collect();
        let name = self.database.name(org);
        // A body with an event, or one with a line for each key.
        let (path, kind, body) = if fastrand::bool() {
            let body = serde_json::json!({ "keys": keys }).to_string();
            (format!("/api/{name}/events"), "application/json", body)
        } else {
            let lines = keys.iter().map(|key| format!("{{\"org\":{name:?},\"keys\":[{key:?}]}}\n"));
            ("/api/events".into(), "application/x-ndjson", lines.collect())
        };
        let request = post(&path, kind, &body);
        let mut stopping = None;
        loop {
            match self.attempt(client, &request) {
                Ok(202) => break,
                Ok(503) => _ = self.unavailable.fetch_add(1, Ordering::Relaxed),
                Ok(status) => panic!("a publish was answered {status}"),
                Err(_) => _ = self.failed.fetch_add(1, Ordering::Relaxed),
            }
            // Another node, perhaps.
            *client = None;
            if self.over.load(Ordering::Relaxed) {
                let since = *stopping.get_or_insert_with(Instant::now);
                assert!(since.elapsed() < PATIENCE, "not accepted in time: {body}");
            }
            thread::sleep(AGAIN);
        }
        self.accepted.fetch_add(1, Ordering::Relaxed);
        // One in some publishes goes to another node.
        if fastrand::u8(..) < 32 {
            *client = None;
        }
    }

    fn attempt(&self, kept: &mut Option<Client>, request: &str) -> io::Result<u16> {
        // As behind a balancer: a node that is not ready gets no further request.
        let is_listed = |client: &Client| {
            client.socket().peer_addr().is_ok_and(|address| self.directory.has(address))
        };
        let mut client = match kept.take().filter(is_listed) {
            Some(client) => client,
            None => connect(self.directory.any().ok_or(io::ErrorKind::NotConnected)?.1)?,
        };
        client.try_send_bytes(request.as_bytes())?;
        let head = client.try_read_until(b"\r\n\r\n")?;
        let head = String::from_utf8(head).expect("ASCII");
        let length = header(&head, "content-length").map_or(0, |n| n.parse().expect("a length"));
        client.try_read_exact(length)?;
        if header(&head, "connection").is_none_or(|connection| connection != "close") {
            *kept = Some(client);
        }
        Ok(head.split(' ').nth(1).expect("a status").parse().expect("a number"))
    }
}

fn connect(address: SocketAddr) -> io::Result<Client> {
    let socket = TcpStream::connect_timeout(&address, ANSWER)?;
    let client = Client::on(socket);
    client.socket().set_read_timeout(Some(ANSWER))?;
    Ok(client)
}
