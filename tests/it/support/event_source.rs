//! A client that behaves as the `EventSource` of a page of another origin: it comes back from a lost connection and
//! from the end of a response, and gives up for good at a status other than 200, another content type, and an answer
//! that its origin may not read.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nudged::wire::{Event, Parser};

use super::{BOUND, eventually, header};

/// Its connection is closed when this is dropped.
pub(crate) struct EventSource {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    /// Responses that were streams, and ended without an event.
    empty: usize,
    /// Why it has given up.
    gave_up: Option<String>,
    /// The present connection.
    socket: Option<TcpStream>,
    /// The page is closed.
    over: bool,
}

struct Request {
    address: SocketAddr,
    path: String,
}

/// How a request ended.
enum End {
    /// Reconnects.
    Lost,
    /// Gives up.
    Failed(String),
}

/// Of its page.
pub(crate) const ORIGIN: &str = "https://app.example";
/// The value of its cookie.
pub(crate) const COOKIE: &str = "0123-the-cookie-4567";
/// Its reconnection times are this much shorter than a browser's.
const HASTE: u32 = 20;

// ===== impl EventSource =====

impl EventSource {
    pub(crate) fn open(address: SocketAddr, path: &str) -> Self {
        let (state, request) = (Arc::default(), Request { address, path: path.to_owned() });
        let thread = {
            let state = Arc::clone(&state);
            Some(thread::spawn(move || run(&request, &state)))
        };
        Self { state, thread }
    }

    /// Waits until it has received the events that `expected` names and nothing else, or more of them.
    pub(crate) fn expect(&self, expected: &[&str]) {
        self.wait(&format!("it has received {expected:?}"), |state| {
            state.events.len() >= expected.len()
        });
        let state = lock(&self.state);
        let names: Vec<_> = state.events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, expected, "{:?}", state.events);
    }

    /// Waits for its first event.
    pub(crate) fn begins(&self) {
        self.wait("it receives an event", |state| !state.events.is_empty());
    }

    /// Its number of responses that were streams, and ended without an event.
    pub(crate) fn empty(&self) -> usize {
        lock(&self.state).empty
    }

    /// Waits until it has come back in vain.
    pub(crate) fn comes_back_in_vain(&self) {
        let before = self.empty();
        self.wait("it comes back in vain", |state| state.empty > before);
    }

    /// Waits until it has given up, and returns why.
    pub(crate) fn gives_up(&self) -> String {
        let mut why = None;
        eventually("it gives up", || {
            why = lock(&self.state).gave_up.clone();
            why.is_some()
        });
        why.expect("given up")
    }

    /// Waits for a condition, while it must not give up.
    fn wait(&self, what: &str, holds: impl Fn(&State) -> bool) {
        eventually(what, || {
            let state = lock(&self.state);
            assert_eq!(state.gave_up, None, "{what}: an EventSource has given up for good");
            holds(&state)
        });
    }
}

impl Drop for EventSource {
    fn drop(&mut self) {
        let socket = {
            let mut state = lock(&self.state);
            state.over = true;
            state.socket.take()
        };
        if let Some(socket) = socket {
            _ = socket.shutdown(Shutdown::Both);
        }
        _ = self.thread.take().map(JoinHandle::join);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // An assertion of a test may have failed with it.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(request: &Request, state: &Mutex<State>) {
    let (mut retry, mut id) = (Duration::from_secs(3), String::new());
    while !lock(state).over {
        let mut parser = Parser::resume(id.clone());
        let before = lock(state).events.len();
        match request.send(&mut parser, state).unwrap_or(End::Lost) {
            End::Failed(why) => {
                lock(state).gave_up = Some(why);
                return;
            }
            End::Lost => {}
        }
        if parser.retry_ms().is_some() && lock(state).events.len() == before {
            lock(state).empty += 1;
        }
        retry = parser.retry_ms().map_or(retry, Duration::from_millis);
        parser.last_event_id().clone_into(&mut id);
        thread::sleep(retry / HASTE);
    }
}

// ===== impl Request =====

impl Request {
    /// Sends it once, and reads the response to its end.
    fn send(&self, parser: &mut Parser, state: &Mutex<State>) -> io::Result<End> {
        let mut socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(BOUND))?;
        {
            let mut state = lock(state);
            if state.over {
                return Ok(End::Lost);
            }
            state.socket = Some(socket.try_clone()?);
        }
        let id = parser.last_event_id();
        let id = if id.is_empty() { String::new() } else { format!("last-event-id: {id}\r\n") };
        write!(
            socket,
            "GET {} HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\naccept-encoding: gzip\r\n\
             cache-control: no-cache\r\norigin: {ORIGIN}\r\ncookie: nudged_token={COOKIE}\r\n{id}\r\n",
            self.path, self.address
        )?;
        let mut response = BufReader::new(socket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if response.read_line(&mut head)? == 0 {
                return Ok(End::Lost);
            }
        }
        if let Some(why) = refusal(&head) {
            return Ok(End::Failed(format!("{why}: {head}")));
        }
        let mut dispatch = |bytes: &[u8]| {
            let push = parser.push(bytes, |event| lock(state).events.push(event));
            push.expect("events of a usual size");
        };
        if header(&head, "transfer-encoding").is_some_and(|coding| coding == "chunked") {
            while let Some(chunk) = next_chunk(&mut response)? {
                dispatch(&chunk);
            }
            return Ok(End::Lost);
        }
        let length = header(&head, "content-length");
        let length = length.map_or(u64::MAX, |length| length.parse().expect("a length"));
        let mut body = response.take(length);
        loop {
            let bytes = body.fill_buf()?;
            if bytes.is_empty() {
                return Ok(End::Lost);
            }
            dispatch(bytes);
            let read = bytes.len();
            body.consume(read);
        }
    }
}

/// Why a browser would give up at a response.
fn refusal(head: &str) -> Option<&'static str> {
    let is = |name, value: &str| header(head, name).is_some_and(|field| field.starts_with(value));
    if head.split(' ').nth(1) != Some("200") {
        Some("a status other than 200")
    } else if !is("content-type", "text/event-stream") {
        Some("no stream")
    } else if header(head, "content-encoding").is_some() {
        Some("a browser would wait for what the compressor holds")
    } else if !is("access-control-allow-origin", ORIGIN) {
        Some("not for this origin")
    } else {
        None
    }
}

/// A part of a chunked body, `None` at its end.
pub(crate) fn next_chunk(response: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = String::new();
    response.read_line(&mut line)?;
    let size = usize::from_str_radix(line.trim_end(), 16).map_err(|_| ErrorKind::UnexpectedEof)?;
    let mut chunk = vec![0; size + 2];
    response.read_exact(&mut chunk)?;
    chunk.truncate(size);
    Ok((size > 0).then_some(chunk))
}
