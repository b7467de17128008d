//! A relay between a client and its server that records the wire, and opens what it has recorded with the secrets of
//! the client's key log. So a test sees each record of either side, whichever program the client is.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::key_log::KeyLog;
use super::record::{Message, Opened, Opener, kind, records};
use crate::support::BOUND;

/// Ends with the test's process.
pub(super) struct Tap {
    pub(super) address: SocketAddr,
    connections: Arc<Mutex<Vec<Recording>>>,
    log: Arc<KeyLog>,
}

/// What each side of a connection has sent so far.
#[derive(Clone, Default)]
struct Recording {
    client: Vec<u8>,
    server: Vec<u8>,
}

/// What each side has sent after the handshake.
#[derive(Default)]
pub(super) struct Transcript {
    /// The number of the cipher suite.
    pub(super) suite: u16,
    pub(super) client: Vec<Opened>,
    pub(super) server: Vec<Opened>,
}

// ===== impl Tap =====

impl Tap {
    pub(super) fn start(upstream: SocketAddr, log: KeyLog) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let connections = Arc::new(Mutex::new(Vec::new()));
        let recordings = connections.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(upstream) else { return };
                relay(&client, &server, &recordings);
            }
        });
        Self { address, connections, log: Arc::new(log) }
    }

    pub(super) fn log(&self) -> Arc<KeyLog> {
        self.log.clone()
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}/api/acme/events", self.address)
    }

    /// The connections that have requested a stream, in the order in which they were accepted.
    pub(super) fn streams(&self) -> Vec<Transcript> {
        let recordings = self.connections.lock().expect("no panic").clone();
        let transcripts = recordings.iter().filter_map(|recording| recording.open(&self.log));
        transcripts.filter(Transcript::is_stream).collect()
    }

    /// The transcript of the only stream, once it satisfies this.
    pub(super) fn until(&self, what: &str, holds: impl Fn(&Transcript) -> bool) -> Transcript {
        let start = Instant::now();
        loop {
            let mut streams = self.streams();
            assert!(streams.len() <= 1, "{what}: {streams:?}");
            let seen = streams.pop();
            if let Some(seen) = seen.filter(&holds) {
                return seen;
            }
            assert!(start.elapsed() < BOUND, "not in time: {what}: {:?}", self.streams());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Copies both directions, each on a thread. Bytes are recorded before they go on.
fn relay(client: &TcpStream, server: &TcpStream, recordings: &Arc<Mutex<Vec<Recording>>>) {
    let number = {
        let mut recordings = recordings.lock().expect("no panic");
        recordings.push(Recording::default());
        recordings.len() - 1
    };
    for is_client in [true, false] {
        let (from, to) = if is_client { (client, server) } else { (server, client) };
        let mut from = from.try_clone().expect("a socket");
        let mut to = to.try_clone().expect("a socket");
        let recordings = recordings.clone();
        thread::spawn(move || {
            let mut bytes = [0; 16 * 1024];
            while let Ok(length @ 1..) = from.read(&mut bytes) {
                {
                    let recording = &mut recordings.lock().expect("no panic")[number];
                    let side =
                        if is_client { &mut recording.client } else { &mut recording.server };
                    side.extend(&bytes[..length]);
                }
                if to.write_all(&bytes[..length]).is_err() {
                    _ = from.shutdown(Shutdown::Both);
                    break;
                }
            }
            _ = to.shutdown(Shutdown::Write);
        });
    }
}

// ===== impl Recording =====

impl Recording {
    /// `None` if it is no TLS 1.3, or the handshake has not ended.
    fn open(&self, log: &KeyLog) -> Option<Transcript> {
        let [client, server] = [&self.client, &self.server].map(|bytes| records(bytes));
        let client_random = client.first()?.get(11..43)?;
        let hello = server.first()?;
        let session_id = usize::from(*hello.get(43)?);
        let suite = hello.get(44 + session_id..46 + session_id)?;
        let suite = u16::from_be_bytes([suite[0], suite[1]]);
        let open = |side: &str, sent: &[&[u8]]| {
            let secret = |of: &str| log.secret(&format!("{side}_{of}"), client_random);
            let handshake = Opener::new(suite, secret("HANDSHAKE_TRAFFIC_SECRET")?);
            open(sent, handshake, Opener::new(suite, secret("TRAFFIC_SECRET_0")?))
        };
        Some(Transcript {
            suite,
            client: open("CLIENT", &client)?,
            server: open("SERVER", &server)?,
        })
    }
}

/// What a side has sent after its Finished.
fn open(sent: &[&[u8]], mut handshake: Opener, mut traffic: Opener) -> Option<Vec<Opened>> {
    let mut sealed = sent.iter().filter(|record| record[0] == kind::DATA);
    let is_finished = |opened: &Opened| opened.message == Message::Handshake(20);
    sealed.find(|record| handshake.open(record).iter().any(is_finished))?;
    Some(sealed.flat_map(|record| traffic.open(record)).collect())
}

// ===== impl Transcript =====

impl fmt::Debug for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cipher suite {:#x}", self.suite)?;
        for (name, side) in [("client", &self.client), ("server", &self.server)] {
            for Opened { generation, message } in side {
                match message {
                    Message::Data(data) => {
                        let text = String::from_utf8_lossy(data);
                        writeln!(f, "{name} {generation} {text:?}")?;
                    }
                    other => writeln!(f, "{name} {generation} {other:?}")?,
                }
            }
        }
        Ok(())
    }
}

impl Transcript {
    fn is_stream(&self) -> bool {
        text(&self.client).starts_with("GET /api/")
    }

    /// What both sides have sent but data, each with its generation.
    pub(super) fn without_data(side: &[Opened]) -> Vec<Opened> {
        side.iter().filter(|opened| !matches!(opened.message, Message::Data(_))).cloned().collect()
    }

    /// Number of key updates that a side has sent, with or without a request.
    pub(super) fn key_updates(side: &[Opened], requested: bool) -> usize {
        side.iter().filter(|opened| opened.message == Message::KeyUpdate { requested }).count()
    }

    /// The generation of the server's keys with which the event of this key was sealed.
    pub(super) fn generation(&self, key: &str) -> Option<u32> {
        let key = format!("{{\"keys\":[\"{key}\"]}}");
        let mut records = self.server.iter();
        let record = records.find(|opened| match &opened.message {
            Message::Data(data) => String::from_utf8_lossy(data).contains(&key),
            _ => false,
        });
        record.map(|opened| opened.generation)
    }
}

/// The data of one side.
pub(super) fn text(side: &[Opened]) -> String {
    let data = side.iter().filter_map(|opened| match &opened.message {
        Message::Data(data) => Some(String::from_utf8_lossy(data)),
        _ => None,
    });
    data.collect()
}
