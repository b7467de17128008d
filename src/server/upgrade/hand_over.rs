//! The old process's side of an upgrade, in the order in which it happens. It blocks, on a thread of its own.
//!
//! Until the new process is live the old one owns everything, and whatever fails changes nothing. If anything fails after
//! the workers have stopped, the old process first shuts the control socket, so that the new one can no longer become live,
//! and then reads what had come before: either the new process had become live, or it never will.

use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::control::{Control, ControlError};
use super::freeze::{Freeze, FreezeError, Outcome, SentStreams};
use super::histories::{PART_BYTES, Parts};
use super::listeners::KeptListener;
use super::memory_file;
use super::message::{Message, Versions};
use super::stream_records::BUFFER_BYTES;
use super::successor::Successor;
use crate::hub::Hub;
use crate::hub::state::Copied;
use crate::server::reactor::Handle;
use crate::state::RecordWriter;
use crate::sync::MutexGuard;
use crate::time::Clock;

/// What the new process has to have room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) streams: u64,
    /// Descriptors, with those for what is not a stream.
    pub(crate) descriptors: u64,
}

/// The new process, as it has introduced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub(crate) build: String,
    pub(crate) process: u32,
    descriptors: u64,
    streams_max: u64,
}

/// What is handed over.
pub(crate) struct ServerParts<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) clock: Clock,
    /// Over which commands are spread.
    pub(crate) window: Duration,
    pub(crate) workers: &'a [Handle],
    pub(crate) limits: Limits,
    /// What holds back, as long as what it returns is there, what the process before this one passes on.
    pub(crate) pause: &'a dyn Fn() -> MutexGuard<'a, bool>,
    /// What has to happen between the moment in which the new process is live and that in which the workers go on.
    pub(crate) on_live: &'a dyn Fn(&Successor),
}

/// It is done.
#[derive(Clone, Debug)]
pub(crate) struct HandedOver {
    pub(crate) successor: Successor,
    pub(crate) streams: SentStreams,
    /// For how long nothing was written.
    pub(crate) stopped: Duration,
}

/// Why the workers go on as before.
#[derive(Debug)]
enum Failure {
    /// A command has come, and is not carried out yet.
    Commanded,
    /// A worker is busy, and has not stopped in time.
    Busy(String),
    Final(String),
}

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Until the new process has read its settings.
    pub(crate) hello: Duration,
    /// Until it has loaded the log that servers share.
    pub(crate) ready: Duration,
    /// For which nothing is written, if the upgrade fails. Half of it is for the workers to stop.
    pub(crate) freeze: Duration,
    /// Before workers that were too busy to stop are asked again.
    pub(crate) apart: Duration,
}

/// How much longer than two of their windows is waited for commands.
const COMMANDS_SLACK: Duration = Duration::from_secs(10);

/// How often the workers are asked to stop.
const ATTEMPTS: u32 = 5;

/// Between two looks at commands.
const COMMANDS_CHECK: Duration = Duration::from_millis(20);

/// How often the histories are gone through before the workers stop, if much has changed each time.
const ROUNDS_MAX: usize = 4;

/// The version of this program.
pub(super) const BUILD: &str = env!("CARGO_PKG_VERSION");

// ===== impl Limits =====

impl Limits {
    pub(crate) const OF_A_SERVER: Self = Self {
        hello: Duration::from_secs(10),
        ready: Duration::from_secs(60),
        freeze: Duration::from_secs(1),
        apart: Duration::from_secs(1),
    };
}

/// Gives the new process the listening sockets, and waits until it can take over.
///
/// # Errors
/// It cannot, for this reason.
pub(crate) fn prepare(
    control: &Control,
    listeners: &[KeptListener],
    connections: u64,
    limits: Limits,
) -> Result<Prepared, String> {
    let until = Instant::now() + limits.hello;
    for (message, sockets) in KeptListener::messages(listeners, BUILD, connections) {
        control.send(&message, &sockets, until).map_err(|why| reason("Listeners", why))?;
    }
    let prepared = match control.receive(until).map_err(|why| reason("Hello", why))?.0 {
        Message::Hello { versions, build, descriptors, streams_max, process, workers: _ } => {
            if Versions::SPOKEN.common(versions).is_none() {
                let (ours, Versions { first, last }) = (Versions::SPOKEN, versions);
                return Err(format!(
                    "the new process ({build}) speaks the versions {first} to {last} of the protocol, this one {} to {}",
                    ours.first, ours.last
                ));
            }
            Prepared { build, process, descriptors, streams_max }
        }
        other => return Err(undue("Hello", &other)),
    };
    match control.receive(Instant::now() + limits.ready).map_err(|why| reason("Ready", why))?.0 {
        Message::Ready => Ok(prepared),
        other => Err(undue("Ready", &other)),
    }
}

/// Stops the workers, and hands everything over. If that fails, they go on.
///
/// # Errors
/// Why it failed.
pub(crate) fn hand_over(
    control: &Arc<Control>,
    server: &ServerParts<'_>,
) -> Result<HandedOver, String> {
    let until = Instant::now() + 2 * server.window + COMMANDS_SLACK;
    let mut copied = Copied::default();
    let mut busy = 0;
    loop {
        wait_for_commands(control, server, until)?;
        copy_histories(control, server, &mut copied)?;
        match freeze(control, server, &mut copied) {
            Ok(done) => return Ok(done),
            Err(Failure::Commanded) => {}
            Err(Failure::Busy(why)) => {
                busy += 1;
                if busy == ATTEMPTS {
                    return Err(why);
                }
                wait(control, server.limits.apart)?;
            }
            Err(Failure::Final(why)) => return Err(why),
        }
    }
}

/// Their passes are not handed over.
fn wait_for_commands(
    control: &Control,
    server: &ServerParts<'_>,
    until: Instant,
) -> Result<(), String> {
    while server.hub.has_commands() {
        if Instant::now() >= until {
            return Err("commands to end streams, or to have them re-read, do not end".into());
        }
        wait(control, COMMANDS_CHECK)?;
    }
    Ok(())
}

/// Lets everything go on for this time. Ends early if the new process does, or if this server is stopped.
fn wait(control: &Control, time: Duration) -> Result<(), String> {
    match control.receive(Instant::now() + time) {
        Err(ControlError::TimedOut) => Ok(()),
        Err(why) => Err(reason("Hub", why)),
        Ok((message, _)) => Err(undue("Hub", &message)),
    }
}

/// Sends what the hub remembers while all goes on, so that little is left for the time in which nothing is written.
fn copy_histories(
    control: &Control,
    server: &ServerParts<'_>,
    copied: &mut Copied,
) -> Result<(), String> {
    for _ in 0..ROUNDS_MAX {
        let mut parts = Parts::new(control, server.limits.ready);
        let copy =
            server.hub.copy(copied, &|| server.clock.now(), &mut |record| parts.add(&record));
        let bytes = copy.and_then(|()| parts.end()).map_err(|why| why.to_string())?;
        if bytes <= PART_BYTES {
            break;
        }
    }
    Ok(())
}

fn freeze(
    control: &Arc<Control>,
    server: &ServerParts<'_>,
    copied: &mut Copied,
) -> Result<HandedOver, Failure> {
    let begin = Instant::now();
    // Until the workers know whose the streams are. Its thread is none of theirs.
    let _paused = (server.pause)();
    let freeze = Freeze::begin(server.workers, control);
    let mut streams = SentStreams::default();
    let given = catch_unwind(AssertUnwindSafe(|| {
        give(control, &freeze, server, copied, begin, &mut streams)
    }));
    let given = given.unwrap_or_else(|_| Err(Failure::Final("a defect; see the log".into())));
    let result = match given {
        Err(Failure::Final(why)) if has_become_live(control) => {
            tracing::warn!(%why, "the new process became live too late to be noticed in time");
            Ok(())
        }
        result => result,
    };
    let stopped = begin.elapsed();
    match result {
        Ok(()) => {
            let successor = Successor::new(control.clone());
            (server.on_live)(&successor);
            freeze.release(&Outcome::Given(successor.clone()));
            Ok(HandedOver { successor, streams, stopped })
        }
        Err(why) => {
            freeze.release(&Outcome::Kept);
            Err(why)
        }
    }
}

/// What happens while nothing is written. `sent` is what was given before it returns.
fn give(
    control: &Control,
    freeze: &Freeze,
    server: &ServerParts<'_>,
    copied: &mut Copied,
    begin: Instant,
    sent: &mut SentStreams,
) -> Result<(), Failure> {
    let Limits { freeze: limit, .. } = server.limits;
    let until = begin + limit;
    freeze.wait_stopped(begin + limit / 2).map_err(|why| match why {
        // Nothing has been sent.
        FreezeError::Late(_) => Failure::Busy(why.to_string()),
        _ => Failure::Final(why.to_string()),
    })?;
    // The thread that follows the log is no worker. What it applied now would be in a window, and yet in the ids of streams.
    let _paused = server.hub.pause_log();
    if server.hub.has_commands() {
        return Err(Failure::Commanded);
    }
    send_hub(control, server, copied, until)?;
    *sent = freeze.send_streams(until).map_err(|why| Failure::Final(why.to_string()))?;
    match receive(control, "Took", until)? {
        Message::Took { count } if count == sent.given => {}
        Message::Took { count } => {
            let why = format!("{} streams were sent, the new process has {count}", sent.given);
            return Err(Failure::Final(why));
        }
        other => return Err(Failure::Final(undue("Took", &other))),
    }
    let commit = control.send(&Message::Commit, &[], until);
    commit.map_err(|why| Failure::Final(reason("Commit", why)))?;
    match receive(control, "Live", until)? {
        Message::Live => Ok(()),
        other => Err(Failure::Final(undue("Live", &other))),
    }
}

fn send_hub(
    control: &Control,
    server: &ServerParts<'_>,
    copied: &mut Copied,
    until: Instant,
) -> Result<(), Failure> {
    let failed = |why: std::io::Error| Failure::Final(format!("the histories: {why}"));
    let file = memory_file::create().map_err(failed)?;
    let mut writer = RecordWriter::new(BufWriter::with_capacity(BUFFER_BYTES, &file));
    let now = server.clock.now();
    server.hub.save_rest(copied, now, &mut |record| writer.write(&record)).map_err(failed)?;
    writer.finish().and_then(|mut writer| writer.flush()).map_err(failed)?;
    let lanes = u32::try_from(server.workers.len()).unwrap_or(u32::MAX);
    let sent = control.send(&Message::Hub { lanes }, &[file.as_fd()], until);
    sent.map_err(|why| Failure::Final(reason("Hub", why)))
}

/// From here on it cannot become live. Whether it has before.
pub(super) fn has_become_live(control: &Control) -> bool {
    control.shutdown();
    control.drain().any(|message| message == Message::Live)
}

fn receive(control: &Control, due: &str, until: Instant) -> Result<Message, Failure> {
    let received = control.receive(until);
    received.map(|(message, _)| message).map_err(|why| Failure::Final(reason(due, why)))
}

pub(super) fn reason(step: &str, why: ControlError) -> String {
    match why {
        ControlError::Refused(why) => format!("the new process refuses: {why}"),
        ControlError::Ended => format!("the new process has closed its socket ({step})"),
        ControlError::TimedOut => format!("the new process was not in time ({step})"),
        why => format!("{why} ({step})"),
    }
}

pub(super) fn undue(due: &str, message: &Message) -> String {
    format!("the new process sent another message than {due}: {message:?}")
}

// ===== impl Prepared =====

impl Prepared {
    /// Fails unless it has room for everything.
    ///
    /// # Errors
    /// What it has no room for.
    pub(crate) fn check(&self, needs: Needs) -> Result<(), String> {
        let Self { descriptors, streams_max, .. } = *self;
        if needs.descriptors > descriptors {
            return Err(format!(
                "the new process may open {descriptors} files (RLIMIT_NOFILE), and needs {}",
                needs.descriptors
            ));
        }
        if needs.streams > streams_max {
            return Err(format!(
                "the new process serves {streams_max} streams at most, and {} are open",
                needs.streams
            ));
        }
        Ok(())
    }
}
