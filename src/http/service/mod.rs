//! Answers requests. What is not a stream is answered in full; a stream is a response whose body holds
//! a seat.

mod open_stream;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus_client::registry::Registry;

use super::auth::{self, Auth, Grant, Scope};
use super::conformance;
use super::essence;
use super::exposition;
use super::fields::Fields;
use super::handoff::{Handoff, HandoffSlot};
use super::publish::{self, BodyLimits, Publisher};
use super::rate_limit::RateLimiter;
use super::reject::Reject;
use super::response::{ResponseBody, ResponseFuture, ResponseState};
use super::route::{Route, route};
use crate::admission::{AddressGuard, Admission, Admitted};
use crate::config::Config;
use crate::hub::{Hub, View};
use crate::ids::OrgName;
use crate::metrics::Limit;
use crate::stream::{Clock, EventStream, StreamMonitor, retry_ms, with_headers};
use crate::sync::{AtomicBool, Ordering};

/// What the workers of a server share.
#[derive(Debug)]
pub(crate) struct App {
    config: Config,
    clock: Clock,
    metrics: Registry,
    /// It still serves, but wants no more.
    stopping: AtomicBool,
    admission: Admission,
    rates: Option<RateLimiter>,
    auth: Auth,
}

/// Receives the connections of one worker.
#[derive(Clone, Debug)]
pub(crate) struct ServiceFactory {
    app: Arc<App>,
    hub: Hub,
    handoff_slot: HandoffSlot,
}

/// Answers the requests of one connection, which counts for as long as this lives.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    app: Arc<App>,
    hub: Hub,
    handoff_slot: HandoffSlot,
    /// Shared with a request that waits for keys.
    admitted: Arc<Admitted>,
    /// Watches the stream of an HTTP/2 request, which stays with hyper. An HTTP/1 stream is handed off.
    monitor: Option<StreamMonitor>,
}

// ===== impl App =====

impl App {
    pub(crate) fn new(config: Config, hub: Hub, clock: Clock, admission: Admission) -> Self {
        let metrics = exposition::registry(hub, admission.clone());
        let auth = Auth::new(&config.auth);
        let rates = config.publish_rate.map(RateLimiter::new);
        Self { config, clock, metrics, stopping: AtomicBool::new(false), admission, rates, auth }
    }

    /// Tells load balancers, through `/readyz`, that the server is about to end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Counts a refusal if it is for a limit.
    fn counted(&self, reject: Reject) -> Reject {
        if let Some(limit) = reject.limit() {
            self.admission.count_refusal(limit);
        }
        reject
    }

    /// Fetches what requests would have to wait for. Inside a runtime.
    pub(crate) fn warm_up(&self) {
        self.auth.prefetch(self.clock.now());
    }
}

// ===== impl ServiceFactory =====

impl ServiceFactory {
    pub(crate) fn new(app: Arc<App>, hub: Hub) -> Self {
        Self { app, hub, handoff_slot: HandoffSlot::default() }
    }

    /// Receives a connection, when there is room for it or to tell it that there is none. `None` is
    /// for one that has to be closed without a word.
    pub(crate) async fn admit(&self, peer: IpAddr) -> Option<Arc<Admitted>> {
        self.app.admission.admit(peer).await.map(Arc::new)
    }

    /// What answers the requests of this connection.
    pub(crate) fn service(&self, admitted: Arc<Admitted>) -> Service {
        let Self { app, hub, handoff_slot } = self.clone();
        Service { app, hub, handoff_slot, admitted, monitor: None }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.app.config
    }
}

// ===== impl Service =====

impl Service {
    /// The same service, for one request of an HTTP/2 connection.
    pub(crate) fn with_monitor(self, monitor: StreamMonitor) -> Self {
        Self { monitor: Some(monitor), ..self }
    }

    pub(crate) fn handoff_slot(&self) -> &HandoffSlot {
        &self.handoff_slot
    }

    pub(crate) fn into_admitted(self) -> Arc<Admitted> {
        self.admitted
    }

    pub(crate) fn config(&self) -> &Config {
        &self.app.config
    }

    /// Whether the connection came when there was no room, and should not stay.
    pub(crate) fn over_limit(&self) -> bool {
        self.admitted.over_limit()
    }

    #[expect(clippy::async_yields_async, reason = "the answer is polled in the place of the wait")]
    fn answer(&self, request: Request<Incoming>, fields: &Fields) -> ResponseState {
        let route = route(request.method(), request.uri().path());
        let is_stream = matches!(route, Ok(Route::Stream { .. }));
        let route = match route.and_then(|route| self.check_room(route)) {
            Ok(route) => route,
            Err(reject) => {
                let comes_back = is_stream && accepts_events(request.headers());
                return self.conclude(Err(reject), comes_back);
            }
        };
        let (headers, uri) = (request.headers(), request.uri());
        let keys = || self.app.auth.pending_keys(headers, uri, self.app.clock.now());
        if let Some(keys) = route.needs_token().then(keys).flatten() {
            let (service, fields) = (self.clone(), fields.clone());
            return ResponseState::Later(Box::pin(async move {
                keys.await;
                service.answer_route(route, request, &fields)
            }));
        }
        self.answer_route(route, request, fields)
    }

    fn answer_route(
        &self,
        route: Route,
        request: Request<Incoming>,
        fields: &Fields,
    ) -> ResponseState {
        let is_stream = matches!(route, Route::Stream { .. });
        let answer = match route {
            Route::Stream { org, view } => match self.open(&org, view, &request) {
                Ok((stream, client)) => {
                    return self.start(stream, client, request.version(), fields);
                }
                Err(reject) => Err(reject),
            },
            Route::StreamHead { org, view } => self.head(&org, view, &request),
            Route::Publish { org } => return self.publish(Some(org), request),
            Route::PublishBatch => return self.publish(None, request),
            Route::Live => Ok(text("live\n".into())),
            Route::Ready if self.app.stopping.load(Ordering::Relaxed) => Err(Reject::Draining),
            Route::Ready => Ok(text("ready\n".into())),
            Route::Metrics => Ok(self.metrics()),
        };
        self.conclude(answer, is_stream && accepts_events(request.headers()))
    }

    fn conclude(
        &self,
        answer: Result<Response<ResponseBody>, Reject>,
        comes_back: bool,
    ) -> ResponseState {
        let mut answer = answer.unwrap_or_else(|reject| self.refuse(reject, comes_back));
        if self.over_limit() {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        ResponseState::Now(Some(answer))
    }

    /// Who looks after the server has to be answered above all when it is full.
    fn check_room(&self, route: Route) -> Result<Route, Reject> {
        match (&route, self.admitted.limit_reached()) {
            (Route::Live | Route::Ready | Route::Metrics, _) | (_, None) => Ok(route),
            (_, Some(limit)) => Err(self.full(limit)),
        }
    }

    fn full(&self, limit: Limit) -> Reject {
        let admission = &self.app.admission;
        let max = match limit {
            Limit::Address => admission.address_max().unwrap_or_default(),
            _ => admission.connections_max(),
        };
        Reject::Full { limit, max }
    }

    /// Refuses. A browser's `EventSource` is told when to come back where that may help.
    fn refuse(&self, reject: Reject, comes_back: bool) -> Response<ResponseBody> {
        let reject = self.app.counted(reject);
        let answer = if comes_back && reject.is_for_now() {
            reject.into_stream_end(retry_ms(self.hub.config()))
        } else {
            reject.into_response()
        };
        answer.map(ResponseBody::Full)
    }

    /// Responds with the stream over HTTP/2; hands it off over HTTP/1, where hyper never gets a response.
    fn start(
        &self,
        mut stream: EventStream,
        client: Option<AddressGuard>,
        version: Version,
        fields: &Fields,
    ) -> ResponseState {
        let Some(monitor) = self.monitor.clone() else {
            let chunked = version == Version::HTTP_11;
            self.handoff_slot.put(Handoff::new(stream, chunked, fields.clone(), client));
            return ResponseState::Never;
        };
        monitor.watch(&mut stream);
        ResponseState::Now(Some(stream.into_response().map(|stream| ResponseBody::Stream {
            stream,
            monitor,
            _client: client,
        })))
    }

    fn head<B>(
        &self,
        org: &OrgName,
        view: View,
        request: &Request<B>,
    ) -> Result<Response<ResponseBody>, Reject> {
        self.check_view(org, view, request)?;
        Ok(with_headers(ResponseBody::NoStream))
    }

    fn authorize<B>(
        &self,
        request: &Request<B>,
        scope: Scope,
        org: Option<&OrgName>,
    ) -> Result<Grant, Reject> {
        let auth = &self.app.auth;
        auth.authorize(request.headers(), request.uri(), scope, org).map_err(Reject::AuthError)
    }

    /// The header fields that every answer to this request has.
    fn fields<B>(&self, request: &Request<B>) -> Fields {
        let mut fields = Fields::default();
        self.app.config.cors.add_to(&mut fields, request.headers());
        if auth::is_in_url(request.uri()) {
            fields.push(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        }
        fields
    }

    fn publish(&self, org: Option<OrgName>, request: Request<Incoming>) -> ResponseState {
        let grant = match self.authorize(&request, Scope::Publish, org.as_ref()) {
            Ok(grant) => grant,
            Err(reject) => return self.conclude(Err(reject), false),
        };
        let (hub, app) = (self.hub.clone(), self.app.clone());
        let Config { publish_bytes_max, body_timeout, .. } = self.app.config;
        let limits = BodyLimits { bytes_max: publish_bytes_max, timeout: body_timeout };
        let (head, body) = request.into_parts();
        let allowed = publish::content_type(org.is_none());
        ResponseState::Waiting(Box::pin(async move {
            let answer = match publish::read(head.headers, body, allowed, limits).await {
                Ok(body) => {
                    let publisher = Publisher { hub: &hub, rates: app.rates.as_ref() };
                    match org {
                        Some(org) => publish::publish_one(publisher, &org, &body, app.clock.now()),
                        None => {
                            publish::publish_batch(publisher, &body, &grant.orgs, app.clock.now())
                        }
                    }
                }
                Err(reject) => Err(reject),
            };
            answer.unwrap_or_else(|reject| app.counted(reject).into_response())
        }))
    }

    fn metrics(&self) -> Response<ResponseBody> {
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &self.app.metrics)
            .expect("writing to a string does not fail");
        let mut response = text(out);
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

/// Whether the request is one of an `EventSource` (WHATWG HTML 9.2.3), or as good as one.
fn accepts_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).into_iter().filter_map(|v| v.to_str().ok());
    let mut kinds = values.flat_map(|value| value.split(','));
    kinds.any(|kind| essence(kind).eq_ignore_ascii_case("text/event-stream"))
}

fn text(body: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Full(Full::new(body.into())));
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
        let fields = self.fields(&request);
        let chunked = conformance::is_chunked(request.headers());
        let preflight = |()| self.app.config.cors.preflight(&request);
        let answering = match conformance::check(&request).map(preflight) {
            Err(reject) => self.conclude(Err(reject), false),
            Ok(Some(answer)) => ResponseState::Now(Some(answer.map(ResponseBody::Full))),
            Ok(None) => self.answer(request, &fields),
        };
        ResponseFuture { answering, fields, chunked }
    }
}
