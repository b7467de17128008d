//! A connection to PostgreSQL that a test holds between the publish and the COMMIT.
#![allow(clippy::disallowed_types, reason = "loom does not replace the locks of a test")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::postgres::Postgres;

/// Forwards connections, cleartext, until one is held. Ends with the test's process.
pub(super) struct Gate {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The COMMIT of a transaction that has read this is held.
    marker: Option<&'static str>,
    /// Both ends of the connections that are held: neither notices anything.
    held: Vec<[TcpStream; 2]>,
    connections: usize,
}

// ===== impl Gate =====

impl Gate {
    pub(super) fn before(postgres: &Postgres) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State::default()));
        let (accepting, upstream) = (state.clone(), postgres.address());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(upstream) else { continue };
                accepting.lock().expect("no panic").connections += 1;
                forward(&accepting, client, server);
            }
        });
        Self { address, state }
    }

    /// What `--outbox` is for it.
    pub(super) fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres?sslmode=disable", self.address)
    }

    /// The next COMMIT of a transaction that has read this is not forwarded, nor anything after it.
    pub(super) fn hold_commit_of(&self, marker: &'static str) {
        self.state.lock().expect("no panic").marker = Some(marker);
    }

    pub(super) fn is_holding(&self) -> bool {
        !self.state.lock().expect("no panic").held.is_empty()
    }

    /// Connections that there were.
    pub(super) fn connections(&self) -> usize {
        self.state.lock().expect("no panic").connections
    }

    /// Ends the connections that are held.
    pub(super) fn end_held(&self) {
        for socket in self.state.lock().expect("no panic").held.drain(..).flatten() {
            _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Copies in both directions, each in a thread.
fn forward(state: &Arc<Mutex<State>>, client: TcpStream, server: TcpStream) {
    let copy = |socket: &TcpStream| socket.try_clone().expect("a descriptor");
    let (mut replies, mut requester) = (copy(&server), copy(&client));
    let read = Arc::new(Mutex::new(Vec::new()));
    let has_read = read.clone();
    thread::spawn(move || {
        let mut bytes = [0; 16 * 1024];
        while let Ok(count @ 1..) = replies.read(&mut bytes) {
            read.lock().expect("no panic").extend_from_slice(&bytes[..count]);
            if requester.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        _ = requester.shutdown(Shutdown::Both);
    });
    let (state, mut requests, mut to) = (state.clone(), copy(&client), copy(&server));
    thread::spawn(move || {
        let mut bytes = [0; 16 * 1024];
        while let Ok(count @ 1..) = requests.read(&mut bytes) {
            if contains(&bytes[..count], b"COMMIT\0") {
                let read = std::mem::take(&mut *has_read.lock().expect("no panic"));
                let mut state = state.lock().expect("no panic");
                if state.marker.is_some_and(|marker| contains(&read, marker.as_bytes())) {
                    state.marker = None;
                    state.held.push([client, server]);
                    return;
                }
            }
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        _ = to.shutdown(Shutdown::Both);
    });
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
