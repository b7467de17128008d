//! `nudged reread`: has the clients of one org, or of all, re-read everything.

use std::io::Write;
use std::time::Duration;

use http::Method;
use serde::Deserialize;

use super::retry::{Command, Repeat};
use super::{Endpoint, Error};
use crate::ids::OrgName;

/// Whose clients re-read everything.
#[derive(Clone, Debug)]
pub struct Reread {
    /// The server.
    pub server: Endpoint,
    /// The organisation; `None` for all, which needs a publish key or a token for all organisations.
    pub org: Option<OrgName>,
    /// How long attempts are repeated that fail for a reason that may pass; zero for one attempt.
    pub retry_for: Duration,
}

/// The response that accepts a command to open streams.
#[derive(Deserialize, Default)]
pub(super) struct Streams {
    streams: Option<u64>,
}

/// Has the clients re-read everything: those of open streams over the server's `--reread-window`. Writes the number of
/// these streams as one line. Tries again as [`publish`](super::publish) does.
///
/// # Errors
/// The server cannot be reached, or refuses, and no attempt is left within [`Reread::retry_for`]; it refuses for good;
/// or the output cannot be written.
pub async fn reread(
    reread: &Reread,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), Error> {
    let Reread { server, org, retry_for } = reread;
    let path =
        org.as_ref().map_or_else(|| "/api/reread".into(), |org| format!("/api/{org}/reread"));
    let command = Command { method: Method::POST, path, json: Vec::new(), repeat: Repeat::Always };
    let answer: Streams = command.run(server, *retry_for, notes).await?;
    answer.write(out)
}

// ===== impl Streams =====

impl Streams {
    /// Writes their number as one line.
    pub(super) fn write(&self, out: &mut impl Write) -> Result<(), Error> {
        let written = match self.streams {
            Some(streams) => writeln!(out, "{streams} streams"),
            None => writeln!(out, "accepted"),
        };
        written.and_then(|()| out.flush()).map_err(Error::Output)
    }
}
