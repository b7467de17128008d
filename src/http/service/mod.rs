//! Responds to requests: in full, or with a stream, which is a response whose body holds a seat.

mod admit;
mod app;
mod command;
mod open_stream;
mod operator;
mod publish;
mod verdict;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Version, header};
use http_body_util::Full;
use hyper::body::Incoming;

pub(crate) use self::app::App;
pub(crate) use self::verdict::Verdict;

use self::admit::close_unproven;
use self::open_stream::keepalive;
use self::publish::Target;
use self::verdict::FirstVerdict;
use super::accept::accepts_events;
use super::auth::{AuthError, Authorization, Grant, Permission, Presented};
use super::body_budget::BodyBudget;
use super::command::Command;
use super::conformance;
use super::exposition::Format;
use super::fields::Fields;
use super::filter::{filter, no_filter};
use super::handoff::{Handoff, HandoffSlot};
use super::ops;
use super::origin;
use super::publish::JSON;
use super::reject::Reject;
use super::response::{ResponseBody, ResponseFuture, ResponseState};
use super::route::{Route, route};
use super::scripts;
use super::timer::Timer;
use super::topics;
use crate::admission::{Admitted, Closer, Entrance, StreamPermit};
use crate::config::{Config, CorsPolicy};
use crate::hub::{Hub, Position, Positions};
use crate::ids::OrgName;
use crate::metrics::HeaderRefusal;
use crate::stream::{EventStream, StreamMonitor, retry_ms, with_headers};

/// Makes a [`Service`] for each connection of one worker.
#[derive(Clone, Debug)]
pub(crate) struct ServiceFactory {
    app: Arc<App>,
    hub: Hub,
    handoff_slot: HandoffSlot,
}

/// Responds to the requests of one connection, which is counted for as long as this lives.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    app: Arc<App>,
    hub: Hub,
    handoff_slot: HandoffSlot,
    /// Shared with a request that waits, for its body or for the keys of its token.
    admitted: Arc<Admitted>,
    /// Watches the stream of an HTTP/2 request, which stays with hyper. An HTTP/1 stream is handed off.
    monitor: Option<StreamMonitor>,
    verdict: FirstVerdict,
    /// What the bodies of an HTTP/2 connection share.
    body_budget: Option<BodyBudget>,
}

// ===== impl ServiceFactory =====

impl ServiceFactory {
    pub(crate) fn new(app: Arc<App>, hub: Hub) -> Self {
        Self { app, hub, handoff_slot: HandoffSlot::default() }
    }

    /// Counts a connection to an address of this kind, as soon as there is room to serve it or to refuse it.
    pub(crate) async fn admit(&self, peer: Option<IpAddr>, entrance: Entrance) -> Arc<Admitted> {
        self.app.admission.admit(peer, entrance).await
    }

    /// Whether this peer has to send a header of the PROXY protocol before everything else.
    pub(crate) fn awaits_header(&self, peer: Option<IpAddr>, entrance: Entrance) -> bool {
        self.app.admission.awaits_header(peer, entrance)
    }

    /// Counts a refused header. Returns how many there have been since the last line in the log, if it is time for one.
    pub(crate) fn count_header_refusal(&self, why: HeaderRefusal) -> Option<u64> {
        self.app.admission.header_refusals().add(why, self.app.clock.now())
    }

    /// Makes the timers of its connections.
    pub(crate) fn timer(&self) -> Timer {
        Timer::new(self.hub.clone(), self.app.clock)
    }

    /// What answers the requests of this connection.
    pub(crate) fn service(&self, admitted: Arc<Admitted>) -> Service {
        let Self { app, hub, handoff_slot } = self.clone();
        Service {
            app,
            hub,
            handoff_slot,
            admitted,
            monitor: None,
            verdict: FirstVerdict::default(),
            body_budget: None,
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.app.config
    }
}

// ===== impl Service =====

impl Service {
    /// The same service, whose requests may be many at a time.
    pub(crate) fn with_body_budget(self) -> Self {
        let Config { publish_bytes_max, connection_body_bytes_max, .. } = self.app.config;
        let budget = BodyBudget::new(connection_body_bytes_max.max(publish_bytes_max));
        Self { body_budget: Some(budget), ..self }
    }

    /// The same service, for one request of an HTTP/2 connection.
    pub(crate) fn with_monitor(self, monitor: StreamMonitor) -> Self {
        Self { monitor: Some(monitor), ..self }
    }

    /// The same service, which does not verify the token of the first request again.
    pub(crate) fn with_verdict(self, verdict: Option<Verdict>) -> Self {
        Self { verdict: FirstVerdict::new(verdict), ..self }
    }

    pub(crate) fn handoff_slot(&self) -> &HandoffSlot {
        &self.handoff_slot
    }

    /// Refers to the connection as long as it is served. A second owner is a request that waits.
    pub(crate) fn watch_admitted(&self) -> Weak<Admitted> {
        Arc::downgrade(&self.admitted)
    }

    pub(crate) fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// What closes the connection to make room.
    pub(crate) fn closer(&self) -> Arc<Closer> {
        self.admitted.closer()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.app.config
    }

    /// Makes the timers of its connection.
    pub(crate) fn timer(&self) -> Timer {
        Timer::new(self.hub.clone(), self.app.clock)
    }

    /// Whether the connection is beyond a limit and has proven nothing, so that it should close after its response.
    pub(crate) fn is_unproven(&self) -> bool {
        self.admitted.is_unproven()
    }

    #[expect(
        clippy::async_yields_async,
        reason = "the response is polled in the place of the wait"
    )]
    fn respond(
        &self,
        request: Request<Incoming>,
        fields: &Fields,
        verdict: Option<Verdict>,
    ) -> ResponseState {
        let route = self.find_route(request.method(), request.uri().path());
        let is_stream = route.as_ref().is_ok_and(Route::is_stream);
        let route = route.and_then(|route| self.check_entrance(route));
        let authorized = route.and_then(|route| self.check_room(route)).and_then(|route| {
            let authorized = match verdict.filter(|verdict| verdict.route == route) {
                Some(verdict) => verdict.authorized,
                None => self.authorize(&route, &request),
            };
            Ok((authorized.map_err(Reject::Auth)?, route))
        });
        match authorized {
            Ok((Authorization::Granted(grant), route)) => {
                self.respond_to_route(route, grant, request, fields)
            }
            Ok((Authorization::WaitForKeys(pending), route)) => {
                let (service, fields) = (self.clone(), fields.clone());
                ResponseState::Later(Box::pin(async move {
                    let reject = match service.app.auth.authorize_pending(pending).await {
                        Ok(grant) => {
                            return service.respond_to_route(route, grant, request, &fields);
                        }
                        // The wait was cut short, so the token may be good.
                        Err(_) if service.hub.is_closing() => Reject::Draining,
                        Err(why) => Reject::Auth(why),
                    };
                    let is_event_source = is_stream && accepts_events(request.headers());
                    service.conclude(Err(reject), is_event_source)
                }))
            }
            Err(reject) => {
                let is_event_source = is_stream && accepts_events(request.headers());
                self.conclude(Err(reject), is_event_source)
            }
        }
    }

    fn find_route(&self, method: &Method, path: &str) -> Result<Route, Reject> {
        if !self.app.config.ops && ops::is_of(path) {
            return Err(Reject::NotFound);
        }
        route(method, path)
    }

    fn respond_to_route(
        &self,
        route: Route,
        grant: Grant,
        request: Request<Incoming>,
        fields: &Fields,
    ) -> ResponseState {
        let is_stream = route.is_stream();
        let response = match route {
            Route::Stream { org, view } => match self.open(&org, view, &request, &grant) {
                Ok((stream, permit)) => {
                    return self.start(stream, permit, request.version(), fields);
                }
                Err(reject) => Err(reject),
            },
            Route::StreamHead { org, view } => {
                let checked = self.check_view(&org, view).and_then(|()| keepalive(request.uri()));
                let checked = checked.and_then(|_| filter(request.uri(), self.hub.config()));
                checked.map(|_| with_headers(ResponseBody::NoStream))
            }
            Route::TopicStream { topic } => match self.open_topic(&topic, &request, &grant) {
                Ok(opened) => return self.start_topic(opened, &request, fields),
                Err(reject) => Err(reject),
            },
            Route::TopicStreamHead { .. } => {
                let checked = no_filter(request.uri());
                let checked = checked.and_then(|()| topics::is_exclusive(request.uri()));
                let checked = checked.and_then(|_| keepalive(request.uri()));
                checked.map(|_| with_headers(ResponseBody::NoStream))
            }
            Route::Publish { org } => return self.publish(Target::Org(org), grant, request),
            Route::PublishMessage { topic } => {
                return self.publish(Target::Topic(topic), grant, request);
            }
            Route::PublishBatch => return self.publish(Target::Lines, grant, request),
            Route::CloseTopic { topic } => return self.close_topic(topic, request),
            Route::EndMembers { org } => {
                return self.command(Command::EndMembers(org), &grant, request);
            }
            Route::Reread { org } => return self.command(Command::Reread(org), &grant, request),
            Route::RereadAll => return self.command(Command::RereadAll, &grant, request),
            Route::Position { org } => self.app.check_loaded().map(|()| self.position(&org)),
            Route::Live => Ok(text("live\n".into())),
            Route::Ready => self.app.check_ready().map(|()| text("ready\n".into())),
            Route::Metrics => Ok(self.metrics(Format::accepted_by(request.headers()))),
            Route::Ops(ops) => return self.ops(ops, &request),
            Route::Script(script) => Ok(script.response(request.headers()).map(ResponseBody::Full)),
        };
        self.conclude(response, is_stream && accepts_events(request.headers()))
    }

    /// A response that is complete, or a refusal. `is_event_source`: see [`Self::refuse`].
    fn conclude(
        &self,
        response: Result<Response<ResponseBody>, Reject>,
        is_event_source: bool,
    ) -> ResponseState {
        let mut response = response.unwrap_or_else(|reject| self.refuse(reject, is_event_source));
        close_unproven(&self.admitted, &mut response);
        ResponseState::Now(Some(response))
    }

    /// Refuses. If the cause is temporary, an `EventSource` gets its reconnection time and the end of the
    /// stream, because it would not come back after an error status.
    fn refuse(&self, reject: Reject, is_event_source: bool) -> Response<ResponseBody> {
        let reject = self.app.counted(reject);
        let response = if is_event_source && reject.is_temporary() {
            reject.into_stream_end(retry_ms(self.hub.config()))
        } else {
            reject.into_response()
        };
        response.map(ResponseBody::Full)
    }

    /// Responds with the stream over HTTP/2; hands it off over HTTP/1, where hyper never gets a response.
    fn start(
        &self,
        mut stream: EventStream,
        permit: StreamPermit,
        version: Version,
        fields: &Fields,
    ) -> ResponseState {
        let Some(monitor) = self.monitor.clone() else {
            let chunked = version == Version::HTTP_11;
            self.handoff_slot.put(Handoff::new(stream, chunked, fields.clone(), permit));
            return ResponseState::Never;
        };
        monitor.watch(&mut stream);
        ResponseState::Now(Some(stream.into_response().map(|stream| ResponseBody::Stream {
            stream,
            monitor,
            _permit: permit,
        })))
    }

    fn authorize<B>(
        &self,
        route: &Route,
        request: &Request<B>,
    ) -> Result<Authorization, AuthError> {
        let Some(permission) = route.permission() else {
            return Ok(Authorization::Granted(Grant::everyone()));
        };
        // Another value than it may have is refused once it is known that the client may have the stream.
        let is_exclusive = route.is_of_topic_stream()
            && topics::is_exclusive(request.uri()).is_ok_and(|is_exclusive| is_exclusive);
        let permission = Permission { is_exclusive, ..permission };
        let cors = &self.app.config.cors;
        // An exclusive stream turns others out, though a page may send its GET with any cookie.
        let is_change = is_exclusive || !request.method().is_safe();
        // What is open to every page needs no more than that.
        let is_foreign = match route {
            // No setting names pages that may have it.
            Route::Ops(_) => origin::is_foreign(request, &CorsPolicy::SameOrigin),
            _ => {
                is_change
                    && origin::is_foreign(request, cors)
                    && !(self.app.config.auth.is_open() && *cors == CorsPolicy::Any)
            }
        };
        let presented = Presented { headers: request.headers(), uri: request.uri(), is_foreign };
        self.app.auth.authorize(presented, permission, self.app.clock.now())
    }

    /// The header fields of every response to this request.
    fn fields<B>(&self, request: &Request<B>) -> Fields {
        let mut fields = Fields::default();
        let path = request.uri().path();
        if path.strip_prefix('/').and_then(scripts::find).is_some() {
            fields.push(header::ACCESS_CONTROL_ALLOW_ORIGIN, scripts::ANY_ORIGIN);
        } else if ops::is_of(path) {
            fields.push(ops::RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
        } else {
            self.app.cors.add_to(&mut fields, request.headers());
        }
        if self.app.auth.is_in_url(request.uri()) {
            fields.push(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        }
        fields
    }

    /// Responds with what `respond` comes to, which reads the body of an authorised request first.
    fn wait_for(
        &self,
        respond: impl Future<Output = Result<Response<Full<Bytes>>, Reject>> + Send + 'static,
    ) -> ResponseState {
        self.admitted.keep();
        let (app, admitted) = (self.app.clone(), self.admitted.clone());
        ResponseState::Waiting(Box::pin(async move {
            let response = respond.await;
            let mut response =
                response.unwrap_or_else(|reject| app.counted(reject).into_response());
            close_unproven(&admitted, &mut response);
            response
        }))
    }

    fn position(&self, org: &OrgName) -> Response<ResponseBody> {
        let Positions { member, public } = self.hub.position(org, self.app.clock.now());
        let view = |Position { id, streams }| format!("{{\"id\":\"{id}\",\"streams\":{streams}}}");
        let public = public.map(|at| format!(",\"public\":{}", view(at))).unwrap_or_default();
        let body = format!("{{\"member\":{}{public}}}", view(member));
        json(body.into())
    }

    fn metrics(&self, format: Format) -> Response<ResponseBody> {
        let mut response = text(self.app.metrics.text(format, self.app.clock.now()));
        let kind = HeaderValue::from_static(format.content_type());
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

fn json(body: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Full(Full::new(body)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

fn text(body: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Full(Full::new(body)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn call(&self, request: Request<Incoming>) -> ResponseFuture {
        let (fields, verdict) = (self.fields(&request), self.verdict.take());
        let chunked = conformance::is_chunked(request.headers());
        let drops_body = request.method() == Method::HEAD && request.version() == Version::HTTP_2;
        let checked = conformance::check(&request).and_then(|()| self.app.hosts.check(&request));
        let preflight = || match ops::is_of(request.uri().path()) {
            // No page of another origin may have anything of it.
            true => None,
            false => self.app.cors.preflight(&request),
        };
        let state = match checked.map(|()| preflight()) {
            Err(reject) => self.conclude(Err(reject), false),
            Ok(Some(response)) => ResponseState::Now(Some(response.map(ResponseBody::Full))),
            Ok(None) => self.respond(request, &fields, verdict),
        };
        ResponseFuture { state, fields, chunked, drops_body }
    }
}
