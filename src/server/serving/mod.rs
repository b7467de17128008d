//! A server that serves: its parts, how they start, and how they end.

mod parts;
mod watched;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;
use tokio::time::Instant;

use super::abort_on_drop::AbortOnDrop;
#[cfg(feature = "postgres")]
use super::outbox;
use super::state_file::Keeping;
use super::unix_socket::SocketFiles;
use super::upgrader::{Phase, Upgrader};
use super::{ServeError, Server, systemd};
use crate::admission::Admission;
use crate::backplane::Backplane;
use crate::config::Config;
use crate::http::App;
#[cfg(feature = "postgres")]
use crate::http::OutboxCounters;
use crate::hub::Hub;
use crate::time::Clock;

pub(super) use self::watched::{Stop, Watched};

use self::parts::Parts;

/// The parts of a server that serves.
pub(super) struct Serving {
    pub(super) config: Config,
    pub(super) hub: Hub,
    pub(super) clock: Clock,
    pub(super) app: Arc<App>,
    pub(super) admission: Admission,
    pub(super) watched: Watched,
    pub(super) upgrader: Upgrader,
    state: Keeping,
    pub(super) files: SocketFiles,
    drain: watch::Sender<Option<Instant>>,
    watchdog: Option<AbortOnDrop>,
    _reload: Option<AbortOnDrop>,
    #[cfg(feature = "postgres")]
    outbox_counters: Arc<OutboxCounters>,
    #[cfg(target_os = "linux")]
    pub(super) upgrade_parts: super::upgrade::UpgradeParts,
}

/// Why a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was stopped: all streams end by then.
    Stopped(Instant),
    /// Another process has taken over. What stays is drained; the state is the other process's.
    #[cfg(target_os = "linux")]
    Replaced,
}

// ===== impl Serving =====

impl Serving {
    /// Starts all parts. If there is a predecessor, takes over from it.
    pub(super) async fn start(
        server: Server,
        stop: &mut Stop<'_, impl Future<Output = ()>>,
    ) -> Result<Self, ServeError> {
        let mut parts = Parts::make(server)?;
        let on_start = parts.on_start.take();
        #[cfg(target_os = "linux")]
        let late = match parts.predecessor.take() {
            Some(predecessor) => {
                let workers = &parts.workers;
                Some(super::upgrade::take_over(&parts.serving, predecessor, workers, stop).await?)
            }
            None => None,
        };
        #[cfg(target_os = "linux")]
        let is_first = late.is_none();
        #[cfg(not(target_os = "linux"))]
        let (is_first, _) = (true, stop);
        let Parts { mut serving, workers, draining, sources, .. } = parts;
        #[cfg(target_os = "linux")]
        serving.files.lend(false);
        // It may be that this server must not run. A successor cannot know before its predecessor has stopped.
        #[cfg(feature = "postgres")]
        if is_first {
            serving.start_outbox().map_err(ServeError::Start)?;
            if let Err(why) = serving.outbox_started().await {
                // Nothing has happened since the state was taken.
                serving.state.save(&serving.hub, serving.clock, Instant::now()).await;
                return Err(why);
            }
        }
        for worker in workers {
            let running = worker.start(draining.clone()).map_err(ServeError::Start)?;
            serving.watched.workers.push(running);
        }
        serving.app.warm_up();
        #[cfg(target_os = "linux")]
        let is_main = late.map(|late| late.start()).transpose().map_err(ServeError::Start)?;
        #[cfg(not(target_os = "linux"))]
        let is_main = None;
        if is_first {
            systemd::ready();
        }
        serving.watchdog = systemd::ping_watchdog(serving.hub.clone(), serving.clock, is_main);
        if sources.reloader().is_some() {
            let watch = sources.watch(serving.app.clone());
            serving._reload = Some(AbortOnDrop::spawn(watch));
        }
        #[cfg(feature = "postgres")]
        if !is_first {
            serving.start_outbox().map_err(ServeError::Start)?;
        }
        serving.upgrader.set_phase(Phase::Serving);
        if let Some(super::OnStart(call)) = on_start {
            call();
        }
        Ok(serving)
    }

    /// Serves until it is stopped or replaced.
    pub(super) async fn serve(
        &mut self,
        stop: &mut Stop<'_, impl Future<Output = ()>>,
    ) -> Result<Ending, ServeError> {
        #[cfg(not(target_os = "linux"))]
        self.watched.unless_one_ends(stop.wait()).await?;
        #[cfg(target_os = "linux")]
        loop {
            // It may begin again after an upgrade that has failed.
            #[cfg(feature = "postgres")]
            self.outbox_started().await?;
            let upgrader = self.upgrader.clone();
            let asked = async {
                let (mut stopped, mut asked) = (pin!(stop.wait()), pin!(upgrader.asked()));
                poll_fn(|cx| match stopped.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(false),
                    Poll::Pending => asked.as_mut().poll(cx).map(|()| true),
                })
                .await
            };
            if !self.watched.unless_one_ends(asked).await? {
                break;
            }
            if super::upgrade::replace(self, stop).await? {
                return Ok(Ending::Replaced);
            }
        }
        self.upgrader.set_phase(Phase::Stopping);
        let Config { drain_delay, drain_timeout, .. } = self.config;
        let deadline = Instant::now() + drain_timeout;
        systemd::stopping();
        self.app.drain_for(drain_timeout);
        self.app.stop();
        #[expect(clippy::disallowed_methods, reason = "once, at the end")]
        let delay = tokio::time::sleep(drain_delay.min(drain_timeout));
        self.watched.unless_one_ends(delay).await?;
        Ok(Ending::Stopped(deadline))
    }

    /// Ends what is open, and then all parts.
    pub(super) async fn drain(mut self, ending: Ending) -> Result<(), ServeError> {
        let deadline = match ending {
            Ending::Stopped(deadline) => deadline,
            #[cfg(target_os = "linux")]
            Ending::Replaced => {
                self.app.drain_for(self.config.drain_timeout);
                Instant::now() + self.config.drain_timeout
            }
        };
        self.upgrader.set_phase(Phase::Stopping);
        // The other process is the one that is watched, and that keeps the state, from here on.
        #[cfg(target_os = "linux")]
        if ending == Ending::Replaced {
            self.watchdog = None;
            self.state = Keeping::Never;
        }
        #[cfg(feature = "postgres")]
        if let Some(outbox) = &self.watched.outbox {
            outbox.stop();
        }
        // Accepting stops first, so that no stream begins while the others end.
        #[cfg(target_os = "linux")]
        self.upgrade_parts.close();
        self.files.remove();
        self.drain.send_replace(Some(deadline));
        self.hub.drain(self.clock.now(), self.config.drain_window);
        self.app.close();
        let Watched { workers, backplane, .. } = self.watched;
        let mut clean = true;
        for worker in workers {
            clean &= worker.join().await;
        }
        #[cfg_attr(
            not(feature = "postgres"),
            expect(unused_mut, reason = "only an outbox goes on")
        )]
        let mut is_quiet = true;
        // What it publishes at last goes to the log.
        #[cfg(feature = "postgres")]
        if let Some(outbox) = self.watched.outbox {
            #[expect(clippy::disallowed_methods, reason = "once, at the end")]
            let ended = tokio::time::timeout_at(deadline, outbox.ended());
            // It may still publish, which the state would lack.
            is_quiet = ended.await.is_ok();
        }
        if let Some(backplane) = backplane {
            backplane.stop();
            #[expect(clippy::disallowed_methods, reason = "once, at the end")]
            let ended = tokio::time::timeout_at(deadline, backplane.ended());
            _ = ended.await;
        }
        #[cfg(target_os = "linux")]
        self.upgrade_parts.end(deadline).await;
        if !clean {
            return Err(ServeError::WorkerDied);
        }
        #[cfg(target_os = "linux")]
        self.app.refuse_passed_on();
        match is_quiet {
            true => self.state.save(&self.hub, self.clock, deadline).await,
            false => self.state.give_up(),
        }
        Ok(())
    }

    /// Begins to drain the outbox, if there is one and that is not done yet.
    #[cfg(feature = "postgres")]
    pub(super) fn start_outbox(&mut self) -> io::Result<()> {
        let Self { config, hub, clock, watched, outbox_counters, .. } = self;
        if watched.outbox.is_none() {
            let backplane = watched.backplane.as_ref();
            watched.outbox = outbox::start(config, hub, *clock, backplane, outbox_counters)?;
        }
        Ok(())
    }

    #[cfg(feature = "postgres")]
    async fn outbox_started(&self) -> Result<(), ServeError> {
        match &self.watched.outbox {
            Some(outbox) => outbox.started().await.map_err(ServeError::Outbox),
            None => Ok(()),
        }
    }

    /// Publishes no more rows, and waits until those in hand have been published: of a hub without a log nothing is in
    /// hand from there on. With a log this server goes on, since another one may drain the same outbox. Returns `false` early
    /// if the server is stopped: rows may be in hand.
    #[cfg(feature = "postgres")]
    pub(super) async fn pause_outbox(
        &mut self,
        stop: &mut Stop<'_, impl Future<Output = ()>>,
    ) -> bool {
        if self.watched.backplane.is_some() {
            return true;
        }
        let Some(outbox) = self.watched.outbox.take() else { return true };
        outbox.stop();
        let has_ended = {
            let mut ended = pin!(outbox.ended());
            poll_fn(|cx| match stop.poll(cx) {
                Poll::Ready(()) => Poll::Ready(false),
                Poll::Pending => ended.as_mut().poll(cx).map(|()| true),
            })
            .await
        };
        if !has_ended {
            // The drain waits for its end.
            self.watched.stops_outbox = true;
            self.watched.outbox = Some(outbox);
        }
        has_ended
    }

    pub(super) fn backplane(&self) -> Option<&Backplane> {
        self.watched.backplane.as_ref()
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use super::*;

    /// A library's user may spawn it.
    #[tokio::test]
    async fn a_server_runs_on_any_thread() {
        let listen = vec![([127, 0, 0, 1], 0).into()];
        let server = Server::bind(Config { listen, workers: 1, ..Config::default() });
        let running = tokio::spawn(server.expect("a port").run(async {}));
        assert!(running.await.expect("no panic").is_ok());
    }
}
