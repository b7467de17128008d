//! What the old process sends to the new one once that is live: connections and operations that come late.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::control::{Control, ControlError};
use super::memory_file;
use super::message::Message;
use crate::admission::PeerSource;
use crate::http::{Operation, OperationSender};
use crate::server::passed_connection::PassedConnection;
use crate::sync::{AtomicUsize, Ordering};

/// The process that has taken over. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Successor {
    control: Arc<Control>,
    /// To the thread that passes connections on.
    connections: Sender<(OwnedFd, PassedConnection)>,
    /// Those that it has not passed on yet.
    waiting: Arc<AtomicUsize>,
}

/// It was not sent: the successor has ended, or does not keep up.
#[derive(Debug)]
pub(crate) struct Gone(String);

/// Connections that wait until the successor has room for them, at most: those that this process has, and some that come
/// meanwhile.
const WAITING_MAX: usize = 1 << 20;

/// The longest time for which one waits as the first of them.
const PASS_ON_MAX: Duration = Duration::from_secs(10);

/// The longest time for which the thread of the upgrade waits until the successor has room for a message.
const SEND_MAX: Duration = Duration::from_millis(200);

/// Between two looks at whether all have been passed on.
const WAITING_CHECK: Duration = Duration::from_millis(5);

/// The longest time for which a thread that serves connections does.
const OPERATION_SEND_MAX: Duration = Duration::from_millis(20);

// ===== impl Successor =====

impl Successor {
    /// The process at the other end, which is live.
    pub(crate) fn new(control: Arc<Control>) -> Self {
        let (connections, passed) = channel();
        let waiting = Arc::<AtomicUsize>::default();
        let (of_thread, left) = (control.clone(), waiting.clone());
        let thread = thread::Builder::new().name("nudged-pass-on".into());
        // Without a thread nothing can be passed on, which is logged for each.
        if let Err(why) = thread.spawn(move || pass_on_all(&of_thread, &passed, &left)) {
            tracing::error!(%why, "a thread could not be created");
        }
        Self { control, connections, waiting }
    }

    /// Gives it a connection, which is closed here without a shutdown once the successor has it. Does not wait.
    ///
    /// # Errors
    /// [`Gone`]; the connection is closed.
    pub(crate) fn pass_on(
        &self,
        socket: impl Into<OwnedFd>,
        connection: PassedConnection,
    ) -> Result<(), Gone> {
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(Gone("too many connections wait for it".into()));
        }
        self.connections.send((socket.into(), connection)).map_err(|_| {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            Gone("it has ended".into())
        })
    }

    /// Waits until all connections have been passed on, or until then. Nothing is sent afterwards.
    pub(super) async fn end(&self, deadline: Instant) {
        while self.waiting.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            #[expect(clippy::disallowed_methods, reason = "once, at the end")]
            tokio::time::sleep(WAITING_CHECK).await;
        }
        self.control.shutdown();
    }

    /// The service manager knows it as the main process.
    pub(super) fn is_main(&self) -> Result<(), Gone> {
        let until = Instant::now() + SEND_MAX;
        self.control.send(&Message::IsMain, &[], until).map_err(Gone::from)
    }
}

/// Passes connections on until nothing holds the [`Successor`] any more, or that has ended.
fn pass_on_all(
    control: &Control,
    connections: &Receiver<(OwnedFd, PassedConnection)>,
    waiting: &AtomicUsize,
) {
    let mut has_ended = false;
    for (socket, connection) in connections {
        let PassedConnection { peer, internal, secure, first, source } = connection;
        let peer = peer.map(|peer| SocketAddr::new(peer, 0).to_string()).unwrap_or_default();
        let named = match source {
            PeerSource::Socket => None,
            source => Some(source == PeerSource::Header),
        };
        let message = Message::Connection { peer, internal, secure, first, named };
        let until = Instant::now() + PASS_ON_MAX;
        // The others are closed as well, without a wait.
        let sent = match has_ended {
            true => Err(ControlError::Ended),
            false => control.send(&message, &[socket.as_fd()], until),
        };
        if let Err(why) = sent {
            tracing::debug!(%why, "a connection could not be passed on");
            has_ended |= matches!(why, ControlError::Ended);
        }
        drop(socket);
        waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl OperationSender for Successor {
    fn send(&self, number: u64, operation: &Operation) -> Result<(), String> {
        let (lines, all) = match operation {
            Operation::Lines(lines) => (&lines[..], false),
            Operation::RereadAll => (&[][..], true),
        };
        let mut file = memory_file::create().map_err(|why| why.to_string())?;
        file.write_all(lines).map_err(|why| why.to_string())?;
        let message = Message::Operation { number, all };
        let until = Instant::now() + OPERATION_SEND_MAX;
        self.control.send(&message, &[file.as_fd()], until).map_err(|why| why.to_string())
    }
}

// ===== impl Gone =====

impl From<ControlError> for Gone {
    fn from(why: ControlError) -> Self {
        Self(why.to_string())
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Gone {}
