//! What a publish that is valid comes to: it is in the hub, or goes into the log that several servers share, or to the
//! process that has taken over from this one.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

use super::{Destination, Publisher, accepted};
use crate::backplane::Appended;
use crate::http::reject::Reject;
use crate::http::successor::Done;
use crate::hub::Hub;
use crate::hub::record::Lines;
use crate::ids::{EventId, OrgName, Topic};
use crate::metrics;

/// A publish that is valid, for which its org has been counted.
#[derive(Debug)]
pub(crate) enum Published {
    /// It is in the hub, and this is the response.
    Here(Response<Full<Bytes>>),
    /// Its lines go elsewhere.
    Lines(Lines, What),
}

/// What the response is about.
#[derive(Debug)]
pub(crate) enum What {
    Org(OrgName),
    Topic(Topic),
    /// So many lines.
    Lines(usize),
}

// ===== impl Published =====

impl Published {
    /// Waits until the lines are in the log and have come back from there, or until the successor has published them.
    ///
    /// # Errors
    /// They may not be there, or cannot be.
    pub(crate) async fn respond(
        self,
        publisher: Publisher<'_>,
    ) -> Result<Response<Full<Bytes>>, Reject> {
        let (lines, what) = match self {
            Self::Here(response) => return Ok(response),
            Self::Lines(lines, what) => (lines, what),
        };
        if let Destination::Successor(successor) = publisher.destination() {
            // It counts them.
            let Done { id, .. } = publisher.forward(successor, lines).await?;
            return Ok(match what {
                What::Org(_) | What::Topic(_) => with_id(id),
                What::Lines(count) => with_count(count),
            });
        }
        let Appended { mark, later } = publisher.append(lines).await?;
        // Once among all servers, at the one that accepted it.
        let publishes = if let What::Lines(count) = what { count } else { 1 };
        metrics::add(&publisher.hub.shard_counters().published, publishes as u64);
        Ok(match what {
            What::Org(org) => with_id(Some(Hub::member_id(&org, mark))),
            What::Topic(topic) => with_id(Some(Hub::topic_id(&topic, mark, later))),
            What::Lines(count) => with_count(count),
        })
    }

    /// The response of a server that has no log.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn here(self) -> Response<Full<Bytes>> {
        let Self::Here(response) = self else { unreachable!("there is no log") };
        response
    }
}

/// The response to one publish, with the id of its event, if it has one yet.
pub(super) fn with_id(id: Option<EventId>) -> Response<Full<Bytes>> {
    accepted(id.map_or_else(|| "{}".into(), |id| format!("{{\"id\":\"{id}\"}}")))
}

/// The response to so many lines.
pub(super) fn with_count(lines: usize) -> Response<Full<Bytes>> {
    accepted(format!("{{\"published\":{lines}}}"))
}
