//! How a server that serves is replaced: it starts the new process, and hands over to it on threads that may block.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::control::{Control, ControlError};
use super::hand_over::{HandedOver, Limits, Needs, Prepared, ServerParts, hand_over, prepare};
use super::listeners::KeptListener;
use super::message::Message;
use super::spawn::{NewProcess, ended};
use super::successor::Successor;
use super::thread::{Reported, on_thread, wait};
use crate::admission::Entrance;
use crate::http::{App, Done, Operations};
use crate::hub::Hub;
use crate::ids::{Epoch, EventId, Seq};
use crate::server::reactor::Handle;
use crate::server::serving::{Serving, Stop};
use crate::server::upgrader::Phase;
use crate::server::worker::Worker;
use crate::server::{Program, ServeError, systemd};
use crate::sync::Mutex;
use crate::time::Clock;

/// What a successor gets beside the state of the server, and what it is started from.
#[derive(Debug)]
pub(crate) struct UpgradeParts {
    program: Option<Program>,
    listeners: Arc<Vec<KeptListener>>,
    reactors: Vec<Handle>,
    /// Once it has taken over.
    successor: Option<Successor>,
}

/// A new process that is ready to take over.
struct Started {
    process: NewProcess,
    prepared: Prepared,
}

/// What the thread needs that hands over.
struct HandOver {
    process: NewProcess,
    prepared: Prepared,
    control: Arc<Control>,
    app: Arc<App>,
    hub: Hub,
    clock: Clock,
    window: Duration,
    workers: Vec<Handle>,
}

/// The new process serves.
struct Replaced {
    pid: u32,
    build: String,
    done: HandedOver,
}

/// Descriptors that a process needs at most beside its connections, for itself and for each worker.
const DESCRIPTORS: (u64, u64) = (32, 16);

/// The longest sleep of the thread that receives what the new process answers.
const RECEIVE_MAX: Duration = Duration::from_secs(3_600);

/// Replaces the server by a new process. Returns whether that has taken over; if not, this one serves on, and why is logged.
///
/// # Errors
/// A part of the server has ended.
pub(crate) async fn replace(
    serving: &mut Serving,
    stop: &mut Stop<'_, impl Future<Output = ()>>,
) -> Result<bool, ServeError> {
    systemd::reloading();
    let connections = connections(serving);
    // Whatever happens to this process from here on, the new one may have them.
    serving.files.lend(true);
    match try_replace(serving, stop).await? {
        Ok(Replaced { pid, build, done: HandedOver { streams, stopped, .. } }) => {
            tracing::info!(
                target: "nudged::upgrade",
                pid,
                version = build,
                streams = streams.given,
                connections_stay = connections.saturating_sub(streams.given),
                stopped_ms = u64::try_from(stopped.as_millis()).unwrap_or(u64::MAX),
                "the new process has taken over; what stays here is drained"
            );
            Ok(true)
        }
        Err(why) => {
            tracing::warn!(%why, "the upgrade has failed; this process serves on");
            systemd::ready();
            serving.files.lend(false);
            serving.upgrader.set_phase(Phase::Serving);
            Ok(false)
        }
    }
}

async fn try_replace(
    serving: &mut Serving,
    stop: &mut Stop<'_, impl Future<Output = ()>>,
) -> Result<Reported<Replaced>, ServeError> {
    let Some(program) = serving.upgrade_parts.program.clone() else {
        return Ok(Err("the path of the program is not known".into()));
    };
    tracing::info!(program = %program.path().display(), "an upgrade begins");
    let (control, other) = match Control::pair() {
        Ok((control, other)) => (Arc::new(control), other),
        Err(why) => return Ok(Err(format!("the socket between the processes: {why}"))),
    };
    let (of_thread, listeners) = (control.clone(), serving.upgrade_parts.listeners.clone());
    let connections = connections(serving);
    let started = on_thread(move |report| {
        _ = report.send(start(&program, other, &of_thread, &listeners, connections));
    });
    let started = wait(started, &control, Some(&mut serving.watched), stop).await?;
    let Started { process, prepared } = match started {
        Ok(started) => started,
        Err(why) => return Ok(Err(why)),
    };
    if let Err(why) = prepared.check(needs(serving)) {
        return Ok(Err(kill(process, why)));
    }
    #[cfg(feature = "postgres")]
    if !serving.pause_outbox(stop).await {
        return Ok(Err(kill(process, "the server is stopped".into())));
    }
    let hand_over = HandOver::new(serving, process, prepared, control.clone());
    let done = on_thread(move |report| hand_over.run(report));
    let done = wait(done, &control, Some(&mut serving.watched), stop).await?;
    match &done {
        Ok(replaced) => serving.upgrade_parts.successor = Some(replaced.done.successor.clone()),
        #[cfg(feature = "postgres")]
        Err(_) => serving.start_outbox().map_err(ServeError::Start)?,
        #[cfg(not(feature = "postgres"))]
        Err(_) => {}
    }
    Ok(done)
}

fn start(
    program: &Program,
    other: std::os::fd::OwnedFd,
    control: &Control,
    listeners: &[KeptListener],
    connections: u64,
) -> Reported<Started> {
    let process = NewProcess::start(program, other)
        .map_err(|why| format!("{} cannot be started: {why}", program.path().display()))?;
    match prepare(control, listeners, connections, Limits::OF_A_SERVER) {
        Ok(prepared) => Ok(Started { process, prepared }),
        Err(why) => Err(kill(process, why)),
    }
}

/// Ends the new process. Returns why the upgrade has failed, with how it had ended if it had.
fn kill(mut process: NewProcess, why: String) -> String {
    let exit = process.exit();
    process.kill();
    match exit {
        Some(status) => format!("{why}; {}", ended(status)),
        None => why,
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn connections(serving: &Serving) -> u64 {
    let of = |entrance| count(serving.admission.connections(entrance));
    of(Entrance::Public) + of(Entrance::Internal)
}

fn needs(serving: &Serving) -> Needs {
    let workers = count(serving.upgrade_parts.reactors.len());
    let listeners = count(serving.upgrade_parts.listeners.len());
    let (process, worker) = DESCRIPTORS;
    Needs {
        streams: count(serving.hub.seats()),
        descriptors: connections(serving) + process + workers * worker + listeners,
    }
}

// ===== impl UpgradeParts =====

impl UpgradeParts {
    pub(crate) fn new(
        program: Option<Program>,
        listeners: Vec<KeptListener>,
        workers: &[Worker],
    ) -> Self {
        let reactors = workers.iter().map(|worker| worker.reactor().clone()).collect();
        Self { program, listeners: Arc::new(listeners), reactors, successor: None }
    }

    /// Has no part in the listening sockets any more.
    pub(crate) fn close(&mut self) {
        self.listeners = Arc::default();
    }

    /// Passes on what is left, until then. Nothing is sent to the new process any more afterwards.
    pub(crate) async fn end(&self, deadline: Instant) {
        if let Some(successor) = &self.successor {
            successor.end(deadline).await;
        }
    }
}

// ===== impl HandOver =====

impl HandOver {
    fn new(
        serving: &Serving,
        process: NewProcess,
        prepared: Prepared,
        control: Arc<Control>,
    ) -> Self {
        Self {
            process,
            prepared,
            control,
            app: serving.app.clone(),
            hub: serving.hub.clone(),
            clock: serving.clock,
            window: serving.config.reread_window,
            workers: serving.upgrade_parts.reactors.clone(),
        }
    }

    /// Hands over, reports, and then receives what the new process answers until this process ends.
    fn run(self, report: oneshot::Sender<Reported<Replaced>>) {
        let Self { process, prepared, control, app, hub, clock, window, workers } = self;
        let operations = Mutex::new(None);
        let on_live = |successor: &Successor| {
            let of_app = Arc::new(Operations::new(successor.clone(), clock));
            app.succeed(of_app.clone());
            *operations.lock() = Some(of_app);
        };
        let limits = Limits::OF_A_SERVER;
        let (hub, workers) = (&hub, &workers[..]);
        let pause = || app.pause_passed_on();
        let server =
            ServerParts { hub, clock, window, workers, limits, pause: &pause, on_live: &on_live };
        match hand_over(&control, &server) {
            Ok(done) => {
                let Prepared { build, process: pid, .. } = prepared;
                process.release();
                systemd::main_is(pid);
                if let Err(why) = done.successor.is_main() {
                    tracing::warn!(%why, "the new process does not know that it is the main one");
                }
                _ = report.send(Ok(Replaced { pid, build, done }));
            }
            Err(why) => _ = report.send(Err(kill(process, why))),
        }
        let operations = operations.lock().take();
        if let Some(operations) = operations {
            receive_answers(&control, &operations);
        }
    }
}

fn receive_answers(control: &Control, operations: &Operations) {
    loop {
        match control.receive(Instant::now() + RECEIVE_MAX) {
            Ok((Message::Done { number, performed, epoch_seq, streams }, _)) => {
                let id =
                    epoch_seq.map(|(epoch, seq)| EventId { epoch: Epoch(epoch), seq: Seq(seq) });
                let streams = usize::try_from(streams).unwrap_or(usize::MAX);
                operations.answer(number, performed.then_some(Done { id, streams }));
            }
            Ok((message, _)) => tracing::warn!("the new process sent what is not due: {message:?}"),
            Err(ControlError::TimedOut) => {}
            Err(why) => {
                tracing::debug!(%why, "the new process answers no more");
                break;
            }
        }
    }
    operations.end();
}
