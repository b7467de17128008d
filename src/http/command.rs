//! Commands to the open streams of an org, or of all: those of its members end, or all clients re-read everything.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Body;
use http_body_util::Full;
use serde::Deserialize;

use super::auth::{AuthError, Orgs};
use super::publish::{self, BodyLimits, Publisher};
use super::reject::Reject;
use super::timer::Timer;
use crate::backplane::Backplane;
use crate::hub::Hub;
use crate::hub::record::Lines;
use crate::ids::OrgName;
use crate::time::Time;

/// What the streams are to do.
#[derive(Debug)]
pub(super) enum Command {
    /// The member streams of an org end.
    EndMembers(OrgName),
    /// The clients of an org re-read everything.
    Reread(OrgName),
    /// Those of all orgs do.
    RereadAll,
}

/// The body, if there is one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

const EXPECTED: &str = "an empty body, or {}";

// ===== impl Command =====

impl Command {
    /// Whether a token for these orgs allows it. That for one org was checked with its path.
    pub(super) fn check(&self, orgs: &Orgs) -> Result<(), Reject> {
        match (self, orgs) {
            (Self::RereadAll, Orgs::All) | (Self::EndMembers(_) | Self::Reread(_), _) => Ok(()),
            (Self::RereadAll, _) => Err(Reject::Auth(AuthError::Org)),
        }
    }

    /// Has the hub carry it out over this window. It counts as a publish to its org; one for all orgs against a limit
    /// of its own. The response has the number of streams.
    pub(super) async fn run(
        &self,
        publisher: Publisher<'_>,
        now: Time,
        window: Duration,
    ) -> Result<Response<Full<Bytes>>, Reject> {
        match self {
            Self::EndMembers(org) | Self::Reread(org) => publisher.acquire(org, now)?,
            Self::RereadAll => publisher.acquire_all(now)?,
        }
        let hub = publisher.hub;
        let streams = match (self, publisher.backplane) {
            (Self::EndMembers(org), None) => hub.end_members(org, now, window),
            (Self::Reread(org), None) => hub.reread(org, now, window),
            (Self::RereadAll, None) => reread_all(hub, now, window).await,
            (_, Some(backplane)) => self.append(publisher, backplane).await?,
        };
        Ok(publish::accepted(format!("{{\"streams\":{streams}}}")))
    }

    /// Has all servers carry it out, by the log. Returns how many streams this one has that it is for.
    async fn append(
        &self,
        publisher: Publisher<'_>,
        backplane: &Backplane,
    ) -> Result<usize, Reject> {
        let hub = publisher.hub;
        let mut lines = Lines::new();
        let streams = match self {
            Self::EndMembers(org) => {
                lines.end(org);
                hub.streams(org).member
            }
            Self::Reread(org) => {
                lines.reread(org);
                let streams = hub.streams(org);
                streams.member + streams.public
            }
            Self::RereadAll => return Ok(backplane.barrier("reread").await?),
        };
        publisher.append(lines).await?;
        Ok(streams)
    }
}

/// Between parts of the orgs, the other tasks of the worker run. Where the client does not wait for the end, the orgs that
/// were reached re-read.
async fn reread_all(hub: &Hub, now: Time, window: Duration) -> usize {
    let mut all = hub.reread_all_in_parts(now, window);
    while all.step() {
        tokio::task::yield_now().await;
    }
    all.streams()
}

/// Reads the body, which has to be empty or an empty object.
///
/// # Errors
/// It is something else, or does not arrive within its limits.
pub(super) async fn read<B>(
    headers: HeaderMap,
    body: B,
    limits: BodyLimits,
    timer: &Timer,
) -> Result<(), Reject>
where
    B: Body<Data = Bytes>,
{
    let body = publish::read_if_any(headers, body, limits, timer).await?;
    if !body.bytes().is_empty() {
        let Empty {} = publish::parse_object(body.bytes(), EXPECTED)?;
    }
    Ok(())
}
