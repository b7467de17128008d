//! What a server starts from: nothing, listening sockets of a service manager, or a process that it takes over from.

use nudged::config::Config;
#[cfg(target_os = "linux")]
use nudged::server::Predecessor;
use nudged::server::systemd::{self, PassedSockets};
use nudged::server::{Address, BindError, ListeningSocket, Server};

use super::Exit;

/// What this process was given.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Listening sockets, most often none.
    Fresh(PassedSockets),
    /// Everything that another process has.
    #[cfg(target_os = "linux")]
    Successor(Predecessor),
}

/// Kinds of listening sockets that a process was given.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Inherited {
    /// One of an internal address.
    pub(crate) internal: bool,
    /// A Unix socket.
    pub(crate) unix: bool,
    /// One of a public address.
    pub(crate) public_unix: bool,
}

// ===== impl Origin =====

impl Origin {
    /// Call it once, before there are threads.
    pub(crate) fn of_this_process() -> Result<Self, Exit> {
        #[cfg(target_os = "linux")]
        if let Some(predecessor) = Predecessor::connect().map_err(Exit::usage)? {
            return Ok(Self::Successor(predecessor));
        }
        Self::fresh()
    }

    /// The same, of a process that serves nothing.
    pub(crate) fn fresh() -> Result<Self, Exit> {
        let inherited = systemd::listeners();
        inherited.map(Self::Fresh).map_err(|why| Exit::usage(format!("LISTEN_FDS: {why}")))
    }

    /// What it listens on, whatever the settings are.
    pub(crate) fn inherited(&self) -> Inherited {
        match self {
            Self::Fresh(PassedSockets { public, internal }) => {
                let public = public.iter().map(|socket| (socket, false));
                Inherited::of(public.chain(internal.iter().map(|socket| (socket, true))))
            }
            #[cfg(target_os = "linux")]
            Self::Successor(predecessor) => Inherited::of(predecessor.sockets()),
        }
    }

    /// Whether sockets of the service manager stand for `--listen`.
    pub(crate) fn replaces_listen(&self) -> bool {
        match self {
            Self::Fresh(inherited) => !inherited.public.is_empty(),
            // It listened there too.
            #[cfg(target_os = "linux")]
            Self::Successor(_) => false,
        }
    }

    /// The first line of the greeting, if there is a predecessor, for when its place is taken.
    pub(crate) fn greeting(&self) -> Option<String> {
        match self {
            Self::Fresh(_) => None,
            #[cfg(target_os = "linux")]
            Self::Successor(predecessor) => Some(format!(
                "nudged {} (process {}) has taken over from nudged {}\n",
                env!("CARGO_PKG_VERSION"),
                std::process::id(),
                predecessor.version()
            )),
        }
    }

    /// There will be no server, for this reason, which the predecessor logs.
    #[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "there is none"))]
    pub(crate) fn refuse(&self, why: &str) {
        match self {
            Self::Fresh(_) => {}
            #[cfg(target_os = "linux")]
            Self::Successor(predecessor) => predecessor.refuse(why),
        }
    }

    /// The addresses that would be listened on.
    pub(crate) fn check(&self, config: &Config) -> Result<Vec<Address>, BindError> {
        match self {
            Self::Fresh(inherited) => Server::check(config, inherited),
            #[cfg(target_os = "linux")]
            Self::Successor(_) => Server::check(config, &PassedSockets::default()),
        }
    }

    /// Binds a server, or gives it the sockets that there are.
    pub(crate) fn into_server(self, config: Config) -> Result<Server, BindError> {
        match self {
            Self::Fresh(inherited) => Server::adopt(config, inherited),
            #[cfg(target_os = "linux")]
            Self::Successor(predecessor) => Server::take_over(config, predecessor),
        }
    }
}

// ===== impl Inherited =====

impl Inherited {
    /// Of these sockets, each with whether it is one of an internal address.
    fn of<'s>(sockets: impl Iterator<Item = (&'s ListeningSocket, bool)>) -> Self {
        let mut all = Self::default();
        for (socket, internal) in sockets {
            let unix = matches!(socket, ListeningSocket::Unix(_));
            all.internal |= internal;
            all.unix |= unix;
            all.public_unix |= unix && !internal;
        }
        all
    }
}
