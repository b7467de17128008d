//! The client of a connection: does the steps of a script.

use std::future::pending;
use std::io::ErrorKind;
use std::mem;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::TIMEOUT;
use super::received::{PREFACE, Received};
use super::script::{ALPN_H2, SMALL_BUFFERS, Step, TLS};
use super::tls::{Handshake, Progress, Session};
use crate::hub::{Hub, Keys};
use crate::ids::OrgName;
use crate::stream::Clock;

/// A client, and its end of the connection.
pub(super) struct Client {
    /// `None` once it is reset.
    socket: Option<TcpStream>,
    flags: u8,
    layer: Layer,
    /// 0 if what is sent is not cut into pieces.
    piece_len: usize,
    /// How much of the next step is sent.
    cut: Option<usize>,
    /// What it receives stays in the buffer of the socket.
    holds: bool,
    received: Received,
}

/// What is between the steps and the socket.
enum Layer {
    /// Nothing: cleartext, or TLS before its handshake.
    Plain,
    Tls(Box<Session>),
    /// The handshake failed, and nothing but raw bytes can be sent.
    Failed,
}

/// Pauses of one input in total.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// Turns of the server between two pieces, and in a pause without time.
const TURNS: usize = 4;

/// How often, and how long each time, a busy kernel is waited for.
const CATCH_UPS: usize = 400;
const CATCH_UP: Duration = Duration::from_millis(5);

// ===== impl Client =====

impl Client {
    pub(super) fn new(socket: TcpStream, flags: u8) -> Self {
        let received = Received {
            is_tls: flags & TLS != 0,
            is_hindered: flags & SMALL_BUFFERS != 0,
            ..Received::default()
        };
        Self {
            socket: Some(socket),
            flags,
            layer: Layer::Plain,
            piece_len: 0,
            cut: None,
            holds: false,
            received,
        }
    }

    pub(super) async fn perform(&mut self, step: Step<'_>, hub: &Hub, clock: Clock) {
        match step {
            Step::Raw(bytes) => self.send(bytes.to_vec()).await,
            Step::Write(bytes) => self.write(23, bytes).await,
            Step::Record(kind, content) => self.write(kind, content).await,
            Step::KeyUpdate { requested } => {
                self.shake_hands().await;
                if let Layer::Tls(session) = &mut self.layer {
                    let record = session.key_update(requested);
                    self.send(record).await;
                }
            }
            Step::Frame { kind, flags, stream, payload } => {
                let len = u8::try_from(payload.len()).expect("its length is a byte");
                let mut frame = vec![0, 0, len, kind, flags, 0, 0, 0, stream];
                frame.extend_from_slice(payload);
                self.write(23, &frame).await;
            }
            Step::Pieces(len) => self.piece_len = len,
            Step::Cut(len) => self.cut = Some(len),
            Step::Pause(time) => self.pause(time).await,
            Step::Publish { keys } => self.publish(keys, hub, clock),
            Step::Hold => (self.holds, self.received.is_hindered) = (true, true),
            Step::Read => self.holds = false,
            Step::ShutDown => {
                if let Some(socket) = &mut self.socket {
                    _ = socket.shutdown().await;
                }
            }
            Step::Reset => {
                self.received.is_hindered = true;
                if let Some(socket) = self.socket.take() {
                    _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
                }
            }
        }
    }

    /// Closes the sending half, and reads to the end of the connection.
    #[expect(clippy::disallowed_methods, reason = "virtual time: bounds the exchange")]
    pub(super) async fn finish(mut self) -> Received {
        if let Some(socket) = &mut self.socket {
            _ = socket.shutdown().await;
        }
        self.holds = false;
        let read = async {
            while !self.received.is_complete && self.socket.is_some() {
                self.more().await;
            }
        };
        _ = timeout(TIMEOUT, read).await;
        if !self.received.is_hindered {
            self.catch_up().await;
        }
        // A close with a full window reaches the server by the kernel's timers, which run in real time.
        if let Some(socket) = self.socket.take_if(|_| !self.received.is_complete) {
            _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
        if let Layer::Tls(session) = self.layer {
            self.received.session = Some(session);
        }
        self.received
    }

    /// Reads to the end in real time, where virtual time was faster than a busy kernel.
    async fn catch_up(&mut self) {
        for _ in 0..CATCH_UPS {
            if self.received.is_complete {
                return;
            }
            std::thread::sleep(CATCH_UP);
            turns().await;
            self.read();
        }
    }

    /// Sends content within the session, which it begins. In cleartext there is only application data.
    async fn write(&mut self, kind: u8, content: &[u8]) {
        if !self.received.is_tls {
            return self.send(content.to_vec()).await;
        }
        self.shake_hands().await;
        if let Layer::Tls(session) = &mut self.layer {
            let record = session.record(kind, content);
            self.send(record).await;
        }
    }

    async fn shake_hands(&mut self) {
        if !self.received.is_tls || !matches!(self.layer, Layer::Plain) {
            return;
        }
        self.layer = Layer::Failed;
        let mut handshake = Handshake::new(self.flags & ALPN_H2 != 0);
        let holds = mem::replace(&mut self.holds, false);
        loop {
            let mut send = Vec::new();
            let progress = handshake.advance(&mut self.received.bytes, &mut send);
            self.send(send).await;
            match progress {
                Progress::Blocked(blocked) => handshake = blocked,
                Progress::Done(session) => {
                    self.layer = Layer::Tls(session);
                    break;
                }
                Progress::Failed => break,
            }
            let before = self.received.bytes.len();
            if before == self.more().await {
                break;
            }
        }
        self.holds = holds;
    }

    /// Sends bytes while it reads, unless it holds. Gives up when the server takes nothing.
    #[expect(clippy::disallowed_methods, reason = "virtual time: bounds the exchange")]
    async fn send(&mut self, mut bytes: Vec<u8>) {
        if let Some(cut) = self.cut.take() {
            bytes.truncate(cut);
            self.received.is_hindered = true;
        }
        self.received.sent += bytes.len();
        if !self.received.is_tls {
            let missing = PREFACE.len().saturating_sub(self.received.first.len());
            self.received.first.extend(bytes.iter().take(missing));
        }
        let piece_len = if self.piece_len == 0 { bytes.len().max(1) } else { self.piece_len };
        for (index, piece) in bytes.chunks(piece_len).enumerate() {
            if index > 0 {
                turns().await;
            }
            let mut rest = piece;
            while !rest.is_empty() {
                self.read();
                let Some(socket) = &self.socket else { return };
                match socket.try_write(rest) {
                    Ok(len) => rest = &rest[len..],
                    Err(why) if why.kind() == ErrorKind::WouldBlock => {
                        let reads = !self.holds && !self.received.is_complete;
                        let both = Interest::READABLE | Interest::WRITABLE;
                        let interest = if reads { both } else { Interest::WRITABLE };
                        if timeout(TIMEOUT, socket.ready(interest)).await.is_err() {
                            self.received.is_hindered = true;
                            return;
                        }
                    }
                    Err(_) => return, // the server may close at any time
                }
            }
        }
    }

    /// Reads what there is, unless it holds.
    fn read(&mut self) {
        let Some(socket) = &self.socket else { return };
        let mut buffer = [0; 4096];
        while !self.holds && !self.received.is_complete {
            match socket.try_read(&mut buffer) {
                Ok(0) => self.received.is_complete = true,
                Ok(len) => self.received.bytes.extend_from_slice(&buffer[..len]),
                Err(why) if why.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.received.is_hindered = true;
                    self.received.is_complete = true;
                }
            }
        }
    }

    /// Waits for more to read. Returns how much is read in all.
    #[expect(clippy::disallowed_methods, reason = "virtual time: bounds the exchange")]
    async fn more(&mut self) -> usize {
        if let Some(socket) = &self.socket
            && !self.received.is_complete
        {
            _ = timeout(TIMEOUT, socket.readable()).await;
        }
        self.read();
        self.received.bytes.len()
    }

    async fn pause(&mut self, time: Duration) {
        let time = time.min(PAUSE_MAX.saturating_sub(self.received.paused));
        self.received.paused += time;
        turns().await;
        self.during(time).await;
    }

    /// Reads for this long, unless it holds, or until the end of the connection.
    #[expect(clippy::disallowed_methods, reason = "virtual time: bounds the exchange")]
    async fn during(&mut self, time: Duration) {
        let read = async {
            while !self.holds && !self.received.is_complete && self.socket.is_some() {
                self.more().await;
            }
            pending::<()>().await;
        };
        _ = timeout(time, read).await;
    }

    fn publish(&mut self, keys: u8, hub: &Hub, clock: Clock) {
        let org: OrgName = "acme".parse().expect("a name");
        let names: Vec<_> = (0..keys).map(|n| format!("{n:0>250}")).collect();
        if let Ok(keys) = Keys::new(names.iter().map(String::as_str), hub.config()) {
            hub.publish(&org, &keys, clock.now());
            self.received.published += 256 * (names.len() + 1);
        }
    }
}

async fn turns() {
    // The kernel may still have to deliver what was sent.
    std::thread::yield_now();
    for _ in 0..TURNS {
        yield_now().await;
    }
}
