//! A relay between a browser and its server, with which tests cut the network.
#![allow(clippy::disallowed_types, reason = "loom does not replace the locks of a test")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Serves pages, and forwards what is for the API byte for byte. Ends with the test's process.
#[derive(Clone)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// The page of a path that is not of the API.
    page: fn(&str) -> String,
}

struct State {
    /// The server; `None` while it is unreachable.
    upstream: Option<SocketAddr>,
    /// Browser and server of each connection, in turn.
    open: Vec<TcpStream>,
    /// The end of a server's connection does not end that of its browser.
    conceals_ends: bool,
    /// The heads of the requests for streams.
    heads: Vec<String>,
    /// The last id that was forwarded on any stream.
    last_id: String,
}

// ===== impl Relay =====

impl Relay {
    pub(crate) fn start(upstream: impl Into<Option<SocketAddr>>, page: fn(&str) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = State {
            upstream: upstream.into(),
            open: vec![],
            conceals_ends: false,
            heads: vec![],
            last_id: String::new(),
        };
        let relay = Self { address, state: Arc::new(Mutex::new(state)), page };
        let accepting = relay.clone();
        thread::spawn(move || {
            for browser in listener.incoming().flatten() {
                let relay = accepting.clone();
                thread::spawn(move || relay.serve(browser));
            }
        });
        relay
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes every connection, and refuses new ones until there is an upstream.
    pub(crate) fn set_upstream(&self, upstream: Option<SocketAddr>) {
        let mut state = self.state.lock().expect("no panic");
        state.upstream = upstream;
        for socket in state.open.drain(..) {
            _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Ends the server's connections, of which the browsers notice nothing, and refuses new ones until there is an
    /// upstream. Returns what it was.
    pub(crate) fn silence(&self) -> Option<SocketAddr> {
        let mut state = self.state.lock().expect("no panic");
        state.conceals_ends = true;
        state.open.iter().skip(1).step_by(2).for_each(|s| _ = s.shutdown(Shutdown::Both));
        state.upstream.take()
    }

    /// Forwards new connections there; what is open stays as it is.
    pub(crate) fn forward_to(&self, upstream: Option<SocketAddr>) {
        self.state.lock().expect("no panic").upstream = upstream;
    }

    /// The head of the last request for a stream.
    pub(crate) fn last_head(&self) -> String {
        self.state.lock().expect("no panic").heads.last().cloned().unwrap_or_default()
    }

    /// The last id that was forwarded to a browser.
    pub(crate) fn last_id(&self) -> String {
        self.state.lock().expect("no panic").last_id.clone()
    }

    fn serve(&self, mut browser: TcpStream) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match browser.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if !head.starts_with("GET /api/") {
            let path = head.split(' ').nth(1).unwrap_or_default();
            let body = (self.page)(path);
            let length = body.len();
            let kind = if path.ends_with(".js") { "text/javascript" } else { "text/html" };
            _ = write!(
                browser,
                "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            return;
        }
        let mut server = {
            let mut state = self.state.lock().expect("no panic");
            let Some(upstream) = state.upstream else { return };
            let Ok(server) = TcpStream::connect(upstream) else { return };
            state.open.extend([&browser, &server].map(|s| s.try_clone().expect("a socket")));
            state.heads.push(head.clone());
            server
        };
        _ = server.write_all(head.as_bytes());
        self.copy(&mut server, &mut browser);
        if self.state.lock().expect("no panic").conceals_ends {
            return; // `open` keeps the connection
        }
        _ = browser.shutdown(Shutdown::Both);
    }

    /// Forwards until either end fails. A line that is cut in two is put together.
    fn copy(&self, server: &mut TcpStream, browser: &mut TcpStream) {
        let mut bytes = [0; 16 * 1024];
        let mut line = String::new();
        while let Ok(read @ 1..) = server.read(&mut bytes) {
            if browser.write_all(&bytes[..read]).is_err() {
                return;
            }
            line.push_str(&String::from_utf8_lossy(&bytes[..read]));
            while let Some((first, rest)) = line.split_once('\n') {
                if let Some(id) = first.strip_prefix("id: ") {
                    self.state.lock().expect("no panic").last_id = id.trim().to_owned();
                }
                line = rest.to_owned();
            }
        }
    }
}
