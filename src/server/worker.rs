//! A worker: one thread, one runtime, one shard of the hub, and its own listening sockets.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::acceptor::Acceptor;
use super::conn_context::ConnContext;
use super::listen::Listening;
use super::reactor::{Handle, Reactor};
use super::tls::Tls;
#[cfg(target_os = "linux")]
use super::upgrade::late::{LateReceiver, LateSender, late};
use crate::http::{App, ServiceFactory};
use crate::hub::Hub;
use crate::stream::{Clock, drive_with};

/// A worker before it runs.
#[derive(Debug)]
pub(crate) struct Worker {
    app: Arc<App>,
    hub: Hub,
    clock: Clock,
    sockets: Vec<Listening>,
    tls: Option<Tls>,
    reactor: Handle,
    #[cfg(target_os = "linux")]
    late: (LateSender, LateReceiver),
}

/// A worker that runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// Whether it ended without a panic; the last thing that its thread does.
    end: oneshot::Receiver<bool>,
}

/// Time that a drain leaves to the connections that were accepted last: their first request may be on its way,
/// and closing them would fail it.
const FIRST_REQUEST: Duration = Duration::from_millis(100);

/// Tasks that run between two looks at the runtime's poller.
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
        let reactor = Handle::new(hub.clone());
        Self {
            app,
            hub,
            clock,
            sockets,
            tls,
            reactor,
            #[cfg(target_os = "linux")]
            late: late(),
        }
    }

    /// Its reactor, which takes the streams of another process before the worker starts.
    #[cfg(target_os = "linux")]
    pub(crate) fn reactor(&self) -> &Handle {
        &self.reactor
    }

    /// What takes connections that another process passes on.
    #[cfg(target_os = "linux")]
    pub(crate) fn late(&self) -> LateSender {
        self.late.0.clone()
    }

    /// Starts the thread. Once `draining` has the deadline of the drain, it stops accepting, and ends with its
    /// last connection or at the deadline.
    pub(crate) fn start(self, draining: watch::Receiver<Option<Instant>>) -> io::Result<Running> {
        // tokio's default is 61 tasks between two looks at the poller; a turn of a sweep is a task.
        let runtime =
            Builder::new_current_thread().enable_all().event_interval(EVENT_INTERVAL).build()?;
        let (ended, end) = oneshot::channel();
        let work = move || {
            let run = catch_unwind(AssertUnwindSafe(|| self.run(&runtime, draining)));
            // To drop it would wait for a name lookup, which a silent name server delays for as long as it likes.
            runtime.shutdown_background();
            _ = ended.send(run.is_ok());
        };
        thread::Builder::new().name("nudged-worker".into()).spawn(work)?;
        Ok(Running { end })
    }

    fn run(self, runtime: &Runtime, mut draining: watch::Receiver<Option<Instant>>) {
        let Self { app, hub, clock, sockets, tls, reactor: handle, .. } = self;
        #[cfg(target_os = "linux")]
        let (_, late) = self.late;
        let (connections, connection) = watch::channel(false);
        runtime.block_on(async {
            let factory = ServiceFactory::new(app, hub.clone());
            let context = ConnContext { factory, reactor: handle, draining: connection };
            let reactor = Reactor::new(context.clone()).expect("a poller");
            let reactor = reactor.beside(connections.clone());
            let mut driver = tokio::spawn(drive_with(hub, clock, reactor));
            let acceptor = Acceptor::new(context);
            let mut accepting = Vec::new();
            #[cfg(target_os = "linux")]
            accepting.push(tokio::spawn(late.serve(acceptor.clone(), tls.clone())));
            for Listening { socket, secure, entrance, .. } in sockets {
                let tls = tls.clone().filter(|_| secure);
                accepting.push(tokio::spawn(acceptor.clone().accept(socket, tls, entrance)));
            }
            drop(acceptor);

            // Without its driver a worker would accept connections and deliver nothing, so the worker ends, and
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
                Err(_) => tracing::warn!("some connections did not end in time and were cut"),
            }
        });
    }
}

/// Whether the driver ended before the server began to drain. A drain ends it too, and may have done so by
/// the time that this is polled.
async fn first(driver: &mut JoinHandle<()>, mut draining: Pin<&mut impl Future>) -> bool {
    poll_fn(|cx| match draining.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(false),
        Poll::Pending => Pin::new(&mut *driver).poll(cx).map(|_| true),
    })
    .await
}

// ===== impl Running =====

impl Running {
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.end).poll(cx).map(|_| ())
    }

    /// Waits for its end. Returns whether it ended without a panic.
    pub(crate) async fn join(self) -> bool {
        self.end.await.unwrap_or(false)
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// SCENARIO: a server without streams drains while a publish is in flight, and its worker is not scheduled until
    /// its driver has noticed the drain too, and has ended.
    /// BUG: the worker mistook the end of the driver for a crash, and closed the connection of the publish.
    /// FIX: it checks for the drain first.
    #[tokio::test]
    async fn a_driver_that_ends_in_a_drain_has_not_crashed() {
        let mut driver = tokio::spawn(async {});
        while !driver.is_finished() {
            tokio::task::yield_now().await;
        }
        assert!(!first(&mut driver, pin!(ready(()))).await);
        assert!(first(&mut driver, pin!(pending::<()>())).await);
    }
}
