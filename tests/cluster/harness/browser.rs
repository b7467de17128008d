//! A browser that keeps the contract: it reads everything on `connected`, the keys of each `invalidate`, and comes back
//! from a lost connection to any ready node, with the last id that it was given.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nudged::wire::{Event, Parser};

use super::database::Database;
use super::directory::Directory;
use crate::support::event_source::next_chunk;
use crate::support::{BOUND, header};

/// Its connection is closed when this is dropped.
pub(crate) struct Browser {
    page: Arc<Page>,
    thread: Option<JoinHandle<()>>,
}

struct Page {
    org: usize,
    database: Arc<Database>,
    directory: Arc<Directory>,
    /// The only node that it uses, if it does not draw one.
    pinned: Option<usize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The version of every key that it holds; empty before its first greeting.
    held: Vec<u64>,
    counts: Counts,
    /// The present connection.
    socket: Option<TcpStream>,
    /// The node of the present stream, once that has begun.
    node: Option<usize>,
    last_id: String,
    /// What happened last, for the message of a failure.
    trace: VecDeque<String>,
    over: bool,
}

/// What a browser has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// `connected` without an id before it: the page was opened.
    pub(crate) opened: usize,
    /// Every other `connected`: it had to read everything again.
    pub(crate) rereads: usize,
    pub(crate) resumed: usize,
    pub(crate) invalidations: usize,
    /// Keepalives with an id.
    pub(crate) pings: usize,
    /// Connections and requests that were refused.
    pub(crate) refused: usize,
}

/// Its reconnection times are this much shorter than a browser's.
const HASTE: u32 = 10;
const TRACE: usize = 30;

// ===== impl Browser =====

impl Browser {
    pub(crate) fn open(
        org: usize,
        pinned: Option<usize>,
        database: &Arc<Database>,
        directory: &Arc<Directory>,
    ) -> Self {
        let (database, directory) = (Arc::clone(database), Arc::clone(directory));
        let page = Page { org, database, directory, pinned, state: Mutex::default() };
        let page = Arc::new(page);
        let thread = {
            let page = Arc::clone(&page);
            let builder = thread::Builder::new().name("browser".into()).stack_size(256 * 1024);
            Some(builder.spawn(move || page.run()).expect("a thread"))
        };
        Self { page, thread }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.page.lock().counts
    }

    /// The node that serves its stream.
    pub(crate) fn node(&self) -> Option<usize> {
        self.page.lock().node
    }

    pub(crate) fn last_id(&self) -> String {
        self.page.lock().last_id.clone()
    }

    /// Loses the connection, as in a tunnel.
    pub(crate) fn disconnect(&self) {
        if let Some(socket) = &self.page.lock().socket {
            _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// What it lacks of what was acknowledged.
    pub(crate) fn lacks(&self) -> Vec<String> {
        let state = self.page.lock();
        if state.held.is_empty() {
            return vec!["everything".into()];
        }
        self.page.database.lacks(self.page.org, &state.held)
    }

    /// What happened to it last.
    pub(crate) fn trace(&self) -> String {
        let state = self.page.lock();
        let trace: Vec<_> = state.trace.iter().map(String::as_str).collect();
        format!("{}: {:?}\n  {}", self.page.org(), state.counts, trace.join("\n  "))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.page.lock().over = true;
        self.disconnect();
        _ = self.thread.take().map(JoinHandle::join);
    }
}

// ===== impl Page =====

impl Page {
    fn org(&self) -> &str {
        self.database.name(self.org)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let (mut retry, mut id) = (Duration::from_millis(500), String::new());
        while !self.lock().over {
            let chosen = self.directory.any_of(self.pinned);
            let Some((node, address)) = chosen else {
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            let mut parser = Parser::resume(id.clone());
            let end = self.stream(node, address, &mut parser);
            retry = parser.retry_ms().map_or(retry, Duration::from_millis);
            parser.last_event_id().clone_into(&mut id);
            {
                let mut state = self.lock();
                if state.over {
                    break;
                }
                state.node = None;
                state.socket = None;
                if end.as_ref().is_err_and(|why| why.kind() == ErrorKind::ConnectionRefused) {
                    state.counts.refused += 1;
                }
                state.note(format!("left node {node}: {end:?}"));
            }
            thread::sleep(retry / HASTE);
        }
    }

    /// Opens a stream, and reads it to its end.
    fn stream(&self, node: usize, address: SocketAddr, parser: &mut Parser) -> io::Result<()> {
        let mut socket = TcpStream::connect_timeout(&address, BOUND)?;
        socket.set_read_timeout(Some(BOUND))?;
        {
            let mut state = self.lock();
            if state.over {
                return Ok(());
            }
            state.socket = Some(socket.try_clone()?);
        }
        let id = parser.last_event_id().to_owned();
        let field = if id.is_empty() { String::new() } else { format!("last-event-id: {id}\r\n") };
        write!(
            socket,
            "GET /api/{}/events HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n{field}\r\n",
            self.org()
        )?;
        let mut response = BufReader::new(socket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if response.read_line(&mut head)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.split(' ').nth(1).unwrap_or_default();
        if status != "200" {
            let mut body =
                vec![0; header(&head, "content-length").map_or(0, |n| n.parse().unwrap_or(0))];
            _ = response.read_exact(&mut body);
            return Err(io::Error::new(
                ErrorKind::ConnectionRefused,
                format!("{status} {}", String::from_utf8_lossy(&body)),
            ));
        }
        while let Some(chunk) = next_chunk(&mut response)? {
            let mut events = Vec::new();
            parser.push(&chunk, |event| events.push(event)).expect("events of a usual size");
            events.iter().for_each(|event| self.receive(node, &id, event));
            parser.last_event_id().clone_into(&mut self.lock().last_id);
        }
        Ok(())
    }

    fn receive(&self, node: usize, resumed_from: &str, event: &Event) {
        let mut state = self.lock();
        state.note(format!("node {node}: {} {} {}", event.id, event.name, event.data));
        match event.name.as_str() {
            "connected" => {
                if resumed_from.is_empty() && state.node.is_none() {
                    state.counts.opened += 1;
                } else {
                    state.counts.rereads += 1;
                    state.note(format!("it was at {resumed_from:?}"));
                }
                state.node = Some(node);
                // What it reads now is not older than the event.
                state.held = self.database.read_all(self.org);
            }
            "resumed" => {
                state.counts.resumed += 1;
                state.node = Some(node);
            }
            "invalidate" => {
                state.counts.invalidations += 1;
                let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
                for key in data["keys"].as_array().expect("keys") {
                    let key = key.as_str().and_then(|key| key.strip_prefix('k')?.parse().ok());
                    let Some(key) = key else { continue };
                    let version = self.database.read(self.org, key);
                    if let Some(held) = state.held.get_mut(key) {
                        *held = version;
                    }
                }
            }
            "ping" => state.counts.pings += usize::from(!event.id.is_empty()),
            name => panic!("an event of an unknown kind: {name}"),
        }
    }
}

// ===== impl State =====

impl State {
    fn note(&mut self, what: String) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(what);
    }
}
