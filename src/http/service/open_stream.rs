//! Opens streams: who may have one, what it has missed, and when it has to end.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Request, Version};

use super::Service;
use crate::admission::AddressGuard;
use crate::http::auth::{Grant, Scope};
use crate::http::handoff::Handoff;
use crate::http::reject::Reject;
use crate::http::route::{Route, route};
use crate::http::{conformance, forwarded, query, request_head};
use crate::hub::{Deadline, SubscribeError, View};
use crate::ids::OrgName;
use crate::metrics::{CloseReason, Limit};
use crate::stream::EventStream;

impl Service {
    /// Opens the stream that the first bytes of a connection request. `None` leaves no trace: hyper reads the
    /// bytes again, and responds.
    pub(crate) fn open_stream(&self, first: &Bytes) -> Option<Handoff> {
        if self.over_limit() {
            return None;
        }
        let (request, length) = request_head::parse(first)?;
        conformance::check(&request).ok()?;
        let Ok(Route::Stream { org, view }) = route(request.method(), request.uri().path()) else {
            return None;
        };
        let (headers, uri, now) = (request.headers(), request.uri(), self.app.clock.now());
        if view == View::Member && self.app.auth.pending_keys(headers, uri, now).is_some() {
            return None;
        }
        let (stream, client) = self.open(&org, view, &request).ok()?;
        let chunked = request.version() == Version::HTTP_11;
        let handoff = Handoff::new(stream, chunked, self.fields(&request), client);
        Some(Handoff { surplus: first.len() - length, ..handoff })
    }

    pub(crate) fn open<B>(
        &self,
        org: &OrgName,
        view: View,
        request: &Request<B>,
    ) -> Result<(EventStream, Option<AddressGuard>), Reject> {
        let Grant { expires, .. } = self.check_view(org, view, request)?;
        let client = self.count_client(request.headers())?;
        let header = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
        let id = header.map(Into::into).or_else(|| query(request.uri(), "last_event_id"));
        let stream = EventStream::open(&self.hub, org, view, id.as_deref(), self.app.clock.now());
        let stream = stream.map_err(|why| match why {
            SubscribeError::Closing => Reject::Draining,
            SubscribeError::OrgFull { max } => Reject::Full { limit: Limit::Org, max },
        })?;
        let Some(expires) = expires else { return Ok((stream, client)) };
        let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
        let at = self.app.clock.now().after(left);
        let stream = stream.with_deadline(Deadline { at, reason: CloseReason::Expired });
        Ok((stream, client))
    }

    /// Counts a stream for the client behind a trusted proxy; any other client counts as its
    /// connection.
    fn count_client(&self, headers: &HeaderMap) -> Result<Option<AddressGuard>, Reject> {
        let Some(proxy) = self.admitted.trusted_proxy() else { return Ok(None) };
        let client = forwarded::client(headers, proxy, |ip| self.app.admission.trusts(ip));
        self.admitted.count_client(client).map_err(|limit| self.full(limit))
    }

    pub(super) fn check_view<B>(
        &self,
        org: &OrgName,
        view: View,
        request: &Request<B>,
    ) -> Result<Grant, Reject> {
        match view {
            View::Public if !self.hub.config().public.shows(org) => Err(Reject::NotPublic),
            View::Public => Ok(Grant::everyone()),
            View::Member => self.authorize(request, Scope::Subscribe, Some(org)),
        }
    }
}
