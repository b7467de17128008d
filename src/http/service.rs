//! Answers requests. What is not a stream is answered in full; a stream is a response whose body holds
//! a seat.

use std::convert::Infallible;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus_client::registry::Registry;

use super::auth::{self, Auth, Grant, Scope};
use super::ops;
use super::parking::{Departing, Parking};
use super::publish::{self, BodyLimits};
use super::query;
use super::reject::Reject;
use super::route::{Route, route};
use crate::config::Config;
use crate::hub::{Hub, View};
use crate::ids::OrgName;
use crate::stream::{Arrival, Clock, EventStream, Fields, with_headers};

/// What the workers of a server share.
#[derive(Debug)]
pub(crate) struct App {
    config: Config,
    clock: Clock,
    metrics: Registry,
    auth: Auth,
}

/// Answers the requests of one worker.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    app: Arc<App>,
    hub: Hub,
    /// Where streams go that leave hyper; `None` keeps them all.
    parking: Option<Parking>,
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Full(Full<Bytes>),
    Stream(EventStream),
    /// The head of a stream, for `HEAD`.
    NoStream,
}

/// A publish waits for its body, everything else is answered at once. An open stream keeps this
/// future's memory, so what waits is boxed.
pub(crate) enum Answering {
    Now(Option<Response<Answer>>),
    Waiting(Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>),
    /// The keys are fetched that the request's token may be signed with; then it is answered.
    Later(Pin<Box<dyn Future<Output = Self> + Send>>),
    /// The stream has left; the connection takes its socket after it.
    Never,
}

/// An answer, and the header fields that it has because of who asks.
pub(crate) struct Dressed {
    answering: Answering,
    fields: Fields,
}

/// What a browser must not do with anything that is not a stream.
const SECURITY: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

// ===== impl App =====

impl App {
    pub(crate) fn new(config: Config, hub: Hub, clock: Clock) -> Self {
        let auth = Auth::new(&config.auth);
        Self { config, clock, metrics: ops::registry(hub), auth }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Fetches what requests would have to wait for. Inside a runtime.
    pub(crate) fn warm_up(&self) {
        self.auth.prefetch(self.clock.now());
    }
}

// ===== impl Service =====

impl Service {
    pub(crate) fn new(app: Arc<App>, hub: Hub, parking: Option<Parking>) -> Self {
        Self { app, hub, parking }
    }

    pub(crate) fn parking(&self) -> Option<&Parking> {
        self.parking.as_ref()
    }

    /// Parks what this service left to its connection.
    pub(crate) fn park(&self, arrival: Arrival) {
        if let Some(parking) = &self.parking {
            parking.park(arrival);
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.app.config
    }

    #[expect(clippy::async_yields_async, reason = "the answer is polled in the place of the wait")]
    fn answer(&self, request: Request<Incoming>, fields: &Fields) -> Answering {
        let route = match route(request.method(), request.uri().path()) {
            Ok(route) => route,
            Err(reject) => return reject.into(),
        };
        let (headers, uri) = (request.headers(), request.uri());
        let keys = || self.app.auth.keys_for(headers, uri, self.app.clock.now());
        if let Some(keys) = route.needs_token().then(keys).flatten() {
            let (service, fields) = (self.clone(), fields.clone());
            return Answering::Later(Box::pin(async move {
                keys.await;
                service.answer_route(route, request, &fields)
            }));
        }
        self.answer_route(route, request, fields)
    }

    fn answer_route(&self, route: Route, request: Request<Incoming>, fields: &Fields) -> Answering {
        let answer = match route {
            Route::Stream { org, view } => match self.open(&org, view, &request) {
                Ok(stream) => return self.start(stream, request.version(), fields),
                Err(reject) => Err(reject),
            },
            Route::StreamHead { org, view } => self.head(&org, view, &request),
            Route::Publish { org } => return self.publish(Some(org), request),
            Route::PublishBatch => return self.publish(None, request),
            Route::Live => Ok(text("live\n".into())),
            Route::Ready if self.hub.is_closing() => Err(Reject::Draining),
            Route::Ready => Ok(text("ready\n".into())),
            Route::Metrics => Ok(self.metrics()),
        };
        answer.map_or_else(Answering::from, |answer| Answering::Now(Some(answer)))
    }

    fn open<B>(
        &self,
        org: &OrgName,
        view: View,
        request: &Request<B>,
    ) -> Result<EventStream, Reject> {
        // When the stream has to end; nothing else of the token outlives this.
        let Grant { expires: _stream_expires, .. } = self.check_view(org, view, request)?;
        let header = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
        let id = header.map(Into::into).or_else(|| query(request.uri(), "last_event_id"));
        EventStream::open(&self.hub, org, view, id.as_deref(), self.app.clock.now())
            .map_err(|_| Reject::Draining)
    }

    /// Answers with the stream, or leaves it to the connection, which then never hears an answer.
    fn start(&self, mut stream: EventStream, version: Version, fields: &Fields) -> Answering {
        match (&self.parking, version) {
            (Some(parking), Version::HTTP_10 | Version::HTTP_11) => {
                stream.add_fields(fields);
                parking.leave(Departing { stream, chunked: version == Version::HTTP_11 });
                Answering::Never
            }
            _ => {
                let mut response = stream.into_response().map(Answer::Stream);
                if version == Version::HTTP_10 {
                    // Its body ends with the connection, which a client may have asked to keep.
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Answering::Now(Some(response))
            }
        }
    }

    fn head<B>(
        &self,
        org: &OrgName,
        view: View,
        request: &Request<B>,
    ) -> Result<Response<Answer>, Reject> {
        self.check_view(org, view, request)?;
        Ok(with_headers(Answer::NoStream))
    }

    fn check_view<B>(
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

    fn authorize<B>(
        &self,
        request: &Request<B>,
        scope: Scope,
        org: Option<&OrgName>,
    ) -> Result<Grant, Reject> {
        let auth = &self.app.auth;
        auth.authorize(request.headers(), request.uri(), scope, org).map_err(Reject::Denied)
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

    fn publish(&self, org: Option<OrgName>, request: Request<Incoming>) -> Answering {
        let grant = match self.authorize(&request, Scope::Publish, org.as_ref()) {
            Ok(grant) => grant,
            Err(reject) => return reject.into(),
        };
        let (hub, clock) = (self.hub.clone(), self.app.clock);
        let Config { publish_bytes_max, body_timeout, .. } = self.app.config;
        let limits = BodyLimits { bytes_max: publish_bytes_max, timeout: body_timeout };
        let (head, body) = request.into_parts();
        let allowed = publish::content_type(org.is_none());
        Answering::Waiting(Box::pin(async move {
            let answer = match publish::read(head.headers, body, allowed, limits).await {
                Ok(body) => match org {
                    Some(org) => publish::publish_one(&hub, &org, &body, clock.now()),
                    None => publish::publish_batch(&hub, &body, &grant.orgs, clock.now()),
                },
                Err(reject) => Err(reject),
            };
            answer.unwrap_or_else(Reject::into_response)
        }))
    }

    fn metrics(&self) -> Response<Answer> {
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &self.app.metrics)
            .expect("writing to a string does not fail");
        let mut response = text(out);
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

fn text(body: String) -> Response<Answer> {
    let mut response = Response::new(Answer::Full(Full::new(body.into())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Dressed;

    fn call(&self, request: Request<Incoming>) -> Dressed {
        let fields = self.fields(&request);
        let answering = match self.app.config.cors.preflight(&request) {
            Some(answer) => Answering::Now(Some(answer.map(Answer::Full))),
            None => self.answer(request, &fields),
        };
        Dressed { answering, fields }
    }
}

// ===== impl Dressed =====

impl Future for Dressed {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { answering, fields } = self.get_mut();
        Pin::new(answering).poll(cx).map_ok(|mut response| {
            let full = matches!(response.body(), Answer::Full(_));
            let headers = response.headers_mut();
            for (name, value) in SECURITY.into_iter().filter(|_| full) {
                headers.insert(name, HeaderValue::from_static(value));
            }
            mem::take(fields).add_to(headers);
            response
        })
    }
}

// ===== impl Answering =====

impl Future for Answering {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(answer) => Poll::Ready(Ok(answer.take().expect("polled after it was ready"))),
            Self::Waiting(publish) => {
                publish.as_mut().poll(cx).map(|answer| Ok(answer.map(Answer::Full)))
            }
            Self::Later(later) => {
                let answering = ready!(later.as_mut().poll(cx));
                *self = answering;
                self.poll(cx)
            }
            Self::Never => Poll::Pending,
        }
    }
}

impl From<Reject> for Answering {
    fn from(reject: Reject) -> Self {
        Self::Now(Some(reject.into_response().map(Answer::Full)))
    }
}

// ===== impl Answer =====

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Full(body) => Pin::new(body).poll_frame(cx),
            Self::Stream(stream) => Pin::new(stream).poll_frame(cx),
            Self::NoStream => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(body) if body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(body) => body.size_hint(),
            Self::Stream(_) | Self::NoStream => SizeHint::default(),
        }
    }
}
