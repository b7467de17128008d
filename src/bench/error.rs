//! Why a measurement cannot start or continue.

use std::{fmt, io};

use crate::client;

/// Why a measurement cannot start or continue.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A URL cannot be used.
    Url {
        /// The URL as it was given, unless it has a user, a query or a fragment, which may be secret.
        url: String,
        /// What is wrong with it, and what is allowed.
        why: String,
    },
    /// No stream of the server can be opened, however often it is tried: its address and why.
    Server(String),
    /// The settings contradict each other or the limits of this machine.
    Settings(String),
    /// A system call failed.
    System {
        /// What was being done.
        doing: &'static str,
        /// What the system reports.
        why: io::Error,
    },
}

// ===== impl Error =====

impl Error {
    pub(crate) fn url(url: &str, why: impl ToString) -> Self {
        let url = if url.contains(['@', '?', '#']) { "the URL" } else { url };
        Self::Url { url: url.to_owned(), why: why.to_string() }
    }

    pub(crate) fn server(why: client::Error) -> Self {
        Self::Server(why.to_string())
    }

    pub(crate) fn system(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |why| Self::System { doing, why }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url, why } => write!(f, "{url}: {why}"),
            Self::Server(why) | Self::Settings(why) => f.write_str(why),
            Self::System { doing, why } => write!(f, "{doing}: {why}"),
        }
    }
}

impl std::error::Error for Error {}
