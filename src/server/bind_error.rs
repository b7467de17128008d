//! Why a server does not listen.

use std::fmt;
use std::io;

use super::outbox::OutboxError;
use super::shared_log::BackplaneError;
#[cfg(feature = "tls")]
use super::tls::TlsError;
#[cfg(doc)]
use crate::config::Config;
use crate::config::Endpoint;
use crate::state::StateError;

/// Why the server could not listen on an address.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// The server would be open to a network, which needs [`Config::insecure_open`].
    Open {
        /// The address that is not a loopback address.
        address: Endpoint,
    },
    /// Pages of other origins could use the server, which needs [`Config::insecure_open`].
    OpenToPages,
    /// The system refused to bind or to listen.
    Refused {
        /// The requested address.
        address: Endpoint,
        /// The system's error.
        why: io::Error,
    },
    /// It is named as an address of two kinds, such as an internal and a public one.
    Twice {
        /// The requested address.
        address: Endpoint,
    },
    /// A socket from the service manager cannot be listened on.
    Inherited(io::Error),
    /// A socket of the process that this one takes over from expects TLS, and there is no certificate.
    NoCertificate {
        /// Where it listens.
        address: Endpoint,
    },
    /// There is a [`Config::plain_listen`], in whose place sockets from the service manager would stand.
    PlainBesideInherited,
    /// A log cannot be shared with these settings.
    Backplane(BackplaneError),
    /// An outbox cannot be drained with these settings.
    Outbox(OutboxError),
    /// No state can be kept over a restart: see [`Config::state`].
    State(StateError),
    /// The certificate cannot be used.
    #[cfg(feature = "tls")]
    Tls(TlsError),
}

// ===== impl BindError =====

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { address } => write!(
                f,
                "no key is configured, so every client that can reach {address} could subscribe and \
                 publish; configure one (--jwt-secret-file, --jwt-key, --jwks-url, --publish-key), listen on \
                 a loopback address, or allow it with --insecure-open"
            ),
            Self::OpenToPages => f.write_str(
                "no key is configured, so the pages that --cors-origin allows could subscribe and \
                 publish; configure one (--jwt-secret-file, --jwt-key, --jwks-url, --publish-key), or allow it \
                 with --insecure-open",
            ),
            Self::Refused { address, why } if why.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "cannot listen on {address}: another server does (maybe another nudged); stop it, \
                 or choose another address"
            ),
            Self::Refused { address, why } => write!(f, "cannot listen on {address}: {why}"),
            Self::Twice { address } => write!(
                f,
                "cannot listen on {address} twice: each of --listen, --plain-listen and --internal-listen \
                 needs an address of its own"
            ),
            Self::Inherited(why) => {
                write!(f, "cannot listen on a socket of LISTEN_FDS: {why}")
            }
            Self::NoCertificate { address } => {
                write!(f, "{address} is for TLS, and there is no certificate")
            }
            Self::PlainBesideInherited => f.write_str(
                "--plain-listen cannot be used with the sockets of LISTEN_FDS, which replace the public \
                 addresses; use --internal-listen, or a socket of the service manager with \
                 FileDescriptorName=internal",
            ),
            Self::Backplane(why) => why.fmt(f),
            Self::Outbox(why) => why.fmt(f),
            Self::State(why) => why.fmt(f),
            #[cfg(feature = "tls")]
            Self::Tls(why) => write!(f, "cannot use the certificate: {why}"),
        }
    }
}

impl std::error::Error for BindError {}
