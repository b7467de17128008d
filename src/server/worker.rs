//! A worker: one thread, one runtime, one lane of the hub, and its own listening sockets.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::conn::Connection;
use super::listen::Listening;
use super::secure;
use super::tls::Tls;
use crate::http::{App, Host, Parking, Service};
use crate::hub::Hub;
use crate::stream::{Clock, Entrance, Lot, drive_with};

/// A worker before it runs.
#[derive(Debug)]
pub(crate) struct Worker {
    app: Arc<App>,
    hub: Hub,
    clock: Clock,
    sockets: Vec<Listening>,
    tls: Option<Tls>,
}

/// A worker's thread.
#[derive(Debug)]
pub(crate) struct Running {
    thread: thread::JoinHandle<()>,
    /// Closed when the thread ends, in whatever way.
    end: oneshot::Receiver<()>,
}

/// How the connections of one listener are served.
#[derive(Debug)]
struct Door {
    host: Host,
    /// `None` for cleartext.
    tls: Option<Tls>,
    draining: watch::Receiver<bool>,
}

/// Accepts that failed for want of something, which goes on for as long as the want does.
#[derive(Debug, Default)]
struct Trouble {
    told: Option<Instant>,
    since: u32,
}

/// How often the log is told of a want.
const TELL: Duration = Duration::from_secs(60);

/// How long accepting pauses when the system has no descriptor or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that are accepted before others have their turn.
const ACCEPTS_A_TURN: u32 = 16;
/// How long a drain waits for the first request of what was accepted last: to close such a connection
/// would fail a request that is on its way.
const FIRST_REQUEST: Duration = Duration::from_millis(100);

/// Tasks that run before the runtime's poller is asked again.
const EVENT_INTERVAL: u32 = 4;

// ===== impl Worker =====

impl Worker {
    pub(crate) fn new(
        app: Arc<App>,
        hub: Hub,
        clock: Clock,
        sockets: Vec<Listening>,
        tls: Option<Tls>,
    ) -> Self {
        Self { app, hub, clock, sockets, tls }
    }

    /// Starts the thread. It stops accepting once `draining` says when the server ends at the latest,
    /// and ends then, or once its connections have ended.
    pub(crate) fn start(self, draining: watch::Receiver<Option<Instant>>) -> io::Result<Running> {
        // The poller is asked after a few tasks, not after tokio's 61: a turn of a sweep is a task.
        let runtime =
            Builder::new_current_thread().enable_all().event_interval(EVENT_INTERVAL).build()?;
        let (alive, end) = oneshot::channel();
        let work = move || {
            let _alive = alive;
            self.run(&runtime, draining);
        };
        let thread = thread::Builder::new().name("nudged-worker".into()).spawn(work)?;
        Ok(Running { thread, end })
    }

    fn run(self, runtime: &Runtime, mut draining: watch::Receiver<Option<Instant>>) {
        let Self { app, hub, clock, sockets, tls } = self;
        let (connections, connection) = watch::channel(false);
        runtime.block_on(async {
            let parking = app.config().park.then(|| Entrance::new(hub.clone()));
            let lot = parking.clone().map(|entrance| Lot::new(entrance).expect("a poller"));
            let mut driver = tokio::spawn(drive_with(hub.clone(), clock, lot));
            let host = Host::new(app.clone(), hub, parking.map(Parking::new));
            let mut accepting = Vec::new();
            for Listening { socket, secure } in sockets {
                let listener = watch(socket).expect("a listening socket");
                let tls = tls.clone().filter(|_| secure);
                let door = Door { host: host.clone(), tls, draining: connection.clone() };
                accepting.push(tokio::spawn(accept(listener, door)));
            }
            drop(connection);

            // Without its driver a worker would accept and deliver nothing: better that it ends, and
            // the process with it.
            if first(&mut driver, pin!(draining.wait_for(Option::is_some))).await {
                return;
            }
            for task in accepting {
                task.abort();
                _ = task.await;
            }
            let deadline = draining.borrow().unwrap_or_else(Instant::now);
            #[expect(clippy::disallowed_methods, reason = "once, at the end")]
            let ended = tokio::time::timeout_at(deadline, async {
                tokio::time::sleep(FIRST_REQUEST).await;
                connections.send_replace(true);
                connections.closed().await;
                driver.await
            });
            match ended.await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => std::panic::resume_unwind(why.into_panic()),
                Err(_) => tracing::warn!("connections were cut that did not end in time"),
            }
        });
    }
}

/// Whether the driver ended before the server began to drain.
async fn first(driver: &mut JoinHandle<()>, mut draining: Pin<&mut impl Future>) -> bool {
    poll_fn(|cx| match Pin::new(&mut *driver).poll(cx) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending => draining.as_mut().poll(cx).map(|_| false),
    })
    .await
}

/// Accepts until it is aborted. No error ends it: a server that does not accept is down.
async fn accept(listener: AsyncFd<TcpListener>, door: Door) {
    let mut accepted = 0_u32;
    let mut trouble = Trouble::default();
    loop {
        match listener.async_io(Interest::READABLE, TcpListener::accept).await {
            Ok((socket, peer)) => {
                let Some(service) = door.host.admit(peer.ip()).await else { continue };
                door.serve(socket, service).await;
                accepted = accepted.wrapping_add(1);
                if accepted.is_multiple_of(ACCEPTS_A_TURN) {
                    tokio::task::yield_now().await;
                }
            }
            Err(why) if is_of_the_connection(&why) => tracing::debug!(%why, "accept"),
            Err(why) => {
                trouble.tell(&why, Instant::now());
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a pause of accepting, not of serving"
                )]
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The runtime watches a listener, and does not watch what it accepts.
fn watch(listener: std::net::TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    // Its successor, `register`, is unsafe because of types that replace their descriptor. A listener
    // keeps the one it has.
    #[expect(deprecated, reason = "the safe way to say this")]
    AsyncFd::with_interest(TcpListener::from_std(listener), Interest::READABLE)
}

/// Errors that accept(2) passes on from a connection that is already over.
fn is_of_the_connection(why: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(why.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

// ===== impl Trouble =====

impl Trouble {
    fn tell(&mut self, why: &io::Error, now: Instant) {
        self.since += 1;
        if self.told.is_none_or(|told| now.duration_since(told) >= TELL) {
            tracing::warn!(%why, times = self.since, "cannot accept; pausing, and trying again");
            *self = Self { told: Some(now), since: 0 };
        }
    }
}

// ===== impl Door =====

impl Door {
    /// Serves a connection, or has it served by a task if it has to wait.
    async fn serve(&self, socket: TcpStream, service: Service) {
        if let Some(tls) = &self.tls {
            tokio::spawn(secure::serve(socket, service, tls.acceptor(), self.draining.clone()));
            return;
        }
        let mut fresh = Some(Connection::new(socket, service));
        poll_fn(|cx| {
            Connection::begin(&mut fresh, cx);
            Poll::Ready(())
        })
        .await;
        if let Some(waiting) = fresh {
            tokio::spawn(waiting.serve(self.draining.clone()));
        }
    }
}

// ===== impl Running =====

impl Running {
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.end).poll(cx).map(|_| ())
    }

    /// Waits for the end of the thread. Returns whether it ended without a panic.
    pub(crate) async fn join(self) -> bool {
        _ = self.end.await;
        self.thread.join().is_ok()
    }
}
