//! `nudged publish`: one publish to one org.

use std::io::Write;
use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize};

use super::retry::{Command, Repeat};
use super::{Endpoint, Error, OneLine};
use crate::ids::OrgName;

/// What to publish, and where.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The server.
    pub server: Endpoint,
    /// The organisation whose subscribers receive the event.
    pub org: OrgName,
    /// The stale keys; the server checks them.
    pub keys: Vec<String>,
    /// How long attempts are repeated that fail for a reason that may pass; zero for one attempt.
    pub retry_for: Duration,
}

#[derive(Serialize)]
struct Body<'a> {
    keys: &'a [String],
}

/// The response that accepts a publish.
#[derive(Deserialize, Default)]
pub(super) struct Published {
    id: Option<String>,
}

/// The default of [`Publish::retry_for`]: as long as a restart of a server takes.
pub const RETRY_FOR: Duration = Duration::from_secs(30);

/// Publishes, and writes the id of the event to `out` as one line, or `accepted` if the response has none
/// (the keys are to be coalesced with those of other publishes).
///
/// If the server cannot be reached, the connection breaks, or the response is 429, 502, 503 or 504, it tries again,
/// after `retry-after` or longer pauses, with a line in `notes` for each attempt that failed. A publish may then happen
/// twice, which costs its subscribers a second read and nothing else.
///
/// # Errors
/// The server cannot be reached, or refuses, and no attempt is left within [`Publish::retry_for`]; it refuses for good;
/// or the output cannot be written.
pub async fn publish(
    publish: &Publish,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), Error> {
    let Publish { server, org, keys, retry_for } = publish;
    let command = Command {
        method: Method::POST,
        path: format!("/api/{org}/events"),
        json: serde_json::to_vec(&Body { keys }).expect("strings are JSON"),
        repeat: Repeat::Always,
    };
    let answer: Published = command.run(server, *retry_for, notes).await?;
    answer.write(out)
}

// ===== impl Published =====

impl Published {
    /// Writes the id as one line.
    pub(super) fn write(&self, out: &mut impl Write) -> Result<(), Error> {
        let id = self.id.as_deref().unwrap_or("accepted");
        writeln!(out, "{}", OneLine(id)).and_then(|()| out.flush()).map_err(Error::Output)
    }
}
