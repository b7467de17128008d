//! Commands to the open streams of an org, or of all: those of its members end, or all clients re-read everything.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Body;
use http_body_util::Full;
use serde::Deserialize;

use super::auth::{AuthError, Orgs};
use super::publish::{self, BodyLimits, Destination, Publisher};
use super::reject::Reject;
use super::successor::{Operation, Operations};
use super::timer::Timer;
use crate::backplane::Backplane;
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
        let streams = match publisher.destination() {
            Destination::Hub => self.carry_out(publisher, now, window).await?,
            Destination::Log(backplane) => self.append(publisher, backplane).await?,
            Destination::Successor(successor) => self.forward(publisher, successor).await?,
        };
        Ok(publish::accepted(format!("{{\"streams\":{streams}}}")))
    }

    /// Has this hub carry it out.
    async fn carry_out(
        &self,
        publisher: Publisher<'_>,
        now: Time,
        window: Duration,
    ) -> Result<usize, Reject> {
        match self {
            Self::EndMembers(org) => Ok(publisher.hub.end_members(org, now, window)),
            Self::Reread(org) => Ok(publisher.hub.reread(org, now, window)),
            Self::RereadAll => reread_all(publisher, now, window).await,
        }
    }

    /// Has all servers carry it out, by the log. Returns how many streams this one has that it is for.
    async fn append(
        &self,
        publisher: Publisher<'_>,
        backplane: &Backplane,
    ) -> Result<usize, Reject> {
        let streams = match self {
            Self::EndMembers(org) => publisher.hub.streams(org).member,
            Self::Reread(org) => {
                let streams = publisher.hub.streams(org);
                streams.member + streams.public
            }
            Self::RereadAll => 0,
        };
        match self.lines() {
            Some(lines) => _ = publisher.append(lines).await?,
            None => return Ok(backplane.barrier("reread").await?),
        }
        Ok(streams)
    }

    /// Has the successor carry it out, which has the streams.
    async fn forward(
        &self,
        publisher: Publisher<'_>,
        successor: &Operations,
    ) -> Result<usize, Reject> {
        let done = match self.lines() {
            Some(lines) => publisher.forward(successor, lines).await?,
            None => Box::pin(successor.perform(Operation::RereadAll, publisher.hub)).await?,
        };
        Ok(done.streams)
    }

    /// The line of a command to the streams of one org.
    fn lines(&self) -> Option<Lines> {
        let mut lines = Lines::new();
        match self {
            Self::EndMembers(org) => lines.end(org),
            Self::Reread(org) => lines.reread(org),
            Self::RereadAll => return None,
        };
        Some(lines)
    }
}

/// Between parts of the orgs, the other tasks of the worker run. Where the client does not wait for the end, the orgs that
/// were reached re-read. If another process takes over meanwhile, it begins again there.
async fn reread_all(
    publisher: Publisher<'_>,
    now: Time,
    window: Duration,
) -> Result<usize, Reject> {
    let mut all = publisher.hub.reread_all_in_parts(now, window);
    while all.step() {
        tokio::task::yield_now().await;
        if let Destination::Successor(successor) = publisher.destination() {
            drop(all);
            return Command::RereadAll.forward(publisher, successor).await;
        }
    }
    Ok(all.streams())
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
