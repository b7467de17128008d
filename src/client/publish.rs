//! `nudged publish`: one publish to one org.

use std::io::Write;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::retry::{Pauses, retry_after};
use super::{Endpoint, Error, OneLine, exchange};
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

#[derive(Deserialize, Default)]
struct Answer {
    id: Option<String>,
}

/// The default of [`Publish::retry_for`]: as long as a restart of a server takes.
pub const RETRY_FOR: Duration = Duration::from_secs(30);

/// Publishes, and writes the id of the event to `out` as one line, or `accepted` if the response has none
/// (the keys are to be coalesced with those of other publishes).
///
/// If the server cannot be reached, the connection breaks, or the response is 429, 502, 503 or 504, it tries again, after
/// `retry-after` or longer pauses, and says so in `notes`. A publish may then happen twice, which costs its
/// subscribers a second read and nothing else.
///
/// # Errors
/// The server cannot be reached, or refuses, and no attempt is left within [`Publish::retry_for`]; it refuses for good;
/// or the output cannot be written.
pub async fn publish(
    publish: &Publish,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), Error> {
    let mut pauses = Pauses::new(publish.retry_for);
    let answer = loop {
        let (why, retry_after) = match attempt(publish).await {
            Ok(answer) => break answer,
            Err(failure) => failure,
        };
        let pause = if why.is_temporary() { pauses.next(retry_after) } else { None };
        let Some(pause) = pause else { return Err(why) };
        // What is beside the result is not worth an error.
        _ = writeln!(notes, "{why}; trying again in {pause:.1?}").and_then(|()| notes.flush());
        #[expect(clippy::disallowed_methods, reason = "a client's retry, not a stream")]
        tokio::time::sleep(pause).await;
    };
    let id = answer.id.as_deref().unwrap_or("accepted");
    writeln!(out, "{}", OneLine(id)).and_then(|()| out.flush()).map_err(Error::Output)
}

/// Publishes once. An error comes with the time for which the server asks to be left alone.
async fn attempt(publish: &Publish) -> Result<Answer, (Error, Option<Duration>)> {
    let Publish { server, org, keys, .. } = publish;
    let body = serde_json::to_vec(&Body { keys }).expect("strings are JSON");
    let url = server.url.at(&format!("/api/{org}/events"));
    let request = exchange::request(&url, server.token.as_ref(), Method::POST)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .expect("every part was checked when it was parsed");

    let response =
        exchange::send(&url, &server.verify, request).await.map_err(|why| (why, None))?;
    if response.status() != StatusCode::ACCEPTED {
        let retry_after = retry_after(response.headers(), SystemTime::now());
        return Err((exchange::refusal(server, response).await, retry_after));
    }
    let body = exchange::read_body(server, response).await.map_err(|why| (why, None))?;
    // By its status it was accepted; a body without an id does not change that.
    Ok(serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default())
}
