//! Opens streams: checks that the request may have one, resumes it where it left off, and sets its deadline.

use std::net::IpAddr;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Request, Uri, Version};

use super::{Service, Verdict};
use crate::admission::StreamPermit;
use crate::config::PING_PARAMETER;
use crate::http::auth::{AuthError, Authorization, Grant};
use crate::http::handoff::Handoff;
use crate::http::last_event_id::last_event_id;
use crate::http::reject::Reject;
use crate::http::route::{Route, route};
use crate::http::{access_log, conformance, forwarded, query, request_head};
use crate::hub::{SubscribeError, View};
use crate::ids::OrgName;
use crate::metrics::Limit;
use crate::stream::{AccessRecord, EventStream};
use crate::time::Tick;
use crate::wire::Keepalive;

impl Service {
    /// Opens the stream that the first bytes of a connection request.
    ///
    /// # Errors
    /// None is opened, which leaves no trace: hyper reads the bytes again, and responds. A token that was
    /// verified need not be verified again.
    pub(crate) fn open_stream(&self, first: &Bytes) -> Result<Handoff, Option<Verdict>> {
        let Some((request, length, route)) = self.stream_request(first) else { return Err(None) };
        let Route::Stream { org, view } = &route else { return Err(None) };
        let grant = match self.authorize(&route, &request) {
            Ok(Authorization::Granted(grant)) => grant,
            authorized => return Err(Some(Verdict { route, authorized })),
        };
        let Ok((stream, permit)) = self.open(org, *view, &request, &grant) else {
            return Err(Some(Verdict { route, authorized: Ok(Authorization::Granted(grant)) }));
        };
        let chunked = request.version() == Version::HTTP_11;
        let handoff = Handoff::new(stream, chunked, self.fields(&request), permit);
        Ok(Handoff { surplus: first.len() - length, ..handoff })
    }

    /// Whether the first bytes of a connection are a request that [`Self::open_stream`] would open a stream for, if it
    /// is authorised.
    pub(crate) fn requests_stream(&self, first: &Bytes) -> bool {
        self.stream_request(first).is_some()
    }

    /// The request that the first bytes of a connection are, and their length, if it is for a stream and fit to be
    /// responded to without hyper.
    fn stream_request(&self, first: &Bytes) -> Option<(Request<()>, usize, Route)> {
        if self.is_unproven() {
            return None;
        }
        let (request, length) = request_head::parse(first)?;
        conformance::check(&request).ok()?;
        self.app.hosts.check(&request).ok()?;
        let route = route(request.method(), request.uri().path()).ok()?;
        matches!(route, Route::Stream { .. }).then_some((request, length, route))
    }

    /// Opens the stream of a request that is authorised.
    ///
    /// # Errors
    /// The org has no public stream, a parameter has no such value, the server shuts down, or a limit is reached.
    pub(crate) fn open<B>(
        &self,
        org: &OrgName,
        view: View,
        request: &Request<B>,
        grant: &Grant,
    ) -> Result<(EventStream, StreamPermit), Reject> {
        self.check_view(org, view)?;
        let keepalive = keepalive(request.uri())?;
        let wall = SystemTime::now();
        // It would end at once. That `exp` has not passed was verified with the token.
        if grant.expires.is_some_and(|at| Tick::of_wall(at) <= Tick::expiring(wall)) {
            return Err(Reject::Auth(AuthError::Invalid("the time for its streams is over")));
        }
        let permit = self.count_stream(request.headers())?;
        let id = last_event_id(request.headers(), request.uri());
        let stream = EventStream::open(&self.hub, org, view, id.as_deref(), self.app.clock.now());
        let stream = stream.map_err(|why| match why {
            SubscribeError::Closing => Reject::Draining,
            SubscribeError::OrgFull { max } | SubscribeError::TopicFull { max } => {
                let limit = match view {
                    View::Member => Limit::Org,
                    View::Public => Limit::OrgPublic,
                    View::Topic => Limit::Topic,
                };
                Reject::Full { limit, max }
            }
        })?;
        let stream = self.logged(stream.with_keepalive(keepalive), request.headers());
        Ok(match grant.expires {
            Some(expires) => (stream.with_expiry(expires, wall), permit),
            None => (stream, permit),
        })
    }

    /// Has the end of the stream logged, if there is an access log.
    fn logged(&self, stream: EventStream, headers: &HeaderMap) -> EventStream {
        if !self.app.config.access_log {
            return stream;
        }
        let client = self.admitted.client(|proxy| self.forwarded(headers, proxy));
        stream.with_record(AccessRecord::new(self.app.clock, client, access_log::write))
    }

    /// Counts a stream of the client, which may be behind a trusted proxy.
    fn count_stream(&self, headers: &HeaderMap) -> Result<StreamPermit, Reject> {
        let behind = |proxy| self.forwarded(headers, proxy);
        self.admitted.count_stream(behind).map_err(|limit| self.full(limit))
    }

    /// The client that a trusted proxy names.
    fn forwarded(&self, headers: &HeaderMap, proxy: IpAddr) -> IpAddr {
        let trusts = |ip| self.app.admission.trusts(ip);
        forwarded::client(headers, self.app.config.forwarded_field, proxy, trusts)
    }

    pub(super) fn check_view(&self, org: &OrgName, view: View) -> Result<(), Reject> {
        match view {
            View::Public if !self.hub.config().public.shows(org) => Err(Reject::NotPublic),
            View::Public | View::Member | View::Topic => Ok(()),
        }
    }
}

/// What the request wants its stream to be kept open by.
pub(super) fn keepalive(uri: &Uri) -> Result<Keepalive, Reject> {
    match query(uri, PING_PARAMETER).as_deref() {
        None => Ok(Keepalive::Comment),
        Some("event") => Ok(Keepalive::Event),
        Some(_) => Err(Reject::Ping),
    }
}
