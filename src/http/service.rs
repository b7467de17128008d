//! Answers requests. What is not a stream is answered in full; a stream is a response whose body holds
//! a seat.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use mio::net::TcpStream;
use prometheus_client::registry::Registry;

use super::forwarded;
use super::ops;
use super::parking::{Departing, Parking};
use super::publish::{self, BodyLimits, Desk};
use super::rates::Rates;
use super::reject::Reject;
use super::route::{Route, route};
use crate::admission::{AddressGuard, Admission, Visitor};
use crate::config::Config;
use crate::hub::{Hub, NotTakenIn, View};
use crate::ids::OrgName;
use crate::metrics::Limit;
use crate::stream::{Arrival, Clock, EventStream, Line, retry_ms, with_headers};
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
    rates: Option<Rates>,
}

/// Receives the connections of one worker.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    app: Arc<App>,
    hub: Hub,
    /// Where streams go that leave hyper; `None` keeps them all.
    parking: Option<Parking>,
}

/// Answers the requests of one connection, which counts for as long as this lives.
#[derive(Debug)]
pub(crate) struct Service {
    app: Arc<App>,
    hub: Hub,
    parking: Option<Parking>,
    visitor: Visitor,
    /// Its connection, for a stream that stays with hyper.
    line: Option<Line>,
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Full(Full<Bytes>),
    /// With the client for whom a proxy opened it, if it is counted.
    Stream {
        stream: EventStream,
        _client: Option<AddressGuard>,
    },
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
    pub(crate) fn new(config: Config, hub: Hub, clock: Clock, admission: Admission) -> Self {
        let metrics = ops::registry(hub, admission.clone());
        let rates = config.publish_rate.map(Rates::new);
        Self { config, clock, metrics, stopping: AtomicBool::new(false), admission, rates }
    }

    /// Tells load balancers, through `/readyz`, that the server is about to end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }
}

// ===== impl Host =====

impl Host {
    pub(crate) fn new(app: Arc<App>, hub: Hub, parking: Option<Parking>) -> Self {
        Self { app, hub, parking }
    }

    /// Receives a connection, when there is room for it or to tell it that there is none. `None` is
    /// for one that has to be closed without a word.
    pub(crate) async fn admit(&self, peer: IpAddr) -> Option<Service> {
        let visitor = self.app.admission.admit(peer).await?;
        let Self { app, hub, parking } = self.clone();
        Some(Service { app, hub, parking, visitor, line: None })
    }
}

// ===== impl Service =====

impl Service {
    /// The same service, for this connection.
    pub(crate) fn on_line(self, line: Option<Line>) -> Self {
        Self { line, ..self }
    }

    pub(crate) fn parking(&self) -> Option<&Parking> {
        self.parking.as_ref()
    }

    /// Parks what this service left to its connection.
    pub(crate) fn park(self, socket: TcpStream, departing: Departing, heard: usize) {
        let Departing { stream, chunked, client } = departing;
        let ticket = self.visitor.into_ticket(client);
        if let Some(parking) = &self.parking {
            parking.park(Arrival { socket, stream, chunked, heard, ticket });
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.app.config
    }

    fn answer(&self, request: Request<Incoming>) -> Answering {
        let route = route(request.method(), request.uri().path());
        let is_stream = matches!(route, Ok(Route::Stream { .. }));
        let answer = match route.and_then(|route| self.check_room(route)) {
            Ok(Route::Stream { org, view }) => match self.open(&org, view, &request) {
                Ok((stream, client)) => return self.start(stream, client, request.version()),
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
        let mut answer = answer.unwrap_or_else(|reject| {
            self.refuse(reject, is_stream && accepts_events(request.headers()))
        });
        if self.visitor.came_over() {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        Answering::Now(Some(answer))
    }

    /// Who looks after the server has to be answered above all when it is full.
    fn check_room(&self, route: Route) -> Result<Route, Reject> {
        match (&route, self.visitor.limit_reached()) {
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
    fn refuse(&self, reject: Reject, comes_back: bool) -> Response<Answer> {
        if let Some(limit) = reject.limit() {
            self.app.admission.count_refusal(limit);
        }
        let answer = if comes_back && reject.is_for_now() {
            reject.into_stream_end(retry_ms(self.hub.config()))
        } else {
            reject.into_response()
        };
        answer.map(Answer::Full)
    }

    pub(crate) fn open<B>(
        &self,
        org: &OrgName,
        view: View,
        request: &Request<B>,
    ) -> Result<(EventStream, Option<AddressGuard>), Reject> {
        self.check_view(org, view)?;
        let client = self.count_client(request.headers())?;
        let header = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
        let id = header.map(Into::into).or_else(|| query(request.uri(), "last_event_id"));
        let stream = EventStream::open(&self.hub, org, view, id.as_deref(), self.app.clock.now());
        let stream = stream.map_err(|why| match why {
            NotTakenIn::Closing => Reject::Draining,
            NotTakenIn::OrgFull { max } => Reject::Full { limit: Limit::Org, max },
        })?;
        Ok((stream, client))
    }

    /// Counts a stream for the client behind a trusted proxy; any other client counts as its
    /// connection.
    fn count_client(&self, headers: &HeaderMap) -> Result<Option<AddressGuard>, Reject> {
        let Some(proxy) = self.visitor.trusted_proxy() else { return Ok(None) };
        let client = forwarded::client(headers, proxy, |ip| self.app.admission.trusts(ip));
        self.visitor.enter_for(client).map_err(|limit| self.full(limit))
    }

    /// Answers with the stream, or leaves it to the connection, which then never hears an answer.
    fn start(
        &self,
        mut stream: EventStream,
        client: Option<AddressGuard>,
        version: Version,
    ) -> Answering {
        match (&self.parking, version) {
            (Some(parking), Version::HTTP_10 | Version::HTTP_11) => {
                let chunked = version == Version::HTTP_11;
                parking.leave(Departing { stream, chunked, client });
                Answering::Never
            }
            _ => {
                if let Some(line) = &self.line {
                    line.carry(&mut stream);
                }
                let mut response =
                    stream.into_response().map(|stream| Answer::Stream { stream, _client: client });
                if version == Version::HTTP_10 {
                    // Its body ends with the connection, which a client may have asked to keep.
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Answering::Now(Some(response))
            }
        }
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
        let (hub, app) = (self.hub.clone(), self.app.clone());
        let Config { publish_bytes_max, body_timeout, .. } = self.app.config;
        let limits = BodyLimits { bytes_max: publish_bytes_max, timeout: body_timeout };
        let (head, body) = request.into_parts();
        let allowed = publish::content_type(org.is_none());
        Answering::Waiting(Box::pin(async move {
            let answer = match publish::read(head.headers, body, allowed, limits).await {
                Ok(body) => {
                    let desk = Desk { hub: &hub, rates: app.rates.as_ref() };
                    match org {
                        Some(org) => publish::publish_one(desk, &org, &body, app.clock.now()),
                        None => publish::publish_batch(desk, &body, app.clock.now()),
                    }
                }
                Err(reject) => Err(reject),
            };
            answer.unwrap_or_else(|reject| {
                if let Some(limit) = reject.limit() {
                    app.admission.count_refusal(limit);
                }
                reject.into_response()
            })
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

/// The first value of a query parameter (WHATWG URL, application/x-www-form-urlencoded).
fn query(uri: &Uri, name: &str) -> Option<String> {
    let pairs = form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// Whether the request is one of an `EventSource` (WHATWG HTML 9.2.3), or as good as one.
fn accepts_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).into_iter().filter_map(|v| v.to_str().ok());
    let mut kinds = values.flat_map(|value| value.split(','));
    kinds.any(|kind| {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("text/event-stream")
    })
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
            Self::Stream { stream, .. } => Pin::new(stream).poll_frame(cx),
            Self::NoStream => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(body) if body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(body) => body.size_hint(),
            Self::Stream { .. } | Self::NoStream => SizeHint::default(),
        }
    }
}
