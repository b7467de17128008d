//! `nudged reread`: has the clients of one org, or of all, re-read everything.

use std::io::Write;

use http::{Method, StatusCode};
use serde::Deserialize;

use super::{Endpoint, Error, exchange};
use crate::ids::OrgName;

/// Whose clients re-read everything.
#[derive(Clone, Debug)]
pub struct Reread {
    /// The server.
    pub server: Endpoint,
    /// The organisation; `None` for all, which needs a publish key or a token for all organisations.
    pub org: Option<OrgName>,
}

#[derive(Deserialize, Default)]
struct Answer {
    streams: Option<u64>,
}

/// Has the clients re-read everything: those of open streams over the server's `--reread-window`. Writes the number of
/// these streams as one line.
///
/// # Errors
/// The server cannot be reached, refuses, or the output cannot be written.
pub async fn reread(reread: &Reread, out: &mut impl Write) -> Result<(), Error> {
    let Reread { server, org } = reread;
    let path =
        org.as_ref().map_or_else(|| "/api/reread".into(), |org| format!("/api/{org}/reread"));
    let request = exchange::request(server, Method::POST, &path)
        .body(bytes::Bytes::new().into())
        .expect("every part was checked when it was parsed");
    let response = exchange::send(server, request).await?;
    if response.status() != StatusCode::ACCEPTED {
        return Err(exchange::refusal(server, response).await);
    }
    let body = exchange::read_body(server, response).await?.unwrap_or_default();
    let answer: Answer = serde_json::from_slice(&body).unwrap_or_default();
    let written = match answer.streams {
        Some(streams) => writeln!(out, "{streams} streams"),
        None => writeln!(out, "accepted"),
    };
    written.and_then(|()| out.flush()).map_err(Error::Output)
}
