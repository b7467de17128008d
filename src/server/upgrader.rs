//! How a running server is asked to be replaced by a successor: another process, to which it hands its sockets, its
//! histories and its open streams.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;

use crate::sync::{AtomicBool, AtomicU8, Ordering};

/// The program of this process, as it was started. The file that is at its path later may be a new version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// Asks a running server to be replaced by a successor, which is started from its [`Program`]. Clones ask the same server.
#[derive(Clone, Debug)]
pub struct Upgrader(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    asked: Notify,
    /// A [`Phase`].
    phase: AtomicU8,
    has_program: AtomicBool,
}

/// Why there will be no successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpgradeRefused {
    /// Only Linux passes on sockets as it has to be done here.
    NotLinux,
    /// With process 1 its container ends.
    Init,
    /// The server was not given its [`Program`].
    NoProgram,
    /// It does not serve yet.
    Starting,
    /// A successor is starting already.
    Upgrading,
    /// It drains, or has been replaced.
    Stopping,
}

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    Starting,
    Serving,
    Upgrading,
    Stopping,
}

// ===== impl Program =====

impl Program {
    /// The program and the arguments that this process was started with, as they are now: call it before the current
    /// directory changes.
    ///
    /// # Errors
    /// The process has no name, or its current directory is gone.
    pub fn of_this_process() -> io::Result<Self> {
        let mut arguments = env::args_os();
        let name = arguments.next().filter(|name| !name.is_empty());
        let name =
            name.ok_or_else(|| io::Error::other("the process was started without a name"))?;
        Self::new(name.into(), arguments.collect(), env::current_dir)
    }

    fn new(
        name: PathBuf,
        arguments: Vec<OsString>,
        directory: impl FnOnce() -> io::Result<PathBuf>,
    ) -> io::Result<Self> {
        // A name alone is looked up in PATH each time, as a shell does.
        let is_name = name.components().count() == 1 && !name.has_root();
        let is_name = is_name && !name.as_os_str().as_encoded_bytes().contains(&b'/');
        // `join` keeps a path that is absolute.
        let path = if is_name { name } else { directory()?.join(name) };
        Ok(Self { path, arguments })
    }

    /// Where it is: an absolute path, or a name that is looked up in `PATH`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its arguments, without its name.
    pub fn arguments(&self) -> &[OsString] {
        &self.arguments
    }
}

// ===== impl Upgrader =====

impl Upgrader {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Has the server start a successor, which takes over in some time; if it cannot, the server goes on, and logs why. The
    /// server returns from [`Server::run`](super::Server::run) once what stays with it, connections of HTTP/2 and TLS, has
    /// been drained.
    ///
    /// # Errors
    /// [`UpgradeRefused`]: none is started.
    pub fn upgrade(&self) -> Result<(), UpgradeRefused> {
        if !cfg!(target_os = "linux") {
            return Err(UpgradeRefused::NotLinux);
        }
        if std::process::id() == 1 {
            return Err(UpgradeRefused::Init);
        }
        if !self.0.has_program.load(Ordering::Acquire) {
            return Err(UpgradeRefused::NoProgram);
        }
        let (from, to) = (Phase::Serving as u8, Phase::Upgrading as u8);
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        match self.0.phase.compare_exchange(from, to, success, failure) {
            Ok(_) => {
                self.0.asked.notify_one();
                Ok(())
            }
            Err(phase) if phase == Phase::Starting as u8 => Err(UpgradeRefused::Starting),
            Err(phase) if phase == Phase::Upgrading as u8 => Err(UpgradeRefused::Upgrading),
            Err(_) => Err(UpgradeRefused::Stopping),
        }
    }

    /// The server has its program.
    pub(super) fn allow(&self) {
        self.0.has_program.store(true, Ordering::Release);
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.0.phase.store(phase as u8, Ordering::Release);
    }

    /// Waits until a successor is asked for.
    #[cfg(target_os = "linux")]
    pub(super) async fn asked(&self) {
        self.0.asked.notified().await;
    }
}

// ===== impl UpgradeRefused =====

impl fmt::Display for UpgradeRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotLinux => "a server is replaced without a pause on Linux only",
            Self::Init => {
                "this is process 1, with which its container ends; stop it (SIGTERM), and start its successor"
            }
            Self::NoProgram => "the path of the program is not known",
            Self::Starting => "the server has not started yet",
            Self::Upgrading => "an upgrade is under way",
            Self::Stopping => "the server stops",
        })
    }
}

impl std::error::Error for UpgradeRefused {}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        let directory = || Ok(PathBuf::from("/srv/app"));
        let program = Program::new(name.into(), Vec::new(), directory).expect("a directory");
        program.path().to_owned()
    }

    #[test]
    fn a_path_is_that_of_the_start_and_a_name_is_looked_up() {
        assert_eq!(path("/usr/bin/nudged"), Path::new("/usr/bin/nudged"));
        assert_eq!(path("./nudged"), Path::new("/srv/app/./nudged"));
        assert_eq!(path("current/nudged"), Path::new("/srv/app/current/nudged"));
        assert_eq!(path("nudged"), Path::new("nudged"));
    }

    #[test]
    fn a_name_needs_no_directory() {
        let gone = || Err(io::Error::from(io::ErrorKind::NotFound));
        assert!(Program::new("nudged".into(), Vec::new(), gone).is_ok());
        assert!(Program::new("./nudged".into(), Vec::new(), gone).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn one_upgrade_is_under_way_at_most() {
        let upgrader = Upgrader::new();
        assert_eq!(upgrader.upgrade(), Err(UpgradeRefused::NoProgram));
        upgrader.allow();
        assert_eq!(upgrader.upgrade(), Err(UpgradeRefused::Starting));
        upgrader.set_phase(Phase::Serving);
        assert_eq!(upgrader.upgrade(), Ok(()));
        assert_eq!(upgrader.upgrade(), Err(UpgradeRefused::Upgrading));
        upgrader.set_phase(Phase::Stopping);
        assert_eq!(upgrader.upgrade(), Err(UpgradeRefused::Stopping));
    }
}
