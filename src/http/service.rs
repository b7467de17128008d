//! Answers requests. What is not a stream is answered in full; a stream is a response whose body holds
//! a seat.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus_client::registry::Registry;

use super::ops;
use super::parking::{Departing, Parking};
use super::publish::{self, BodyLimits};
use super::reject::Reject;
use super::route::{Route, route};
use crate::config::Config;
use crate::hub::{Hub, View};
use crate::ids::OrgName;
use crate::stream::{Arrival, Clock, EventStream, Line, retry_ms, with_headers};
use crate::sync::{AtomicBool, Ordering};
use crate::wire;

/// What the workers of a server share.
#[derive(Debug)]
pub(crate) struct App {
    config: Config,
    clock: Clock,
    metrics: Registry,
    /// It still serves, but wants no more.
    stopping: AtomicBool,
}

/// Answers the requests of one worker.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    app: Arc<App>,
    hub: Hub,
    /// Where streams go that leave hyper; `None` keeps them all.
    parking: Option<Parking>,
    /// The connection that asks.
    line: Option<Line>,
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
    /// The stream has left; the connection takes its socket after it.
    Never,
}

// ===== impl App =====

impl App {
    pub(crate) fn new(config: Config, hub: Hub, clock: Clock) -> Self {
        let stopping = AtomicBool::new(false);
        Self { config, clock, metrics: ops::registry(hub), stopping }
    }

    /// Tells load balancers, through `/readyz`, that the server is about to end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }
}

// ===== impl Service =====

impl Service {
    pub(crate) fn new(app: Arc<App>, hub: Hub, parking: Option<Parking>) -> Self {
        Self { app, hub, parking, line: None }
    }

    /// The service of one connection.
    pub(crate) fn on_line(self, line: Option<Line>) -> Self {
        Self { line, ..self }
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

    fn answer(&self, request: Request<Incoming>) -> Answering {
        let answer = match route(request.method(), request.uri().path()) {
            Ok(Route::Stream { org, view }) => match self.open(&org, view, &request) {
                Ok(stream) => return self.start(stream, request.version()),
                Err(Reject::Draining) if wants_events(&request) => Ok(self.come_back()),
                Err(reject) => Err(reject),
            },
            Ok(Route::StreamHead { org, view }) => self.head(&org, view),
            Ok(Route::Publish { org }) => return self.publish(Some(org), request),
            Ok(Route::PublishBatch) => return self.publish(None, request),
            Ok(Route::Live) => Ok(text("live\n".into())),
            Ok(Route::Ready) if self.app.stopping.load(Ordering::Relaxed) => Err(Reject::Draining),
            Ok(Route::Ready) => Ok(text("ready\n".into())),
            Ok(Route::Metrics) => Ok(self.metrics()),
            Err(reject) => Err(reject),
        };
        let answer = answer.unwrap_or_else(|reject| reject.into_response().map(Answer::Full));
        Answering::Now(Some(answer))
    }

    pub(crate) fn open<B>(
        &self,
        org: &OrgName,
        view: View,
        request: &Request<B>,
    ) -> Result<EventStream, Reject> {
        self.check_view(org, view)?;
        let header = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
        let id = header.map(Into::into).or_else(|| query(request.uri(), "last_event_id"));
        EventStream::open(&self.hub, org, view, id.as_deref(), self.app.clock.now())
            .map_err(|_| Reject::Draining)
    }

    /// Answers with the stream, or leaves it to the connection, which then never hears an answer.
    fn start(&self, mut stream: EventStream, version: Version) -> Answering {
        match (&self.parking, version) {
            (Some(parking), Version::HTTP_10 | Version::HTTP_11) => {
                parking.leave(Departing { stream, chunked: version == Version::HTTP_11 });
                Answering::Never
            }
            _ => {
                if let Some(line) = &self.line {
                    line.carry(&mut stream);
                }
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

    /// A stream that is over as soon as it said when to come back. A browser never comes back from a
    /// refusal (WHATWG HTML 9.2.2), and this server is ending, not refusing.
    fn come_back(&self) -> Response<Answer> {
        let last_words = wire::Frame::farewell(retry_ms(self.hub.config())).payload();
        with_headers(Answer::Full(Full::new(last_words)))
    }

    fn head(&self, org: &OrgName, view: View) -> Result<Response<Answer>, Reject> {
        self.check_view(org, view)?;
        Ok(with_headers(Answer::NoStream))
    }

    fn check_view(&self, org: &OrgName, view: View) -> Result<(), Reject> {
        match view {
            View::Public if !self.hub.config().public.shows(org) => Err(Reject::NotPublic),
            _ => Ok(()),
        }
    }

    fn publish(&self, org: Option<OrgName>, request: Request<Incoming>) -> Answering {
        let (hub, clock) = (self.hub.clone(), self.app.clock);
        let Config { publish_bytes_max, body_timeout, .. } = self.app.config;
        let limits = BodyLimits { bytes_max: publish_bytes_max, timeout: body_timeout };
        let (head, body) = request.into_parts();
        let allowed = publish::content_type(org.is_none());
        Answering::Waiting(Box::pin(async move {
            let answer = match publish::read(head.headers, body, allowed, limits).await {
                Ok(body) => match org {
                    Some(org) => publish::publish_one(&hub, &org, &body, clock.now()),
                    None => publish::publish_batch(&hub, &body, clock.now()),
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

fn wants_events<B>(request: &Request<B>) -> bool {
    let accept = request.headers().get_all(header::ACCEPT).iter();
    accept.into_iter().any(|value| value.as_bytes().windows(17).any(|w| w == b"text/event-stream"))
}

/// The first value of a query parameter (WHATWG URL, application/x-www-form-urlencoded).
fn query(uri: &Uri, name: &str) -> Option<String> {
    let pairs = form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
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
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        self.answer(request)
    }
}

// ===== impl Answering =====

impl Future for Answering {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(answer) => Poll::Ready(Ok(answer.take().expect("polled after it was ready"))),
            Self::Waiting(publish) => {
                publish.as_mut().poll(cx).map(|answer| Ok(answer.map(Answer::Full)))
            }
            Self::Never => Poll::Pending,
        }
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
