//! `nudged publish`: one publish to one org.

use std::io::Write;

use http::{Method, StatusCode, header};
use serde::{Deserialize, Serialize};

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
}

#[derive(Serialize)]
struct Body<'a> {
    keys: &'a [String],
}

#[derive(Deserialize, Default)]
struct Answer {
    id: Option<String>,
}

/// Publishes, and writes the id of the event as one line, or `accepted` if the response has none
/// (the keys are to be coalesced with those of other publishes).
///
/// # Errors
/// The server cannot be reached, refuses, or the output cannot be written.
pub async fn publish(publish: &Publish, out: &mut impl Write) -> Result<(), Error> {
    let Publish { server, org, keys } = publish;
    let body = serde_json::to_vec(&Body { keys }).expect("strings are JSON");
    let request = exchange::request(server, Method::POST, &format!("/api/{org}/events"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .expect("every part was checked when it was parsed");

    let response = exchange::send(server, request).await?;
    if response.status() != StatusCode::ACCEPTED {
        return Err(exchange::refusal(server, response).await);
    }
    let body = exchange::read_body(server, response).await?.unwrap_or_default();
    // By its status it was accepted; a body without an id does not change that.
    let answer: Answer = serde_json::from_slice(&body).unwrap_or_default();
    let id = answer.id.as_deref().unwrap_or("accepted");
    writeln!(out, "{}", OneLine(id)).and_then(|()| out.flush()).map_err(Error::Output)
}
