//! Opens streams: checks that the request may have one, resumes it where it left off, and sets its deadline.

use std::future::poll_fn;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Request, Uri, Version};
use hyper::body::Incoming;

use super::{Service, Verdict};
use crate::admission::StreamPermit;
use crate::config::PING_PARAMETER;
use crate::http::accept::accepts_events;
use crate::http::auth::{AuthError, Authorization, Grant};
use crate::http::filter::{filter, no_filter};
use crate::http::handoff::Handoff;
use crate::http::last_event_id::stated_id;
use crate::http::reject::Reject;
use crate::http::response::ResponseState;
use crate::http::route::{Route, route};
use crate::http::{Fields, conformance, forwarded, query, request_head, topics};
use crate::hub::record::Lines;
use crate::hub::{Hub, SubscribeError, View};
use crate::ids::{OrgName, Topic};
use crate::metrics::Limit;
use crate::stream::{AccessLog, AccessRecord, EventStream};
use crate::time::{Tick, Time};
use crate::wire::Keepalive;

/// A stream of a topic that has not begun.
pub(crate) struct OpenedTopic {
    pub(crate) stream: EventStream,
    permit: StreamPermit,
    sole: Sole,
}

/// Whether a topic's stream is to be the only one.
#[derive(Debug)]
enum Sole {
    No,
    /// The others have been made to end, and are to have ended before it begins.
    Yes,
    /// The same, once the log has this claim: those on other servers end too.
    Claims(Topic, u64),
}

/// How long an exclusive stream waits for the others to take their end, and then for those to be reset that did not:
/// a second together.
const RIVALS_MAX: Duration = Duration::from_millis(900);
const RIVALS_RESET_MAX: Duration = Duration::from_millis(100);

impl Service {
    /// Opens the stream that the first bytes of a connection request.
    ///
    /// # Errors
    /// None is opened, which leaves no trace: hyper reads the bytes again, and responds. A token that was
    /// verified need not be verified again.
    pub(crate) fn open_stream(&self, first: &Bytes) -> Result<Handoff, Option<Verdict>> {
        let Some((request, length, route)) = self.stream_request(first) else { return Err(None) };
        // It may have to wait for those that it replaces.
        if route.is_of_topic_stream() && !matches!(topics::is_exclusive(request.uri()), Ok(false)) {
            return Err(None);
        }
        let grant = match self.authorize(&route, &request) {
            Ok(Authorization::Granted(grant)) => grant,
            authorized => return Err(Some(Verdict { route, authorized })),
        };
        let opened = match &route {
            Route::Stream { org, view } => self.open(org, *view, &request, &grant),
            Route::TopicStream { topic } => {
                let opened = self.open_topic(topic, &request, &grant);
                opened.map(|OpenedTopic { stream, permit, .. }| (stream, permit))
            }
            _ => return Err(None),
        };
        let Ok((stream, permit)) = opened else {
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
        route.is_stream().then_some((request, length, route))
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
        let filter = filter(request.uri(), self.hub.config())?;
        self.open_with(request, grant, |hub, now| {
            // Of several ids none counts.
            let id = stated_id(request.headers(), request.uri());
            let id = id.as_ref().map(|id| id.as_deref().unwrap_or_default());
            let stream = EventStream::open(hub, org, view, id, now);
            let stream = stream.map_err(|why| match view {
                View::Member => refused(why, Limit::Org),
                View::Public => refused(why, Limit::OrgPublic),
                View::Topic => refused(why, Limit::Topic),
            })?;
            Ok(stream.with_filter(filter))
        })
    }

    /// Opens the stream of a topic, which replaces the others if the request says so.
    ///
    /// # Errors
    /// A parameter has no such value, the server shuts down, or a limit is reached, with a log also that of publishes if
    /// it is to be the only one.
    pub(crate) fn open_topic<B>(
        &self,
        topic: &Topic,
        request: &Request<B>,
        grant: &Grant,
    ) -> Result<OpenedTopic, Reject> {
        no_filter(request.uri())?;
        let sole = match (topics::is_exclusive(request.uri())?, &self.app.backplane) {
            (false, _) => Sole::No,
            (true, None) => Sole::Yes,
            (true, Some(_)) => Sole::Claims(topic.clone(), fastrand::u64(..)),
        };
        let (stream, permit) = self.open_with(request, grant, |hub, now| {
            if let Sole::Claims(..) = sole {
                // It is appended to the log, which every server reads.
                self.app.publisher(hub).acquire(&topic.org, now)?;
            }
            let (start, states_id) =
                topics::start(request.headers(), request.uri(), &self.app.clock);
            let stream = match sole {
                Sole::No => EventStream::open_topic(hub, topic, start, false, now),
                Sole::Yes => EventStream::open_topic(hub, topic, start, true, now),
                Sole::Claims(_, claim) => EventStream::claim_topic(hub, topic, start, claim, now),
            };
            let stream = stream.map_err(|why| refused(why, Limit::Topic))?;
            Ok(if states_id { stream.with_stated_id() } else { stream })
        })?;
        Ok(OpenedTopic { stream, permit, sole })
    }

    /// Opens a stream with what all have.
    fn open_with<B>(
        &self,
        request: &Request<B>,
        grant: &Grant,
        open: impl FnOnce(&Hub, Time) -> Result<EventStream, Reject>,
    ) -> Result<(EventStream, StreamPermit), Reject> {
        let keepalive = keepalive(request.uri())?;
        if self.app.has_successor() {
            return Err(Reject::Draining);
        }
        self.app.check_loaded()?;
        let wall = SystemTime::now();
        // It would end at once. That `exp` has not passed was verified with the token.
        if grant.expires.is_some_and(|at| Tick::of_wall(at) <= Tick::expiring(wall)) {
            return Err(Reject::Auth(AuthError::Invalid("the time for its streams is over")));
        }
        let permit = self.count_stream(request.headers())?;
        let stream = open(&self.hub, self.app.clock.now())?;
        let stream = self.logged(stream.with_keepalive(keepalive), request.headers());
        Ok(match grant.expires {
            Some(expires) => (stream.with_expiry(expires, wall), permit),
            None => (stream, permit),
        })
    }

    /// Responds with the stream of a topic. One that is to be the only one begins once the log has its claim, if there
    /// is a log, and the others have ended; those that do not read are reset after [`RIVALS_MAX`]. If its request ends
    /// before, its seat is free again.
    #[expect(
        clippy::async_yields_async,
        reason = "the response is polled in the place of the wait"
    )]
    pub(super) fn start_topic(
        &self,
        OpenedTopic { stream, permit, sole }: OpenedTopic,
        request: &Request<Incoming>,
        fields: &Fields,
    ) -> ResponseState {
        let version = request.version();
        let claim = match sole {
            Sole::No => return self.start(stream, permit, version, fields),
            Sole::Yes => None,
            Sole::Claims(topic, claim) => Some((topic, claim)),
        };
        let (service, fields, timer) = (self.clone(), fields.clone(), self.timer());
        let is_event_source = accepts_events(request.headers());
        ResponseState::Later(Box::pin(async move {
            if let Some((topic, claim)) = claim
                && let Err(reject) = service.claim(&topic, claim).await
            {
                return service.conclude(Err(reject), is_event_source);
            }
            let sole = || poll_fn(|cx| stream.poll_sole(cx.waker()));
            if timer.sleep(RIVALS_MAX).limit(sole()).await.is_none() {
                stream.end_rivals();
                timer.sleep(RIVALS_RESET_MAX).limit(sole()).await;
            }
            service.start(stream, permit, version, &fields)
        }))
    }

    /// Appends the claim to the log, which makes its stream the topic's only one, and waits until it is applied.
    async fn claim(&self, topic: &Topic, claim: u64) -> Result<(), Reject> {
        let mut lines = Lines::new();
        lines.exclusive(topic, claim);
        self.app.publisher(&self.hub).append(lines).await.map(|_| ())
    }

    /// Has the end of the stream logged, if there is an access log.
    fn logged(&self, stream: EventStream, headers: &HeaderMap) -> EventStream {
        let Some(AccessLog { clock, log }) = self.app.access_log() else { return stream };
        let client = self.admitted.client(|proxy| self.forwarded(headers, proxy));
        stream.with_record(AccessRecord::new(clock, client, log))
    }

    /// Counts a stream of the client, which may be behind a trusted proxy.
    fn count_stream(&self, headers: &HeaderMap) -> Result<StreamPermit, Reject> {
        let behind = |proxy| self.forwarded(headers, proxy);
        self.admitted.count_stream(behind).map_err(|limit| self.full(limit))
    }

    /// The client that a trusted proxy names.
    fn forwarded(&self, headers: &HeaderMap, proxy: Option<IpAddr>) -> Option<IpAddr> {
        let trusts = |ip| self.app.admission.trusts(Some(ip));
        forwarded::client(headers, self.app.config.forwarded_field, proxy, trusts)
    }

    pub(super) fn check_view(&self, org: &OrgName, view: View) -> Result<(), Reject> {
        match view {
            View::Public if !self.hub.config().public.shows(org) => Err(Reject::NotPublic),
            View::Public | View::Member | View::Topic => Ok(()),
        }
    }
}

/// A subscription was refused; a limit would be this one.
fn refused(why: SubscribeError, limit: Limit) -> Reject {
    match why {
        SubscribeError::Closing => Reject::Draining,
        SubscribeError::OrgFull { max } | SubscribeError::TopicFull { max } => {
            Reject::Full { limit, max }
        }
        SubscribeError::NoTopic => unreachable!("open_topic opens streams of topics"),
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

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::task::Waker;

    use super::*;
    use crate::admission::{Admission, Entrance};
    use crate::config::Config;
    use crate::http::{App, ServiceFactory};
    use crate::hub::Start;
    use crate::stream::Clock;

    /// The streams of topics need no task of hyper's, but for one that has to wait. That one counts as a stream all the
    /// same: a client that sends no more after such a request has gone, and replaces no other.
    #[tokio::test]
    async fn a_topic_opens_without_hyper_unless_it_is_exclusive() {
        let (config, clock) = (Config::default(), Clock::start());
        let hub = Hub::new(config.hub.clone());
        let admission = Admission::new(&config, 1_024);
        let app = Arc::new(App::new(config, hub.clone(), clock, admission));
        let factory = ServiceFactory::new(app, hub.clone());
        let admitted = factory.admit(Some(Ipv4Addr::LOCALHOST.into()), Entrance::Public).await;
        let service = factory.service(admitted);
        let topic =
            Topic { org: "acme".parse().expect("a name"), name: "run-7".parse().expect("a name") };
        let opened = hub.subscribe_topic(&topic, Start::All, false, clock.now());
        let (mut rival, _) = opened.expect("open");
        for (query, without_hyper, is_stream) in [
            ("", true, true),
            ("?exclusive=0", true, true),
            ("?since=now&ping=event", true, true),
            ("?exclusive", false, true),
            ("?exclusive=true", false, true),
            ("?exclusive=x", false, true),
            ("?ping=x", false, true),
            ("/", false, false),
        ] {
            let path = format!("/api/acme/topics/run-7/events{query}");
            let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            let first = Bytes::from(request);
            assert_eq!(service.requests_stream(&first), is_stream, "{query}");
            let opened = service.open_stream(&first);
            assert_eq!(opened.is_ok(), without_hyper, "{query}");
            drop(opened);
            assert_eq!(hub.seats(), 1, "{query}");
            assert!(rival.poll_next(Waker::noop()).is_pending(), "{query}: it goes on");
        }
    }
}
