//! What the new process knows of the old one, and its side of an upgrade, in the order in which it happens. It blocks, on a
//! thread of its own.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{dup2_stdin, stdin};
use tokio::time::Instant;

use super::adopt::{AdoptError, Adopter, Taken};
use super::control::{Control, ControlError};
use super::hand_over::BUILD;
use super::listeners::KeptListener;
use super::memory_file;
use super::message::{Message, Versions};
use super::spawn::{BETWEEN, VALUE, VARIABLE, stand_between};
use crate::server::ListeningSocket;

/// The process that this one takes over from, which has started it.
#[derive(Debug)]
pub struct Predecessor {
    control: Arc<Control>,
    build: String,
    listeners: Vec<KeptListener>,
}

/// What this process can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) workers: usize,
    /// `RLIMIT_NOFILE`.
    pub(crate) descriptors: u64,
    pub(crate) streams_max: usize,
}

/// The longest wait for the listening sockets, which are sent at once.
const LISTENERS_MAX: Duration = Duration::from_secs(10);

/// The longest time for which this process waits for the old one, which may have commands to carry out.
const HUB_MAX: Duration = Duration::from_secs(3_600);

/// Descriptors of a process beside its connections, most often fewer.
const DESCRIPTORS_MORE: u64 = 256;

/// The longest wait for each further message. If the old process gives up, the socket ends.
const STEP_MAX: Duration = Duration::from_secs(60);

// ===== impl Predecessor =====

impl Predecessor {
    /// The old process, if this one was started to replace it; its socket is standard input, in whose place comes
    /// `/dev/null`. Receives the listening sockets.
    ///
    /// # Errors
    /// `NUDGED_UPGRADE` is set, but not by a server, or the server has ended.
    pub fn connect() -> io::Result<Option<Self>> {
        let Some(value) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let refused = |why: &dyn std::fmt::Display| {
            io::Error::other(format!(
                "{VARIABLE} is set, which only a server does for the process that replaces it; unset it: {why}"
            ))
        };
        if value == BETWEEN {
            stand_between()?;
        }
        if value != VALUE {
            return Err(refused(&format_args!("{value:?} is not {VALUE:?}")));
        }
        let socket = stdin().try_clone_to_owned()?;
        let control = Control::new(socket).map_err(|why| refused(&why))?;
        dup2_stdin(File::open("/dev/null")?)?;
        Self::receive(control).map(Some).map_err(|why| io::Error::other(why.to_string()))
    }

    pub(super) fn receive(control: Control) -> Result<Self, ControlError> {
        let until = Instant::now() + LISTENERS_MAX;
        match KeptListener::receive(&control, until) {
            Ok((build, connections, listeners)) => {
                reserve_descriptors(connections);
                Ok(Self { control: Arc::new(control), build, listeners })
            }
            Err(why) => {
                refuse(&control, &why.to_string());
                Err(why)
            }
        }
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.build
    }

    /// The sockets on which it listens, each with whether that is an internal address.
    pub fn sockets(&self) -> impl Iterator<Item = (&ListeningSocket, bool)> {
        self.listeners.iter().map(|kept| (&kept.socket, kept.state.internal))
    }

    /// Says why this process cannot take over. The old one goes on, and logs it.
    pub fn refuse(&self, why: &str) {
        refuse(&self.control, why);
    }

    pub(crate) fn take_listeners(&mut self) -> Vec<KeptListener> {
        std::mem::take(&mut self.listeners)
    }

    /// The settings are read, and this process can serve so much.
    ///
    /// # Errors
    /// The old process has given up, or ended.
    pub(crate) fn hello(&self, capacity: Capacity) -> Result<(), ControlError> {
        let Capacity { workers, descriptors, streams_max } = capacity;
        let hello = Message::Hello {
            versions: Versions::SPOKEN,
            build: BUILD.into(),
            workers: u32::try_from(workers).unwrap_or(u32::MAX),
            descriptors,
            streams_max: u64::try_from(streams_max).unwrap_or(u64::MAX),
            process: std::process::id(),
        };
        self.send(&hello)
    }

    /// This process could serve, from now on.
    ///
    /// # Errors
    /// The old process has given up, or ended.
    pub(crate) fn ready(&self) -> Result<(), ControlError> {
        self.send(&Message::Ready)
    }

    /// Takes what the old process hands over: first what its hub remembers, in files that `restore` reads, and then the streams.
    /// Nothing may be written to them until [`Self::become_live`] has returned.
    ///
    /// # Errors
    /// The old process has given up, or what it sent cannot be taken. This process has to end.
    pub(crate) fn take(
        &self,
        mut restore: impl FnMut(File) -> Result<(), String>,
        adopter: impl FnOnce() -> Adopter,
    ) -> Result<Taken, ControlError> {
        let lanes = loop {
            let (message, descriptors) = self.control.receive(Instant::now() + HUB_MAX)?;
            let lanes = match message {
                Message::Histories => None,
                Message::Hub { lanes } => Some(lanes),
                message => return Err(undue(&message)),
            };
            let file = memory_file::received(only(descriptors)?).map_err(ControlError::System)?;
            restore(file).map_err(|why| self.cannot(&why))?;
            match lanes {
                Some(lanes) => break lanes,
                None => self.ready()?,
            }
        };
        let mut adopter = adopter();
        let cannot = |why: AdoptError| self.cannot(&why.to_string());
        // Each lane begins, and may have no socket.
        let mut begun = 0;
        while begun < lanes || adopter.complete_lanes() < lanes as usize {
            let (message, descriptors) = self.control.receive(Instant::now() + STEP_MAX)?;
            match message {
                Message::Streams { lane, count } => {
                    begun += 1;
                    adopter.lane(lane, count, only(descriptors)?).map_err(cannot)?;
                }
                Message::Sockets { lane } => adopter.sockets(lane, descriptors).map_err(cannot)?,
                message => return Err(undue(&message)),
            }
        }
        adopter.finish().map_err(cannot)
    }

    /// Reports what was taken, and becomes live when the old process says that it writes nothing more: the streams begin. If
    /// this fails, it may be that the old process goes on, and this one has to end. Returns how many there are.
    ///
    /// # Errors
    /// The old process has given up.
    pub(crate) fn become_live(&self, taken: Taken) -> Result<u64, ControlError> {
        let count = taken.count;
        self.send(&Message::Took { count })?;
        match self.control.receive(Instant::now() + STEP_MAX)?.0 {
            Message::Commit => self.send(&Message::Live)?,
            message => return Err(undue(&message)),
        }
        taken.begin();
        Ok(count)
    }

    pub(crate) fn control(&self) -> &Arc<Control> {
        &self.control
    }

    fn cannot(&self, why: &str) -> ControlError {
        self.refuse(why);
        ControlError::Refused(why.into())
    }

    fn send(&self, message: &Message) -> Result<(), ControlError> {
        self.control.send(message, &[], Instant::now() + STEP_MAX)
    }
}

fn refuse(control: &Control, why: &str) {
    // It says so to a process that may have ended.
    _ = control.send(&Message::refused(why), &[], Instant::now() + STEP_MAX);
}

/// Has the kernel make the table of descriptors large enough at once. It doubles it otherwise as sockets arrive, and in a
/// process with threads each time waits for all processors (`expand_fdtable`, Linux fs/file.c), some 10 ms.
fn reserve_descriptors(connections: u64) {
    let limit = rlimit::Resource::NOFILE.get().map_or(0, |(soft, _)| soft);
    let last = (connections + DESCRIPTORS_MORE).min(limit.saturating_sub(1));
    // Without it an upgrade takes longer, that is all.
    if let Ok(last) = i32::try_from(last) {
        drop(fcntl_dupfd_cloexec(stdin(), last));
    }
}

/// The one descriptor of a message.
fn only(descriptors: Vec<OwnedFd>) -> Result<OwnedFd, ControlError> {
    let mut descriptors = descriptors.into_iter();
    match (descriptors.next(), descriptors.next()) {
        (Some(descriptor), None) => Ok(descriptor),
        _ => Err(ControlError::Invalid("it does not come with one descriptor".into())),
    }
}

fn undue(message: &Message) -> ControlError {
    ControlError::Invalid(format!("it is not due: {message:?}"))
}
